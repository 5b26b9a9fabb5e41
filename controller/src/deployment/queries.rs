//! The operators' view of deployments.

use codedeploy_api::codedeploy::*;

use crate::error::{ApiError, ErrorName};
use crate::pagination::PAGE;
use crate::records::listing::{Made, Wanted, newest};
use crate::records::{Record, overview};
use crate::registry::groups;
use crate::request;
use crate::transaction::Context;

/// Returns the deployment that a request names.
pub(crate) fn find(context: &Context<'_>, id: &str) -> Result<Record, ApiError> {
    let record = Record::load(context.tx, id)?;
    let seen = |record: &Record| context.sees_group(&record.application_name, &record.group_name);
    record.filter(seen).ok_or_else(|| {
        context.unseen(&format!("the deployment {id}"), || {
            ErrorName::DeploymentDoesNotExist
                .because(format!("The deployment {id} could not be found."))
        })
    })
}

fn info(context: &Context<'_>, record: Record) -> Result<DeploymentInfo, ApiError> {
    let error_information = record.error().cloned();
    let overview = match record.progress.started() {
        Some(_) => Some(overview(context.tx, &record.id)?),
        None => None,
    };
    let waits = record.waits_for_termination();
    Ok(DeploymentInfo {
        rollback_info: record.relations.rollback,
        instance_termination_wait_time_started: Some(waits),
        application_name: Some(record.application_name),
        deployment_group_name: Some(record.group_name),
        deployment_id: Some(record.id),
        status: Some(record.progress.status()),
        error_information,
        create_time: Some(record.created),
        start_time: record.progress.started(),
        complete_time: record.progress.completed(),
        deployment_overview: overview,
        ..record
            .definition
            .map(DeploymentInfo::from)
            .unwrap_or_default()
    })
}

pub fn get(
    context: &Context<'_>,
    request: request::GetDeployment,
) -> Result<GetDeploymentOutput, ApiError> {
    let record = find(context, &request.deployment_id)?;
    Ok(GetDeploymentOutput {
        deployment_info: Some(info(context, record)?),
    })
}

/// Deployments that do not exist are left out.
pub fn batch_get(
    context: &Context<'_>,
    request: request::BatchGetDeployments,
) -> Result<BatchGetDeploymentsOutput, ApiError> {
    let mut infos = Vec::new();
    for id in request.deployment_ids.0 {
        match find(context, &id) {
            Ok(record) => infos.push(info(context, record)?),
            Err(error) if error.name == ErrorName::DeploymentDoesNotExist => {}
            Err(error) => return Err(error),
        }
    }
    Ok(BatchGetDeploymentsOutput {
        deployments_info: Some(infos),
    })
}

/// The newest first.
pub fn list(
    context: &Context<'_>,
    request: request::ListDeployments,
) -> Result<ListDeploymentsOutput, ApiError> {
    let groups = groups::listed(context, request.group.as_ref())?;
    let (statuses, created) = (request.include_only_statuses, request.created);
    let name = format!(
        "deployments of {:?} {statuses:?} {created:?}",
        request.group
    );
    let listing = context
        .pages
        .listing::<Made>(name, request.next_token.as_deref())?;
    // Only CloudFormation sets external ids of deployments.
    if request.external_id.is_some() {
        return Ok(ListDeploymentsOutput {
            deployments: Some(Vec::new()),
            next_token: None,
        });
    }
    let before = listing.after().copied().unwrap_or((i64::MAX, i64::MAX));
    let wanted = Wanted {
        groups: groups.as_deref(),
        statuses: &statuses,
        start: created.start.map_or(i64::MIN, Timestamp::millis),
        end: created
            .end
            .map_or(i64::MAX, Timestamp::millis)
            .min(before.0),
        before,
    };
    // One more than a page shows whether there is another page.
    let newest = newest(context.tx, &wanted, PAGE + 1)?;
    let (deployments, next_token) = listing.page(newest.into_iter().map(Ok::<_, ApiError>))?;
    Ok(ListDeploymentsOutput {
        deployments: Some(deployments),
        next_token,
    })
}

/// Lambda functions and ECS call this while a deployment waits for them; a host reports to the
/// other API.
pub fn put_hook_status(
    context: &Context<'_>,
    request: request::PutLifecycleEventHookExecutionStatus,
) -> Result<Nothing, ApiError> {
    let record = find(context, &request.deployment_id)?;
    Err(ErrorName::UnsupportedActionForDeploymentType.because(format!(
        "The deployment {} is to the Server compute platform, whose lifecycle events are performed by agents.",
        record.id
    )))
}

/// Only CloudFormation sets external ids of resources: there is nothing to delete.
pub fn delete_by_external_id(
    _: &Context<'_>,
    _: request::DeleteResourcesByExternalId,
) -> Result<Empty, ApiError> {
    Ok(Empty {})
}
