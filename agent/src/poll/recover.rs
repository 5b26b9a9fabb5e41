//! What the agent owes from its earlier runs, taken up before the first poll (spec: Durability): outcomes are told,
//! a DownloadBundle or Install is done again, and a script is never run a second time.

use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::{Outcome, Report};
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tracing::Instrument;

use super::{Agent, Commands, span_of};
use crate::cli::rollback::notice;
use crate::deployment::ledger::{About, Bare, Begun, Entry, InProgress};
use crate::deployment::rollback::journal::Journal;
use crate::deployment::survivors;
use crate::errors::Chain;
use crate::recovery;
use crate::report;
use crate::shutdown::Shutdown;

/// A command with which the agent ended unexpectedly so often is not taken up once more.
const MAX_STARTS: u32 = 3;

/// A command that was received longer ago is not done again: only how it ended is told, and the service says whether that
/// is too late. A wrong clock costs a repetition that way, never an outcome.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What becomes of a command that was in progress.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// From its beginning; nothing that it did so far counts.
    Again,
    Over(Outcome),
}

/// `installed`: its Install came to its end, and only nobody took note of it.
fn decide(record: &InProgress, installed: bool, now: OffsetDateTime) -> Decision {
    let name = &record.command.command_name;
    if installed {
        return Decision::Over(Outcome::Succeeded { note: None });
    }
    let repeatable = match record.begun {
        None => true,
        Some(_) if now - record.received_at > STALE_AFTER => false,
        Some(_) => matches!(name.parse(), Ok(LifecycleEvent::DownloadBundle | LifecycleEvent::Install)),
    };
    match repeatable {
        false => Decision::Over(interrupted()),
        true if record.starts < MAX_STARTS => Decision::Again,
        true => Decision::Over(Outcome::Error {
            message: format!(
                "the agent ended unexpectedly each of the {} times that it took up {name}, and does not try it again; \
                 the ends of its log before each restart, and the system's log, say more",
                record.starts
            ),
        }),
    }
}

fn interrupted() -> Outcome {
    let message =
        "the agent was restarted while this lifecycle event was in progress, so its outcome is unknown";
    Outcome::FailedAfterRestart { message: message.into() }
}

impl Agent {
    /// Takes up what earlier runs left. When this returns, every command of theirs is known, and those of a deployment
    /// group are ahead of all that will be delivered.
    pub(super) async fn recover(self: &Arc<Self>, commands: &mut Commands, shutdown: &Shutdown) {
        let store = self.host.store.clone();
        let files = spawn_blocking(move || recovery::at_start(&store)).await;
        if let Ok(Err(error)) = files {
            tracing::error!("{}; the next Install tries again", Chain(&error));
        }
        let left = self.ledger.left();
        for outgoing in left.outcomes {
            let ended = &outgoing.ended;
            tracing::info!(
                deployment_id = ended.deployment_id.as_ref().map(tracing::field::display),
                lifecycle_event = ended.lifecycle_event,
                "an outcome that an earlier run could not report is reported now"
            );
            let _ = self.known.delivered(&ended.completion.host_command_identifier);
            let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
            commands.spawn(async move { agent.tell(outgoing, true, &shutdown).await });
        }
        let mut rollbacks = Journal::left(&self.host.store).unwrap_or_else(|error| {
            tracing::error!("{}; a rollback that was interrupted is not finished", Chain(&error));
            Vec::new()
        });
        for entry in left.interrupted {
            let id = &entry.record().command.host_command_identifier;
            let _ = self.known.delivered(id);
            match rollbacks.iter().position(|journal| journal.cause.command.as_ref() == Some(id)) {
                Some(position) => {
                    let journal = rollbacks.swap_remove(position);
                    self.finish_rollback(Some(entry), journal, commands, shutdown);
                }
                None => self.take_up(entry, commands, shutdown),
            }
        }
        for journal in rollbacks {
            match journal.done() {
                // Its command's outcome is on record, and tells of it.
                Some(_) if journal.cause.command.is_some() => journal.remove(),
                _ => self.finish_rollback(None, journal, commands, shutdown),
            }
        }
        for bare in left.bare {
            let _ = self.known.delivered(&bare.host_command_identifier);
            self.answer(&bare, commands, shutdown);
        }
    }

    fn take_up(self: &Arc<Self>, entry: Entry, commands: &mut Commands, shutdown: &Shutdown) {
        let record = entry.record();
        let command = record.command.clone();
        let span = span_of(&command);
        let _entered = span.enter();
        let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
        match decide(record, self.is_installed(record), OffsetDateTime::now_utc()) {
            Decision::Again => {
                tracing::warn!(starts = record.starts, "the agent was restarted in the middle; begun again");
                let task = async move { agent.carry_out(command, Some(entry), shutdown).await };
                commands.spawn(task.instrument(span.clone()));
            }
            Decision::Over(outcome) => {
                tracing::warn!(%outcome, "the agent was restarted in the middle; not begun again");
                if let Some(begun) = &record.begun {
                    self.account_for(&command.command_name, begun, &outcome);
                }
                let about = record.begun.as_ref().map(|begun| begun.about.clone());
                let task = async move {
                    let mut report = Report { outcome, log_tail: String::new() };
                    if let Some(about) = about.as_ref().filter(|_| !report.outcome.succeeded()) {
                        let (id, stop) = (&command.host_command_identifier, shutdown.end_running.clone());
                        report = agent.host.after_failure(about, Some(id), report, stop).await;
                    }
                    let completion = report::completion(&command.host_command_identifier, &report);
                    let outgoing = agent.ledger.end(Some(entry), &command.command_name, completion);
                    let id = &command.host_command_identifier;
                    about.iter().for_each(|about| agent.close_rollback(about, id));
                    agent.tell(outgoing, false, &shutdown).await;
                };
                commands.spawn(task.instrument(span.clone()));
            }
        }
    }

    /// Ends a rollback that an earlier run, or another process, left unfinished, and tells whom it concerns.
    fn finish_rollback(
        self: &Arc<Self>,
        entry: Option<Entry>,
        mut journal: Journal,
        commands: &mut Commands,
        shutdown: &Shutdown,
    ) {
        let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
        let command = entry.as_ref().map(|entry| entry.record().command.clone());
        let span = command.as_ref().map_or_else(tracing::Span::current, span_of);
        let task = async move {
            let about = journal.cause.about.clone();
            let _turn = agent.groups.take(&about.deployment_group_id).await;
            let words = agent.host.finish_rollback(&mut journal, shutdown.end_running.clone()).await;
            agent.status.rolled_back(&about, &words);
            let failure = journal.cause.failure.clone();
            let (Some(command), Some(failure)) = (command, failure) else {
                // Nobody has failed: a person wanted it.
                let by_hand = journal.cause.failure.is_none();
                match by_hand.then(|| notice::keep(&agent.host.store, &journal, &words)).transpose() {
                    Ok(_) => journal.remove(),
                    Err(error) => tracing::warn!("{}; it is tried again at the next start", Chain(&error)),
                }
                return;
            };
            let completion =
                report::failed_and_rolled_back(&command.host_command_identifier, failure, &words);
            let outgoing = agent.ledger.end(entry, &command.command_name, completion);
            journal.remove();
            drop(_turn);
            agent.tell(outgoing, false, &shutdown).await;
        };
        commands.spawn(task.instrument(span));
    }

    /// The outcome of a command is on record: so is the rollback that followed it.
    pub(super) fn close_rollback(&self, about: &About, command: &str) {
        if let Some(words) = Journal::close(&self.host.store, about, command) {
            self.status.rolled_back(about, &words);
        }
    }

    /// Whether the command is an Install that has put all files in their places: one of its deployment came to its end that
    /// had not when it began. What the clock says counts for nothing.
    fn is_installed(&self, record: &InProgress) -> bool {
        let Some(begun) = &record.begun else { return false };
        let About { deployment_id, deployment_group_id, .. } = &begun.about;
        let completed = || self.host.store.completed_install(deployment_group_id, deployment_id);
        record.command.command_name == LifecycleEvent::Install.name()
            && completed().is_some_and(|completed| begun.completed_before != Some(completed))
    }

    /// Takes note of a command that an earlier run began and will not be begun again.
    fn account_for(&self, event: &str, begun: &Begun, outcome: &Outcome) {
        let about = &begun.about;
        self.status.began_at(event, about, begun.began_at).ended(outcome);
        let Ok(event) = event.parse() else { return };
        for survivor in survivors::of(&about.deployment_id, &event) {
            tracing::warn!(
                deployment_id = %about.deployment_id,
                pid = survivor.pid,
                "{survivor} was started by {event} and still runs; it is left alone"
            );
        }
    }

    /// Answers for a command of which only its identifier is known.
    fn answer(self: &Arc<Self>, bare: &Bare, commands: &mut Commands, shutdown: &Shutdown) {
        let outcome = interrupted();
        tracing::warn!(deployment_id = bare.deployment_id, %outcome, "an agent was restarted in the middle of a command");
        let report = Report { outcome, log_tail: String::new() };
        let completion = report::completion(&bare.host_command_identifier, &report);
        let outgoing = self.ledger.end_bare(bare, completion);
        let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
        commands.spawn(async move { agent.tell(outgoing, false, &shutdown).await });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(event: &str, begun: bool, starts: u32) -> InProgress {
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
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn only_scripts_that_began_are_not_begun_again_and_nothing_is_a_fourth_time() {
        const AGAIN: Option<u8> = None;
        let received = record("Install", true, 1).received_at;
        let cases = [
            ("Install", false, [AGAIN, AGAIN, Some(5)]),
            ("Install", true, [AGAIN, AGAIN, Some(5)]),
            ("DownloadBundle", true, [AGAIN, AGAIN, Some(5)]),
            ("ApplicationStart", false, [AGAIN, AGAIN, Some(5)]),
            ("ApplicationStart", true, [Some(7); 3]),
            ("Custom", true, [Some(7); 3]),
            ("not a name", false, [AGAIN, AGAIN, Some(5)]),
        ];
        for (event, begun, expected) in cases {
            let decided =
                [1, 2, 3].map(|starts| match decide(&record(event, begun, starts), false, received) {
                    Decision::Again => AGAIN,
                    Decision::Over(outcome) => Some(u8::from(outcome.code())),
                });
            assert_eq!(decided, expected, "{event}, begun: {begun}");
        }
        let installed = decide(&record("Install", true, 3), true, received);
        assert_eq!(installed, Decision::Over(Outcome::Succeeded { note: None }));
        let days_later = received + Duration::from_secs(2 * 24 * 3600);
        assert_eq!(decide(&record("Install", true, 1), false, days_later), Decision::Over(interrupted()));
        assert_eq!(decide(&record("Install", false, 1), false, days_later), Decision::Again);
    }
}
