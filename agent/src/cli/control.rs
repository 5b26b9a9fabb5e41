//! Controls the agent of this host: `start`, `stop`, `restart`, `status` (spec:
//! `codedeploy-agent`).
//!
//! The lock on the [pid file](crate::pidfile) shows whether an agent runs, the [control
//! socket](socket) what it is doing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Pid;
use serde::Serialize;

use crate::background::{self, Launch, Side, Waiter};
use crate::config::{ConfigError, Environment, Settings};
use crate::control_socket::socket::SocketError;
use crate::control_socket::status::{Activity, Outbox, Report};
use crate::control_socket::{self, Place};
use crate::deployment::ledger::Ledger;
use crate::deployment::slots::{self, status::GroupSlots};
use crate::deployment_root::Store;
use crate::history::{Deployment, History};
use crate::output;
use crate::pidfile::{self, Holder, PidFileError};
use codedeploy_api::chain::Chain;

/// The official agent's message if no agent is running.
const NOT_RUNNING: &str = "No AWS CodeDeploy agent running";

/// The time that an agent may need to stop, beyond that of its commands.
const STOP_MARGIN: Duration = Duration::from_secs(60);

/// Exit codes of `status` (LSB: "Init Script Actions"), like those of the official agent 2.
const EXIT_STOPPED: u8 = 3;
const EXIT_UNKNOWN: u8 = 4;

/// The reason why an operator's command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error("the agent is still starting; try again")]
    Starting,
    #[error(
        "A deployment is already in Progress: {}. Wait for its end, or use --force: then this agent takes no more \
         commands, finishes those in progress and stops",
        commands.join(", ")
    )]
    InProgress { commands: Vec<String> },
    #[error("The agent is busy with {}; wait for its end", commands.join(", "))]
    Deploying { commands: Vec<String> },
    #[error("cannot send TERM to the agent, process {pid}")]
    Signal { pid: Pid, source: std::io::Error },
    #[error("the agent, process {pid}, has not stopped after {} s; its log has the reason", timeout.as_secs())]
    StillRunning { pid: Pid, timeout: Duration },
}

/// `start`: runs the agent in the background. Returns in the caller once the agent is up or has
/// failed, and in the daemon when the daemon ends.
pub fn start(
    config_file: Option<PathBuf>,
    run: impl FnOnce(Option<PathBuf>, Waiter) -> ExitCode,
) -> ExitCode {
    // The daemon changes its current folder.
    let config_file = config_file.map(|file| std::path::absolute(&file).unwrap_or(file));
    match background::background() {
        Ok(Side::Daemon(caller)) => run(config_file, Waiter::of(caller)),
        Ok(Side::Caller(Launch::Up { pid })) => {
            output::say(running_as(pid));
            ExitCode::SUCCESS
        }
        Ok(Side::Caller(Launch::AlreadyRunning { message })) => {
            output::say(message);
            ExitCode::SUCCESS
        }
        Ok(Side::Caller(Launch::Failed { message })) => {
            output::complain(format_args!("codedeploy-agent: cannot start: {message}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            output::complain(format_args!("codedeploy-agent: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// `stop`: stops the agent and waits for its end. While a deployment is in progress, this needs
/// `force`.
pub fn stop(config_file: Option<&Path>, force: bool) -> ExitCode {
    match try_stop(config_file, force) {
        Ok(Some(pid)) => {
            output::say(format_args!(
                "The AWS CodeDeploy agent, PID {pid}, has stopped"
            ));
            ExitCode::SUCCESS
        }
        Ok(None) => {
            output::say(NOT_RUNNING);
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error),
    }
}

/// `restart`: stops the agent if it runs, and starts it.
pub fn restart(
    config_file: Option<PathBuf>,
    force: bool,
    run: impl FnOnce(Option<PathBuf>, Waiter) -> ExitCode,
) -> ExitCode {
    match try_stop(config_file.as_deref(), force) {
        Ok(_) => start(config_file, run),
        Err(error) => complain(&error),
    }
}

fn complain(error: &ControlError) -> ExitCode {
    output::fail("codedeploy-agent", error)
}

fn running_as(pid: impl std::fmt::Display) -> String {
    format!("The AWS CodeDeploy agent is running as PID {pid}")
}

/// Returns the process that has stopped; `None` if none ran.
fn try_stop(config_file: Option<&Path>, force: bool) -> Result<Option<Pid>, ControlError> {
    let (settings, _) = Settings::load(config_file, &Environment::of_process())?;
    let place = Place::of(&settings);
    let pid = match pidfile::holder(&place.pid_file)? {
        Holder::Nobody => return Ok(None),
        Holder::Agent(pid) => pid.ok_or(ControlError::Starting)?,
    };
    let Some(agent) = pidfile::Agent::find(&place.pid_file, pid)? else {
        return Ok(Some(pid));
    };
    let commands = in_progress(&settings, &place);
    if !force && !commands.is_empty() {
        return Err(ControlError::InProgress { commands });
    }
    agent
        .terminate()
        .map_err(|source| ControlError::Signal { pid, source })?;
    let timeout = settings.kill_agent_max_wait_time + settings.hook_kill_grace + STOP_MARGIN;
    if agent.wait(timeout)? {
        Ok(Some(pid))
    } else {
        Err(ControlError::StillRunning { pid, timeout })
    }
}

/// Fails if the running agent has a command in progress.
pub fn refuse_while_deploying(settings: &Settings) -> Result<(), ControlError> {
    let place = Place::of(settings);
    match pidfile::holder(&place.pid_file)? {
        Holder::Nobody => Ok(()),
        Holder::Agent(_) => match in_progress(settings, &place) {
            commands if commands.is_empty() => Ok(()),
            commands => Err(ControlError::Deploying { commands }),
        },
    }
}

/// Describes the commands in progress: as the agent reports them, or from its records if it does
/// not answer.
fn in_progress(settings: &Settings, place: &Place) -> Vec<String> {
    match control_socket::socket::ask(&place.socket) {
        // It was asked to stop before, and finishes them.
        Ok(Report {
            activity: Activity::Stopping,
            ..
        }) => Vec::new(),
        Ok(report) => {
            let words = |command: &control_socket::status::Command| {
                format!(
                    "{} of {} ({})",
                    command.lifecycle_event, command.deployment_id, command.application
                )
            };
            report.commands.iter().map(words).collect()
        }
        Err(_) => {
            let folder =
                Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking).ongoing();
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            // Other names are files that are still being written.
            names.filter(|name| !name.starts_with('.')).collect()
        }
    }
}

/// The output of `status --json`.
#[derive(Debug, Serialize)]
struct Document {
    version: u32,
    state: RunState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// The report of the running agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Report>,
    /// The last ten deployments, if the agent does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployments: Option<Vec<Deployment>>,
    /// The outcomes that the agent will report first, if it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox: Option<Outbox>,
    /// The slots of deployment groups that have some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slots: Vec<GroupSlots>,
    /// A problem while the status was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum RunState {
    Running,
    Stopped,
    Unknown,
}

impl Document {
    fn of(state: RunState, note: Option<String>) -> Self {
        Self {
            version: 1,
            state,
            pid: None,
            agent: None,
            deployments: None,
            outbox: None,
            slots: Vec::new(),
            note,
        }
    }
}

/// `status`: reports whether the agent runs, with the text and exit code of the official agents, or
/// prints the full status as JSON.
pub fn status(config_file: Option<&Path>, json: bool) -> ExitCode {
    let found = examine(config_file, json)
        .unwrap_or_else(|error| Document::of(RunState::Unknown, Some(Chain(&error).to_string())));
    let printed = if json {
        output::print_json(serde_json::to_string_pretty(&found).unwrap_or_default())
    } else {
        say(&found);
        ExitCode::SUCCESS
    };
    match found.state {
        RunState::Running => printed,
        RunState::Stopped => ExitCode::from(EXIT_STOPPED),
        RunState::Unknown => ExitCode::from(EXIT_UNKNOWN),
    }
}

fn say(found: &Document) {
    match (found.state, found.pid) {
        (RunState::Running, Some(pid)) => output::say(running_as(pid)),
        (RunState::Running, None) => output::say("The AWS CodeDeploy agent is starting"),
        (RunState::Stopped, _) => output::complain(format_args!("error: {NOT_RUNNING}")),
        (RunState::Unknown, _) => {
            output::complain("error: cannot tell whether the AWS CodeDeploy agent is running");
        }
    }
    if let Some(note) = &found.note {
        output::complain(note);
    }
    for slots in &found.slots {
        output::complain(slots);
    }
    if let Some(words) = found.agent.as_ref().and_then(Report::trouble_in_words) {
        output::complain(words);
    }
    // Scripts compare the text of the official agents, so stdout has nothing else. An outcome that
    // is just being reported is not worth a message.
    let troubled = found
        .agent
        .as_ref()
        .map(|agent| &agent.outbox)
        .filter(|outbox| outbox.last_error.is_some());
    if let Some(words) = troubled
        .or(found.outbox.as_ref())
        .and_then(Outbox::in_words)
    {
        output::complain(words);
    }
}

fn examine(config_file: Option<&Path>, in_full: bool) -> Result<Document, ControlError> {
    let (settings, _) = Settings::load(config_file, &Environment::of_process())?;
    let place = Place::of(&settings);
    let store = Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking);
    // Only root may read the records.
    let slots = slots::status::all(&store).unwrap_or_default();
    let pid = match pidfile::holder(&place.pid_file)? {
        Holder::Nobody => {
            let note = pidfile::named(&place.pid_file).map(|pid| {
                format!(
                    "{} names process {pid}, which is not the agent: it is stale",
                    place.pid_file.display()
                )
            });
            let deployments = in_full.then(|| History::peek(&place.history));
            let outbox = Some(Outbox::waiting_since(
                Ledger::peek(&store).iter().map(|ended| ended.ended_at),
            ));
            return Ok(Document {
                deployments,
                outbox,
                slots,
                ..Document::of(RunState::Stopped, note)
            });
        }
        Holder::Agent(pid) => pid,
    };
    let mut found = Document::of(RunState::Running, None);
    found.slots = slots;
    found.pid = pid.map(|pid| pid.as_raw_nonzero().get());
    match control_socket::socket::ask(&place.socket) {
        Ok(report) => found.agent = Some(report),
        Err(error) if in_full => found.note = Some(unanswered(&error)),
        // A caller without permission gets the plain answer.
        Err(_) => {}
    }
    Ok(found)
}

fn unanswered(error: &SocketError) -> String {
    let hint = match error {
        SocketError::Ask { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            "; only root may ask"
        }
        _ => "",
    };
    format!("{}{hint}", Chain(error))
}
