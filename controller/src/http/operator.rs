//! The public API: operations by name.

use std::sync::Arc;

use axum::body::Bytes;
use codedeploy_api::codedeploy::Nothing;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{read, write};
use crate::credentials::{Principal, Role};
use crate::deployment::decide::Outcome;
use crate::deployment::{create, intervene, queries, targets};
use crate::error::{ApiError, ErrorName};
use crate::registry::{Context, applications, configs, groups, instances, revisions, shorten};
use crate::service::Service;

/// An answer's body, and what is to be told once it is on disk.
type Reply = (Vec<u8>, Option<Outcome>);

type Handler = fn(&Service, &Context<'_>, &[u8]) -> Result<Reply, ApiError>;

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
    service.change(move |service, context| handler(service, context, &body)).await
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

fn handler(operation: &str) -> Option<Handler> {
    Some(match operation {
        "CreateApplication" => |_, context, body| answer(context, body, applications::create),
        "GetApplication" => |_, context, body| answer(context, body, applications::get),
        "ListApplications" => |_, context, body| answer(context, body, applications::list),
        "BatchGetApplications" => |_, context, body| answer(context, body, applications::batch_get),
        "UpdateApplication" => |_, context, body| silent(context, body, applications::update),
        "DeleteApplication" => |_, context, body| silent(context, body, applications::delete),
        "RegisterApplicationRevision" => |_, context, body| silent(context, body, revisions::register),
        "GetApplicationRevision" => |_, context, body| answer(context, body, revisions::get),
        "ListApplicationRevisions" => |_, context, body| answer(context, body, revisions::list),
        "CreateDeploymentGroup" => |_, context, body| answer(context, body, groups::create),
        "GetDeploymentGroup" => |_, context, body| answer(context, body, groups::get),
        "BatchGetDeploymentGroups" => |_, context, body| answer(context, body, groups::batch_get),
        "ListDeploymentGroups" => |_, context, body| answer(context, body, groups::list),
        "UpdateDeploymentGroup" => |_, context, body| answer(context, body, groups::update),
        "DeleteDeploymentGroup" => |_, context, body| answer(context, body, groups::delete),
        "GetDeploymentConfig" => |_, context, body| answer(context, body, configs::get),
        "ListDeploymentConfigs" => |_, context, body| answer(context, body, configs::list),
        "RegisterOnPremisesInstance" => |_, context, body| silent(context, body, instances::register),
        "DeregisterOnPremisesInstance" => |_, context, body| silent(context, body, instances::deregister),
        "GetOnPremisesInstance" => |_, context, body| answer(context, body, instances::get),
        "BatchGetOnPremisesInstances" => |_, context, body| answer(context, body, instances::batch_get),
        "ListOnPremisesInstances" => |_, context, body| answer(context, body, instances::list),
        "AddTagsToOnPremisesInstances" => |_, context, body| silent(context, body, instances::add_tags),
        "RemoveTagsFromOnPremisesInstances" => {
            |_, context, body| silent(context, body, instances::remove_tags)
        }
        "CreateDeployment" => |_, context, body| {
            let (output, outcome) = create::create(context, read(body)?)?;
            Ok((write(&output)?, Some(outcome)))
        },
        "GetDeployment" => |_, context, body| answer(context, body, queries::get),
        "BatchGetDeployments" => |_, context, body| answer(context, body, queries::batch_get),
        "ListDeployments" => |_, context, body| answer(context, body, queries::list),
        "StopDeployment" => |_, context, body| {
            let (output, outcome) = intervene::stop(context, read(body)?)?;
            Ok((write(&output)?, Some(outcome)))
        },
        "ContinueDeployment" => |_, context, body| {
            let (_, outcome) = intervene::proceed(context, read(body)?)?;
            Ok((Vec::new(), Some(outcome)))
        },
        "ListDeploymentTargets" => |_, context, body| answer(context, body, targets::list),
        "GetDeploymentTarget" => |_, context, body| answer(context, body, targets::get),
        "BatchGetDeploymentTargets" => |_, context, body| answer(context, body, targets::batch_get),
        "ListDeploymentInstances" => |_, context, body| answer(context, body, targets::list_instances),
        "GetDeploymentInstance" => |_, context, body| answer(context, body, targets::get_instance),
        _ => return None,
    })
}

fn answer<I: DeserializeOwned, O: Serialize>(
    context: &Context<'_>,
    body: &[u8],
    operation: fn(&Context<'_>, I) -> Result<O, ApiError>,
) -> Result<Reply, ApiError> {
    let output = operation(context, read(body)?)?;
    Ok((write(&output)?, None))
}

/// An operation without an output is answered with an empty body.
fn silent<I: DeserializeOwned>(
    context: &Context<'_>,
    body: &[u8],
    operation: fn(&Context<'_>, I) -> Result<Nothing, ApiError>,
) -> Result<Reply, ApiError> {
    operation(context, read(body)?)?;
    Ok((Vec::new(), None))
}
