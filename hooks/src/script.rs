//! Runs the scripts of one lifecycle event and says how they ended (spec: Hook scripts).
//!
//! [`run`] takes a plan and gives a [`Report`]; [`process`] starts a script and ends it, [`output`] keeps what it writes,
//! [`outcome`] names every ending. Nothing that a script does holds the agent up for longer than its timeout and the two
//! graces of [`Limits`], or costs more than a bounded amount of memory and disk.

mod outcome;
mod output;
mod process;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::appspec::Script;
use crate::lifecycle::HookPlan;
pub use outcome::{Holder, OpenStreams, Outcome};
pub use output::{LogError, MAX_LOGGED, ScriptLog};
pub use process::{MARK, ScriptFinding, inspect};
use process::{Pipes, Prepared, Running, location};

/// How long the runner waits where a script does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Between TERM and KILL, for a script that is ended and everything it started.
    pub kill_grace: Duration,
    /// Between a script's end and that of its output: what still arrives counts, then an open stream is a failure.
    pub drain_grace: Duration,
}

impl Default for Limits {
    /// Five seconds each.
    fn default() -> Self {
        Self { kill_grace: Duration::from_secs(5), drain_grace: Duration::from_secs(5) }
    }
}

/// One event to be run.
#[derive(Debug)]
pub struct HookRun<'a> {
    pub plan: &'a HookPlan,
    /// All variables of the scripts: the agent's, and those that describe the deployment. The agent's AWS credentials are
    /// left out in any case; `HOME` and the like are set for a script that runs as another user.
    pub environment: &'a [(OsString, OsString)],
    pub limits: Limits,
    pub log: &'a mut ScriptLog,
    /// Cancelled when the agent can wait no longer: the script that runs is ended.
    pub stop: CancellationToken,
}

/// How an event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// The newest lines of the log, for [`Outcome::diagnostics`].
    pub log_tail: String,
}

/// Runs the scripts of one event in order; the first that fails ends it. To be awaited to its end: a script is ended
/// through [`HookRun::stop`], not by dropping the future.
pub async fn run(run: HookRun<'_>) -> Report {
    let HookRun { plan, environment, limits, log, stop } = run;
    if !plan.scripts.is_empty() {
        log.event(&plan.event);
    }
    let mut outcome = Outcome::Succeeded { note: None };
    for script in &plan.scripts {
        if stop.is_cancelled() {
            outcome = Outcome::Stopped { location: None };
            break;
        }
        let span = tracing::info_span!("script", lifecycle_event = %plan.event, script = %location(script));
        log.script(&script.location);
        let began = Instant::now();
        outcome =
            run_script(&plan.archive, script, environment, limits, log, &stop).instrument(span.clone()).await;
        log.end_script();
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        span.in_scope(|| match outcome.succeeded() {
            true => tracing::info!(duration_ms, "script succeeded"),
            false => tracing::info!(duration_ms, code = u8::from(outcome.code()), "script failed"),
        });
        if !outcome.succeeded() {
            break;
        }
    }
    Report { outcome, log_tail: log.tail() }
}

/// Why a script is no longer waited for.
enum Ending {
    Exited(io::Result<ExitStatus>),
    TimedOut,
    Stopped,
}

async fn run_script(
    archive: &Path,
    script: &Script,
    environment: &[(OsString, OsString)],
    limits: Limits,
    log: &mut ScriptLog,
    stop: &CancellationToken,
) -> Outcome {
    let prepared = match prepare(archive, script).await {
        Ok(prepared) => prepared,
        Err(outcome) => return outcome,
    };
    let mut running = match prepared.start(environment).await {
        Ok(running) => running,
        Err(reason) => {
            return Outcome::NotStarted { location: location(script), user: script.runas.clone(), reason };
        }
    };
    let mut pipes = running.pipes();

    let ending = pipes.read_while(log, ending(&mut running, script.timeout, stop)).await;
    if !matches!(ending, Ending::Exited(_)) {
        pipes.read_while(log, running.end(limits.kill_grace)).await;
    }
    // Whether everybody has closed the output by then shows in the pipes.
    let _ = timeout(limits.drain_grace, pipes.read_to_end(log)).await;

    match ending {
        Ending::Exited(Ok(status)) if status.success() => succeeded(script, &pipes).await,
        Ending::Exited(Ok(status)) => failed(script, status, prepared.hint()),
        Ending::Exited(Err(error)) => Outcome::Error {
            message: format!("how the script {} ended cannot be found out: {error}", location(script)),
        },
        Ending::TimedOut => Outcome::TimedOut {
            location: location(script),
            timeout: script.timeout,
            user: script.runas.clone(),
        },
        Ending::Stopped => Outcome::Stopped { location: Some(location(script)) },
    }
}

async fn prepare(archive: &Path, script: &Script) -> Result<Prepared, Outcome> {
    let (archive, name, script) = (archive.to_owned(), location(script), script.clone());
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(|| Prepared::new(&archive, &script))).await {
        Ok(prepared) => prepared,
        Err(error) => {
            Err(Outcome::Error { message: format!("the script {name} could not be looked at: {error}") })
        }
    }
}

async fn ending(running: &mut Running, timeout: Duration, stop: &CancellationToken) -> Ending {
    tokio::select! {
        biased;
        status = running.wait() => Ending::Exited(status),
        () = stop.cancelled() => Ending::Stopped,
        () = sleep(timeout) => Ending::TimedOut,
    }
}

/// The outcome of a script that ended well, if it left nobody behind who holds its output.
async fn succeeded(script: &Script, pipes: &Pipes) -> Outcome {
    match pipes.open() {
        None => Outcome::Succeeded { note: None },
        Some(streams) => {
            let holders = process::holders(pipes).await;
            Outcome::OutputLeftOpen { location: location(script), streams, holders }
        }
    }
}

fn failed(script: &Script, status: ExitStatus, hint: Option<String>) -> Outcome {
    let (location, user) = (location(script), script.runas.clone());
    match (status.code(), status.signal()) {
        (Some(exit_code), _) => Outcome::Failed { location, exit_code, user, hint },
        (None, signal) => Outcome::Killed { location, signal: signal.unwrap_or_default(), user },
    }
}
