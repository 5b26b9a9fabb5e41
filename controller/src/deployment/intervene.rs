//! StopDeployment, ContinueDeployment, and the older operation that ends a wait.

use codedeploy_api::codedeploy::*;
use codedeploy_planner::deployment_state::{DeploymentInput, DeploymentState, Ending, Stage, Stop};
use codedeploy_planner::strategy::Strategy;

use super::decide::{self, decide};
use super::end;
use super::queries::find;
use crate::deployment::effects::Effects;
use crate::error::{ApiError, ErrorName};
use crate::records::Record;
use crate::request;
use crate::transaction::Context;

/// Ends a deployment as soon as no host runs a command of it; hosts are not asked to abort.
pub fn stop(
    context: &Context<'_>,
    request: request::StopDeployment,
) -> Result<(StopDeploymentOutput, Effects), ApiError> {
    let mut record = find(context, &request.deployment_id)?;
    if record.was_set_aside {
        let message = "The record of the deployment was damaged: it was set aside, and no more commands will be scheduled";
        let output = StopDeploymentOutput {
            status: Some(StopStatus::Succeeded),
            status_message: Some(message.into()),
        };
        return Ok((output, Effects::none(&record.id)));
    }
    if matches!(&record.progress, DeploymentState::Ended { ending, .. } if !matches!(ending, Ending::Stopped(_)))
    {
        return Err(already_completed(&record));
    }
    let mut effects = Effects::none(&record.id);
    let stop = Stop::Request {
        rollback: request.auto_rollback_enabled,
    };
    let was_over = matches!(record.progress, DeploymentState::Ended { .. });
    end_early(context, &mut record, stop, &mut effects)?;
    let ignored = was_over
        .then(|| ignored_wish(&record, request.auto_rollback_enabled))
        .flatten();
    let (status, message) = match record.progress {
        DeploymentState::Ended { .. } => (
            StopStatus::Succeeded,
            ignored.unwrap_or(
                "No more commands will be scheduled for execution in the deployment instances",
            ),
        ),
        DeploymentState::Created
        | DeploymentState::InProgress { .. }
        | DeploymentState::Ready { .. } => (
            StopStatus::Pending,
            "The deployment will be stopped when the commands that are running have ended",
        ),
    };
    let output = StopDeploymentOutput {
        status: Some(status),
        status_message: Some(message.into()),
    };
    Ok((output, effects))
}

/// The message if it is too late for the wish about the rollback.
fn ignored_wish(record: &Record, rollback: Option<bool>) -> Option<&'static str> {
    let made = record
        .relations
        .rollback
        .as_ref()
        .and_then(|made| made.rollback_deployment_id.as_ref());
    match (rollback?, made) {
        (true, None) => Some("The deployment was already stopped; it is not rolled back."),
        (false, Some(_)) => Some("The deployment was already stopped, and is rolled back."),
        (true, Some(_)) | (false, None) => None,
    }
}

/// Asks an active deployment to end.
pub(super) fn end_early(
    context: &Context<'_>,
    record: &mut Record,
    stop: Stop,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    match &record.progress {
        DeploymentState::Created => end::cancel(context, record, &stop, effects),
        DeploymentState::InProgress { .. } | DeploymentState::Ready { .. } => {
            record.step(context, DeploymentInput::RequestStop(stop))?;
            decide::advance(context, record, effects)
        }
        DeploymentState::Ended { .. } => Ok(()),
    }
}

/// Lets a waiting blue/green deployment continue: it waits for its traffic, or for the end of the
/// original instances.
pub fn proceed(
    context: &Context<'_>,
    request: request::ContinueDeployment,
) -> Result<(Nothing, Effects), ApiError> {
    let mut record = find(context, &request.deployment_id)?;
    let wait = request
        .deployment_wait_type
        .unwrap_or(DeploymentWaitType::ReadyWait);
    if !matches!(record.rules.strategy, Strategy::BlueGreen { .. }) {
        return Err(ErrorName::UnsupportedActionForDeploymentType.because(format!(
            "The deployment {} moves no traffic to replacement instances: only blue/green deployments wait.",
            record.id
        )));
    }
    let ends_wait = wait == DeploymentWaitType::TerminationWait;
    match &record.progress {
        DeploymentState::Ready { .. } if !ends_wait => {
            record.step(context, DeploymentInput::Enter(Stage::Allow))?;
            Ok((Nothing {}, decide(context, &record.id)?))
        }
        DeploymentState::Ended {
            retire_at: Some(_), ..
        } if ends_wait => {
            let mut effects = Effects::none(&record.id);
            end::retire(context, &mut record, &mut effects)?;
            Ok((Nothing {}, effects))
        }
        DeploymentState::Ended { .. } => Err(already_completed(&record)),
        DeploymentState::Created
        | DeploymentState::InProgress { .. }
        | DeploymentState::Ready { .. } => {
            Err(ErrorName::DeploymentIsNotInReadyState.because(format!(
                "The deployment {} has the status {}; it can be continued only while it waits.",
                record.id,
                record.progress.status()
            )))
        }
    }
}

/// The older operation that ends the wait for the original instances.
pub fn skip_wait(
    context: &Context<'_>,
    request: request::SkipWaitTimeForInstanceTermination,
) -> Result<(Nothing, Effects), ApiError> {
    let request = request::ContinueDeployment {
        deployment_id: request.deployment_id,
        deployment_wait_type: Some(DeploymentWaitType::TerminationWait),
    };
    proceed(context, request).map_err(|refused| match refused.name {
        ErrorName::DeploymentIsNotInReadyState => {
            ErrorName::DeploymentNotStarted.because(refused.message)
        }
        _ => refused,
    })
}

fn already_completed(record: &Record) -> ApiError {
    ErrorName::DeploymentAlreadyCompleted.because(format!(
        "The deployment {} has already completed.",
        record.id
    ))
}
