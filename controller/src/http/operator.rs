//! The public API: operations by name.

use std::sync::Arc;

use codedeploy_api::codedeploy::Nothing;
use serde::{Deserialize, Serialize};

use super::protocol::Message;
use crate::credentials::{Principal, Role};
use crate::deployment::effects::Effects;
use crate::deployment::removal::{self, Step};
use crate::deployment::{create, intervene, queries, targets};
use crate::error::{ApiError, ErrorName};
use crate::events;
use crate::registry::{applications, configs, groups, instances, revisions, tags, tokens};
use crate::request::Request;
use crate::request::members::shorten;
use crate::service::Service;
use crate::transaction::Context;

/// An answer's body, or none while the operation has to go on in another transaction; and what is to be told once it is on
/// disk.
type Reply = (Option<Vec<u8>>, Option<Effects>);

/// What carries out an operation: it is given a request that was checked.
type Function<R, O> = fn(&Context<'_>, R) -> Result<O, ApiError>;

type Handler = fn(&Context<'_>, &Message) -> Result<Reply, ApiError>;

pub(super) async fn call(
    service: &Arc<Service>,
    principal: Principal,
    operation: &str,
    message: Message,
) -> Result<Vec<u8>, ApiError> {
    let handler = handler(operation).ok_or_else(|| {
        ErrorName::UnknownOperation
            .because(format!("The operation {:?} is not one that this service has.", shorten(operation)))
    })?;
    authorise(&principal, operation)?;
    if reads(operation) {
        let read = message.clone();
        match service.read(move |_, context| handler(context, &read)).await {
            // Only who writes can set aside what cannot be read.
            Err(error) if error.name == ErrorName::DamagedRecord => {}
            read => return read.map(|(answer, _)| answer.unwrap_or_default()),
        }
    }
    let resource = (!reads(operation)).then(|| message.read::<Resource>().unwrap_or_default());
    loop {
        let message = message.clone();
        if let Some(answer) = service.change(move |_, context| handler(context, &message)).await? {
            // A new deployment is told of with all that is known of it.
            if let Some(resource) = resource.filter(|_| operation != "CreateDeployment") {
                resource.log();
            }
            return Ok(answer);
        }
        // What has ended is told before it is gone.
        events::catch_up(service).await?;
    }
}

/// What a request that changes something is about, for the log: whichever members of the inputs name it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    application_name: Option<String>,
    #[serde(alias = "currentDeploymentGroupName")]
    deployment_group_name: Option<String>,
    deployment_config_name: Option<String>,
    deployment_id: Option<String>,
    instance_name: Option<String>,
    instance_names: Option<Vec<String>>,
    token_name: Option<String>,
    #[serde(alias = "ResourceArn")]
    resource_arn: Option<String>,
    #[serde(rename = "newApplicationName", alias = "newDeploymentGroupName")]
    new_name: Option<String>,
}

impl Resource {
    fn log(&self) {
        let instances = self.instance_name.iter().chain(self.instance_names.iter().flatten());
        tracing::info!(
            application = self.application_name,
            deployment_group = self.deployment_group_name,
            deployment_config = self.deployment_config_name,
            deployment_id = self.deployment_id,
            instances = instances.map(String::as_str).collect::<Vec<_>>().join(", "),
            token = self.token_name,
            resource = self.resource_arn,
            new_name = self.new_name,
            "changed by a request"
        );
    }
}

fn reads(operation: &str) -> bool {
    ["Get", "List", "BatchGet"].iter().any(|verb| operation.starts_with(verb))
}

fn authorise(principal: &Principal, operation: &str) -> Result<(), ApiError> {
    match principal.role {
        Role::Operator => Ok(()),
        Role::ReadOnly if reads(operation) => Ok(()),
        Role::ReadOnly | Role::Host => Err(ErrorName::AccessDenied
            .because(format!("{} is not authorized to perform codedeploy:{operation}", principal.arn))),
    }
}

/// Operations by name: what becomes of the answer of the function that carries each out.
///
/// * `answer`: it is sent;
/// * `silent`: it says nothing, and the body is empty;
/// * `decide`: it is sent, and what was decided is told to those who wait for it;
/// * `settle`: it says nothing, the body is empty, and what was decided is told;
/// * `remove`: it is sent once everything is removed, which can take many transactions;
/// * `erase`: the same, but it says nothing, and the body is empty.
macro_rules! operations {
    ($($kind:ident $name:ident => $function:path,)*) => {
        /// Every operation there is.
        #[cfg(test)]
        const OPERATIONS: &[&str] = &[$(stringify!($name),)*];

        fn handler(operation: &str) -> Option<Handler> {
            Some(match operation {
                $(stringify!($name) => |context, message| $kind(context, message, $function),)*
                _ => return None,
            })
        }
    };
}

operations! {
    answer CreateApplication => applications::create,
    answer GetApplication => applications::get,
    answer ListApplications => applications::list,
    answer BatchGetApplications => applications::batch_get,
    silent UpdateApplication => applications::update,
    erase DeleteApplication => removal::delete_application,

    silent RegisterApplicationRevision => revisions::register,
    answer GetApplicationRevision => revisions::get,
    answer BatchGetApplicationRevisions => revisions::batch_get,
    answer ListApplicationRevisions => revisions::list,

    answer CreateDeploymentConfig => configs::create,
    answer GetDeploymentConfig => configs::get,
    answer ListDeploymentConfigs => configs::list,
    silent DeleteDeploymentConfig => configs::delete,

    answer CreateDeploymentGroup => groups::create,
    answer GetDeploymentGroup => groups::get,
    answer BatchGetDeploymentGroups => groups::batch_get,
    answer ListDeploymentGroups => groups::list,
    answer UpdateDeploymentGroup => groups::update,
    remove DeleteDeploymentGroup => removal::delete_group,

    silent RegisterOnPremisesInstance => instances::register,
    settle DeregisterOnPremisesInstance => removal::deregister,
    answer GetOnPremisesInstance => instances::get,
    answer BatchGetOnPremisesInstances => instances::batch_get,
    answer ListOnPremisesInstances => instances::list,
    silent AddTagsToOnPremisesInstances => instances::add_tags,
    silent RemoveTagsFromOnPremisesInstances => instances::remove_tags,

    decide CreateDeployment => create::create,
    answer GetDeployment => queries::get,
    answer BatchGetDeployments => queries::batch_get,
    answer ListDeployments => queries::list,
    decide StopDeployment => intervene::stop,
    settle ContinueDeployment => intervene::proceed,
    settle SkipWaitTimeForInstanceTermination => intervene::skip_wait,
    silent PutLifecycleEventHookExecutionStatus => queries::put_hook_status,
    answer DeleteResourcesByExternalId => queries::delete_by_external_id,

    answer ListDeploymentTargets => targets::list,
    answer GetDeploymentTarget => targets::get,
    answer BatchGetDeploymentTargets => targets::batch_get,
    answer ListDeploymentInstances => targets::list_instances,
    answer GetDeploymentInstance => targets::get_instance,
    answer BatchGetDeploymentInstances => targets::batch_get_instances,

    answer TagResource => tags::tag,
    answer UntagResource => tags::untag,
    answer ListTagsForResource => tags::list,
    answer ListGitHubAccountTokenNames => tokens::list,
    answer DeleteGitHubAccountToken => tokens::delete,
}

fn answer<R: Request, O: Serialize>(
    context: &Context<'_>,
    message: &Message,
    operation: Function<R, O>,
) -> Result<Reply, ApiError> {
    let output = operation(context, R::check(message.read()?)?)?;
    Ok((Some(message.answer(&output)?), None))
}

fn silent<R: Request>(
    context: &Context<'_>,
    message: &Message,
    operation: Function<R, Nothing>,
) -> Result<Reply, ApiError> {
    operation(context, R::check(message.read()?)?)?;
    Ok((Some(Vec::new()), None))
}

fn decide<R: Request, O: Serialize>(
    context: &Context<'_>,
    message: &Message,
    operation: Function<R, (O, Effects)>,
) -> Result<Reply, ApiError> {
    let (output, outcome) = operation(context, R::check(message.read()?)?)?;
    Ok((Some(message.answer(&output)?), Some(outcome)))
}

fn settle<R: Request>(
    context: &Context<'_>,
    message: &Message,
    operation: Function<R, (Nothing, Effects)>,
) -> Result<Reply, ApiError> {
    let (Nothing {}, outcome) = operation(context, R::check(message.read()?)?)?;
    Ok((Some(Vec::new()), Some(outcome)))
}

fn remove<R: Request, O: Serialize>(
    context: &Context<'_>,
    message: &Message,
    operation: Function<R, Step<O>>,
) -> Result<Reply, ApiError> {
    let (output, outcome) = operation(context, R::check(message.read()?)?)?;
    Ok((output.map(|output| message.answer(&output)).transpose()?, outcome))
}

fn erase<R: Request>(
    context: &Context<'_>,
    message: &Message,
    operation: Function<R, Step<Nothing>>,
) -> Result<Reply, ApiError> {
    let (done, outcome) = operation(context, R::check(message.read()?)?)?;
    Ok((done.map(|Nothing {}| Vec::new()), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_model_is_there_once() {
        let names: std::collections::BTreeSet<_> = OPERATIONS.iter().collect();
        assert_eq!((OPERATIONS.len(), names.len()), (47, 47));
        assert!(OPERATIONS.iter().all(|name| handler(name).is_some()));
        assert!(handler("CreateApplications").is_none());
    }
}
