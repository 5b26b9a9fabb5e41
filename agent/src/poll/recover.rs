//! The obligations of earlier runs, handled before the first poll (spec: Durability): outcomes are
//! reported, a DownloadBundle or Install runs again, and a script never runs a second time.

use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::{Outcome, Report};
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tracing::{Instrument, Span};

use super::{Agent, Commands, received, span_of, update};
use crate::cli::rollback::notice;
use crate::deployment::ledger::{Begun, DeploymentNames, Entry, ForeignCommand, Ledger, Left};
use crate::deployment::rollback::{self, journal::Journal};
use crate::deployment::{slots, survivors};
use crate::deployment_root::Store;
use crate::recovery;
use crate::report;
use crate::shutdown::Shutdown;
use codedeploy_api::chain::Chain;

/// A command during which the agent crashed this many times is not resumed.
const MAX_STARTS: u32 = 3;

/// A command that was received longer ago does not run again: only its outcome is reported, and the
/// service decides whether that is too late. So a wrong clock may cost a repetition, but never an
/// outcome.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The fate of a command that was in progress.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// From its beginning; earlier progress does not count.
    Again,
    Over(Outcome),
}

/// `done`: its work was completed, but not recorded as such.
fn decide(entry: &Entry, done: bool, now: OffsetDateTime) -> Decision {
    let (record, event) = (entry.record(), entry.event());
    if done {
        return Decision::Over(Outcome::Succeeded { note: None });
    }
    let repeatable = match record.begun {
        None => true,
        Some(_) if now - record.received_at > STALE_AFTER => false,
        Some(_) => matches!(
            event,
            LifecycleEvent::DownloadBundle | LifecycleEvent::Install
        ),
    };
    if !repeatable {
        return Decision::Over(interrupted());
    }
    if record.starts < MAX_STARTS {
        return Decision::Again;
    }
    Decision::Over(Outcome::Error {
        message: format!(
            "the agent ended unexpectedly each of the {} times that it began {event}, and does not try again; see the \
             ends of its log before each restart, and the system's log",
            record.starts
        ),
    })
}

fn interrupted() -> Outcome {
    let message = "the agent was restarted while this lifecycle event was in progress, so its outcome is unknown";
    Outcome::FailedAfterRestart {
        message: message.into(),
    }
}

/// Resumes the commands of earlier runs. When this returns, all of them are known, and those of a
/// deployment group precede all later deliveries.
pub(super) async fn recover(agent: &Arc<Agent>, commands: &mut Commands, shutdown: &Shutdown) {
    let (store, ledger) = (agent.host.store().clone(), agent.ledger.clone());
    let span = Span::current();
    let found = spawn_blocking(move || span.in_scope(|| look(&store, &ledger))).await;
    let (left, mut rollbacks, recovered) = found.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read the commands of earlier runs; the next start tries again");
        Default::default()
    });
    agent.host.measure(|metrics| metrics.recovered(recovered));
    slots::switch::recover(&agent.host, &shutdown.end_running).await;
    for outgoing in left.outcomes {
        let ended = &outgoing.ended;
        tracing::info!(
            deployment_id = ended.deployment_id.as_ref().map(tracing::field::display),
            lifecycle_event = ended.lifecycle_event,
            "reporting an outcome that an earlier run could not report"
        );
        let _ = agent
            .seen
            .delivered(&ended.completion.host_command_identifier);
        let (agent, shutdown) = (Arc::clone(agent), shutdown.clone());
        commands.spawn(async move { agent.tell(outgoing, true, &shutdown).await });
    }
    for entry in left.reported {
        leave_to_another(agent, entry);
    }
    for entry in left.interrupted {
        let id = &entry.command().host_command_identifier;
        let _ = agent.seen.delivered(id);
        match rollbacks
            .iter()
            .position(|journal| journal.cause.command.as_ref() == Some(id))
        {
            Some(position) => {
                let journal = rollbacks.swap_remove(position);
                finish_rollback(agent, Some(entry), journal, commands, shutdown);
            }
            None => take_up(agent, entry, commands, shutdown),
        }
    }
    for journal in rollbacks {
        match journal.done() {
            // The outcome of its command is recorded, and mentions it.
            Some(_) if journal.cause.command.is_some() => journal.remove(),
            _ => finish_rollback(agent, None, journal, commands, shutdown),
        }
    }
    update::recover(agent, commands, shutdown);
    for foreign in left.foreign {
        let _ = agent.seen.delivered(&foreign.host_command_identifier);
        answer(agent, &foreign, commands, shutdown);
    }
}

/// Ends interrupted Installs, and reads the other records of earlier runs. Blocks.
fn look(store: &Store, ledger: &Ledger) -> (Left, Vec<Journal>, usize) {
    let recovered = match recovery::at_start(store) {
        Ok(recovered) => recovered.len(),
        Err(error) => {
            tracing::error!("{}; the next Install tries again", Chain(&error));
            0
        }
    };
    let rollbacks = Journal::left(store).unwrap_or_else(|error| {
        tracing::error!("{}; interrupted rollbacks are not finished", Chain(&error));
        Vec::new()
    });
    (ledger.left(), rollbacks, recovered)
}

/// Drops a command that another agent has reported while this one did not run.
fn leave_to_another(agent: &Agent, entry: Entry) {
    let span = span_of(entry.command());
    let _entered = span.enter();
    let outcome = interrupted();
    tracing::warn!(%outcome, "a restart of the agent interrupted the command; another agent took over and reported it");
    if let Some(begun) = &entry.record().begun {
        account_for(agent, entry.event(), begun, &outcome);
    }
    agent.ledger.forget(entry);
}

fn take_up(agent: &Arc<Agent>, entry: Entry, commands: &mut Commands, shutdown: &Shutdown) {
    let record = entry.record();
    let span = span_of(&record.command);
    let _entered = span.enter();
    let (agent, shutdown) = (Arc::clone(agent), shutdown.clone());
    let done = has_installed(&agent, &entry) || has_switched(&agent, &entry);
    match decide(&entry, done, OffsetDateTime::now_utc()) {
        Decision::Again => {
            tracing::warn!(
                starts = record.starts,
                "a restart of the agent interrupted the command; it begins again"
            );
            let task = async move { received::take_up(&agent, entry, &shutdown).await };
            commands.spawn(task.instrument(span.clone()));
        }
        Decision::Over(outcome) => {
            tracing::warn!(%outcome, "a restart of the agent interrupted the command; it does not begin again");
            if let Some(begun) = &record.begun {
                account_for(&agent, entry.event(), begun, &outcome);
            }
            let task = async move {
                let id = entry.command().host_command_identifier.clone();
                let mut report = Report {
                    outcome,
                    log_tail: String::new(),
                    scripts: Vec::new(),
                };
                if let Some(about) = entry.about().filter(|_| !report.outcome.succeeded()) {
                    let stop = shutdown.end_running.clone();
                    report =
                        rollback::after_failure(&agent.host, about, Some(&id), report, stop).await;
                }
                received::report(&agent, entry, report, &shutdown).await;
            };
            commands.spawn(task.instrument(span.clone()));
        }
    }
}

/// Finishes a rollback that an earlier run, or another process, left unfinished, and reports it.
fn finish_rollback(
    agent: &Arc<Agent>,
    entry: Option<Entry>,
    mut journal: Journal,
    commands: &mut Commands,
    shutdown: &Shutdown,
) {
    let (agent, shutdown) = (Arc::clone(agent), shutdown.clone());
    let span = entry
        .as_ref()
        .map_or_else(Span::current, |entry| span_of(entry.command()));
    let task = async move {
        let about = journal.cause.about.clone();
        let turn = agent.groups.lock(about.deployment_group_id.clone()).await;
        let words = rollback::finish(&agent.host, &mut journal, shutdown.end_running.clone()).await;
        agent.status.rolled_back(&about, &words);
        let failure = journal.cause.failure.clone();
        let (Some(entry), Some(failure)) = (entry, failure) else {
            // Nothing failed: a person requested it.
            let by_hand = journal.cause.failure.is_none();
            match by_hand
                .then(|| notice::keep(agent.host.store(), &journal, &words))
                .transpose()
            {
                Ok(_) => journal.remove(),
                Err(error) => {
                    tracing::warn!("{}; the next start tries again", Chain(&error))
                }
            }
            return;
        };
        let id = &entry.command().host_command_identifier;
        let completion = report::failed_and_rolled_back(id, failure, &words);
        let outgoing = agent.ledger.end(entry, completion);
        journal.remove();
        drop(turn);
        agent.tell(outgoing, false, &shutdown).await;
    };
    commands.spawn(task.instrument(span));
}

/// Whether the command is an Install that has put all files in place: its deployment has a
/// completed Install that it did not have when the command began. The clock does not matter.
fn has_installed(agent: &Agent, entry: &Entry) -> bool {
    let Some(begun) = &entry.record().begun else {
        return false;
    };
    let DeploymentNames {
        deployment_id,
        deployment_group_id,
        ..
    } = &begun.about;
    let completed = || {
        agent
            .host
            .store()
            .completed_install(deployment_group_id, deployment_id)
    };
    *entry.event() == LifecycleEvent::Install
        && completed().is_some_and(|completed| begun.completed_before != Some(completed))
}

/// Whether the command is a ValidateService after which the deployment serves from its slot: only
/// its success leads to the switch.
fn has_switched(agent: &Agent, entry: &Entry) -> bool {
    let Some(begun) = &entry.record().begun else {
        return false;
    };
    let (store, about) = (agent.host.store(), &begun.about);
    let folder = store.deployment(&about.deployment_group_id, &about.deployment_id);
    *entry.event() == LifecycleEvent::ValidateService
        && slots::placed::serves(store, &about.deployment_group_id, &folder)
}

/// Reports a command that an earlier run began and that does not run again.
fn account_for(agent: &Agent, event: &LifecycleEvent, begun: &Begun, outcome: &Outcome) {
    let about = &begun.about;
    agent
        .status
        .began_at(event, about, begun.began_at)
        .ended(outcome);
    for survivor in survivors::of(&about.deployment_id, event) {
        tracing::warn!(
            deployment_id = %about.deployment_id,
            pid = survivor.pid,
            "{survivor} was started by {event} and still runs; it is left alone"
        );
    }
}

/// Reports a command that is known only by its identifier.
fn answer(
    agent: &Arc<Agent>,
    foreign: &ForeignCommand,
    commands: &mut Commands,
    shutdown: &Shutdown,
) {
    let outcome = interrupted();
    tracing::warn!(deployment_id = foreign.deployment_id, %outcome, "a restart of an agent interrupted the command");
    let report = Report {
        outcome,
        log_tail: String::new(),
        scripts: Vec::new(),
    };
    let completion = report::completion(&foreign.host_command_identifier, &report);
    let outgoing = agent.ledger.end_foreign(foreign, completion);
    let (agent, shutdown) = (Arc::clone(agent), shutdown.clone());
    commands.spawn(async move { agent.tell(outgoing, false, &shutdown).await });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(event: &str, begun: bool, starts: u32) -> Entry {
        let command = json!({"HostCommandIdentifier": "c", "CommandName": event});
        let mut record = json!({
            "version": 1, "command": command, "received_at": "2026-11-23T00:00:00Z", "starts": starts
        });
        if begun {
            record["begun"] = json!({
                "began_at": "2026-11-23T00:00:01Z", "deployment_id": "d-1", "deployment_group_id": "g",
                "deployment_group": "web", "application": "shop",
                "specification": {"Format": "PKCS7/JSON", "Payload": ""}
            });
        }
        Entry::read(serde_json::from_value(record).unwrap()).unwrap()
    }

    #[test]
    fn only_scripts_that_began_are_not_begun_again_and_nothing_is_a_fourth_time() {
        const AGAIN: Option<u8> = None;
        let received = entry("Install", true, 1).record().received_at;
        let cases = [
            ("Install", false, [AGAIN, AGAIN, Some(5)]),
            ("Install", true, [AGAIN, AGAIN, Some(5)]),
            ("DownloadBundle", true, [AGAIN, AGAIN, Some(5)]),
            ("ApplicationStart", false, [AGAIN, AGAIN, Some(5)]),
            ("ApplicationStart", true, [Some(7); 3]),
            ("Custom", true, [Some(7); 3]),
        ];
        for (event, begun, expected) in cases {
            let decided = [1, 2, 3].map(|starts| {
                match decide(&entry(event, begun, starts), false, received) {
                    Decision::Again => AGAIN,
                    Decision::Over(outcome) => Some(u8::from(outcome.code())),
                }
            });
            assert_eq!(decided, expected, "{event}, begun: {begun}");
        }
        let installed = decide(&entry("Install", true, 3), true, received);
        assert_eq!(installed, Decision::Over(Outcome::Succeeded { note: None }));
        let days_later = received + Duration::from_secs(2 * 24 * 3600);
        assert_eq!(
            decide(&entry("Install", true, 1), false, days_later),
            Decision::Over(interrupted())
        );
        assert_eq!(
            decide(&entry("Install", false, 1), false, days_later),
            Decision::Again
        );
    }
}
