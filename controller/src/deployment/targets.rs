//! The operators' view of a deployment's targets, in the present and in the older shape.

use codedeploy_api::codedeploy::*;
use codedeploy_planner::deployment_state::DeploymentState;
use codedeploy_planner::strategy::Strategy;

use super::queries::find;
use crate::error::{ApiError, ErrorName};
use crate::records::{Record, Target};
use crate::request;
use crate::request::members::{once_each, shorten};
use crate::transaction::Context;

/// The message for a deployment that has no targets yet, because it has not started.
fn not_started(record: &Record, what: &str) -> Option<String> {
    let is_created = matches!(record.progress, DeploymentState::Created);
    // Clients look for the words "hasn't completed adding instances".
    is_created.then(|| {
        format!(
            "The deployment {} hasn't completed adding instances: its {what} are not known yet.",
            record.id
        )
    })
}

/// Returns a deployment whose targets are known.
fn started(context: &Context<'_>, id: &str) -> Result<Record, ApiError> {
    let record = find(context, id)?;
    // A deployment that ended before it started has no targets; clients that wait for them would
    // wait for ever.
    match not_started(&record, "targets") {
        Some(reason) => Err(ErrorName::DeploymentNotStarted.because(reason)),
        None => Ok(record),
    }
}

fn lifecycle_events(target: &Target) -> Vec<LifecycleEvent> {
    let events = target.state.events.iter();
    events
        .map(|event| LifecycleEvent {
            lifecycle_event_name: Some(event.name.name().to_owned()),
            diagnostics: event.state.diagnostics().cloned(),
            start_time: event.state.started(),
            end_time: event.state.ended(),
            status: Some(event.state.status()),
        })
        .collect()
}

fn present(target: Target) -> DeploymentTarget {
    DeploymentTarget {
        deployment_target_type: Some(DeploymentTargetType::InstanceTarget),
        instance_target: Some(InstanceTarget {
            lifecycle_events: Some(lifecycle_events(&target)),
            deployment_id: Some(target.deployment_id),
            target_id: Some(target.member.name),
            target_arn: Some(target.member.arn),
            status: Some(target.status),
            last_updated_at: Some(target.updated),
            instance_label: target.state.label,
        }),
    }
}

fn names_with(
    context: &Context<'_>,
    record: &Record,
    statuses: &[TargetStatus],
    labels: &[TargetLabel],
    token: Option<&str>,
) -> Result<(Vec<String>, Option<String>), ApiError> {
    refuse_labels(record, labels)?;
    let name = format!("targets of {} {statuses:?} {labels:?}", record.id);
    let listing = context.pages.listing::<i64>(name, token)?;
    let after = listing.after().copied().unwrap_or(-1);
    listing.query(
        context.tx,
        "SELECT position, target_id, status, label FROM targets
         WHERE deployment_id = ?1 AND position > ?2 ORDER BY position",
        (&record.id, after),
        |row| {
            let status = TargetStatus::from(row.get::<String>(2)?);
            let label = row.get::<Option<String>>(3)?.map(TargetLabel::from);
            let listed = (statuses.is_empty() || statuses.contains(&status))
                && (labels.is_empty() || label.is_some_and(|label| labels.contains(&label)));
            Ok(if listed {
                Some((row.get(0)?, row.get(1)?))
            } else {
                None
            })
        },
    )
}

/// Labels distinguish the fleets of a blue/green deployment; a deployment in place has none.
fn refuse_labels(record: &Record, labels: &[TargetLabel]) -> Result<(), ApiError> {
    match record.rules.strategy {
        Strategy::BlueGreen { .. } | Strategy::BlueGreenRollback => return Ok(()),
        Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer if labels.is_empty() => {
            return Ok(());
        }
        Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer => {}
    }
    Err(ErrorName::InvalidDeploymentInstanceType.because(
        "The deployment is in place; only blue/green deployments have instances of type Blue and Green.",
    ))
}

pub fn list(
    context: &Context<'_>,
    request: request::ListDeploymentTargets,
) -> Result<ListDeploymentTargetsOutput, ApiError> {
    let record = started(context, &request.deployment_id)?;
    let filters = request.target_filters.unwrap_or_default();
    let token = request.next_token.as_deref();
    let (names, next_token) =
        names_with(context, &record, &filters.statuses, &filters.labels, token)?;
    Ok(ListDeploymentTargetsOutput {
        target_ids: Some(names),
        next_token,
    })
}

fn target(context: &Context<'_>, record: &Record, id: &str) -> Result<Target, ApiError> {
    Target::named(context.tx, &record.id, id)?.ok_or_else(|| {
        ErrorName::DeploymentTargetDoesNotExist.because(format!(
            "The deployment {} has no target {:?}.",
            record.id,
            shorten(id)
        ))
    })
}

pub fn get(
    context: &Context<'_>,
    request: request::GetDeploymentTarget,
) -> Result<GetDeploymentTargetOutput, ApiError> {
    let record = started(context, &request.deployment_id)?;
    let target = target(context, &record, &request.target_id)?;
    Ok(GetDeploymentTargetOutput {
        deployment_target: Some(present(target)),
    })
}

pub fn batch_get(
    context: &Context<'_>,
    request: request::BatchGetDeploymentTargets,
) -> Result<BatchGetDeploymentTargetsOutput, ApiError> {
    let record = started(context, &request.deployment_id)?;
    let ids = request.target_ids.0.iter();
    let targets = ids
        .map(|id| target(context, &record, id).map(present))
        .collect::<Result<_, _>>()?;
    Ok(BatchGetDeploymentTargetsOutput {
        deployment_targets: Some(targets),
    })
}

pub fn list_instances(
    context: &Context<'_>,
    request: request::ListDeploymentInstances,
) -> Result<ListDeploymentInstancesOutput, ApiError> {
    let record = started(context, &request.deployment_id)?;
    let statuses = once_each(request.instance_status_filter.unwrap_or_default());
    let labels = once_each(request.instance_type_filter.unwrap_or_default());
    let token = request.next_token.as_deref();
    let (names, next_token) = names_with(context, &record, &statuses, &labels, token)?;
    Ok(ListDeploymentInstancesOutput {
        instances_list: Some(names),
        next_token,
    })
}

/// A target in the older shape.
fn summary(target: Target) -> InstanceSummary {
    InstanceSummary {
        lifecycle_events: Some(lifecycle_events(&target)),
        deployment_id: Some(target.deployment_id),
        instance_id: Some(target.member.arn),
        status: Some(target.status),
        last_updated_at: Some(target.updated),
        instance_type: target.state.label,
    }
}

pub fn get_instance(
    context: &Context<'_>,
    request: request::GetDeploymentInstance,
) -> Result<GetDeploymentInstanceOutput, ApiError> {
    let record = find(context, &request.deployment_id)?;
    let id = &request.instance_id;
    let target = Target::named(context.tx, &record.id, id)?.ok_or_else(|| {
        let none = || {
            format!(
                "The deployment {} has no instance {:?}.",
                record.id,
                shorten(id)
            )
        };
        ErrorName::InstanceDoesNotExist
            .because(not_started(&record, "instances").unwrap_or_else(none))
    })?;
    Ok(GetDeploymentInstanceOutput {
        instance_summary: Some(summary(target)),
    })
}

/// Instances that the deployment lacks are left out, and named in the message.
pub fn batch_get_instances(
    context: &Context<'_>,
    request: request::BatchGetDeploymentInstances,
) -> Result<BatchGetDeploymentInstancesOutput, ApiError> {
    let record = find(context, &request.deployment_id)?;
    let (mut summaries, mut missing) = (Vec::new(), Vec::new());
    for id in request.instance_ids.0 {
        match Target::named(context.tx, &record.id, &id)? {
            Some(target) => summaries.push(summary(target)),
            None => missing.push(shorten(&id)),
        }
    }
    let error_message = match missing.as_slice() {
        [] => String::new(),
        missing => not_started(&record, "instances").unwrap_or_else(|| {
            format!(
                "Instances that the deployment {} does not have: {}",
                record.id,
                missing.join(", ")
            )
        }),
    };
    Ok(BatchGetDeploymentInstancesOutput {
        error_message: Some(error_message),
        instances_summary: Some(summaries),
    })
}
