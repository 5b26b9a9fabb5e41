//! The changes of traffic that the service makes at load balancers: its own lifecycle events.

use std::collections::{HashMap, HashSet};

use codedeploy_api::codedeploy::{Diagnostics, LifecycleErrorCode, Timestamp};
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_planner::event_state::{EventInput, EventState};

use super::commands;
use crate::deployment::effects::Effects;
use crate::error::ApiError;
use crate::records::command::{Command, SERVICE};
use crate::records::{Record, Target, set_aside};
use crate::transaction::Context;

/// The change of an instance's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Direction {
    #[serde(rename = "BlockTraffic")]
    Block,
    #[serde(rename = "AllowTraffic")]
    Allow,
}

/// The origin of a change of traffic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    /// A lifecycle event of a deployment.
    Event {
        /// Identifies the event for [`complete`].
        command: String,
        deployment_id: String,
    },
    /// The wish of an operator ([`drain`](super::drain)).
    Drain { arn: String, group_id: String },
}

/// A change of traffic that the service makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub work: Work,
    pub application: String,
    pub group: String,
    /// The instance's name, which is a target's id.
    pub instance: String,
    pub direction: Direction,
    /// The load balancers of the deployment group, by name.
    pub balancers: Vec<String>,
    /// The time of its beginning, perhaps in an earlier run of the service.
    pub since: Timestamp,
}

/// The number of commands that one transaction examines. Hosts wait meanwhile.
const BATCH: usize = 250;

/// A part of the jobs.
#[derive(Debug, Default)]
pub struct Taken {
    pub jobs: Vec<Job>,
    pub effects: Vec<Effects>,
    /// The place to continue from, if there are more.
    pub next: Option<i64>,
}

/// Takes the next jobs that have not begun, those after `after`; sequence numbers begin with 1.
pub fn take(context: &Context<'_>, after: i64) -> Result<Taken, ApiError> {
    let commands = Command::offered_here(context.tx, after, BATCH)?;
    each(context, commands, |record, target, command, state| {
        if !state.is_offered() || commands::is_over(context, record, target) {
            return Ok(None);
        }
        let effects = commands::advance(context, command, record, target, EventInput::Acknowledge)?;
        Ok(Some((context.now, Some(effects))))
    })
}

/// Returns the next jobs that an earlier run of the service began and did not end.
pub fn begun(context: &Context<'_>, after: i64) -> Result<Taken, ApiError> {
    let commands = Command::begun_here(context.tx, after, BATCH)?;
    each(context, commands, |_, _, _, state| match state {
        EventState::Acknowledged { since, .. } => Ok(Some((since, None))),
        _ => Ok(None),
    })
}

/// Returns those of the jobs that nobody waits for any more: their event has ended, or the
/// deployment is gone.
pub fn abandoned(context: &Context<'_>, mut jobs: Vec<String>) -> Result<Vec<String>, ApiError> {
    let mut wanted = HashSet::new();
    for job in &jobs {
        if Command::is_wanted_here(context.tx, job)? {
            wanted.insert(job.clone());
        }
    }
    jobs.retain(|job| !wanted.contains(job));
    Ok(jobs)
}

/// Makes jobs of commands; `begin` returns the time of their beginning.
fn each(
    context: &Context<'_>,
    commands: Vec<Command>,
    begin: impl Fn(
        &Record,
        &mut Target,
        &Command,
        EventState,
    ) -> Result<Option<(Timestamp, Option<Effects>)>, ApiError>,
) -> Result<Taken, ApiError> {
    let next = commands
        .last()
        .filter(|_| commands.len() == BATCH)
        .map(|last| last.sequence);
    let mut taken = Taken {
        next,
        ..Taken::default()
    };
    let mut records = HashMap::new();
    for command in commands {
        // An unreadable record must not keep other instances from their traffic.
        let (record, mut target) = match look_up(context, &mut records, &command) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(deployment_id = command.deployment_id, %error, "a change of traffic cannot be read");
                continue;
            }
        };
        let Some(event) = target.state.events.get(command.event).cloned() else {
            continue;
        };
        let Some((since, effects)) = begin(record, &mut target, &command, event.state)? else {
            continue;
        };
        taken.effects.extend(effects);
        taken.jobs.push(Job {
            work: Work::Event {
                command: command.id,
                deployment_id: record.id.clone(),
            },
            application: record.application_name.clone(),
            group: record.group_name.clone(),
            instance: target.member.name,
            direction: match event.name {
                LifecycleEvent::BlockTraffic => Direction::Block,
                _ => Direction::Allow,
            },
            balancers: record.load_balancers(),
            since,
        });
    }
    Ok(taken)
}

fn look_up<'a>(
    context: &Context<'_>,
    records: &'a mut HashMap<String, Record>,
    command: &Command,
) -> Result<Option<(&'a Record, Target)>, ApiError> {
    let id = &command.deployment_id;
    if !records.contains_key(id) {
        records.extend(Record::load(context.tx, id)?.map(|record| (id.clone(), record)));
    }
    let target = match Target::at(context.tx, id, command.target) {
        Err(damage) if damage.is_damage() => {
            set_aside(context.tx, id, &damage.to_string(), context.now)?;
            records.remove(id);
            None
        }
        found => found?,
    };
    Ok(records
        .get(id)
        .filter(|record| !record.is_over())
        .zip(target))
}

/// Records the end of a job: with a remark for people, or with the error.
pub fn complete(
    context: &Context<'_>,
    command: &str,
    result: Result<String, String>,
) -> Result<Effects, ApiError> {
    let (succeeded, error_code, message) = match result {
        Ok(remark) => (true, LifecycleErrorCode::Success, remark),
        Err(reason) => (false, LifecycleErrorCode::UnknownError, reason),
    };
    let diagnostics = Diagnostics {
        error_code: Some(error_code),
        script_name: Some(String::new()),
        message: Some(message),
        log_tail: Some(String::new()),
    };
    commands::finish(context, SERVICE, command, succeeded, diagnostics)
}
