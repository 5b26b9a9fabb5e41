//! The daemon's loop: polls for commands, and runs them concurrently while polling continues (spec:
//! Command service protocol).

mod received;
mod recover;
mod seen_commands;
mod update;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codedeploy_api::command::{HostCommand, PutHostCommandCompleteInput};
use codedeploy_support::keyed_lock::KeyedLock;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use crate::acquaintance::Acquaintance;
use crate::backoff::Backoff;
use crate::cli::rollback::notice;
use crate::command::{CallError, CommandService};
use crate::control_socket::status::Status;
use crate::deployment::Host;
use crate::deployment::ledger::{DeploymentNames, Ledger, Outgoing};
use crate::deployment::rollback::journal::Journal;
use crate::memory;
use crate::path_component::PathComponent;
use crate::report::script_log::ScriptLogs;
use crate::report::{self, Delivered, DeliveryPolicy};
use crate::shutdown::Shutdown;
use crate::systemd::{self, Watchdog};
use seen_commands::{Delivery, SeenCommands};

/// The number of commands that run at once.
const MAX_COMMANDS: usize = 16;

/// The time that a poll may take besides the wait for its answer: for credentials, name resolution
/// and a connection.
const AROUND_POLL: Duration = Duration::from_secs(120);

/// The commands in progress or to be reported, each until the service has its outcome.
type Commands = JoinSet<()>;
/// A service that rejects a poll does so within this time; a poll without a response after it is
/// held open.
const REFUSAL: Duration = Duration::from_secs(1);

/// The running agent.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    service: CommandService,
    ledger: Ledger,
    acquaintance: Acquaintance,
    status: Status,
    seen: SeenCommands,
    script_logs: ScriptLogs,
    /// At most one command per deployment group at a time.
    groups: KeyedLock<PathComponent>,
    /// Limits the number of commands that run at once; an outcome that waits for the service takes
    /// no place.
    places: Semaphore,
}

/// The moment of the next poll.
#[derive(Debug, Clone, Copy)]
enum Next {
    Now,
    /// There is nothing new to do; the end of a command may change that.
    Idle(Duration),
    /// The service must be spared, whatever happens on this host.
    Spare(Duration),
}

impl Next {
    fn at_most(self) -> Duration {
        match self {
            Self::Now => Duration::ZERO,
            Self::Idle(pause) | Self::Spare(pause) => pause,
        }
    }
}

impl Agent {
    pub fn new(host: Host, service: CommandService, ledger: Ledger, status: Status) -> Self {
        let (seen, groups) = (SeenCommands::default(), KeyedLock::default());
        let acquaintance = Acquaintance::open(host.store());
        let script_logs = ScriptLogs::of(host.store(), host.settings().report_log_bytes);
        Self {
            host,
            service,
            ledger,
            acquaintance,
            status,
            seen,
            script_logs,
            groups,
            places: Semaphore::new(MAX_COMMANDS),
        }
    }

    /// Polls until the shutdown begins, then waits for the commands in progress.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut commands = JoinSet::new();
        tokio::select! {
            biased;
            () = shutdown.no_more_work.cancelled() => {}
            () = self.poll(&mut commands, &shutdown) => {}
        }
        self.status.stopping();
        let count = commands.len();
        systemd::stopping(count, async {
            while commands.join_next().await.is_some() {}
        })
        .await;
    }

    /// Never ends. Dropping the future ends a poll that the service holds open.
    async fn poll(self: &Arc<Self>, commands: &mut Commands, shutdown: &Shutdown) {
        let mut backoff = Backoff::default();
        let mut watchdog = Watchdog::of_process();
        let longest_poll = self.host.settings().http_read_timeout + AROUND_POLL;
        watchdog
            .over(None, Box::pin(recover::recover(self, commands, shutdown)))
            .await;
        loop {
            while commands.try_join_next().is_some() {}
            // Released at once: the command takes its own permit.
            drop(watchdog.over(None, self.place()).await);
            tracing::debug!("polling");
            let began = Instant::now();
            let next = match watchdog
                .over(Some(longest_poll), Box::pin(self.next_command()))
                .await
            {
                Ok(command) => {
                    systemd::ready();
                    self.status.polled();
                    self.acquaintance
                        .answered(self.service.endpoint(), self.service.signers().is_some());
                    self.tell_rollbacks(commands);
                    self.send_script_logs(commands, shutdown);
                    if backoff.reset() {
                        tracing::info!("the service answers again");
                    }
                    match command {
                        Some(command) => self.begin(command, commands, shutdown),
                        None => Next::Idle(self.host.settings().wait_between_runs),
                    }
                }
                Err(error) => Next::Spare(self.after_error(&error, began.elapsed(), &mut backoff)),
            };
            if commands.is_empty() && !matches!(next, Next::Spare(_)) {
                systemd::status("waiting for deployments");
            }
            watchdog
                .over(Some(next.at_most()), wait(next, commands))
                .await;
        }
    }

    /// Reports rollbacks that no command covers to the controller; other services do not accept
    /// such reports.
    fn tell_rollbacks(self: &Arc<Self>, commands: &mut Commands) {
        if !notice::is_waiting(self.host.store()) {
            return;
        }
        if self.service.signers().is_none() {
            return notice::drop_all(self.host.store());
        }
        let agent = Arc::clone(self);
        commands.spawn(async move { notice::tell(agent.host.store(), &agent.service).await });
    }

    /// Sends the script logs that the controller wants and does not have.
    fn send_script_logs(self: &Arc<Self>, commands: &mut Commands, shutdown: &Shutdown) {
        if !self.script_logs.is_waiting() {
            return;
        }
        if self.service.signers().is_none() {
            return self.script_logs.drop_all();
        }
        let (agent, end) = (Arc::clone(self), shutdown.no_more_work.clone());
        let sending = async move { agent.script_logs.send(&agent.service).await };
        commands.spawn(async move { end.run_until_cancelled(sending).await.unwrap_or_default() });
    }

    /// Polls once. If there is nothing to do, services hold the poll open for a minute; readiness
    /// does not wait that long.
    async fn next_command(&self) -> Result<Option<HostCommand>, CallError> {
        let mut poll = pin!(self.service.poll());
        while !systemd::is_ready() {
            tokio::select! {
                answered = &mut poll => return answered,
                () = tokio::time::sleep(REFUSAL) => if self.service.is_connected() {
                    systemd::ready();
                    self.status.reached();
                    memory::give_back();
                },
            }
        }
        poll.await
    }

    fn after_error(&self, error: &CallError, took: Duration, backoff: &mut Backoff) -> Duration {
        let pause = backoff.after_error(error.is_throttling(), took);
        let pause = if error.is_temporary() {
            pause
        } else {
            self.host.settings().wait_after_error + pause
        };
        tracing::warn!(%error, retry_in_seconds = pause.as_secs(), "cannot poll for commands");
        systemd::status(&format!("cannot poll for commands: {error}"));
        self.status.poll_failed(&error.to_string());
        pause
    }

    /// Starts a command that was delivered. For a redelivered one, reports the recorded outcome
    /// again and pauses as if the poll had been empty.
    fn begin(
        self: &Arc<Self>,
        command: HostCommand,
        commands: &mut Commands,
        shutdown: &Shutdown,
    ) -> Next {
        let span = span_of(&command);
        let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
        let again = Next::Idle(self.host.settings().wait_between_runs);
        let id = &command.host_command_identifier;
        let delivery = match self.seen.delivered(id) {
            Delivery::New => self
                .ledger
                .told(id)
                .map_or(Delivery::New, |told| Delivery::Ended(Arc::new(told))),
            again => again,
        };
        match delivery {
            Delivery::New => {
                let task = async move { received::carry_out(&agent, command, &shutdown).await };
                commands.spawn(task.instrument(span));
                Next::Now
            }
            Delivery::InProgress => {
                tracing::debug!(parent: &span, "delivered again while in progress; ignored");
                again
            }
            Delivery::Ended(completion) => {
                tracing::info!(parent: &span, status = ?completion.command_status, "delivered again after its end; the outcome is reported again");
                commands.spawn(
                    async move { agent.tell_again(completion, &shutdown).await }.instrument(span),
                );
                again
            }
        }
    }

    /// Reports the outcome of a command to the service, and remembers it.
    async fn tell(&self, outgoing: Outgoing, maybe_told: bool, shutdown: &Shutdown) {
        let policy = delivery_policy(outgoing.is_safe(), shutdown);
        let completion = Arc::new(outgoing.ended.completion.clone());
        let telling = self.status.tells(outgoing.ended.ended_at);
        let failed = |error: &CallError| telling.failed(error);
        let delivered =
            report::complete(&self.service, &completion, maybe_told, &policy, failed).await;
        let mut wanted = None;
        match delivered {
            Delivered::Taken(script_log) => {
                wanted = script_log.filter(|_| self.service.signers().is_some());
                if let Some(wanted) = wanted {
                    self.script_logs.want(&outgoing.ended, wanted);
                }
                self.ledger.close(outgoing);
            }
            Delivered::Refused(error) => {
                tracing::error!(%error, "the service rejects the outcome of a command; it is dropped");
                self.ledger.close(outgoing);
            }
            Delivered::NotYet(error) => {
                let error = error.as_ref().map(tracing::field::display);
                let at_next_start = outgoing.is_safe();
                tracing::warn!(
                    error,
                    at_next_start,
                    "the agent stops before the service has accepted the outcome of a command"
                );
            }
        }
        self.seen.ended(
            &completion.host_command_identifier,
            Some(Arc::clone(&completion)),
        );
        if wanted.is_some() {
            let sending = self.script_logs.send(&self.service);
            shutdown.no_more_work.run_until_cancelled(sending).await;
        }
    }

    async fn tell_again(&self, completion: Arc<PutHostCommandCompleteInput>, shutdown: &Shutdown) {
        let policy = delivery_policy(true, shutdown);
        let delivered = report::complete(&self.service, &completion, true, &policy, |_| {}).await;
        if let Delivered::NotYet(_) = delivered {
            tracing::info!("the agent stops before the service has accepted the outcome again");
        }
        self.seen.ended(
            &completion.host_command_identifier,
            Some(Arc::clone(&completion)),
        );
    }

    /// Waits until one more command may run.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.places.acquire().await.ok()
    }

    /// Closes the record of a rollback once the outcome of its command is recorded.
    fn close_rollback(&self, about: &DeploymentNames, command: &str) {
        if let Some(words) = Journal::close(self.host.store(), about, command) {
            self.status.rolled_back(about, &words);
        }
    }
}

fn delivery_policy(safe: bool, shutdown: &Shutdown) -> DeliveryPolicy {
    let Shutdown {
        no_more_work,
        end_running,
    } = shutdown.clone();
    if safe {
        DeliveryPolicy::Safe {
            one_more: no_more_work,
            end: end_running,
        }
    } else {
        DeliveryPolicy::Unsafe(end_running)
    }
}

/// Makes the span that adds the names of a command to its log lines.
fn span_of(command: &HostCommand) -> Span {
    tracing::info_span!(
        "command",
        command = shortened(&command.host_command_identifier),
        lifecycle_event = shortened(&command.command_name),
        deployment_id = tracing::field::Empty,
        deployment_group = tracing::field::Empty,
        application = tracing::field::Empty,
    )
}

/// Shortens a name for the log.
fn shortened(name: &str) -> &str {
    name.char_indices()
        .nth(128)
        .map_or(name, |(end, _)| &name[..end])
}

async fn wait(next: Next, commands: &mut Commands) {
    match next {
        Next::Now => {}
        Next::Idle(pause) => tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(_) = commands.join_next() => {}
        },
        Next::Spare(pause) => tokio::time::sleep(pause).await,
    }
}
