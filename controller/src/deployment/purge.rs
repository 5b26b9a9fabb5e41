//! Removes the deployments of a group that is to be deleted, a bounded part in each transaction: others wait meanwhile,
//! and a group can have millions of rows.

use codedeploy_api::codedeploy::ErrorCode;
use rusqlite::OptionalExtension as _;

use super::decide::Outcome;
use super::log::Change;
use super::progress::{DeploymentInput, Stop};
use super::records::Record;
use crate::error::ApiError;
use crate::registry::Context;

/// Most targets, each with its commands, that one transaction removes.
const BATCH: usize = 500;

/// What one transaction did.
#[derive(Debug)]
pub enum Purged {
    /// A part, or the first that there was to do: it ended a deployment. There may be more.
    Part(Box<Outcome>),
    /// The group has no deployment.
    All,
}

/// Removes a part of a group's deployments. One that is active ends with `reason` first, so that it can be told.
pub fn purge(context: &Context<'_>, group_id: &str, reason: ErrorCode) -> Result<Purged, ApiError> {
    let find = |sql: &str| -> rusqlite::Result<Option<String>> {
        context.tx.prepare_cached(sql)?.query_row([group_id], |row| row.get(0)).optional()
    };
    let active = "SELECT id FROM deployments
        WHERE group_id = ?1 AND status IN ('Created', 'InProgress', 'Ready') LIMIT 1";
    if let Some(id) = find(active)? {
        let mut outcome = Outcome::none(&id);
        if let Some(mut record) = Record::load(context.tx, &id)?.filter(|record| !record.is_over()) {
            let message = "The deployment's group or application was deleted before it ended.";
            let ending = Stop::failure(reason, message).ending();
            record.step(context, DeploymentInput::End { ending, retire_at: None })?;
            let status = record.progress.status();
            let rolls_back = record.rolls_back();
            outcome.changes.push(Change::Ended { status, error: message.into(), rolls_back });
        }
        return Ok(Purged::Part(Box::new(outcome)));
    }
    let mut room = BATCH;
    while let Some(id) = find("SELECT id FROM deployments WHERE group_id = ?1 ORDER BY created LIMIT 1")? {
        let mut statement = context.tx.prepare_cached(
            "DELETE FROM targets WHERE deployment_id = ?1 AND position IN (
                 SELECT position FROM targets WHERE deployment_id = ?1 ORDER BY position LIMIT ?2)",
        )?;
        room -= statement.execute((&id, room))?.min(room);
        if room == 0 {
            return Ok(Purged::Part(Box::new(Outcome::none(&id))));
        }
        context.tx.prepare_cached("DELETE FROM deployments WHERE id = ?1")?.execute([&id])?;
        room -= 1;
    }
    Ok(Purged::All)
}
