//! Removes operators' objects together with their deployments, and ends the work of deregistered
//! hosts.
//!
//! A group can have millions of rows: a removal deletes a bounded part in each transaction, so that
//! other work continues.

use codedeploy_api::codedeploy::{DeleteDeploymentGroupOutput, ErrorCode, Nothing, Timestamp};
use codedeploy_planner::deployment_state::{DeploymentInput, Stop};

use crate::deployment::effects::{Change, Effects};
use crate::error::ApiError;
use crate::records::delivery::Delivery;
use crate::records::{Record, Target, unfinished};
use crate::registry::{applications, groups, instances};
use crate::request;
use crate::store::{SqlError, Tx};
use crate::transaction::Context;

/// The result of one transaction of a removal, which can take many.
#[derive(Debug)]
pub enum Step<T> {
    /// A part was removed, and another transaction must continue.
    More(Box<Effects>),
    /// Nothing is left.
    Done(T),
}

/// Deletes a group with its deployments, or a part of them; then there is no output yet. A group
/// that does not exist, or whose application does not exist, counts as deleted.
pub fn delete_group(
    context: &Context<'_>,
    request: request::DeleteDeploymentGroup,
) -> Result<Step<DeleteDeploymentGroupOutput>, ApiError> {
    let deleted = Step::Done(DeleteDeploymentGroupOutput {
        hooks_not_cleaned_up: Some(Vec::new()),
    });
    let (application, name) = (&request.application_name, &request.deployment_group_name);
    let Some(id) = groups::id_of(context.tx, application, name)? else {
        return Ok(deleted);
    };
    if let Step::More(effects) = purge(context, &id, ErrorCode::DeploymentGroupMissing)? {
        return Ok(Step::More(effects));
    }
    groups::delete(context.tx, &id)?;
    Ok(deleted)
}

/// Deletes an application with its groups, revisions and deployments, or a part of them; then there
/// is no output yet. An application that does not exist counts as deleted.
pub fn delete_application(
    context: &Context<'_>,
    request: request::DeleteApplication,
) -> Result<Step<Nothing>, ApiError> {
    for id in groups::ids_of(context.tx, &request.application_name)? {
        if let Step::More(effects) = purge(context, &id, ErrorCode::ApplicationMissing)? {
            return Ok(Step::More(effects));
        }
    }
    applications::delete(context.tx, &request.application_name)?;
    Ok(Step::Done(Nothing {}))
}

/// Deregisters an instance; an unregistered one counts as deregistered.
pub fn deregister(
    context: &Context<'_>,
    request: request::DeregisterOnPremisesInstance,
) -> Result<(Nothing, Effects), ApiError> {
    Ok((
        Nothing {},
        withdraw(context.tx, context.now, &request.instance_name)?,
    ))
}

/// Gives up the instance's pending work.
fn withdraw(tx: &Tx<'_>, now: Timestamp, name: &str) -> Result<Effects, SqlError> {
    instances::note_deregistered(tx, name, now)?;
    give_up(tx)
}

/// Deregisters an instance and returns its principal; `None` if none is registered. A running
/// service finds the consequences by itself.
pub fn remove_host(tx: &Tx<'_>, now: Timestamp, name: &str) -> Result<Option<String>, ApiError> {
    let found = instances::registered(tx, name)?;
    if found.is_some() {
        withdraw(tx, now, name)?;
    }
    Ok(found.map(|instance| instance.principal))
}

/// Makes every command of a deregistered host overdue: the next decision about its deployment ends
/// it like an expired one.
pub(super) fn give_up(tx: &Tx<'_>) -> Result<Effects, SqlError> {
    let recheck = Target::expire_departed(tx)?.into_iter().collect();
    Ok(Effects {
        recheck,
        ..Effects::default()
    })
}

/// The number of targets, each with its commands, that one transaction removes.
const BATCH: usize = 500;

/// Removes a part of a group's deployments. An active one first ends with `reason`, so that the end
/// can be reported.
fn purge(context: &Context<'_>, group_id: &str, reason: ErrorCode) -> Result<Step<()>, ApiError> {
    if let Some(id) = unfinished::of_group(context.tx, group_id)? {
        let mut effects = Effects::none(&id);
        if let Some(mut record) = Record::load(context.tx, &id)?.filter(|record| !record.is_over())
        {
            let message = "The deployment's group or application was deleted before it ended.";
            let ending = Stop::failure(reason, message).ending();
            record.step(
                context,
                DeploymentInput::End {
                    ending,
                    retire_at: None,
                },
            )?;
            let status = record.progress.status();
            let rolls_back = record.rolls_back();
            effects.ended = Some(Box::new(Delivery::of(context.tx, &record, context.now)?));
            effects.note(
                context,
                Change::Ended {
                    status,
                    error: message.into(),
                    rolls_back,
                },
            )?;
        }
        return Ok(Step::More(Box::new(effects)));
    }
    let mut room = BATCH;
    while let Some(id) = Record::oldest_of_group(context.tx, group_id)? {
        room -= Target::delete(context.tx, &id, room)?.min(room);
        if room == 0 {
            return Ok(Step::More(Box::new(Effects::none(&id))));
        }
        Record::delete(context.tx, &id)?;
        room -= 1;
    }
    Ok(Step::Done(()))
}
