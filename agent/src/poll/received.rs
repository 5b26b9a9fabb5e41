//! One command, from its delivery until the service has taken its outcome: specification → acknowledge → perform →
//! complete. Whatever goes wrong on the way is the command's outcome.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codedeploy_api::command::{
    self, CommandStatus, Envelope, GetDeploymentSpecificationInput, HostCommand,
    PutHostCommandAcknowledgementInput,
};
use codedeploy_api::diagnostics::AcknowledgementPayload;
use codedeploy_api::lifecycle::{InvalidEventName, LifecycleEvent};
use codedeploy_hooks::script::{Outcome, Report};
use futures_util::FutureExt;
use time::OffsetDateTime;

use super::Agent;
use super::turns::Turn;
use crate::command::{CallError, Persistence};
use crate::config::{KeyDigest, SignerTrust};
use crate::deployment::failed;
use crate::deployment::ledger::{Entry, LedgerError};
use crate::errors::Chain;
use crate::memory;
use crate::report;
use crate::shutdown::Shutdown;
use crate::spec::binding::{self, BindingError};
use crate::spec::envelope::{self, EnvelopeError};
use crate::spec::{DeploymentSpec, SpecError};
use crate::systemd;

/// How long a command that has not begun is kept while the service does not answer: no service waits longer for a
/// lifecycle event.
const WANTED: Duration = Duration::from_secs(3600);

/// Why a command could not be performed, though it was received.
#[derive(Debug, thiserror::Error)]
enum ReceivedError {
    #[error("the command is for the host {found:?}, but this is {own}; nothing was done")]
    Foreign { found: String, own: String },
    #[error("the command has no name; expected a lifecycle event")]
    NoName,
    #[error("the command's name is not usable")]
    Name(#[from] InvalidEventName),
    #[error(
        "this agent is not updated through UpdateDeploymentAgent; upgrade the codedeploy-agent package on the host instead"
    )]
    UpdateAgent,
    #[error("the deployment specification cannot be fetched")]
    Fetch(#[source] CallError),
    #[error("the deployment specification is for {found:?}; expected CodeDeploy")]
    System { found: String },
    #[error("the answer holds no deployment specification")]
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
    #[error("the agent failed in a way that is a bug of its own, please report it: {message}")]
    Panic { message: String },
}

/// How far a command came.
enum Came {
    Over(Report),
    /// The service had ended it before it began.
    Unwanted,
    /// The agent ends; the next one takes it up.
    Left,
    /// The service was away for too long; should it still want the command, it delivers it again.
    Dropped,
}

impl Agent {
    /// Performs a command, and reports how it ended. `entry`: what an earlier run recorded of it.
    pub(super) async fn carry_out(&self, command: HostCommand, mut entry: Option<Entry>, shutdown: Shutdown) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let work = Box::pin(self.receive(&command, &shutdown, &mut entry));
        let came = uninterrupted(work).await.unwrap_or_else(|error| {
            let report = failed(&error);
            tracing::error!(outcome = %report.outcome, "the command was not performed");
            Came::Over(report)
        });
        drop(place);
        let id = &command.host_command_identifier;
        match (came, entry) {
            (Came::Over(report), entry) => {
                let completion = report::completion(id, &report);
                let about = entry
                    .as_ref()
                    .and_then(|entry| entry.record().begun.as_ref())
                    .map(|begun| begun.about.clone());
                let outgoing = self.ledger.end(entry, &command.command_name, completion);
                about.iter().for_each(|about| self.close_rollback(about, id));
                self.tell(outgoing, false, &shutdown).await;
            }
            (Came::Unwanted, entry) => {
                entry.into_iter().for_each(|entry| self.ledger.forget(entry));
                self.known.ended(id, None);
            }
            (Came::Dropped, entry) => {
                tracing::warn!(
                    waited_seconds = WANTED.as_secs(),
                    "the service did not answer, and nothing was done; the command is dropped, and taken when it is delivered again"
                );
                entry.into_iter().for_each(|entry| self.ledger.forget(entry));
                self.known.ended(id, None);
            }
            (Came::Left, entry) => entry.into_iter().for_each(|entry| self.ledger.leave(entry)),
        }
        memory::give_back();
    }

    /// Performs the command unless the service has ended it. `entry` says what a restart would have to account for.
    async fn receive(
        &self,
        command: &HostCommand,
        shutdown: &Shutdown,
        entry: &mut Option<Entry>,
    ) -> Result<Came, ReceivedError> {
        let end = &shutdown.no_more_work;
        let persistence = match entry {
            Some(_) => Persistence::Recovered { end },
            None => Persistence::Delivered { end, until: Instant::now() + WANTED },
        };
        let unanswered = || if end.is_cancelled() { Came::Left } else { Came::Dropped };
        let entry = match entry {
            Some(entry) => {
                self.ledger.resume(entry)?;
                entry
            }
            None => entry.insert(self.ledger.receive(command)?),
        };
        let event = self.event(command)?;
        let Some((spec, envelope)) = self.specification(entry, persistence).await? else {
            return Ok(unanswered());
        };
        let Some(_turn) = self.turn(&spec, shutdown).await else {
            let outcome = Outcome::Stopped { location: None };
            return Ok(Came::Over(Report { outcome, log_tail: String::new() }));
        };
        let noop = self.host.is_noop(&event, &spec);
        let begun = entry.record().begun.is_some();
        match self.acknowledge(command, noop, persistence).await {
            None => return Ok(unanswered()),
            // It took the first acknowledgement.
            Some(Err(error)) if begun => {
                tracing::info!(%error, "the service does not take a second acknowledgement")
            }
            Some(answer) => match answer.map_err(ReceivedError::Acknowledge)? {
                Some(CommandStatus::Failed) if noop => return Ok(Came::Over(completed_noop())),
                Some(CommandStatus::Succeeded | CommandStatus::Failed) => {
                    tracing::info!("{event} is not performed: the service has ended it already");
                    return Ok(Came::Unwanted);
                }
                Some(CommandStatus::Pending | CommandStatus::InProgress) | None => {}
            },
        }
        self.ledger.begin(entry, &spec, envelope)?;
        tracing::info!("{event} begins");
        systemd::status(&format!("{event} of {} ({})", spec.deployment_id, spec.application_name));
        let running = self.status.began(&event, &spec);
        let began = Instant::now();
        let id = Some(command.host_command_identifier.as_str());
        let report = self.host.perform(&event, &spec, id, shutdown.end_running.clone()).await;
        running.ended(&report.outcome);
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if report.outcome.succeeded() {
            tracing::info!(duration_ms, "{event} succeeded");
        } else {
            let code = u8::from(report.outcome.code());
            let script = Some(report.outcome.script_name()).filter(|script| !script.is_empty());
            tracing::error!(duration_ms, code, script, "{event} failed: {}", report.outcome);
        }
        Ok(Came::Over(report))
    }

    /// What the command asks for, if it asks this host for something that a host does.
    fn event(&self, command: &HostCommand) -> Result<LifecycleEvent, ReceivedError> {
        let (found, own) = (&command.host_identifier, self.service.host_identifier());
        let is_own = match self.host.settings.signer {
            // As AWS's agents compare.
            SignerTrust::Anyone => !found.is_empty() && own.contains(found.as_str()),
            SignerTrust::Authority(_) | SignerTrust::Pins(_) => found == own,
        };
        if !is_own {
            let found = found.chars().take(200).collect();
            return Err(ReceivedError::Foreign { found, own: own.to_owned() });
        }
        match command.command_name.as_str() {
            "" => Err(ReceivedError::NoName),
            "UpdateDeploymentAgent" => Err(ReceivedError::UpdateAgent),
            name => Ok(name.parse()?),
        }
    }

    /// Waits until no other command of the deployment group is performed; `None` when the agent must end first.
    async fn turn(&self, spec: &DeploymentSpec, shutdown: &Shutdown) -> Option<Turn> {
        tokio::select! {
            biased;
            () = shutdown.end_running.cancelled() => None,
            turn = self.groups.take(&spec.deployment_group_id) => Some(turn),
        }
    }

    /// The specification of the command, as it was recorded, or as the service gives it; with the envelope that it came in.
    async fn specification(
        &self,
        entry: &Entry,
        persistence: Persistence<'_>,
    ) -> Result<Option<(DeploymentSpec, Envelope)>, ReceivedError> {
        let record = entry.record();
        if let Some(begun) = &record.begun {
            // When it was signed was looked at when it came.
            match self.verified(&record.command, &begun.specification).map(|(spec, _)| spec) {
                Ok(spec) => return Ok(Some((spec, begun.specification.clone()))),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the specification on record is not usable; it is fetched again");
                }
            }
        }
        let input = GetDeploymentSpecificationInput {
            deployment_execution_id: record.command.deployment_execution_id.clone(),
            host_identifier: record.command.host_identifier.clone(),
        };
        let Some(answer) = self.service.call_patiently(&input, persistence).await else { return Ok(None) };
        let answer = answer.map_err(ReceivedError::Fetch)?;
        if answer.deployment_system != command::DEPLOYMENT_SYSTEM {
            return Err(ReceivedError::System { found: answer.deployment_system });
        }
        let specification =
            answer.deployment_specification.and_then(|specification| specification.generic_envelope);
        let envelope = specification.ok_or(ReceivedError::NoSpecification)?;
        let (spec, signers) = self.verified(&record.command, &envelope)?;
        spec.binding.check_time(OffsetDateTime::now_utc())?;
        if spec.binding.check_complete().is_ok() {
            self.acquaintance.bound(&signers);
        }
        Ok(Some((spec, envelope)))
    }

    /// The specification in `envelope`, if whom this host trusts has signed it, for this command as far as the signer says
    /// so; and the keys that signed it.
    fn verified(
        &self,
        command: &HostCommand,
        envelope: &Envelope,
    ) -> Result<(DeploymentSpec, Vec<KeyDigest>), ReceivedError> {
        let trust = &self.host.settings.signer;
        let verified = envelope::verify(envelope, trust)?;
        let spec = DeploymentSpec::parse(&verified)?;
        let span = tracing::Span::current();
        span.record("deployment_id", spec.deployment_id.as_str());
        span.record("deployment_group", &spec.deployment_group_name);
        span.record("application", &spec.application_name);
        verified.log_signers();
        binding::check(&spec, command, self.service.host_identifier())?;
        // Without a pin or an authority, who leaves something out signs with another key.
        if *trust != SignerTrust::Anyone && self.acquaintance.binds(&verified.keys().collect::<Vec<_>>()) {
            spec.binding.check_complete()?;
        }
        Ok((spec, verified.keys().collect()))
    }

    async fn acknowledge(
        &self,
        command: &HostCommand,
        noop: bool,
        persistence: Persistence<'_>,
    ) -> Option<Result<Option<CommandStatus>, CallError>> {
        let payload =
            serde_json::to_string(&AcknowledgementPayload { is_command_noop: noop }).unwrap_or_default();
        let input = PutHostCommandAcknowledgementInput {
            host_command_identifier: command.host_command_identifier.clone(),
            diagnostics: Some(Envelope { format: Envelope::JSON.into(), payload }),
        };
        let answer = self.service.call_patiently(&input, persistence).await?;
        Some(answer.map(|answer| answer.command_status))
    }
}

fn completed_noop() -> Report {
    let note = Some("CompletedNoopCommand".into());
    Report { outcome: Outcome::Succeeded { note }, log_tail: String::new() }
}

/// Makes a panic in `work` an error like any other.
async fn uninterrupted<T>(work: impl Future<Output = Result<T, ReceivedError>>) -> Result<T, ReceivedError> {
    // What a panic left half done is not looked at again: every command begins with what is on disk.
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|panic| Err(ReceivedError::Panic { message: panic_message(&*panic) }))
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
        let work = tokio::task::yield_now().map(|()| -> Result<(), _> { panic!("index {} of {}", 3, 2) });
        let report = failed(&uninterrupted(work).await.unwrap_err());
        assert_eq!(u8::from(report.outcome.code()), 5);
        assert!(report.outcome.to_string().ends_with("please report it: index 3 of 2"), "{}", report.outcome);
    }
}
