//! The public API: operations by name.

use std::sync::Arc;

use axum::body::Bytes;
use codedeploy_api::codedeploy::Nothing;
use serde::Serialize;

use super::{read, write};
use crate::credentials::{Principal, Role};
use crate::deployment::decide::Outcome;
use crate::deployment::{create, intervene, queries, targets};
use crate::error::{ApiError, ErrorName};
use crate::registry::{Context, applications, configs, groups, instances, revisions, tags, tokens};
use crate::request::{Request, members::shorten};
use crate::service::Service;

/// An answer's body, and what is to be told once it is on disk.
type Reply = (Vec<u8>, Option<Outcome>);

/// What carries out an operation: it is given a request that was checked.
type Function<R, O> = fn(&Context<'_>, R) -> Result<O, ApiError>;

type Handler = fn(&Context<'_>, &[u8]) -> Result<Reply, ApiError>;

pub(super) async fn call(
    service: &Arc<Service>,
    principal: Principal,
    operation: &str,
    body: Bytes,
) -> Result<Vec<u8>, ApiError> {
    let handler = handler(operation).ok_or_else(|| {
        ErrorName::UnknownOperation
            .because(format!("The operation {:?} is not one that this service has.", shorten(operation)))
    })?;
    authorise(&principal, operation)?;
    service.change(move |_, context| handler(context, &body)).await
}

fn authorise(principal: &Principal, operation: &str) -> Result<(), ApiError> {
    let reads = ["Get", "List", "BatchGet"].iter().any(|verb| operation.starts_with(verb));
    match principal.role {
        Role::Operator => Ok(()),
        Role::ReadOnly if reads => Ok(()),
        Role::ReadOnly | Role::Host => Err(ErrorName::AccessDenied
            .because(format!("{} is not authorized to perform codedeploy:{operation}", principal.arn))),
    }
}

/// Operations by name: what becomes of the answer of the function that carries each out.
///
/// * `answer`: it is sent;
/// * `silent`: it says nothing, and the body is empty;
/// * `decide`: it is sent, and what was decided is told to those who wait for it;
/// * `settle`: it says nothing, the body is empty, and what was decided is told.
macro_rules! operations {
    ($($kind:ident $name:ident => $function:path,)*) => {
        /// Every operation there is.
        #[cfg(test)]
        const OPERATIONS: &[&str] = &[$(stringify!($name),)*];

        fn handler(operation: &str) -> Option<Handler> {
            Some(match operation {
                $(stringify!($name) => |context, body| $kind(context, body, $function),)*
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
    silent DeleteApplication => applications::delete,

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
    answer DeleteDeploymentGroup => groups::delete,

    silent RegisterOnPremisesInstance => instances::register,
    settle DeregisterOnPremisesInstance => instances::deregister,
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
    body: &[u8],
    operation: Function<R, O>,
) -> Result<Reply, ApiError> {
    let output = operation(context, R::check(read(body)?)?)?;
    Ok((write(&output)?, None))
}

fn silent<R: Request>(
    context: &Context<'_>,
    body: &[u8],
    operation: Function<R, Nothing>,
) -> Result<Reply, ApiError> {
    operation(context, R::check(read(body)?)?)?;
    Ok((Vec::new(), None))
}

fn decide<R: Request, O: Serialize>(
    context: &Context<'_>,
    body: &[u8],
    operation: Function<R, (O, Outcome)>,
) -> Result<Reply, ApiError> {
    let (output, outcome) = operation(context, R::check(read(body)?)?)?;
    Ok((write(&output)?, Some(outcome)))
}

fn settle<R: Request>(
    context: &Context<'_>,
    body: &[u8],
    operation: Function<R, (Nothing, Outcome)>,
) -> Result<Reply, ApiError> {
    let (Nothing {}, outcome) = operation(context, R::check(read(body)?)?)?;
    Ok((Vec::new(), Some(outcome)))
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
