//! One command, from its delivery until the service has accepted its outcome: specification → plan
//! → acknowledge → perform → complete. Every error on the way becomes the command's outcome.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use codedeploy_api::command::{
    self, CommandStatus, Envelope, GetDeploymentSpecificationInput, HostCommand,
    PutHostCommandAcknowledgementInput,
};
use codedeploy_api::diagnostics::AcknowledgementPayload;
use codedeploy_api::lifecycle::{InvalidEventName, LifecycleEvent};
use codedeploy_hooks::script::{Outcome, Report};
use codedeploy_support::keyed_lock::Guard;
use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::sync::SemaphorePermit;

use super::{Agent, update};
use crate::command::{CallError, Persistence};
use crate::config::{KeyDigest, SignerTrust};
use crate::deployment::ledger::{Entry, LedgerError};
use crate::deployment::{Plan, failed, stopped};
use crate::memory;
use crate::report;
use crate::shutdown::Shutdown;
use crate::spec::binding::{self, BindingError};
use crate::spec::envelope::{self, EnvelopeError};
use crate::spec::{DeploymentSpec, SpecError};
use crate::systemd;
use crate::telemetry::milliseconds_since;
use codedeploy_api::chain::Chain;

/// The time after which a command that has not begun is dropped if the service does not answer: no
/// service waits longer for a lifecycle event.
const WANTED: Duration = Duration::from_secs(3600);

/// The reason why a received command could not be performed.
#[derive(Debug, thiserror::Error)]
enum ReceivedError {
    #[error("the command is for the host {found:?}, but this is {own}; nothing was done")]
    Foreign { found: String, own: String },
    #[error("the command has no name; expected a lifecycle event")]
    NoName,
    #[error("the command's name is not a lifecycle event")]
    Name(#[from] InvalidEventName),
    #[error(
        "this agent is not updated through UpdateDeploymentAgent: it has no update_command; upgrade the codedeploy-agent package on the host instead"
    )]
    UpdateAgent,
    #[error("the deployment specification cannot be fetched")]
    Fetch(#[source] CallError),
    #[error("the deployment specification is for {found:?}; expected CodeDeploy")]
    System { found: String },
    #[error("the response contains no deployment specification")]
    NoSpecification,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Binding(#[from] BindingError),
    #[error("the command cannot be acknowledged")]
    Acknowledge(#[source] CallError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("this is a bug of the agent, please report it: {message}")]
    Panic { message: String },
}

/// The result of an attempt to carry out a command.
enum End {
    Over(Report),
    /// The service had ended it before it began.
    Unwanted,
    /// The agent ends; the next one resumes it.
    Left,
    /// The service was unreachable for too long; if it still wants the command, it delivers it
    /// again.
    Dropped,
}

/// The service's answer to an acknowledgement.
enum Acknowledged {
    Run,
    /// There was nothing to do, and the service accepted that as the outcome.
    NoopCompleted,
    /// The service has ended the command itself.
    AlreadyEnded,
    Unanswered,
}

/// Runs a delivered command, and reports its outcome.
pub(super) async fn carry_out(agent: &Agent, command: HostCommand, shutdown: &Shutdown) {
    let wanted = match wanted(agent, &command) {
        Ok(Wanted::Update(command_line)) => {
            return update::carry_out(agent, command, command_line, shutdown).await;
        }
        Ok(Wanted::Event(event)) => Ok(event),
        Err(error) => Err(error),
    };
    let place = agent.place().await;
    let entry = wanted.and_then(|event| Ok(agent.ledger.receive(command.clone(), event)?));
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => {
            drop(place);
            return refuse(agent, &command, &error, shutdown).await;
        }
    };
    let until = Instant::now() + WANTED;
    let persistence = Persistence::Delivered {
        end: &shutdown.no_more_work,
        until,
    };
    see_through(
        Attempt {
            agent,
            shutdown,
            persistence,
        },
        entry,
        place,
    )
    .await;
}

/// Runs a command of an earlier run from its beginning, and reports its outcome.
pub(super) async fn take_up(agent: &Agent, mut entry: Entry, shutdown: &Shutdown) {
    let place = agent.place().await;
    if let Err(error) = agent.ledger.resume(&mut entry) {
        drop(place);
        return report(agent, entry, failure(&error), shutdown).await;
    }
    let persistence = Persistence::Recovered {
        end: &shutdown.no_more_work,
    };
    see_through(
        Attempt {
            agent,
            shutdown,
            persistence,
        },
        entry,
        place,
    )
    .await;
}

/// The work that a command asks for.
enum Wanted {
    Event(LifecycleEvent),
    /// With the operator's command line.
    Update(String),
}

/// Returns the work that the command asks for, if it is for this host and a host can perform it.
fn wanted(agent: &Agent, command: &HostCommand) -> Result<Wanted, ReceivedError> {
    let (found, own) = (&command.host_identifier, agent.service.host_identifier());
    let is_own = match agent.host.settings().signer {
        // The same comparison as in AWS's agents.
        SignerTrust::Anyone => !found.is_empty() && own.contains(found.as_str()),
        SignerTrust::Authority(_) | SignerTrust::Pins(_) => found == own,
    };
    if !is_own {
        let found = found.chars().take(200).collect();
        return Err(ReceivedError::Foreign {
            found,
            own: own.to_owned(),
        });
    }
    match command.command_name.as_str() {
        "" => Err(ReceivedError::NoName),
        update::COMMAND => {
            let command_line = agent.host.settings().update_command.clone();
            command_line
                .map(Wanted::Update)
                .ok_or(ReceivedError::UpdateAgent)
        }
        name => Ok(Wanted::Event(name.parse()?)),
    }
}

/// Reports the failure of a command that did not begin.
async fn refuse(agent: &Agent, command: &HostCommand, error: &ReceivedError, shutdown: &Shutdown) {
    let completion = report::completion(&command.host_command_identifier, &failure(error));
    let outgoing = agent.ledger.end_unbegun(&command.command_name, completion);
    agent.tell(outgoing, false, shutdown).await;
}

/// Makes the attempt, and handles its result.
async fn see_through(attempt: Attempt<'_>, mut entry: Entry, place: Option<SemaphorePermit<'_>>) {
    let Attempt {
        agent, shutdown, ..
    } = attempt;
    let end = uninterrupted(Box::pin(attempt.make(&mut entry))).await;
    // An outcome that waits for the service takes no place.
    drop(place);
    let id = entry.command().host_command_identifier.clone();
    match end.unwrap_or_else(|error| End::Over(failure(&error))) {
        End::Over(ended) => report(agent, entry, ended, shutdown).await,
        End::Unwanted => {
            agent.ledger.forget(entry);
            agent.seen.ended(&id, None);
        }
        End::Dropped => {
            tracing::warn!(
                waited_seconds = WANTED.as_secs(),
                "the service did not respond, and nothing was done; the command is dropped, and runs if the service delivers it again"
            );
            agent.ledger.forget(entry);
            agent.seen.ended(&id, None);
        }
        End::Left => agent.ledger.leave(entry),
    }
    memory::give_back();
}

/// Records and reports the end of a command.
pub(super) async fn report(agent: &Agent, entry: Entry, ended: Report, shutdown: &Shutdown) {
    let id = entry.command().host_command_identifier.clone();
    let about = entry.about().cloned();
    let outgoing = agent.ledger.end(entry, report::completion(&id, &ended));
    about
        .iter()
        .for_each(|about| agent.close_rollback(about, &id));
    agent.tell(outgoing, false, shutdown).await;
}

fn failure(error: &(dyn std::error::Error + 'static)) -> Report {
    let report = failed(error);
    tracing::error!(outcome = %report.outcome, "the command was not performed");
    report
}

/// A command in progress, and the time for which its calls are repeated.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    agent: &'a Agent,
    shutdown: &'a Shutdown,
    persistence: Persistence<'a>,
}

impl Attempt<'_> {
    /// Runs the command unless the service has ended it. `entry` is the record for a restart.
    async fn make(&self, entry: &mut Entry) -> Result<End, ReceivedError> {
        let Some((spec, envelope)) = self.specification(entry).await? else {
            return Ok(self.unanswered());
        };
        let Some(_turn) = self.turn(&spec).await else {
            return Ok(End::Over(stopped()));
        };
        let event = entry.event().clone();
        let plan = self.agent.host.plan(&event, &spec).await;
        match self.acknowledge(entry, plan.is_noop()).await? {
            Acknowledged::Run => {}
            Acknowledged::NoopCompleted => return Ok(End::Over(completed_noop())),
            Acknowledged::AlreadyEnded => {
                tracing::info!("{event} is skipped: the service has already ended it");
                return Ok(End::Unwanted);
            }
            Acknowledged::Unanswered => return Ok(self.unanswered()),
        }
        self.agent.ledger.begin(entry, &spec, envelope)?;
        Ok(End::Over(self.perform(entry, plan, &spec).await))
    }

    fn unanswered(&self) -> End {
        if self.shutdown.no_more_work.is_cancelled() {
            End::Left
        } else {
            End::Dropped
        }
    }

    async fn perform(&self, entry: &Entry, plan: Plan<'_>, spec: &DeploymentSpec) -> Report {
        let event = entry.event();
        tracing::info!("{event} begins");
        systemd::status(&format!(
            "{event} of {} ({})",
            spec.deployment_id, spec.application_name
        ));
        let running = self.agent.status.began(event, spec);
        let began = Instant::now();
        let id = Some(entry.command().host_command_identifier.as_str());
        let report = self
            .agent
            .host
            .perform(plan, id, self.shutdown.end_running.clone())
            .await;
        running.ended(&report.outcome);
        let duration_ms = milliseconds_since(began);
        if report.outcome.succeeded() {
            tracing::info!(duration_ms, "{event} succeeded");
        } else {
            let code = u8::from(report.outcome.code());
            let script = Some(report.outcome.script_name()).filter(|script| !script.is_empty());
            tracing::error!(
                duration_ms,
                code,
                script,
                "{event} failed: {}",
                report.outcome
            );
        }
        report
    }

    /// Waits until no other command of the deployment group runs; `None` if the agent must end
    /// first.
    async fn turn(&self, spec: &DeploymentSpec) -> Option<Guard> {
        tokio::select! {
            biased;
            () = self.shutdown.end_running.cancelled() => None,
            turn = self.agent.groups.lock(spec.deployment_group_id.clone()) => Some(turn),
        }
    }

    /// Returns the specification of the command from its record or from the service, with its
    /// envelope; `None` if the service does not answer.
    async fn specification(
        &self,
        entry: &Entry,
    ) -> Result<Option<(DeploymentSpec, Envelope)>, ReceivedError> {
        let command = entry.command();
        if let Some(begun) = &entry.record().begun {
            // The signing time was checked on arrival.
            match self
                .verified(command, &begun.specification)
                .map(|(spec, _)| spec)
            {
                Ok(spec) => return Ok(Some((spec, begun.specification.clone()))),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the recorded specification is unusable; it is fetched again");
                }
            }
        }
        let input = GetDeploymentSpecificationInput {
            deployment_execution_id: command.deployment_execution_id.clone(),
            host_identifier: command.host_identifier.clone(),
        };
        let answer = self
            .agent
            .service
            .call_persistently(&input, self.persistence)
            .await;
        let Some(answer) = answer.transpose().map_err(ReceivedError::Fetch)? else {
            return Ok(None);
        };
        if answer.deployment_system != command::DEPLOYMENT_SYSTEM {
            return Err(ReceivedError::System {
                found: answer.deployment_system,
            });
        }
        let specification = answer
            .deployment_specification
            .and_then(|specification| specification.generic_envelope);
        let envelope = specification.ok_or(ReceivedError::NoSpecification)?;
        let (spec, signers) = self.verified(command, &envelope)?;
        spec.binding.check_time(OffsetDateTime::now_utc())?;
        if spec.binding.check_complete().is_ok() {
            self.agent.acquaintance.bound(&signers);
        }
        Ok(Some((spec, envelope)))
    }

    /// Returns the specification in `envelope`, if a trusted signer signed it for this command, as
    /// far as it has a binding; and the keys that signed it.
    fn verified(
        &self,
        command: &HostCommand,
        envelope: &Envelope,
    ) -> Result<(DeploymentSpec, Vec<KeyDigest>), ReceivedError> {
        let trust = &self.agent.host.settings().signer;
        let verified = envelope::verify(envelope, trust)?;
        let spec = DeploymentSpec::parse(&verified)?;
        let span = tracing::Span::current();
        span.record("deployment_id", spec.deployment_id.as_str());
        span.record("deployment_group", &spec.deployment_group_name);
        span.record("application", &spec.application_name);
        verified.log_signers();
        binding::check(&spec, command, self.agent.service.host_identifier())?;
        let keys: Vec<KeyDigest> = verified.keys().collect();
        // Without a pin or an authority, an attacker would simply sign with another key.
        if *trust != SignerTrust::Anyone && self.agent.acquaintance.binds(&keys) {
            spec.binding.check_complete()?;
        }
        Ok((spec, keys))
    }

    /// Acknowledges the command, and reports whether there is anything to do.
    async fn acknowledge(&self, entry: &Entry, noop: bool) -> Result<Acknowledged, ReceivedError> {
        let payload = serde_json::to_string(&AcknowledgementPayload {
            is_command_noop: noop,
        })
        .unwrap_or_default();
        let input = PutHostCommandAcknowledgementInput {
            host_command_identifier: entry.command().host_command_identifier.clone(),
            diagnostics: Some(Envelope {
                format: Envelope::JSON.into(),
                payload,
            }),
        };
        let answer = match self
            .agent
            .service
            .call_persistently(&input, self.persistence)
            .await
        {
            None => return Ok(Acknowledged::Unanswered),
            // The service accepted the first acknowledgement.
            Some(Err(error)) if entry.record().begun.is_some() => {
                tracing::info!(%error, "the service rejects a second acknowledgement");
                return Ok(Acknowledged::Run);
            }
            Some(answer) => answer.map_err(ReceivedError::Acknowledge)?,
        };
        Ok(match answer.command_status {
            Some(CommandStatus::Failed) if noop => Acknowledged::NoopCompleted,
            Some(CommandStatus::Succeeded | CommandStatus::Failed) => Acknowledged::AlreadyEnded,
            Some(CommandStatus::Pending | CommandStatus::InProgress) | None => Acknowledged::Run,
        })
    }
}

fn completed_noop() -> Report {
    let note = Some("CompletedNoopCommand".into());
    Report {
        outcome: Outcome::Succeeded { note },
        log_tail: String::new(),
        scripts: Vec::new(),
    }
}

/// Turns a panic in `work` into an ordinary error.
async fn uninterrupted<T>(
    work: impl Future<Output = Result<T, ReceivedError>>,
) -> Result<T, ReceivedError> {
    // State that a panic left half changed is not used again: every command begins with the state
    // on disk.
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|panic| {
        Err(ReceivedError::Panic {
            message: panic_message(&*panic),
        })
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_outcome() {
        let work =
            tokio::task::yield_now().map(|()| -> Result<(), _> { panic!("index {} of {}", 3, 2) });
        let report = failed(&uninterrupted(work).await.unwrap_err());
        assert_eq!(u8::from(report.outcome.code()), 5);
        assert!(
            report
                .outcome
                .to_string()
                .ends_with("please report it: index 3 of 2"),
            "{}",
            report.outcome
        );
    }
}
