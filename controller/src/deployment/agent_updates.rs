//! UpdateAgents: the agents of hosts are updated by the commands of their operators, stage by
//! stage.
//!
//! A stage begins when every host of the one before has reported a success; a failure ends the
//! update. All state is rows, so an update survives a restart of the service. [`decide`] alone
//! advances one: after a report, and every second for what nobody reports. The host command
//! UpdateDeploymentAgent is only the answer to a poll that says itself that its agent carries it
//! out: AWS's agents would fetch and install AWS's package.

mod queries;
mod selection;

use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::command::{CommandStatus, Envelope, HostCommand, UPDATE};
use codedeploy_api::controller::{
    AgentUpdateHostStatus as Status, AgentUpdateStatus, StopAgentUpdateOutput, UpdateAgentsOutput,
};

use super::commands::{Offer, unknown};
use super::diagnostics;
use crate::deployment::effects::Effects;
use crate::error::{ApiError, ErrorName};
use crate::fleet::{self, Agent};
use crate::ids::random_text;
use crate::records::Target;
use crate::records::agent_update::{AgentUpdate, UpdatedHost};
use crate::request;
use crate::store::SqlError;
use crate::transaction::Context;
pub use queries::get;
pub(super) use queries::present;
use queries::{find, view};
use selection::{Able, Selection};

/// The beginning of the identifiers of updates, and so of their commands.
const PREFIX: &str = "u-";

/// The number of updates that are kept.
const KEPT: usize = 100;

/// The interval of looks at a host that performs a lifecycle event before its update.
const BUSY: Duration = Duration::from_secs(2);

/// Whether a command of a host belongs to an update.
pub fn is_of_update(command: &str) -> bool {
    command.starts_with(PREFIX)
}

/// Begins an update with its first stage.
pub fn begin(
    context: &Context<'_>,
    request: request::UpdateAgents,
) -> Result<(UpdateAgentsOutput, Effects), ApiError> {
    if let Some(other) = AgentUpdate::in_progress(context.tx)? {
        return Err(ErrorName::AgentUpdateInProgress.because(format!(
            "The update {} is in progress: wait for its end, or stop it.",
            other.id
        )));
    }
    let Selection { able, left_out } = selection::select(context, &request.hosts)?;
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let update = AgentUpdate {
        id: format!("{PREFIX}{}", random_text(letters, 9)?),
        status: AgentUpdateStatus::InProgress,
        at_a_time: request.at_a_time.0,
        is_stopped: false,
        created: context.now,
        created_by: context.caller.map(|caller| caller.arn.clone()),
        ended: None,
    };
    update.insert(context.tx)?;
    AgentUpdate::keep_last(context.tx, KEPT)?;
    for (
        position,
        Able {
            name,
            host,
            version,
        },
    ) in able.into_iter().enumerate()
    {
        let random = random_text(b"abcdefghijklmnopqrstuvwxyz0123456789", 20)?;
        let host = UpdatedHost {
            // The readable part is for people who find it in an agent's folder.
            command: format!("{}.{UPDATE}.{random}", update.id),
            update_id: update.id.clone(),
            position,
            name,
            host,
            status: Status::Waiting,
            since: context.now,
            deadline: None,
            leased: None,
            before: version,
            after: None,
            message: None,
            log: None,
        };
        host.save(context.tx)?;
    }
    tracing::info!(agent_update_id = update.id, "an update of agents begins");
    let mut effects = decide(context)?.unwrap_or_default();
    // The record of the change names it.
    effects.deployment_id.clone_from(&update.id);
    Ok((
        UpdateAgentsOutput {
            agent_update: Some(view(context, find(context, &update.id)?)?),
            left_out: Some(left_out),
        },
        effects,
    ))
}

/// Ends an update when the hosts that perform it have reported; the others are left as they are.
pub fn stop(
    context: &Context<'_>,
    request: request::StopAgentUpdate,
) -> Result<(StopAgentUpdateOutput, Effects), ApiError> {
    let mut update = find(context, &request.agent_update_id)?;
    if update.status == AgentUpdateStatus::InProgress {
        update.is_stopped = true;
        update.save(context.tx)?;
    }
    let effects = decide(context)?.unwrap_or_default();
    let update = find(context, &update.id)?;
    Ok((
        StopAgentUpdateOutput {
            agent_update: Some(view(context, update)?),
        },
        effects,
    ))
}

/// The next move of an update.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Wait,
    /// Begin the next stage.
    Offer,
    /// Begin nothing more, and wait for the hosts that perform it.
    Close,
    End(AgentUpdateStatus),
}

fn next_move<'a>(hosts: impl IntoIterator<Item = &'a Status>, is_stopped: bool) -> Move {
    let (mut waiting, mut open, mut running, mut failed, mut skipped) = Default::default();
    for status in hosts {
        match status {
            Status::Waiting => waiting = true,
            Status::Offered | Status::Fetched => open = true,
            Status::Running => running = true,
            Status::Failed => failed = true,
            Status::Skipped => skipped = true,
            Status::Succeeded | Status::Other(_) => {}
        }
    }
    let is_closing = failed || is_stopped;
    match (running, open, waiting) {
        (true, ..) if is_closing => Move::Close,
        _ if failed => Move::End(AgentUpdateStatus::Failed),
        _ if is_stopped && (open || waiting || skipped) => Move::End(AgentUpdateStatus::Stopped),
        (true, ..) | (_, true, _) => Move::Wait,
        (.., true) => Move::Offer,
        // Also if it was stopped too late to leave a host out.
        _ => Move::End(AgentUpdateStatus::Succeeded),
    }
}

/// Advances the update in progress, if any. Without effects, nothing has changed.
pub fn decide(context: &Context<'_>) -> Result<Option<Effects>, ApiError> {
    let Some(mut update) = AgentUpdate::in_progress(context.tx)? else {
        return Ok(None);
    };
    let mut hosts = update.hosts(context.tx)?;
    let mut is_changed = false;
    for host in hosts.iter_mut().filter(|host| host.is_open()) {
        is_changed |= give_up(context, host)?;
    }
    let mut effects = Effects::default();
    let next = next_move(hosts.iter().map(|host| &host.status), update.is_stopped);
    match &next {
        Move::Wait => {}
        Move::Offer => {
            let stage = hosts
                .iter_mut()
                .filter(|host| host.status == Status::Waiting)
                .take(update.at_a_time);
            for host in stage {
                let deadline = Some(context.now + context.timers.pick_up);
                advance(context, host, Status::Offered, deadline)?;
                effects.hosts.push(host.host.clone());
                is_changed = true;
            }
        }
        Move::Close | Move::End(_) => {
            let left = hosts.iter_mut().filter(|host| {
                matches!(
                    host.status,
                    Status::Waiting | Status::Offered | Status::Fetched
                )
            });
            for host in left {
                advance(context, host, Status::Skipped, None)?;
                is_changed = true;
            }
        }
    }
    if let Move::End(status) = next {
        update.ended = Some(context.now);
        update.status = status;
        update.save(context.tx)?;
        is_changed = true;
        tracing::info!(
            agent_update_id = update.id,
            status = update.status.as_str(),
            "an update of agents has ended"
        );
    }
    Ok(is_changed.then_some(effects))
}

fn advance(
    context: &Context<'_>,
    host: &mut UpdatedHost,
    status: Status,
    deadline: Option<Timestamp>,
) -> Result<(), SqlError> {
    host.status = status;
    host.since = context.now;
    host.deadline = deadline;
    host.leased = None;
    host.save(context.tx)
}

fn fail(
    context: &Context<'_>,
    host: &mut UpdatedHost,
    message: impl Into<String>,
) -> Result<(), SqlError> {
    let message = message.into();
    tracing::warn!(
        agent_update_id = host.update_id,
        host = host.name,
        reason = message,
        "an agent was not updated"
    );
    host.message = Some(message);
    advance(context, host, Status::Failed, None)
}

/// Fails a host that is gone or does not answer. Returns whether it has changed.
fn give_up(context: &Context<'_>, host: &mut UpdatedHost) -> Result<bool, ApiError> {
    if fleet::instance_of_host(context.tx, &host.host)?.as_ref() != Some(&host.name) {
        fail(context, host, "the host was deregistered")?;
        return Ok(true);
    }
    if host.deadline.is_none_or(|deadline| deadline > context.now) {
        return Ok(false);
    }
    let timers = context.timers;
    let (what, limit) = match host.status {
        Status::Running => (
            "its agent began the update and has not reported its end",
            timers.run,
        ),
        // The agent performs one at a time, and a lifecycle event may take long.
        _ if is_busy(context, host)? => {
            host.deadline = Some(context.now + timers.pick_up);
            host.save(context.tx)?;
            return Ok(false);
        }
        Status::Fetched => (
            "its agent fetched the command and has not begun",
            timers.pick_up,
        ),
        _ => ("its agent has not fetched the command", timers.pick_up),
    };
    fail(
        context,
        host,
        format!("{what} after {} minutes", limit.as_secs() / 60),
    )?;
    Ok(true)
}

fn is_busy(context: &Context<'_>, host: &UpdatedHost) -> Result<bool, SqlError> {
    Ok(!Target::busy_of_host(context.tx, &host.host)?.is_empty())
}

/// Leases the command of the update to its host, if it is the host's turn and the agent that polls
/// carries it out.
pub fn lease(
    context: &Context<'_>,
    host: &str,
    agent: &Agent,
) -> Result<(Offer, Option<Effects>), ApiError> {
    let nothing = |again_at| Ok((Offer::Nothing { again_at }, None));
    let Some(mut mine) = UpdatedHost::open_of(context.tx, host)? else {
        return nothing(None);
    };
    match (&mine.status, agent.can_update()) {
        (Status::Offered | Status::Fetched, Some(true)) => {}
        (Status::Offered | Status::Fetched, Some(false)) => {
            fail(context, &mut mine, selection::NO_COMMAND)?;
            return Ok((Offer::Nothing { again_at: None }, decide(context)?));
        }
        _ => return nothing(None),
    }
    if let Some(until) = mine.leased.filter(|until| *until > context.now) {
        return nothing(Some(until));
    }
    if is_busy(context, &mine)? {
        return nothing(Some(context.now + BUSY));
    }
    if mine.status == Status::Offered {
        let deadline = mine.deadline;
        advance(context, &mut mine, Status::Fetched, deadline)?;
    }
    mine.leased = Some(context.now + context.timers.lease);
    mine.save(context.tx)?;
    let command = HostCommand {
        host_command_identifier: mine.command,
        host_identifier: host.to_owned(),
        deployment_execution_id: mine.update_id,
        command_name: UPDATE.to_owned(),
        nonce: i64::try_from(mine.position).unwrap_or(i64::MAX),
    };
    Ok((Offer::Command(command), Some(Effects::default())))
}

/// Returns the status of a command, for its agent.
pub fn current(context: &Context<'_>, host: &str, id: &str) -> Result<CommandStatus, ApiError> {
    Ok(command_status(&of_command(context, host, id)?.status))
}

/// Records that the host begins. The response tells the host to begin, or that the command has
/// ended.
pub fn acknowledge(
    context: &Context<'_>,
    host: &str,
    id: &str,
) -> Result<(CommandStatus, Effects), ApiError> {
    let mut mine = of_command(context, host, id)?;
    if matches!(mine.status, Status::Offered | Status::Fetched) {
        let deadline = Some(context.now + context.timers.run);
        advance(context, &mut mine, Status::Running, deadline)?;
    }
    Ok((command_status(&mine.status), Effects::default()))
}

/// Records the report of the agent that runs at the end of the update. The first report counts.
pub fn complete(
    context: &Context<'_>,
    host: &str,
    agent: &Agent,
    (id, succeeded, report): (&str, bool, Option<&Envelope>),
) -> Result<Effects, ApiError> {
    let mut mine = of_command(context, host, id)?;
    if !mine.is_open() {
        return Ok(Effects::default());
    }
    let report = diagnostics::read(succeeded, report);
    mine.after.clone_from(&agent.version);
    let message = report.message.unwrap_or_default();
    if succeeded {
        tracing::info!(
            agent_update_id = mine.update_id,
            host = mine.name,
            note = message,
            "an agent was updated"
        );
        mine.message = Some(message);
        advance(context, &mut mine, Status::Succeeded, None)?;
    } else {
        mine.log = report.log_tail;
        fail(context, &mut mine, message)?;
    }
    Ok(decide(context)?.unwrap_or_default())
}

/// Gives every host at least a whole pick-up period from `back` on: it could not report while the
/// service was down.
pub fn resume(context: &Context<'_>, back: Timestamp) -> Result<(), ApiError> {
    Ok(UpdatedHost::prolong(
        context.tx,
        back + context.timers.pick_up,
    )?)
}

fn of_command(context: &Context<'_>, host: &str, id: &str) -> Result<UpdatedHost, ApiError> {
    UpdatedHost::of_command(context.tx, host, id)?.ok_or_else(|| unknown(id))
}

fn command_status(status: &Status) -> CommandStatus {
    match status {
        Status::Waiting | Status::Offered | Status::Fetched => CommandStatus::Pending,
        Status::Running => CommandStatus::InProgress,
        Status::Succeeded => CommandStatus::Succeeded,
        // An agent drops a command that is reported as failed.
        Status::Failed | Status::Skipped | Status::Other(_) => CommandStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_begins_after_the_one_before_and_a_failure_ends_the_update() {
        use AgentUpdateStatus::{Failed, Stopped, Succeeded};
        let status = |letter| match letter {
            'w' => Status::Waiting,
            'o' => Status::Offered,
            'f' => Status::Fetched,
            'r' => Status::Running,
            's' => Status::Succeeded,
            '!' => Status::Failed,
            _ => Status::Skipped,
        };
        for (hosts, is_stopped, expected) in [
            ("ww", false, Move::Offer),
            ("ow", false, Move::Wait),
            ("fw", false, Move::Wait),
            ("sr", false, Move::Wait),
            ("sw", false, Move::Offer),
            ("ss", false, Move::End(Succeeded)),
            ("!ro", false, Move::Close),
            ("!sw", false, Move::End(Failed)),
            ("!s", true, Move::End(Failed)),
            ("srw", true, Move::Close),
            ("sfw", true, Move::End(Stopped)),
            ("ss-", true, Move::End(Stopped)),
            ("ss", true, Move::End(Succeeded)),
        ] {
            let all: Vec<Status> = hosts.chars().map(status).collect();
            assert_eq!(
                next_move(&all, is_stopped),
                expected,
                "{hosts} {is_stopped}"
            );
        }
    }
}
