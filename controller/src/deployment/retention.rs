//! Deletes finished deployments that are old, with their targets and the logs of their scripts.
//!
//! A deployment that something refers to stays: the last one and the last successful one of its
//! group, those that a rollback would return to, the last one on each of its instances, and those
//! that an unfinished one needs.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::Timestamp;

use super::reversal;
use crate::config::retention::DeploymentRetention;
use crate::error::ApiError;
use crate::records::listing::Made;
use crate::records::script_log::ScriptLog;
use crate::records::{Record, Target, history, state_changes, unfinished};
use crate::store::{SqlError, Tx};
use crate::transaction::Context;

/// The number of deployments that one transaction looks at.
const LOOKED_AT: usize = 50;

/// The number of targets, each with its commands, that one transaction deletes.
const TARGETS: usize = 500;

/// The number of commands whose whole output one transaction deletes.
const LOGS: usize = 20;

/// The work in one group.
#[derive(Debug)]
pub struct Pruning {
    group_id: String,
    kept: BTreeSet<String>,
    /// The time before which deployments have ended.
    ended_before: Option<Timestamp>,
    /// The deployments between these are looked at.
    after: Made,
    before: Made,
}

/// The result of one transaction.
#[derive(Debug)]
pub struct Pruned {
    pub deployments: usize,
    /// The rest of the work, if there is any.
    pub rest: Option<Pruning>,
}

/// Returns the ids of all groups.
pub fn groups(context: &Context<'_>) -> Result<Vec<String>, ApiError> {
    Ok(history::groups(context.tx)?)
}

/// Finds the work in a group, if there is any. This only reads.
pub fn work(
    context: &Context<'_>,
    settings: DeploymentRetention,
    group_id: &str,
) -> Result<Option<Pruning>, ApiError> {
    let ended_before = settings.age.map(|age| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(context.now.millis().saturating_sub(age))
    });
    let mut before = ended_before.map_or((i64::MAX, i64::MAX), |time| (time.millis(), 0));
    if let Some(number) = settings.per_group {
        match history::nth_newest(context.tx, group_id, number)? {
            Some(oldest_kept) => before = before.min(oldest_kept),
            None => return Ok(None),
        }
    }
    let mut work = Pruning {
        group_id: group_id.to_owned(),
        kept: BTreeSet::new(),
        ended_before,
        after: (i64::MIN, i64::MIN),
        before,
    };
    if work.candidates(context.tx, 1)?.is_empty() {
        return Ok(None);
    }
    work.kept
        .extend(history::last_on_hosts(context.tx, group_id)?);
    work.kept.extend(reversal::needed(context, group_id)?);
    Ok(Some(work))
}

impl Pruning {
    fn candidates(&self, tx: &Tx<'_>, most: usize) -> Result<Vec<(Made, String)>, SqlError> {
        history::oldest(tx, &self.group_id, self.after, self.before, most)
    }

    /// Deletes a part of the deployments.
    pub fn prune(mut self, context: &Context<'_>) -> Result<Pruned, ApiError> {
        let needed = needed_now(context.tx, &self.group_id)?;
        let candidates = self.candidates(context.tx, LOOKED_AT)?;
        let is_last = candidates.len() < LOOKED_AT;
        let mut deployments = 0;
        let (mut room, mut logs) = (TARGETS, LOGS);
        for (made, id) in candidates {
            if !self.kept.contains(&id) && !needed.contains(&id) && self.is_over(context, &id)? {
                logs -= ScriptLog::delete(context.tx, &id, logs)?.min(logs);
                if logs > 0 {
                    room -= Target::delete(context.tx, &id, room)?.min(room);
                }
                if logs == 0 || room == 0 {
                    return Ok(Pruned {
                        deployments,
                        rest: Some(self),
                    });
                }
                Record::delete(context.tx, &id)?;
                deployments += 1;
            }
            self.after = made;
        }
        Ok(Pruned {
            deployments,
            rest: (!is_last).then_some(self),
        })
    }

    /// Whether a deployment ended long enough ago, and everyone was told.
    fn is_over(&self, context: &Context<'_>, id: &str) -> Result<bool, ApiError> {
        let Some(record) = Record::load(context.tx, id)? else {
            return Ok(false);
        };
        let ended = record.progress.completed();
        let is_old = match self.ended_before {
            Some(before) => ended.is_some_and(|ended| ended < before),
            None => ended.is_some(),
        };
        Ok(is_old
            && record.progress.retire_at().is_none()
            && !state_changes::are_pending(context.tx, id)?)
    }
}

/// The deployments that may have become needed since the work was found.
fn needed_now(tx: &Tx<'_>, group_id: &str) -> Result<BTreeSet<String>, ApiError> {
    let mut needed: BTreeSet<String> = history::named_by_group(tx, group_id)?.into_iter().collect();
    if let Some(id) = unfinished::of_group(tx, group_id)?
        && let Some(record) = Record::load(tx, &id)?
    {
        needed.extend(record.rolls_back());
        let relations = record.relations;
        needed.extend(relations.takes_back);
        needed.extend(relations.reuse_archive_from);
        needed.extend(relations.taken_back.into_values().flatten());
    }
    Ok(needed)
}
