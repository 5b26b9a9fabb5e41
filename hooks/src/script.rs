//! Runs the scripts of one lifecycle event and reports how they ended (spec: Hook scripts).
//!
//! [`run`] takes a plan and returns a [`Report`]; [`process`] starts a script and ends it,
//! [`output`] keeps its output, [`outcome`] names every ending. No script can delay the agent for
//! longer than its timeout and the two graces of [`Limits`], or use more than a bounded amount of
//! memory and disk.

mod outcome;
mod output;
mod process;
pub mod variables;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::diagnostics::{MAX_LOCATION_CHARS, MAX_SCRIPT_RUNS, ScriptRun};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::appspec::Script;
use crate::custody::Deployed;
use crate::lifecycle::HookPlan;
pub use outcome::{Holder, OpenStreams, Outcome};
pub use output::{LogPlaces, MAX_LOGGED, ScriptLog, log_readers};
use process::{Ended, Pipes, Prepared, Running, location};
pub use process::{MARK, ScriptFinding, Session, inspect, keep_script};

/// Waiting times that do not come from a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time between TERM and KILL, when a script and everything that it started is ended.
    pub kill_grace: Duration,
    /// The time between a script's end and the end of its output. Output within it counts; a stream
    /// that is still open after it is a failure.
    pub drain_grace: Duration,
}

impl Default for Limits {
    /// Five seconds each.
    fn default() -> Self {
        Self {
            kill_grace: Duration::from_secs(5),
            drain_grace: Duration::from_secs(5),
        }
    }
}

/// The path of the calling program.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// One event to run.
#[derive(Debug)]
pub struct HookRun<'a> {
    pub plan: &'a HookPlan,
    /// All variables of the scripts: the agent's own, and those that describe the deployment. The
    /// agent's AWS credentials are always left out; `HOME` and the like are set for a script that
    /// runs as another user.
    pub environment: &'a [(OsString, OsString)],
    /// The program that watches over each script: one that calls [`keep_script`] first, such as
    /// [`THIS_PROGRAM`].
    pub keeper: &'a Path,
    /// Whether root opens a session for scripts that run as another user.
    pub session: Option<Session>,
    pub limits: Limits,
    /// The required state of the scripts before root runs them; absent if another agent unpacked
    /// the revision.
    pub deployed: Option<Arc<Deployed>>,
    pub log: &'a mut ScriptLog,
    /// Cancelled when the agent can wait no longer: the running script is ended.
    pub stop: CancellationToken,
}

/// How an event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// The last lines of the log, for [`Outcome::diagnostics`].
    pub log_tail: String,
    /// The scripts that ran, at most [`MAX_SCRIPT_RUNS`].
    pub scripts: Vec<ScriptRun>,
}

/// Runs the scripts of one event in order; the first failure ends it. Await it to its end: end a
/// script through [`HookRun::stop`], not by dropping the future.
pub async fn run(run: HookRun<'_>) -> Report {
    let HookRun {
        plan,
        environment,
        keeper,
        session,
        limits,
        deployed,
        log,
        stop,
    } = run;
    let manner = Manner {
        archive: &plan.archive,
        environment,
        keeper,
        session,
        limits,
        deployed,
        stop: &stop,
    };
    if !plan.scripts.is_empty() {
        log.event(&plan.event);
    }
    let mut outcome = Outcome::Succeeded { note: None };
    let mut scripts = Vec::new();
    for script in &plan.scripts {
        if stop.is_cancelled() {
            outcome = Outcome::Stopped { location: None };
            break;
        }
        let span = tracing::info_span!("script", lifecycle_event = %plan.event, script = %location(script));
        let (began, started) = (Instant::now(), Timestamp::now());
        outcome = manner
            .run_script(script, log)
            .instrument(span.clone())
            .await;
        log.end_script();
        if scripts.len() < MAX_SCRIPT_RUNS {
            scripts.push(ScriptRun {
                location: location(script).chars().take(MAX_LOCATION_CHARS).collect(),
                started,
                ended: started + began.elapsed(),
                error_code: outcome.code(),
            });
        }
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        span.in_scope(|| {
            if outcome.succeeded() {
                tracing::info!(duration_ms, "script succeeded");
            } else {
                tracing::info!(
                    duration_ms,
                    code = u8::from(outcome.code()),
                    "script failed"
                );
            }
        });
        if !outcome.succeeded() {
            break;
        }
    }
    Report {
        outcome,
        log_tail: log.tail(),
        scripts,
    }
}

/// The settings for all scripts of an event.
struct Manner<'a> {
    archive: &'a Path,
    environment: &'a [(OsString, OsString)],
    keeper: &'a Path,
    session: Option<Session>,
    limits: Limits,
    deployed: Option<Arc<Deployed>>,
    stop: &'a CancellationToken,
}

/// The reason why a script is no longer waited for.
enum Ending {
    Ended(Ended),
    TimedOut,
    Stopped,
}

impl Manner<'_> {
    async fn run_script(&self, script: &Script, log: &mut ScriptLog) -> Outcome {
        let limits = self.limits;
        let not_started = |reason| Outcome::NotStarted {
            location: location(script),
            user: script.runas.clone(),
            reason,
        };
        let prepared = match prepare(self.archive, script, self.deployed.clone()).await {
            Ok(prepared) => prepared,
            Err(outcome) => {
                // A script that is missing, or cannot be made executable, has not begun.
                if !matches!(
                    outcome,
                    Outcome::ScriptMissing { .. } | Outcome::NotExecutable { .. }
                ) {
                    log.script(&script.location);
                }
                return outcome;
            }
        };
        log.script(&script.location);
        let mut running = match prepared
            .start(self.keeper, self.environment, self.session)
            .await
        {
            Ok(running) => running,
            Err(reason) => return not_started(reason),
        };
        let mut pipes = running.pipes();

        let ending = pipes
            .read_while(log, ending(&mut running, script.timeout, self.stop))
            .await;
        if matches!(
            ending,
            Ending::TimedOut | Ending::Stopped | Ending::Ended(Ended::Unknown(_))
        ) {
            pipes.read_while(log, running.end(limits.kill_grace)).await;
        }
        pipes
            .read_while(log, running.release(limits.kill_grace))
            .await;
        // The pipes show whether everybody has closed the output by then.
        let _ = timeout(limits.drain_grace, pipes.read_to_end(log)).await;

        match ending {
            Ending::Ended(Ended::Exited(status)) if status.success() => {
                succeeded(script, &pipes, limits.drain_grace).await
            }
            Ending::Ended(Ended::Exited(status)) => failed(script, status, prepared.hint()),
            Ending::Ended(Ended::Failed(error)) => not_started(prepared.explain(&error)),
            Ending::Ended(Ended::Refused(reason)) => not_started(reason),
            Ending::Ended(Ended::Unknown(reason)) => Outcome::Error {
                message: format!(
                    "how the script {} ended cannot be found out: {reason}",
                    location(script)
                ),
            },
            Ending::TimedOut => Outcome::TimedOut {
                location: location(script),
                timeout: script.timeout,
                user: script.runas.clone(),
            },
            Ending::Stopped => Outcome::Stopped {
                location: Some(location(script)),
            },
        }
    }
}

async fn prepare(
    archive: &Path,
    script: &Script,
    deployed: Option<Arc<Deployed>>,
) -> Result<Prepared, Outcome> {
    let (archive, name, script) = (archive.to_owned(), location(script), script.clone());
    let span = tracing::Span::current();
    let prepare = move || span.in_scope(|| Prepared::new(&archive, &script, deployed.as_deref()));
    match tokio::task::spawn_blocking(prepare).await {
        Ok(prepared) => prepared,
        Err(error) => Err(Outcome::Error {
            message: format!("the script {name} could not be looked at: {error}"),
        }),
    }
}

async fn ending(running: &mut Running, timeout: Duration, stop: &CancellationToken) -> Ending {
    tokio::select! {
        biased;
        ended = running.wait() => Ending::Ended(ended),
        () = stop.cancelled() => Ending::Stopped,
        () = sleep(timeout) => Ending::TimedOut,
    }
}

/// The outcome of a script that succeeded: a failure if a process that it left holds its output
/// open.
async fn succeeded(script: &Script, pipes: &Pipes, drained: Duration) -> Outcome {
    match pipes.open() {
        None => Outcome::Succeeded { note: None },
        Some(streams) => {
            let holders = process::holders(pipes).await;
            Outcome::OutputLeftOpen {
                location: location(script),
                streams,
                holders,
                drained,
            }
        }
    }
}

fn failed(script: &Script, status: ExitStatus, hint: Option<String>) -> Outcome {
    let (location, user) = (location(script), script.runas.clone());
    match (status.code(), status.signal()) {
        (Some(exit_code), _) => Outcome::Failed {
            location,
            exit_code,
            user,
            hint,
        },
        (None, signal) => Outcome::Killed {
            location,
            signal: signal.unwrap_or_default(),
            user,
        },
    }
}
