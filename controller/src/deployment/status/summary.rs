//! A deployment on one line.

use codedeploy_api::codedeploy::{DeploymentStatus, ErrorCode};
use codedeploy_api::controller::DeploymentSummary;
use codedeploy_planner::deployment_state::DeploymentState;

use crate::error::ApiError;
use crate::records::listing::{Wanted, newest};
use crate::records::{Record, overview};
use crate::store::Tx;
use crate::transaction::Context;

/// Returns a deployment with the counts of its targets.
pub(super) fn counted(
    context: &Context<'_>,
    record: &Record,
) -> Result<DeploymentSummary, ApiError> {
    let overview = match record.progress.started() {
        Some(_) => Some(overview(context.tx, &record.id)?),
        None => None,
    };
    Ok(DeploymentSummary {
        deployment_overview: overview,
        ..brief(record)
    })
}

pub(super) fn brief(record: &Record) -> DeploymentSummary {
    let definition = record.definition.as_ref();
    let (waits_for, waits_until) = wait(record);
    DeploymentSummary {
        deployment_id: Some(record.id.clone()),
        application_name: Some(record.application_name.clone()),
        deployment_group_name: Some(record.group_name.clone()),
        status: Some(record.progress.status()),
        creator: definition.map(|definition| definition.creator.into()),
        description: definition.and_then(|definition| definition.description.clone()),
        revision: record.revision().cloned().map(Into::into),
        create_time: Some(record.created),
        start_time: record.progress.started(),
        complete_time: record.progress.completed(),
        deployment_overview: None,
        error_information: record.error().cloned(),
        rolls_back: record.rolls_back(),
        rolled_back_by: record
            .relations
            .rollback
            .as_ref()
            .and_then(|rollback| rollback.rollback_deployment_id.clone()),
        created_by: record.created_by.clone(),
        waits_for: waits_for.map(str::to_owned),
        waits_until,
    }
}

/// Returns the event that a deployment waits for, and the end of the wait.
fn wait(
    record: &Record,
) -> (
    Option<&'static str>,
    Option<codedeploy_api::codedeploy::Timestamp>,
) {
    match &record.progress {
        DeploymentState::Created => (Some("its start"), None),
        DeploymentState::InProgress { stop: Some(_), .. } => {
            (Some("the end of the running commands; then it stops"), None)
        }
        DeploymentState::Ready { until, .. } => (
            Some("somebody to continue it; nobody in time stops it"),
            Some(*until),
        ),
        DeploymentState::Ended {
            retire_at: Some(at),
            ..
        } => (
            Some("the end of the original instances' waiting time"),
            Some(*at),
        ),
        DeploymentState::InProgress { stop: None, .. } | DeploymentState::Ended { .. } => {
            (None, None)
        }
    }
}

/// Returns the last deployment of a group that failed, or that something other than a person
/// stopped.
pub(super) fn last_failure(
    context: &Context<'_>,
    group_id: &str,
) -> Result<Option<DeploymentSummary>, ApiError> {
    let failed = last_with(context.tx, group_id, DeploymentStatus::Failed)?;
    let stopped = last_with(context.tx, group_id, DeploymentStatus::Stopped)?;
    let by_hand = |record: &Record| {
        record.error().and_then(|error| error.code.as_ref()) == Some(&ErrorCode::ManualStop)
    };
    let failures = [failed, stopped.filter(|record| !by_hand(record))];
    Ok(failures
        .into_iter()
        .flatten()
        .max_by_key(|record| record.created)
        .map(|record| brief(&record)))
}

fn last_with(
    tx: &Tx<'_>,
    group_id: &str,
    status: DeploymentStatus,
) -> Result<Option<Record>, ApiError> {
    let wanted = Wanted {
        groups: Some(&[group_id.to_owned()]),
        statuses: &[status],
        start: i64::MIN,
        end: i64::MAX,
        before: (i64::MAX, i64::MAX),
    };
    match newest(tx, &wanted, 1)?.first() {
        Some((_, id)) => Ok(Record::load(tx, id)?),
        None => Ok(None),
    }
}
