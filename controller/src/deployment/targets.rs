//! What operators see of a deployment's targets, in the present and in the older shape.

use codedeploy_api::codedeploy::*;

use super::queries::find;
use super::records::{Record, Target};
use crate::error::{ApiError, ErrorName};
use crate::registry::{BATCH, Context, shorten};

/// A deployment whose targets are known.
fn started(context: &Context<'_>, id: Option<String>) -> Result<Record, ApiError> {
    let record = find(context, id)?;
    match record.progress.started() {
        Some(_) => Ok(record),
        None => Err(ErrorName::DeploymentNotStarted.because(format!(
            "The deployment {} has not started yet: its targets are not known.",
            record.id
        ))),
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
    token: Option<&str>,
) -> Result<(Vec<String>, Option<String>), ApiError> {
    if let Some(status) = statuses.iter().find(|status| !status.is_known()) {
        return Err(ErrorName::InvalidInstanceStatus.because(format!(
            "{:?} is not one of {}.",
            shorten(status.as_str()),
            TargetStatus::KNOWN.join(", ")
        )));
    }
    let mut statement = context.tx.prepare_cached(
        "SELECT position, target_id, status FROM targets WHERE deployment_id = ?1 ORDER BY position",
    )?;
    let mut rows = statement.query([&record.id])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let (position, name, status): (usize, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if statuses.is_empty() || statuses.contains(&TargetStatus::from(status)) {
            items.push((format!("{position:020}"), name));
        }
    }
    let listing = format!("targets{}{statuses:?}", record.id);
    context.pages.cut(&listing, token, items)
}

/// Labels tell the fleets of a blue/green deployment apart; a deployment in place has none.
fn refuse_labels(labels: &[TargetLabel]) -> Result<(), ApiError> {
    match labels {
        [] => Ok(()),
        labels if labels.iter().any(|label| !label.is_known()) => {
            Err(ErrorName::InvalidInstanceType.because("An instance type must be Blue or Green."))
        }
        _ => Err(ErrorName::InvalidDeploymentInstanceType.because(
            "The deployment is in place; only blue/green deployments have instances of type Blue and Green.",
        )),
    }
}

pub fn list(
    context: &Context<'_>,
    input: ListDeploymentTargetsInput,
) -> Result<ListDeploymentTargetsOutput, ApiError> {
    let record = started(context, input.deployment_id)?;
    let mut statuses = Vec::new();
    for (name, values) in input.target_filters.unwrap_or_default() {
        match name.as_str() {
            "TargetStatus" => statuses = values.into_iter().map(TargetStatus::from).collect(),
            "ServerInstanceLabel" => {
                refuse_labels(&values.into_iter().map(TargetLabel::from).collect::<Vec<_>>())?;
            }
            other => {
                return Err(ErrorName::InvalidTargetFilterName.because(format!(
                    "{:?} is not one of TargetStatus and ServerInstanceLabel.",
                    shorten(other)
                )));
            }
        }
    }
    let (names, next_token) = names_with(context, &record, &statuses, input.next_token.as_deref())?;
    Ok(ListDeploymentTargetsOutput { target_ids: Some(names), next_token })
}

fn target(context: &Context<'_>, record: &Record, id: Option<String>) -> Result<Target, ApiError> {
    let id = id
        .filter(|id| !id.is_empty())
        .ok_or_else(|| ErrorName::DeploymentTargetIdRequired.because("The target id is missing."))?;
    Target::named(context.tx, &record.id, &id)?.ok_or_else(|| {
        ErrorName::DeploymentTargetDoesNotExist.because(format!(
            "The deployment {} has no target {:?}.",
            record.id,
            shorten(&id)
        ))
    })
}

pub fn get(
    context: &Context<'_>,
    input: GetDeploymentTargetInput,
) -> Result<GetDeploymentTargetOutput, ApiError> {
    let record = started(context, input.deployment_id)?;
    Ok(GetDeploymentTargetOutput {
        deployment_target: Some(present(target(context, &record, input.target_id)?)),
    })
}

pub fn batch_get(
    context: &Context<'_>,
    input: BatchGetDeploymentTargetsInput,
) -> Result<BatchGetDeploymentTargetsOutput, ApiError> {
    let record = started(context, input.deployment_id)?;
    let ids = input.target_ids.unwrap_or_default();
    if ids.is_empty() {
        return Err(ErrorName::DeploymentTargetIdRequired.because("At least one target id is needed."));
    }
    if ids.len() > BATCH {
        return Err(ErrorName::InvalidDeploymentTargetId
            .because(format!("{} target ids were given; at most {BATCH} can be given at once.", ids.len())));
    }
    let targets = ids
        .into_iter()
        .map(|id| target(context, &record, Some(id)).map(present))
        .collect::<Result<_, _>>()?;
    Ok(BatchGetDeploymentTargetsOutput { deployment_targets: Some(targets) })
}

pub fn list_instances(
    context: &Context<'_>,
    input: ListDeploymentInstancesInput,
) -> Result<ListDeploymentInstancesOutput, ApiError> {
    let record = started(context, input.deployment_id)?;
    refuse_labels(&input.instance_type_filter.unwrap_or_default())?;
    let statuses = input.instance_status_filter.unwrap_or_default();
    let (names, next_token) = names_with(context, &record, &statuses, input.next_token.as_deref())?;
    Ok(ListDeploymentInstancesOutput { instances_list: Some(names), next_token })
}

pub fn get_instance(
    context: &Context<'_>,
    input: GetDeploymentInstanceInput,
) -> Result<GetDeploymentInstanceOutput, ApiError> {
    let record = find(context, input.deployment_id)?;
    let id = input
        .instance_id
        .filter(|id| !id.is_empty())
        .ok_or_else(|| ErrorName::InstanceIdRequired.because("The instance id is missing."))?;
    let target = Target::named(context.tx, &record.id, &id)?.ok_or_else(|| {
        ErrorName::InstanceDoesNotExist.because(format!(
            "The deployment {} has no instance {:?}.",
            record.id,
            shorten(&id)
        ))
    })?;
    Ok(GetDeploymentInstanceOutput {
        instance_summary: Some(InstanceSummary {
            lifecycle_events: Some(lifecycle_events(&target)),
            deployment_id: Some(target.deployment_id),
            instance_id: Some(target.member.arn),
            status: Some(target.status),
            last_updated_at: Some(target.updated),
            instance_type: target.state.label,
        }),
    })
}
