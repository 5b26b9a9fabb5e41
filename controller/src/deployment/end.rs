//! The end of a deployment, and its effect on the group and on later deployments.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_planner::deployment_state::{DeploymentInput, DeploymentState, Ending, Stop};
use codedeploy_planner::strategy::Strategy;

use super::create::last_successful_revision;
use super::removal;
use super::rollback::roll_back;
use crate::deployment::effects::{Change, Effects};
use crate::error::ApiError;
use crate::records::delivery::Delivery;
use crate::records::{Record, Target, health};
use crate::registry::groups;
use crate::transaction::Context;

/// Ends a deployment whose targets have nothing left to do.
pub(super) fn end(
    context: &Context<'_>,
    record: &mut Record,
    ending: Ending,
    retire_at: Option<Timestamp>,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    let stop = match &record.progress {
        DeploymentState::InProgress { stop, .. } => stop.clone(),
        _ => None,
    };
    finish(context, record, ending, retire_at, effects)?;
    let Some(group) = groups::by_id(context, &record.group_id)? else {
        return Ok(());
    };
    keep_health(context, record, &group)?;
    if record
        .progress
        .retire_at()
        .is_some_and(|at| at <= context.now)
    {
        retire(context, record, effects)?;
    }
    match stop {
        Some(stop) => roll_back(context, record, &stop, &group, effects),
        None => Ok(()),
    }
}

/// Ends a deployment that never started.
pub(super) fn cancel(
    context: &Context<'_>,
    record: &mut Record,
    stop: &Stop,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    finish(context, record, stop.ending(), None, effects)?;
    match groups::by_id(context, &record.group_id)? {
        Some(group) => roll_back(context, record, stop, &group, effects),
        None => Ok(()),
    }
}

fn finish(
    context: &Context<'_>,
    record: &mut Record,
    ending: Ending,
    retire_at: Option<Timestamp>,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    let error = ending
        .error()
        .and_then(|error| error.message.clone())
        .unwrap_or_default();
    record.step(context, DeploymentInput::End { ending, retire_at })?;
    let rolls_back = record.rolls_back();
    let status = record.progress.status();
    effects.ended = Some(Box::new(Delivery::of(context.tx, record, context.now)?));
    Ok(effects.note(
        context,
        Change::Ended {
            status,
            error,
            rolls_back,
        },
    )?)
}

/// Records the state of the instances that the deployment attempted, and the group's revision.
fn keep_health(
    context: &Context<'_>,
    record: &Record,
    group: &groups::Group,
) -> Result<(), ApiError> {
    if record.rules.strategy != Strategy::BlueGreenRollback {
        // After a failure, a host is no longer known to hold the group's revision.
        let current = last_successful_revision(context, group)?;
        health::note_end(
            context.tx,
            &record.group_id,
            &record.id,
            record.revision(),
            current.as_ref(),
            context.now,
        )?;
        for (target, previous) in &record.relations.taken_back {
            let previous = previous
                .as_deref()
                .map(|id| Record::load(context.tx, id))
                .transpose()?
                .flatten();
            let revision = previous.as_ref().and_then(Record::revision);
            health::note_revision(context.tx, &record.group_id, target, revision)?;
        }
    }
    let succeeded = matches!(
        record.progress,
        DeploymentState::Ended {
            ending: Ending::Succeeded,
            ..
        }
    );
    // A rollback of a group's first deployment only returned the traffic: the hosts have the
    // revision that was rolled back.
    let has_revision =
        record.rules.strategy != Strategy::BlueGreenRollback || group.last_successful.is_some();
    if succeeded && has_revision {
        groups::note_success(context.tx, &record.group_id, &record.id)?;
    }
    Ok(())
}

/// Deregisters the original instances of a blue/green deployment after their waiting time.
/// Instances that got a revision or traffic from a later deployment of any group are needed, and
/// stay.
pub(super) fn retire(
    context: &Context<'_>,
    record: &mut Record,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    let instances = Target::deregister_originals(context.tx, &record.id, context.now)?;
    effects
        .recheck
        .extend(removal::give_up(context.tx)?.recheck);
    record.step(context, DeploymentInput::Retire)?;
    Ok(effects.note(context, Change::Retired { instances })?)
}
