//! One command, from its delivery until the service has taken its outcome: specification → acknowledge → perform →
//! complete. Whatever goes wrong on the way is the command's outcome.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use codedeploy_api::command::{
    self, CommandStatus, Envelope, GetDeploymentSpecificationInput, HostCommand, Operation,
    PutHostCommandAcknowledgementInput,
};
use codedeploy_api::diagnostics::AcknowledgementPayload;
use codedeploy_api::lifecycle::{InvalidEventName, LifecycleEvent};
use codedeploy_hooks::script::{Outcome, Report};
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::turns::Turn;
use crate::command::CallError;
use crate::deployment::failed;
use crate::deployment::ledger::{Entry, LedgerError};
use crate::errors::Chain;
use crate::memory;
use crate::report;
use crate::shutdown::Shutdown;
use crate::spec::envelope::{self, EnvelopeError};
use crate::spec::{DeploymentSpec, SpecError};
use crate::systemd;

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
                let outgoing = self.ledger.end(entry, &command.command_name, completion);
                self.tell(outgoing, false, &shutdown).await;
            }
            (Came::Unwanted, entry) => {
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
        // Nobody delivers it once more, and the service may not be there yet.
        let patience = entry.is_some().then_some(&shutdown.no_more_work);
        let entry = match entry {
            Some(entry) => {
                self.ledger.resume(entry)?;
                entry
            }
            None => entry.insert(self.ledger.receive(command)?),
        };
        let event = self.event(command)?;
        let Some((spec, envelope)) = self.specification(entry, patience).await? else {
            return Ok(Came::Left);
        };
        let Some(_turn) = self.turn(&spec, shutdown).await else {
            let outcome = Outcome::Stopped { location: None };
            return Ok(Came::Over(Report { outcome, log_tail: String::new() }));
        };
        let noop = self.host.is_noop(&event, &spec);
        let begun = entry.record().begun.is_some();
        match self.acknowledge(command, noop, patience).await {
            None => return Ok(Came::Left),
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
        let report = self.host.perform(&event, &spec, shutdown.end_running.clone()).await;
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
        if found.is_empty() || !own.contains(found.as_str()) {
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
        patience: Option<&CancellationToken>,
    ) -> Result<Option<(DeploymentSpec, Envelope)>, ReceivedError> {
        let record = entry.record();
        if let Some(begun) = &record.begun {
            match self.verified(&begun.specification) {
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
        let Some(answer) = self.call(&input, patience).await else { return Ok(None) };
        let answer = answer.map_err(ReceivedError::Fetch)?;
        if answer.deployment_system != command::DEPLOYMENT_SYSTEM {
            return Err(ReceivedError::System { found: answer.deployment_system });
        }
        let specification =
            answer.deployment_specification.and_then(|specification| specification.generic_envelope);
        let envelope = specification.ok_or(ReceivedError::NoSpecification)?;
        Ok(Some((self.verified(&envelope)?, envelope)))
    }

    fn verified(&self, envelope: &Envelope) -> Result<DeploymentSpec, ReceivedError> {
        let verified = envelope::verify(envelope, &self.host.settings.signer)?;
        let spec = DeploymentSpec::parse(&verified)?;
        let span = tracing::Span::current();
        span.record("deployment_id", spec.deployment_id.as_str());
        span.record("deployment_group", &spec.deployment_group_name);
        span.record("application", &spec.application_name);
        verified.log_signers();
        Ok(spec)
    }

    async fn acknowledge(
        &self,
        command: &HostCommand,
        noop: bool,
        patience: Option<&CancellationToken>,
    ) -> Option<Result<Option<CommandStatus>, CallError>> {
        let payload =
            serde_json::to_string(&AcknowledgementPayload { is_command_noop: noop }).unwrap_or_default();
        let input = PutHostCommandAcknowledgementInput {
            host_command_identifier: command.host_command_identifier.clone(),
            diagnostics: Some(Envelope { format: Envelope::JSON.into(), payload }),
        };
        let answer = self.call(&input, patience).await?;
        Some(answer.map(|answer| answer.command_status))
    }

    /// Calls some times; with patience, until there is an answer, or `None` when patience ends.
    async fn call<O: Operation>(
        &self,
        input: &O,
        patience: Option<&CancellationToken>,
    ) -> Option<Result<O::Output, CallError>> {
        match patience {
            None => Some(self.service.call(input).await),
            Some(end) => self.service.call_patiently(input, end).await,
        }
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
