//! StopDeployment and ContinueDeployment.

use codedeploy_api::codedeploy::*;

use super::course::Course;
use super::decide::{self, Outcome, decide};
use super::end;
use super::progress::{DeploymentInput, Ending, Progress, Stage, Stop};
use super::queries::find;
use super::records::Record;
use crate::error::{ApiError, ErrorName};
use crate::registry::{Context, shorten};

/// Ends a deployment as soon as no host runs a command of it; hosts are not told to abort.
pub fn stop(
    context: &Context<'_>,
    input: StopDeploymentInput,
) -> Result<(StopDeploymentOutput, Outcome), ApiError> {
    let mut record = find(context, input.deployment_id)?;
    if matches!(&record.progress, Progress::Ended { ending, .. } if !matches!(ending, Ending::Stopped(_))) {
        return Err(already_completed(&record));
    }
    let mut outcome = Outcome::none(&record.id);
    request(context, &mut record, Stop::Request { rollback: input.auto_rollback_enabled }, &mut outcome)?;
    let (status, message) = match record.progress {
        Progress::Ended { .. } => (
            StopStatus::Succeeded,
            "No more commands will be scheduled for execution in the deployment instances",
        ),
        Progress::Created | Progress::InProgress { .. } | Progress::Ready { .. } => (
            StopStatus::Pending,
            "The deployment will be stopped when the commands that are running have ended",
        ),
    };
    let output = StopDeploymentOutput { status: Some(status), status_message: Some(message.into()) };
    Ok((output, outcome))
}

/// Asks a deployment that is not over to end.
pub(super) fn request(
    context: &Context<'_>,
    record: &mut Record,
    stop: Stop,
    outcome: &mut Outcome,
) -> Result<(), ApiError> {
    match &record.progress {
        Progress::Created => end::cancel(context, record, &stop, outcome),
        Progress::InProgress { .. } => {
            record.step(context, DeploymentInput::RequestStop(stop))?;
            decide::advance(context, record, outcome)
        }
        Progress::Ready { .. } => {
            // The wait is over, for another reason than the one waited for.
            record.step(context, DeploymentInput::Enter(Stage::Deploy))?;
            record.step(context, DeploymentInput::RequestStop(stop))?;
            decide::advance(context, record, outcome)
        }
        Progress::Ended { .. } => Ok(()),
    }
}

/// Lets a blue/green deployment go on that waits: for its traffic, or for the end of the original instances.
pub fn proceed(
    context: &Context<'_>,
    input: ContinueDeploymentInput,
) -> Result<(Nothing, Outcome), ApiError> {
    let mut record = find(context, input.deployment_id)?;
    let wait = input.deployment_wait_type.unwrap_or(DeploymentWaitType::ReadyWait);
    if !wait.is_known() {
        return Err(ErrorName::InvalidDeploymentWaitType.because(format!(
            "{:?} is not one of {}.",
            shorten(wait.as_str()),
            DeploymentWaitType::KNOWN.join(", ")
        )));
    }
    if !matches!(record.rules.course, Course::BlueGreen { .. }) {
        return Err(ErrorName::UnsupportedActionForDeploymentType.because(format!(
            "The deployment {} moves no traffic to replacement instances: only blue/green deployments wait.",
            record.id
        )));
    }
    let ends_wait = wait == DeploymentWaitType::TerminationWait;
    match &record.progress {
        Progress::Ready { .. } if !ends_wait => {
            record.step(context, DeploymentInput::Enter(Stage::Allow))?;
            Ok((Nothing {}, decide(context, &record.id)?))
        }
        Progress::Ended { retire_at: Some(_), .. } if ends_wait => {
            let mut outcome = Outcome::none(&record.id);
            end::retire(context, &mut record, &mut outcome)?;
            Ok((Nothing {}, outcome))
        }
        Progress::Ended { .. } => Err(already_completed(&record)),
        Progress::Created | Progress::InProgress { .. } | Progress::Ready { .. } => {
            Err(ErrorName::DeploymentIsNotInReadyState.because(format!(
                "The deployment {} has the status {}; it can be continued only while it waits.",
                record.id,
                record.progress.status()
            )))
        }
    }
}

fn already_completed(record: &Record) -> ApiError {
    ErrorName::DeploymentAlreadyCompleted.because(format!("The deployment {} has already completed.", record.id))
}
