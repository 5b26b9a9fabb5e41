//! The service's registry of on-premises instances.

use codedeploy_api::codedeploy::{
    self, AddTagsToOnPremisesInstancesInput, DeregisterOnPremisesInstanceInput,
    GetOnPremisesInstanceInput, RegisterOnPremisesInstanceInput,
    RemoveTagsFromOnPremisesInstancesInput,
};

use crate::aws::Access;
use crate::aws::json::{CallError, Service, ServiceClient};
use crate::cli::register::request::{Identification, Tag};

/// The service, called with an operator's keys.
pub(super) struct Registry {
    client: ServiceClient,
    endpoint: Option<String>,
}

/// The service's record of an instance.
#[derive(Debug)]
pub(super) struct Instance {
    /// False after it was deregistered.
    pub(super) registered: bool,
    /// The ARN of its user or session.
    pub(super) arn: Option<String>,
    pub(super) tags: Vec<Tag>,
}

impl Registry {
    pub(super) fn new(access: &Access, endpoint: Option<&str>) -> Self {
        let regional = access.codedeploy_endpoint();
        let service = Service {
            endpoint: endpoint.unwrap_or(&regional),
            target_prefix: codedeploy::TARGET_PREFIX,
            signing_name: codedeploy::SIGNING_NAME,
            headers: Vec::new(),
        };
        Self {
            client: service.client(access, |builder| builder),
            endpoint: endpoint.map(str::to_owned),
        }
    }

    /// The address of the service, if it is not AWS's own.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// `None` if there was never an instance of this name.
    pub(super) async fn instance(&self, name: &str) -> Result<Option<Instance>, CallError> {
        let input = GetOnPremisesInstanceInput {
            instance_name: Some(name.to_owned()),
        };
        let answer = match self.client.call(&input).await {
            Ok(answer) => answer,
            Err(CallError::Service { answer, .. })
                if answer.kind == "InstanceNotRegisteredException" =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(answer.instance_info.map(|info| Instance {
            registered: info.deregister_time.is_none(),
            arn: info.iam_user_arn.or(info.iam_session_arn),
            tags: info
                .tags
                .unwrap_or_default()
                .into_iter()
                .filter_map(read_tag)
                .collect(),
        }))
    }

    pub(super) async fn register(
        &self,
        name: &str,
        host: &Identification,
    ) -> Result<(), CallError> {
        let (user, session) = match host {
            Identification::User { arn, .. } => (Some(arn.clone()), None),
            Identification::Session { arn, .. } => (None, Some(arn.clone())),
        };
        let input = RegisterOnPremisesInstanceInput {
            instance_name: Some(name.to_owned()),
            iam_user_arn: user,
            iam_session_arn: session,
        };
        self.client.call(&input).await.map(drop)
    }

    pub(super) async fn deregister(&self, name: &str) -> Result<(), CallError> {
        let input = DeregisterOnPremisesInstanceInput {
            instance_name: Some(name.to_owned()),
        };
        self.client.call(&input).await.map(drop)
    }

    pub(super) async fn add_tags(&self, name: &str, tags: &[Tag]) -> Result<(), CallError> {
        let input = AddTagsToOnPremisesInstancesInput {
            tags: Some(tags.iter().map(write_tag).collect()),
            instance_names: Some(vec![name.to_owned()]),
        };
        self.client.call(&input).await.map(drop)
    }

    pub(super) async fn remove_tags(&self, name: &str, tags: &[Tag]) -> Result<(), CallError> {
        if tags.is_empty() {
            return Ok(());
        }
        let input = RemoveTagsFromOnPremisesInstancesInput {
            tags: Some(tags.iter().map(write_tag).collect()),
            instance_names: Some(vec![name.to_owned()]),
        };
        self.client.call(&input).await.map(drop)
    }
}

fn write_tag(Tag { key, value }: &Tag) -> codedeploy::Tag {
    codedeploy::Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    }
}

fn read_tag(tag: codedeploy::Tag) -> Option<Tag> {
    Some(Tag {
        key: tag.key?,
        value: tag.value.unwrap_or_default(),
    })
}
