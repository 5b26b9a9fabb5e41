//! The daemon's loop: poll, and for every command specification → acknowledge → perform → complete, commands side by
//! side while polling goes on (spec: Command service protocol).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use codedeploy_api::command::{
    self, CommandStatus, Envelope, GetDeploymentSpecificationInput, HostCommand,
    PutHostCommandAcknowledgementInput,
};
use codedeploy_api::diagnostics::AcknowledgementPayload;
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::{Outcome, Report};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::backoff::Backoff;
use crate::command::{CallError, CommandService};
use crate::deployment::ledger::Ledger;
use crate::deployment::{Host, failed};
use crate::report;
use crate::shutdown::Shutdown;
use crate::spec::envelope::{self, EnvelopeError};
use crate::spec::{DeploymentSpec, PathComponent, SpecError};
use crate::systemd::{self, Watchdog};

/// Commands that run at once.
const MAX_COMMANDS: usize = 16;

/// What a poll may take beyond the time that its answer may: credentials, name resolution, a connection.
const AROUND_POLL: Duration = Duration::from_secs(120);

/// The running agent.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    service: CommandService,
    ledger: Ledger,
    in_flight: Mutex<HashSet<String>>,
    /// One command of a deployment group at a time.
    groups: Mutex<HashMap<PathComponent, Arc<tokio::sync::Mutex<()>>>>,
}

/// Why a command could not be performed, though it was received.
#[derive(Debug, thiserror::Error)]
enum ReceivedError {
    #[error("the command's name is not usable")]
    Name(#[from] codedeploy_api::lifecycle::InvalidEventName),
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
    #[error("the command cannot be recorded as in progress")]
    Ledger(#[source] std::io::Error),
}

/// What came of a command.
enum Received {
    Performed(Report),
    /// The service ended it before it was begun.
    Over,
    /// The service gave it up, and it has nothing to do: it completes as succeeded.
    OverNoop,
}

/// What ends a wait between two polls.
enum Waited {
    TimeIsUp,
    CommandFinished,
    Stop,
}

impl Agent {
    pub fn new(host: Host, service: CommandService, ledger: Ledger) -> Self {
        Self { host, service, ledger, in_flight: Mutex::default(), groups: Mutex::default() }
    }

    /// Polls until the shutdown begins, then waits for the commands in progress.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut commands = JoinSet::new();
        let mut backoff = Backoff::default();
        let mut watchdog = Watchdog::of_process();
        let longest_poll = self.host.settings.http_read_timeout + AROUND_POLL;
        self.recover(&mut commands);
        while !shutdown.no_more_work.is_cancelled() {
            while commands.try_join_next().is_some() {}
            let began = Instant::now();
            let polled = tokio::select! {
                polled = watchdog.over(Some(longest_poll), self.service.poll()) => polled,
                () = shutdown.no_more_work.cancelled() => break,
            };
            let pause = match polled {
                Ok(Some(command)) => {
                    systemd::ready();
                    backoff.reset();
                    self.begin(command, &mut commands, &shutdown);
                    while commands.len() >= MAX_COMMANDS {
                        watchdog.over(None, commands.join_next()).await;
                    }
                    continue;
                }
                Ok(None) => {
                    systemd::ready();
                    backoff.reset();
                    self.host.settings.wait_between_runs
                }
                Err(error) => self.after_error(&error, began.elapsed(), &mut backoff),
            };
            match watchdog.over(Some(pause), wait(pause, &mut commands, &shutdown)).await {
                Waited::TimeIsUp | Waited::CommandFinished => {}
                Waited::Stop => break,
            }
        }
        let count = commands.len();
        systemd::stopping(count, async { while commands.join_next().await.is_some() {} }).await;
    }

    fn after_error(&self, error: &CallError, took: Duration, backoff: &mut Backoff) -> Duration {
        let pause = if error.is_temporary() {
            backoff.after_error(error.is_throttling(), took)
        } else {
            self.host.settings.wait_after_error.max(backoff.after_error(false, took))
        };
        tracing::warn!(%error, retry_in_seconds = pause.as_secs(), "cannot poll for commands");
        systemd::status(&format!("cannot poll for commands: {error}"));
        pause
    }

    /// Reports the commands that an earlier run of the agent left unfinished.
    fn recover(self: &Arc<Self>, commands: &mut JoinSet<()>) {
        let interrupted = self.ledger.interrupted().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell which commands an earlier run of the agent left unfinished");
            Vec::new()
        });
        for (entry, interrupted) in interrupted {
            let agent = Arc::clone(self);
            commands.spawn(async move {
                let message =
                    "the agent was restarted while this lifecycle event was in progress, so its outcome is unknown";
                let outcome = Outcome::FailedAfterRestart { message: message.into() };
                let report = Report { outcome, log_tail: String::new() };
                tracing::warn!(deployment_id = interrupted.deployment_id, "{message}");
                agent.complete(&interrupted.host_command_identifier, &report).await;
                entry.close();
            });
        }
    }

    /// Starts a command that was received, unless it is in progress already.
    fn begin(self: &Arc<Self>, command: HostCommand, commands: &mut JoinSet<()>, shutdown: &Shutdown) {
        let id = command.host_command_identifier.clone();
        if !lock(&self.in_flight).insert(id.clone()) {
            tracing::debug!(command = id, "delivered again while it runs; ignored");
            return;
        }
        let span = tracing::info_span!(
            "command",
            lifecycle_event = command.command_name,
            deployment_id = tracing::field::Empty,
            deployment_group = tracing::field::Empty,
            application = tracing::field::Empty,
        );
        let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
        commands.spawn(
            async move {
                // In a task of its own, so that a panic is an outcome like any other.
                let work = tokio::spawn(
                    {
                        let agent = Arc::clone(&agent);
                        async move { agent.receive(&command, &shutdown).await }
                    }
                    .in_current_span(),
                );
                let report = match work.await {
                    Ok(Ok(Received::Performed(report))) => Some(report),
                    Ok(Ok(Received::OverNoop)) => Some(completed_noop()),
                    Ok(Ok(Received::Over)) => None,
                    Ok(Err(error)) => Some(failed(&error)),
                    Err(error) => Some(failed(&error)),
                };
                if let Some(report) = report {
                    agent.complete(&id, &report).await;
                }
                lock(&agent.in_flight).remove(&id);
            }
            .instrument(span),
        );
    }

    async fn receive(&self, command: &HostCommand, shutdown: &Shutdown) -> Result<Received, ReceivedError> {
        if command.command_name == "UpdateDeploymentAgent" {
            return Err(ReceivedError::UpdateAgent);
        }
        let event: LifecycleEvent = command.command_name.parse()?;
        let spec = self.specification(command).await?;
        let span = tracing::Span::current();
        span.record("deployment_id", spec.deployment_id.as_str());
        span.record("deployment_group", &spec.deployment_group_name);
        span.record("application", &spec.application_name);

        let group = Arc::clone(lock(&self.groups).entry(spec.deployment_group_id.clone()).or_default());
        let _turn = group.lock().await;
        let noop = self.host.is_noop(&event, &spec);
        match self.acknowledge(command, noop).await? {
            Some(CommandStatus::Failed) if noop => return Ok(Received::OverNoop),
            Some(CommandStatus::Succeeded | CommandStatus::Failed) => {
                tracing::info!("the service has ended this command already; not performed");
                return Ok(Received::Over);
            }
            Some(CommandStatus::Pending | CommandStatus::InProgress) | None => {}
        }
        let entry = self
            .ledger
            .begin(&spec.deployment_id, &command.host_command_identifier)
            .map_err(ReceivedError::Ledger)?;
        tracing::info!("lifecycle event begins");
        systemd::status(&format!("{event} of {} ({})", spec.deployment_id, spec.application_name));
        let began = Instant::now();
        let report = self.host.perform(&event, &spec, shutdown.end_running.clone()).await;
        entry.close();
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if report.outcome.succeeded() {
            tracing::info!(duration_ms, "lifecycle event succeeded");
        } else {
            tracing::error!(duration_ms, outcome = %report.outcome, "lifecycle event failed");
        }
        Ok(Received::Performed(report))
    }

    async fn specification(&self, command: &HostCommand) -> Result<DeploymentSpec, ReceivedError> {
        let input = GetDeploymentSpecificationInput {
            deployment_execution_id: command.deployment_execution_id.clone(),
            host_identifier: command.host_identifier.clone(),
        };
        let answer = self.service.call(&input).await.map_err(ReceivedError::Fetch)?;
        if answer.deployment_system != command::DEPLOYMENT_SYSTEM {
            return Err(ReceivedError::System { found: answer.deployment_system });
        }
        let specification =
            answer.deployment_specification.and_then(|specification| specification.generic_envelope);
        let envelope = specification.ok_or(ReceivedError::NoSpecification)?;
        let verified = envelope::verify(&envelope, &self.host.settings.signer)?;
        Ok(DeploymentSpec::parse(&verified)?)
    }

    async fn acknowledge(
        &self,
        command: &HostCommand,
        noop: bool,
    ) -> Result<Option<CommandStatus>, ReceivedError> {
        let payload =
            serde_json::to_string(&AcknowledgementPayload { is_command_noop: noop }).unwrap_or_default();
        let input = PutHostCommandAcknowledgementInput {
            host_command_identifier: command.host_command_identifier.clone(),
            diagnostics: Some(Envelope { format: Envelope::JSON.into(), payload }),
        };
        Ok(self.service.call(&input).await.map_err(ReceivedError::Acknowledge)?.command_status)
    }

    async fn complete(&self, host_command_identifier: &str, report: &Report) {
        if let Err(error) = report::complete(&self.service, host_command_identifier, report).await {
            tracing::error!(%error, outcome = %report.outcome, "the service refuses the outcome of a command");
        }
    }
}

fn completed_noop() -> Report {
    Report {
        outcome: Outcome::Succeeded { note: Some("CompletedNoopCommand".into()) },
        log_tail: String::new(),
    }
}

/// Waits `pause`, but not beyond the end of a command or the beginning of a shutdown.
async fn wait(pause: Duration, commands: &mut JoinSet<()>, shutdown: &Shutdown) -> Waited {
    tokio::select! {
        () = tokio::time::sleep(pause) => Waited::TimeIsUp,
        () = shutdown.no_more_work.cancelled() => Waited::Stop,
        Some(_) = commands.join_next() => Waited::CommandFinished,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
