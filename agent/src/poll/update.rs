//! `UpdateDeploymentAgent`: acknowledge → order → run → complete. The agent may be restarted at any
//! time in between; the next one goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codedeploy_api::command::{
    CommandStatus, Envelope, HostCommand, PutHostCommandAcknowledgementInput,
};
use codedeploy_api::diagnostics::AcknowledgementPayload;
use codedeploy_hooks::script::{Outcome, Report};
use tracing::Instrument;

use super::{Agent, Commands, MAX_COMMANDS};
use crate::command::{CallError, Persistence};
use crate::deployment::failed;
use crate::report;
use crate::shutdown::Shutdown;
use crate::systemd;
pub(super) use crate::update::COMMAND;
use crate::update::launch::{LaunchError, launch};
use crate::update::{Ending, Folder, LIMIT, Order, State, UpdateError};
use crate::version;

/// The interval between looks at the result.
const POLL: Duration = Duration::from_millis(500);

/// The time for which no runner is seen before it counts as gone: it may be about to start.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// The time for which an acknowledgement is tried.
const WANTED: Duration = Duration::from_secs(3600);

/// The reason why an update did not begin.
#[derive(Debug, thiserror::Error)]
enum RefusedError {
    #[error("the update cannot be acknowledged")]
    Acknowledge(#[source] CallError),
    #[error("an update is in progress")]
    Busy,
    #[error(transparent)]
    Record(#[from] UpdateError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// The fate of an update that was asked for.
enum Begun {
    Runs(Order),
    /// The service has ended it before, or did not answer.
    Unwanted,
}

/// Runs the operator's command when no other command is in progress, and reports its end.
pub(super) async fn carry_out(
    agent: &Agent,
    command: HostCommand,
    command_line: String,
    shutdown: &Shutdown,
) {
    let id = command.host_command_identifier;
    // Permits for all places: a restart in the middle of a lifecycle event could fail the event.
    let alone = tokio::select! {
        biased;
        () = shutdown.no_more_work.cancelled() => None,
        places = agent.places.acquire_many(places()) => places.ok(),
    };
    if alone.is_none() {
        return agent.seen.ended(&id, None);
    }
    match begin(agent, &id, command_line, shutdown).await {
        Ok(Begun::Runs(order)) => see_through(agent, order, shutdown).await,
        Ok(Begun::Unwanted) => agent.seen.ended(&id, None),
        Err(error) => {
            let report = failed(&error);
            tracing::error!(outcome = %report.outcome, "the agent is not updated");
            end(agent, &id, &report, shutdown).await;
        }
    }
}

/// Resumes the update of an earlier run of the agent, if any.
pub(super) fn recover(agent: &Arc<Agent>, commands: &mut Commands, shutdown: &Shutdown) {
    let folder = Folder::of(agent.host.store());
    let Some(order) = folder.order() else {
        return;
    };
    let id = &order.host_command_identifier;
    if agent.ledger.has_ended(id) {
        return folder.remove();
    }
    tracing::info!("the agent was restarted during its update");
    let _ = agent.seen.delivered(id);
    let (agent, shutdown) = (Arc::clone(agent), shutdown.clone());
    let task = async move {
        let alone = agent.places.acquire_many(places()).await;
        see_through(&agent, order, &shutdown).await;
        drop(alone);
    };
    commands.spawn(task.in_current_span());
}

fn places() -> u32 {
    u32::try_from(MAX_COMMANDS).unwrap_or(u32::MAX)
}

async fn begin(
    agent: &Agent,
    id: &str,
    command_line: String,
    shutdown: &Shutdown,
) -> Result<Begun, RefusedError> {
    let store = agent.host.store();
    let folder = Folder::of(store);
    if folder.order().is_some() {
        return Err(RefusedError::Busy);
    }
    let noop = AcknowledgementPayload {
        is_command_noop: false,
    };
    let input = PutHostCommandAcknowledgementInput {
        host_command_identifier: id.to_owned(),
        diagnostics: Some(Envelope {
            format: Envelope::JSON.into(),
            payload: serde_json::to_string(&noop).unwrap_or_default(),
        }),
    };
    let persistence = Persistence::Delivered {
        end: &shutdown.no_more_work,
        until: Instant::now() + WANTED,
    };
    let answer = agent.service.call_persistently(&input, persistence).await;
    let Some(answer) = answer.transpose().map_err(RefusedError::Acknowledge)? else {
        return Ok(Begun::Unwanted);
    };
    if let Some(CommandStatus::Succeeded | CommandStatus::Failed) = answer.command_status {
        return Ok(Begun::Unwanted);
    }
    tracing::info!(command_line, "the agent's update begins");
    let order = Order::new(id.to_owned(), command_line, version::reported());
    folder.begin(store, &order)?;
    launch(&folder).await?;
    Ok(Begun::Runs(order))
}

/// Waits for the end of the operator's command and reports it. A shutdown leaves that to the next
/// agent.
async fn see_through(agent: &Agent, order: Order, shutdown: &Shutdown) {
    systemd::status("the agent is updated");
    let folder = Folder::of(agent.host.store());
    let mut missing_since: Option<Instant> = None;
    let report = loop {
        match folder.state() {
            State::Ended(ended) => {
                break Report {
                    outcome: outcome(&ended.ending, &order),
                    log_tail: ended.output,
                    scripts: Vec::new(),
                };
            }
            State::Running => missing_since = None,
            State::Gone => {
                let since = *missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > STARTS_WITHIN {
                    break unknown();
                }
            }
        }
        tokio::select! {
            biased;
            () = shutdown.no_more_work.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    };
    if report.outcome.succeeded() {
        tracing::info!("{}", report.outcome);
    } else {
        tracing::error!("{}", report.outcome);
    }
    end(agent, &order.host_command_identifier, &report, shutdown).await;
}

/// Records the outcome, and reports it.
async fn end(agent: &Agent, id: &str, report: &Report, shutdown: &Shutdown) {
    let outgoing = agent
        .ledger
        .end_unbegun(COMMAND, report::completion(id, report));
    let folder = Folder::of(agent.host.store());
    let is_ours = folder
        .order()
        .is_some_and(|order| order.host_command_identifier == id);
    if outgoing.is_safe() && is_ours {
        folder.remove();
    }
    agent.tell(outgoing, false, shutdown).await;
}

fn outcome(ending: &Ending, order: &Order) -> Outcome {
    let message = match ending {
        Ending::ExitCode(0) => {
            let (before, now) = (&order.agent_version, version::reported());
            let note = if before == now {
                format!("the update command succeeded; the agent's version is {now}")
            } else {
                format!(
                    "the update command succeeded; the agent's version is {now}, after {before}"
                )
            };
            return Outcome::Succeeded { note: Some(note) };
        }
        Ending::ExitCode(code) => format!("the update command ended with exit code {code}"),
        Ending::Signal(signal) => format!("the update command was ended by signal {signal}"),
        Ending::TimedOut => format!(
            "the update command was ended after {} minutes",
            LIMIT.as_secs() / 60
        ),
        Ending::NotStarted(reason) => format!("the update command cannot be started: {reason}"),
    };
    Outcome::Error { message }
}

fn unknown() -> Report {
    let message = "the update command was interrupted, so its outcome is unknown";
    Report {
        outcome: Outcome::FailedAfterRestart {
            message: message.into(),
        },
        log_tail: String::new(),
        scripts: Vec::new(),
    }
}
