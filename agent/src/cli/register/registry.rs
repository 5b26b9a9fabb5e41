//! The service's registry of on-premises instances, through the AWS SDK.

use aws_sdk_codedeploy::config::{BehaviorVersion, Region};
use aws_sdk_codedeploy::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_codedeploy::operation::get_on_premises_instance::GetOnPremisesInstanceError;
use aws_sdk_codedeploy::types;
use aws_sdk_codedeploy::{Client, Config};

use crate::aws::Access;
use crate::cli::register::request::{Identification, Tag};
use codedeploy_api::chain::Chain;

/// The service, called with an operator's keys.
pub(super) struct Registry {
    client: Client,
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

#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    #[error("{operation}: the service answered {kind}: {message}")]
    Refused {
        operation: &'static str,
        kind: String,
        message: String,
    },
    #[error("{operation} did not reach the service: {reason}")]
    Unreached {
        operation: &'static str,
        reason: String,
    },
}

impl Registry {
    pub(super) fn new(access: &Access, endpoint: Option<&str>) -> Self {
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(access.region.as_str().to_owned()))
            .credentials_provider(access.credentials.clone())
            .http_client(access.http.clone())
            .use_fips(access.endpoints.use_fips);
        config.set_endpoint_url(endpoint.map(str::to_owned));
        Self {
            client: Client::from_conf(config.build()),
            endpoint: endpoint.map(str::to_owned),
        }
    }

    /// The address of the service, if it is not AWS's own.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// `None` if there was never an instance of this name.
    pub(super) async fn instance(&self, name: &str) -> Result<Option<Instance>, ServiceError> {
        let answer = match self
            .client
            .get_on_premises_instance()
            .instance_name(name)
            .send()
            .await
        {
            Ok(answer) => answer,
            Err(error)
                if error.as_service_error().is_some_and(
                    GetOnPremisesInstanceError::is_instance_not_registered_exception,
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed("GetOnPremisesInstance", error)),
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
    ) -> Result<(), ServiceError> {
        let request = self
            .client
            .register_on_premises_instance()
            .instance_name(name);
        let request = match host {
            Identification::User { arn, .. } => request.iam_user_arn(arn),
            Identification::Session { arn, .. } => request.iam_session_arn(arn),
        };
        done("RegisterOnPremisesInstance", request.send().await)
    }

    pub(super) async fn deregister(&self, name: &str) -> Result<(), ServiceError> {
        let request = self
            .client
            .deregister_on_premises_instance()
            .instance_name(name);
        done("DeregisterOnPremisesInstance", request.send().await)
    }

    pub(super) async fn add_tags(&self, name: &str, tags: &[Tag]) -> Result<(), ServiceError> {
        let request = self
            .client
            .add_tags_to_on_premises_instances()
            .instance_names(name);
        let request = request.set_tags(Some(tags.iter().map(write_tag).collect()));
        done("AddTagsToOnPremisesInstances", request.send().await)
    }

    pub(super) async fn remove_tags(&self, name: &str, tags: &[Tag]) -> Result<(), ServiceError> {
        if tags.is_empty() {
            return Ok(());
        }
        let request = self
            .client
            .remove_tags_from_on_premises_instances()
            .instance_names(name);
        let request = request.set_tags(Some(tags.iter().map(write_tag).collect()));
        done("RemoveTagsFromOnPremisesInstances", request.send().await)
    }
}

fn write_tag(Tag { key, value }: &Tag) -> types::Tag {
    types::Tag::builder().key(key).value(value).build()
}

fn read_tag(tag: types::Tag) -> Option<Tag> {
    Some(Tag {
        key: tag.key?,
        value: tag.value.unwrap_or_default(),
    })
}

/// Returns whether the service did `operation`, without its answer.
fn done<T, E>(operation: &'static str, sent: Result<T, SdkError<E>>) -> Result<(), ServiceError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    sent.map(drop).map_err(|error| failed(operation, error))
}

fn failed<E>(operation: &'static str, error: SdkError<E>) -> ServiceError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some(kind) => ServiceError::Refused {
            operation,
            kind: kind.to_owned(),
            message: error.message().unwrap_or("no reason given").to_owned(),
        },
        None => ServiceError::Unreached {
            operation,
            reason: Chain(&error).to_string(),
        },
    }
}
