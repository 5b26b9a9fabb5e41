//! The status of the running agent: the handle that the poll loop keeps up to date, and the report
//! that is read from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::Outcome;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::deployment::ledger::DeploymentNames;
use crate::history::{Deployment, DeploymentOutcome, History};
use crate::metrics::Metrics;
use crate::spec::DeploymentSpec;

/// The agent's status. Clones share it.
#[derive(Debug, Clone)]
pub struct Status(Arc<Mutex<State>>, Option<Arc<Metrics>>);

#[derive(Debug)]
struct State {
    host_identifier: String,
    started_at: OffsetDateTime,
    reached: bool,
    last_poll_at: Option<OffsetDateTime>,
    last_error: Option<Failure>,
    /// Whether the latest poll failed.
    unreachable: bool,
    stopping: bool,
    commands: Vec<(u64, Command)>,
    outcomes: BTreeMap<u64, Waiting>,
    next: u64,
    history: History,
}

/// A waiting outcome.
#[derive(Debug)]
struct Waiting {
    since: OffsetDateTime,
    last_error: Option<Failure>,
}

/// The full status of a running agent. New members may be added; none changes its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub agent_version: String,
    pub host_identifier: String,
    pub activity: Activity,
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// The time of the service's last response to a poll.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_poll_at: Option<OffsetDateTime>,
    /// The last failed poll, kept after later ones succeed.
    pub last_error: Option<Failure>,
    /// The commands in progress.
    pub commands: Vec<Command>,
    /// The last ten deployments, newest first.
    pub deployments: Vec<Deployment>,
    /// The outcomes that the service has not accepted yet.
    #[serde(default)]
    pub outbox: Outbox,
}

/// Outcomes of ended commands that the service has not accepted yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    pub waiting: usize,
    /// The time from which the oldest one waits.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest: Option<OffsetDateTime>,
    /// The last failed attempt to report one of them.
    pub last_error: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// The service has not been reached yet.
    Starting,
    Waiting,
    Deploying,
    /// The last poll failed.
    Unreachable,
    Stopping,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub message: String,
}

/// One lifecycle event of one deployment, in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub lifecycle_event: String,
    pub deployment_id: String,
    pub application: String,
    pub deployment_group: String,
    #[serde(with = "time::serde::rfc3339")]
    pub began_at: OffsetDateTime,
}

/// A command from its beginning to its end. If dropped without [`Running::ended`], it counts as
/// failed.
#[derive(Debug)]
#[must_use]
pub struct Running {
    status: Status,
    number: u64,
}

/// An outcome, from the time when it is ready until it is accepted or given up.
#[derive(Debug)]
#[must_use]
pub struct Telling {
    status: Status,
    number: u64,
}

impl Status {
    /// Events are also counted by `metrics`, if they are wanted.
    pub fn new(
        host_identifier: impl Into<String>,
        history: History,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        let state = Arc::new(Mutex::new(State {
            host_identifier: host_identifier.into(),
            started_at: now(),
            reached: false,
            last_poll_at: None,
            last_error: None,
            unreachable: false,
            stopping: false,
            commands: Vec::new(),
            outcomes: BTreeMap::new(),
            next: 0,
            history,
        }));
        Self(state, metrics)
    }

    /// Records that the service has a poll, which it may hold open.
    pub fn reached(&self) {
        let mut state = self.state();
        (state.reached, state.unreachable) = (true, false);
    }

    /// Records that the service has answered a poll.
    pub fn polled(&self) {
        self.reached();
        self.state().last_poll_at = Some(now());
        self.1.iter().for_each(|metrics| metrics.polled(true));
    }

    pub fn poll_failed(&self, error: &str) {
        let mut state = self.state();
        state.last_error = Some(Failure {
            at: now(),
            message: error.to_owned(),
        });
        state.unreachable = true;
        drop(state);
        self.1.iter().for_each(|metrics| metrics.polled(false));
    }

    /// Records that no further command will begin.
    pub fn stopping(&self) {
        self.state().stopping = true;
    }

    pub fn began(&self, event: &LifecycleEvent, spec: &DeploymentSpec) -> Running {
        self.began_at(event, &DeploymentNames::of(spec), now())
    }

    /// Records a command that began before this agent started.
    pub fn began_at(
        &self,
        event: &LifecycleEvent,
        about: &DeploymentNames,
        began_at: OffsetDateTime,
    ) -> Running {
        self.begin(Command {
            lifecycle_event: event.name().to_owned(),
            deployment_id: about.deployment_id.as_str().to_owned(),
            application: about.application.clone(),
            deployment_group: about.deployment_group.clone(),
            began_at,
        })
    }

    fn begin(&self, command: Command) -> Running {
        let mut state = self.state();
        let number = state.number();
        state.commands.push((number, command));
        Running {
            status: self.clone(),
            number,
        }
    }

    /// Records an outcome that has been ready since then.
    pub fn tells(&self, since: OffsetDateTime) -> Telling {
        let mut state = self.state();
        let number = state.number();
        state.outcomes.insert(
            number,
            Waiting {
                since: to_milliseconds(since),
                last_error: None,
            },
        );
        Telling {
            status: self.clone(),
            number,
        }
    }

    fn end(&self, number: u64, outcome: DeploymentOutcome, message: String) {
        let mut state = self.state();
        let Some(position) = state
            .commands
            .iter()
            .position(|(known, _)| *known == number)
        else {
            return;
        };
        let (_, command) = state.commands.remove(position);
        let seconds = (OffsetDateTime::now_utc() - command.began_at).as_seconds_f64();
        if let Some(metrics) = &self.1 {
            let succeeded = outcome == DeploymentOutcome::Succeeded;
            metrics.event_ended(&command.lifecycle_event, succeeded, seconds);
        }
        state.history.record(Deployment {
            deployment_id: command.deployment_id,
            application: command.application,
            deployment_group: command.deployment_group,
            began_at: command.began_at,
            seconds,
            last_lifecycle_event: command.lifecycle_event,
            outcome,
            message,
            rolled_back: None,
        });
    }

    /// Records that a deployment was taken back on this host.
    pub fn rolled_back(&self, about: &DeploymentNames, words: &str) {
        self.state().history.rolled_back(about, words);
    }

    pub fn report(&self) -> Report {
        let mut state = self.state();
        state.history.refresh();
        let commands: Vec<Command> = state
            .commands
            .iter()
            .map(|(_, command)| command.clone())
            .collect();
        Report {
            agent_version: crate::version::reported().to_owned(),
            host_identifier: state.host_identifier.clone(),
            activity: state.activity(),
            started_at: state.started_at,
            last_poll_at: state.last_poll_at,
            last_error: state.last_error.clone(),
            deployments: with_running(&commands, state.history.deployments()),
            commands,
            outbox: state.outbox(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// Explains to a person why no commands arrive, if the latest poll failed.
    pub fn trouble_in_words(&self) -> Option<String> {
        let Failure { at, message } = self.last_error.as_ref()?;
        if self.last_poll_at.is_some_and(|answered| answered > *at) {
            return None;
        }
        let since = self
            .last_poll_at
            .map_or("it was never reached".into(), |answered| {
                let answered = answered.format(&Rfc3339).unwrap_or_default();
                format!("it answered last at {answered}")
            });
        Some(format!("the service does not answer ({since}): {message}"))
    }
}

impl Outbox {
    /// Describes outcomes that have waited since these times.
    pub fn waiting_since(times: impl Iterator<Item = OffsetDateTime> + Clone) -> Self {
        Self {
            waiting: times.clone().count(),
            oldest: times.min().map(to_milliseconds),
            last_error: None,
        }
    }

    /// `None` if no outcome waits.
    pub fn in_words(&self) -> Option<String> {
        let oldest = self.oldest?;
        let oldest = oldest.format(&Rfc3339).unwrap_or_default();
        let mut words = match self.waiting {
            1 => format!("1 outcome has not been reported to the service since {oldest}"),
            count => {
                format!(
                    "{count} outcomes have not been reported to the service, the oldest since {oldest}"
                )
            }
        };
        if let Some(Failure { message, .. }) = &self.last_error {
            words += &format!("; last error: {message}");
        }
        Some(words)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn outbox(&self) -> Outbox {
        let errors = self
            .outcomes
            .values()
            .filter_map(|waiting| waiting.last_error.clone());
        let waiting = Outbox::waiting_since(self.outcomes.values().map(|waiting| waiting.since));
        Outbox {
            last_error: errors.max_by_key(|error| error.at),
            ..waiting
        }
    }

    fn activity(&self) -> Activity {
        if self.stopping {
            Activity::Stopping
        } else if !self.commands.is_empty() {
            Activity::Deploying
        } else if self.unreachable {
            Activity::Unreachable
        } else if !self.reached {
            Activity::Starting
        } else {
            Activity::Waiting
        }
    }
}

impl Running {
    pub fn ended(self, outcome: &Outcome) {
        let (ended, message) = if outcome.succeeded() {
            (DeploymentOutcome::Succeeded, String::new())
        } else {
            (DeploymentOutcome::Failed, outcome.to_string())
        };
        self.status.end(self.number, ended, message);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let message =
            "the agent could not finish this lifecycle event; its log says why".to_owned();
        self.status
            .end(self.number, DeploymentOutcome::Failed, message);
    }
}

impl Telling {
    pub fn failed(&self, error: &dyn std::fmt::Display) {
        let failure = Failure {
            at: now(),
            message: error.to_string(),
        };
        if let Some(waiting) = self.status.state().outcomes.get_mut(&self.number) {
            waiting.last_error = Some(failure);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.status.state().outcomes.remove(&self.number);
    }
}

/// The ended deployments, preceded by the deployments in progress.
fn with_running<'a>(
    commands: &[Command],
    ended: impl Iterator<Item = &'a Deployment>,
) -> Vec<Deployment> {
    let ended: Vec<&Deployment> = ended.collect();
    let is_running = |id: &str| commands.iter().any(|command| command.deployment_id == id);
    let running = commands.iter().map(|command| {
        let before = ended
            .iter()
            .find(|known| known.deployment_id == command.deployment_id);
        let began_at = before.map_or(command.began_at, |known| known.began_at);
        Deployment {
            deployment_id: command.deployment_id.clone(),
            application: command.application.clone(),
            deployment_group: command.deployment_group.clone(),
            began_at,
            seconds: (now() - began_at).as_seconds_f64().max(0.0),
            last_lifecycle_event: command.lifecycle_event.clone(),
            outcome: DeploymentOutcome::InProgress,
            message: String::new(),
            rolled_back: None,
        }
    });
    let ended = ended
        .iter()
        .filter(|known| !is_running(&known.deployment_id));
    running
        .chain(ended.map(|known| (*known).clone()))
        .take(crate::history::KEPT)
        .collect()
}

fn now() -> OffsetDateTime {
    to_milliseconds(OffsetDateTime::now_utc())
}

/// Nanoseconds are of no use to readers.
fn to_milliseconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(time.nanosecond() / 1_000_000 * 1_000_000)
        .unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(id: &str, event: &str) -> Command {
        Command {
            lifecycle_event: event.into(),
            deployment_id: id.into(),
            application: "shop".into(),
            deployment_group: "web".into(),
            began_at: now(),
        }
    }

    #[test]
    fn the_activity_follows_what_happens() {
        let folder = tempfile::tempdir().unwrap();
        let status = Status::new(
            "arn:host",
            History::open(&folder.path().join("history.json")),
            None,
        );
        assert_eq!(status.report().activity, Activity::Starting);
        status.poll_failed("no route");
        assert_eq!(status.report().activity, Activity::Unreachable);
        status.polled();
        let report = status.report();
        assert_eq!(report.activity, Activity::Waiting);
        assert_eq!(
            report.last_error.unwrap().message,
            "no route",
            "it stays known"
        );

        let install = status.begin(command("d-1", "Install"));
        status
            .begin(command("d-2", "Install"))
            .ended(&Outcome::Succeeded { note: None });
        let report = status.report();
        assert_eq!(
            (report.activity, report.commands.len()),
            (Activity::Deploying, 1)
        );
        let outcomes: Vec<_> = report
            .deployments
            .iter()
            .map(|known| (known.deployment_id.as_str(), known.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [
                ("d-1", DeploymentOutcome::InProgress),
                ("d-2", DeploymentOutcome::Succeeded)
            ]
        );
        drop(install);
        let report = status.report();
        assert_eq!(report.activity, Activity::Waiting);
        assert_eq!(
            report.deployments[0].outcome,
            DeploymentOutcome::Failed,
            "a panic ends a command too"
        );
        assert_eq!(report.deployments.len(), 2, "{report:#?}");
        status.stopping();
        assert_eq!(status.report().activity, Activity::Stopping);
    }
}
