//! Removes what operators declared together with its deployments, and lets go of hosts that are registered no more.
//!
//! A group can have millions of rows: a removal does a bounded part in each transaction, and others go on meanwhile.

use codedeploy_api::codedeploy::{DeleteDeploymentGroupOutput, ErrorCode, Nothing, Timestamp};
use codedeploy_planner::deployment_state::{DeploymentInput, Stop};

use crate::deployment::effects::{Change, Effects};
use crate::error::ApiError;
use crate::records::{Record, Target};
use crate::registry::instances;
use crate::request;
use crate::store::{SqlError, Tx};
use crate::transaction::Context;

/// A transaction of a removal, which can take many.
#[derive(Debug)]
pub enum Step<T> {
    /// A part was removed, and another transaction has to go on.
    More(Box<Effects>),
    /// Nothing is left.
    Done(T),
}

/// Deletes a group with its deployments, or a part of these: then there is no answer yet. One that does not exist, or whose
/// application does not, is deleted already.
pub fn delete_group(
    context: &Context<'_>,
    request: request::DeleteDeploymentGroup,
) -> Result<Step<DeleteDeploymentGroupOutput>, ApiError> {
    let deleted = Step::Done(DeleteDeploymentGroupOutput { hooks_not_cleaned_up: Some(Vec::new()) });
    let names = (&*request.application_name, &*request.deployment_group_name);
    let Some(id) = context.tx.query_opt(
        "SELECT g.id FROM deployment_groups g JOIN applications a ON a.id = g.application_id
         WHERE a.name = ?1 AND g.name = ?2",
        names,
        |row| row.get::<String>(0),
    )?
    else {
        return Ok(deleted);
    };
    if let Step::More(effects) = purge(context, &id, ErrorCode::DeploymentGroupMissing)? {
        return Ok(Step::More(effects));
    }
    context.tx.execute("DELETE FROM deployment_groups WHERE id = ?1", [id])?;
    Ok(deleted)
}

/// Deletes an application with its groups, revisions and deployments, or a part of these: then there is no answer yet. One
/// that does not exist is deleted already.
pub fn delete_application(
    context: &Context<'_>,
    request: request::DeleteApplication,
) -> Result<Step<Nothing>, ApiError> {
    let groups: Vec<String> = context.tx.query_all("SELECT g.id FROM deployment_groups g JOIN applications a ON a.id = g.application_id WHERE a.name = ?1", [&*request.application_name], |row| row.get(0))?;
    for id in groups {
        if let Step::More(effects) = purge(context, &id, ErrorCode::ApplicationMissing)? {
            return Ok(Step::More(effects));
        }
    }
    context.tx.execute("DELETE FROM applications WHERE name = ?1", [&*request.application_name])?;
    Ok(Step::Done(Nothing {}))
}

const DEREGISTER: &str =
    "UPDATE instances SET deregistered = ?2, tags = '[]' WHERE name = ?1 AND deregistered IS NULL";

/// Deregisters an instance; one that is not registered is deregistered already.
pub fn deregister(
    context: &Context<'_>,
    request: request::DeregisterOnPremisesInstance,
) -> Result<(Nothing, Effects), ApiError> {
    Ok((Nothing {}, withdraw(context.tx, context.now, &request.instance_name)?))
}

/// What the instance was to do is given up.
fn withdraw(tx: &Tx<'_>, now: Timestamp, name: &str) -> Result<Effects, SqlError> {
    tx.execute(DEREGISTER, (name, now.millis()))?;
    give_up(tx)
}

/// Deregisters an instance and gives its principal; `None` when there is none that is registered. A service that runs
/// finds by itself what follows.
pub fn remove_host(tx: &Tx<'_>, now: Timestamp, name: &str) -> Result<Option<String>, ApiError> {
    let found = instances::registered(tx, name)?;
    if found.is_some() {
        withdraw(tx, now, name)?;
    }
    Ok(found.map(|instance| instance.principal))
}

/// Makes every command overdue whose host was deregistered: the next decision about its deployment ends it, as it does
/// with a command whose time is over.
pub(super) fn give_up(tx: &Tx<'_>) -> Result<Effects, SqlError> {
    let recheck = Target::expire_departed(tx)?.into_iter().collect();
    Ok(Effects { recheck, ..Effects::default() })
}

/// Most targets, each with its commands, that one transaction removes.
const BATCH: usize = 500;

/// Removes a part of a group's deployments. One that is active ends with `reason` first, so that it can be told.
fn purge(context: &Context<'_>, group_id: &str, reason: ErrorCode) -> Result<Step<()>, ApiError> {
    let find = |sql: &str| -> Result<Option<String>, SqlError> {
        context.tx.query_opt(sql, [group_id], |row| row.get(0))
    };
    let active = "SELECT id FROM deployments
        WHERE group_id = ?1 AND status IN ('Created', 'InProgress', 'Ready') LIMIT 1";
    if let Some(id) = find(active)? {
        let mut outcome = Effects::none(&id);
        if let Some(mut record) = Record::load(context.tx, &id)?.filter(|record| !record.is_over()) {
            let message = "The deployment's group or application was deleted before it ended.";
            let ending = Stop::failure(reason, message).ending();
            record.step(context, DeploymentInput::End { ending, retire_at: None })?;
            let status = record.progress.status();
            let rolls_back = record.rolls_back();
            outcome.changes.push(Change::Ended { status, error: message.into(), rolls_back });
        }
        return Ok(Step::More(Box::new(outcome)));
    }
    let mut room = BATCH;
    while let Some(id) = find("SELECT id FROM deployments WHERE group_id = ?1 ORDER BY created LIMIT 1")? {
        room -= context
            .tx
            .execute(
                "DELETE FROM targets WHERE deployment_id = ?1 AND position IN (
                 SELECT position FROM targets WHERE deployment_id = ?1 ORDER BY position LIMIT ?2)",
                (&id, room),
            )?
            .min(room);
        if room == 0 {
            return Ok(Step::More(Box::new(Effects::none(&id))));
        }
        context.tx.execute("DELETE FROM deployments WHERE id = ?1", [&id])?;
        room -= 1;
    }
    Ok(Step::Done(()))
}
