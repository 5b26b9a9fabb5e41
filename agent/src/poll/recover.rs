//! What the agent owes from its earlier runs, taken up before the first poll (spec: Durability): outcomes are told,
//! a DownloadBundle or Install is done again, and a script is never run a second time.

use std::sync::Arc;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::{Outcome, Report};
use tracing::Instrument;

use super::{Agent, Commands, span_of};
use crate::deployment::ledger::{Bare, Begun, Entry, InProgress};
use crate::deployment::survivors;
use crate::report;
use crate::shutdown::Shutdown;

/// A command with which the agent ended unexpectedly so often is not taken up once more.
const MAX_STARTS: u32 = 3;

/// What becomes of a command that was in progress.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// From its beginning; nothing that it did so far counts.
    Again,
    Over(Outcome),
}

fn decide(record: &InProgress) -> Decision {
    let name = &record.command.command_name;
    let repeatable = match record.begun {
        None => true,
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
    let message = "the agent was restarted while this lifecycle event was in progress, so its outcome is unknown";
    Outcome::FailedAfterRestart { message: message.into() }
}

impl Agent {
    /// Takes up what earlier runs left. When this returns, every command of theirs is known, and those of a deployment
    /// group are ahead of all that will be delivered.
    pub(super) fn recover(self: &Arc<Self>, commands: &mut Commands, shutdown: &Shutdown) {
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
        for entry in left.interrupted {
            let _ = self.known.delivered(&entry.record().command.host_command_identifier);
            self.take_up(entry, commands, shutdown);
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
        match decide(record) {
            Decision::Again => {
                tracing::warn!(starts = record.starts, "the agent was restarted in the middle; begun again");
                let task = async move { agent.carry_out(command, Some(entry), shutdown).await };
                commands.spawn(task.instrument(span.clone()));
            }
            Decision::Over(outcome) => {
                tracing::warn!(%outcome, "the agent was restarted in the middle; not begun again");
                if let Some(begun) = &record.begun {
                    self.lost(&command.command_name, begun, &outcome);
                }
                let report = Report { outcome, log_tail: String::new() };
                let completion = report::completion(&command.host_command_identifier, &report);
                let outgoing = self.ledger.end(Some(entry), &command.command_name, completion);
                let task = async move { agent.tell(outgoing, false, &shutdown).await };
                commands.spawn(task.instrument(span.clone()));
            }
        }
    }

    /// Takes note of a command that an earlier run began and will not be begun again.
    fn lost(&self, event: &str, begun: &Begun, outcome: &Outcome) {
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
