//! The daemon's loop: poll for commands, and carry them out side by side while polling goes on
//! (spec: Command service protocol).

mod known;
mod received;
mod turns;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codedeploy_api::command::HostCommand;
use codedeploy_hooks::script::{Outcome, Report};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::backoff::Backoff;
use crate::command::{CallError, CommandService};
use crate::control::status::Status;
use crate::deployment::Host;
use crate::deployment::ledger::Ledger;
use crate::shutdown::Shutdown;
use crate::spec::PathComponent;
use crate::systemd::{self, Watchdog};
use known::{Delivery, KnownCommands};
use turns::Turns;

/// Commands that are carried out at once.
const MAX_COMMANDS: usize = 16;

/// What a poll may take beyond the time that its answer may: credentials, name resolution, a connection.
const AROUND_POLL: Duration = Duration::from_secs(120);

/// A service that refuses a poll does so within this time; after it, a poll without an answer is held open.
const REFUSAL: Duration = Duration::from_secs(1);

/// The running agent.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    service: CommandService,
    ledger: Ledger,
    status: Status,
    known: KnownCommands,
    /// One command of a deployment group at a time.
    groups: Turns<PathComponent>,
}

/// What stands between one poll and the next.
#[derive(Debug, Clone, Copy)]
enum Next {
    Now,
    /// Nothing new to do; the end of a command may mean that there is.
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
        Self { host, service, ledger, status, known: KnownCommands::default(), groups: Turns::default() }
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
        systemd::stopping(count, async { while commands.join_next().await.is_some() {} }).await;
    }

    /// Never ends. Dropping the future ends a poll that the service holds open.
    async fn poll(self: &Arc<Self>, commands: &mut JoinSet<()>, shutdown: &Shutdown) {
        let mut backoff = Backoff::default();
        let mut watchdog = Watchdog::of_process();
        let longest_poll = self.host.settings.http_read_timeout + AROUND_POLL;
        self.recover(commands, shutdown);
        loop {
            while commands.try_join_next().is_some() {}
            while commands.len() >= MAX_COMMANDS {
                watchdog.over(None, commands.join_next()).await;
            }
            tracing::debug!("polling");
            let began = Instant::now();
            let next = match watchdog.over(Some(longest_poll), Box::pin(self.next_command())).await {
                Ok(command) => {
                    systemd::ready();
                    self.status.polled();
                    if backoff.reset() {
                        tracing::info!("the service answers again");
                    }
                    match command {
                        Some(command) => self.begin(command, commands, shutdown),
                        None => Next::Idle(self.host.settings.wait_between_runs),
                    }
                }
                Err(error) => Next::Spare(self.after_error(&error, began.elapsed(), &mut backoff)),
            };
            if commands.is_empty() && !matches!(next, Next::Spare(_)) {
                systemd::status("waiting for deployments");
            }
            watchdog.over(Some(next.at_most()), wait(next, commands)).await;
        }
    }

    /// A poll. With nothing to do, services hold it open for a minute; whoever waits for readiness need not wait that long.
    async fn next_command(&self) -> Result<Option<HostCommand>, CallError> {
        let mut poll = pin!(self.service.poll());
        while !systemd::is_ready() {
            tokio::select! {
                answered = &mut poll => return answered,
                () = tokio::time::sleep(REFUSAL) => if self.service.is_connected() {
                    systemd::ready();
                    self.status.reached();
                },
            }
        }
        poll.await
    }

    fn after_error(&self, error: &CallError, took: Duration, backoff: &mut Backoff) -> Duration {
        let pause = backoff.after_error(error.is_throttling(), took);
        let pause = if error.is_temporary() { pause } else { self.host.settings.wait_after_error + pause };
        tracing::warn!(%error, retry_in_seconds = pause.as_secs(), "cannot poll for commands");
        systemd::status(&format!("cannot poll for commands: {error}"));
        self.status.poll_failed(&error.to_string());
        pause
    }

    /// Reports the commands that an earlier run of the agent left unfinished.
    fn recover(self: &Arc<Self>, commands: &mut JoinSet<()>, shutdown: &Shutdown) {
        for (entry, interrupted) in self.ledger.interrupted() {
            let message = "the agent was restarted while this lifecycle event was in progress, so its outcome is unknown";
            tracing::warn!(deployment_id = interrupted.deployment_id, "{message}");
            let outcome = Outcome::FailedAfterRestart { message: message.into() };
            let report = Arc::new(Report { outcome, log_tail: String::new() });
            let id = interrupted.host_command_identifier;
            // Should the service deliver it again, it is known.
            let _ = self.known.delivered(&id);
            let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
            commands.spawn(async move {
                agent.complete(&id, &report, Some(entry), &shutdown).await;
                agent.known.ended(&id, Some(report));
            });
        }
    }

    /// Starts a command that was delivered. Of one that was delivered before, only the outcome is told again; and to
    /// a service that repeats itself, the poll brought nothing.
    fn begin(
        self: &Arc<Self>,
        command: HostCommand,
        commands: &mut JoinSet<()>,
        shutdown: &Shutdown,
    ) -> Next {
        let span = tracing::info_span!(
            "command",
            command = shortened(&command.host_command_identifier),
            lifecycle_event = shortened(&command.command_name),
            deployment_id = tracing::field::Empty,
            deployment_group = tracing::field::Empty,
            application = tracing::field::Empty,
        );
        let (agent, shutdown) = (Arc::clone(self), shutdown.clone());
        let again = Next::Idle(self.host.settings.wait_between_runs);
        match self.known.delivered(&command.host_command_identifier) {
            Delivery::New => {
                commands.spawn(async move { agent.carry_out(command, shutdown).await }.instrument(span));
                Next::Now
            }
            Delivery::InProgress => {
                tracing::debug!(parent: &span, "delivered again while in progress; ignored");
                again
            }
            Delivery::Ended(report) => {
                tracing::info!(parent: &span, outcome = %report.outcome, "delivered again after its end; the outcome is reported again");
                let id = command.host_command_identifier;
                commands.spawn(
                    async move {
                        agent.complete(&id, &report, None, &shutdown).await;
                        agent.known.ended(&id, Some(report));
                    }
                    .instrument(span),
                );
                again
            }
        }
    }
}

/// What of a name goes into the log.
fn shortened(name: &str) -> &str {
    name.char_indices().nth(128).map_or(name, |(end, _)| &name[..end])
}

async fn wait(next: Next, commands: &mut JoinSet<()>) {
    match next {
        Next::Now => {}
        Next::Idle(pause) => tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(_) = commands.join_next() => {}
        },
        Next::Spare(pause) => tokio::time::sleep(pause).await,
    }
}
