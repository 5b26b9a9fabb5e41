//! `follow`: a deployment, line by line, until it ends.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use codedeploy_api::codedeploy::{DeploymentStatus, Timestamp};
use codedeploy_api::controller::{DeploymentSummary, GetDeploymentStatusOutput};

use super::connect::Session;
use super::{FAILED, OperateError, STOPPED, UNFINISHED, ask, why, words};
use crate::cli::output;
use crate::cli::table::when;
use crate::client::ClientError;

/// The interval of questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time for which a controller may be away, such as for its restart.
const ABSENCE: Duration = Duration::from_secs(120);
/// The number of hosts that are named on one line.
const NAMED: usize = 3;

/// Follows a deployment to its end, or for `patience`. With `json`, prints the last state as one
/// document.
pub(super) async fn follow(
    session: &mut Session,
    id: &str,
    patience: Option<Duration>,
    json: bool,
) -> Result<ExitCode, OperateError> {
    let until = patience.map(|patience| Instant::now() + patience);
    let mut told = String::new();
    loop {
        let asked = ask_patiently(until, async || ask(session, id).await).await?;
        let Some(found) = asked else {
            return Ok(unfinished(id));
        };
        let deployment = found.deployment.clone().unwrap_or_default();
        let ended = outcome(&deployment);
        let line = progress(&found);
        if line != told && !json {
            let now = when(Some(Timestamp::now()));
            let time = now.get(11..).unwrap_or_default();
            output::show(format_args!("{time} {line}"))?;
            told = line;
        }
        if ended.is_none() && left(until) > Duration::ZERO {
            tokio::time::sleep(INTERVAL.min(left(until))).await;
            continue;
        }
        if json {
            output::show(words::json(&found))?;
        } else if ended.is_some_and(|code| code != ExitCode::SUCCESS) {
            output::show(format_args!("\n{}", why::page(&found)))?;
        }
        return Ok(ended.unwrap_or_else(|| unfinished(id)));
    }
}

/// Returns the time that is left to wait.
pub(super) fn left(until: Option<Instant>) -> Duration {
    until.map_or(Duration::MAX, |until| {
        until.saturating_duration_since(Instant::now())
    })
}

fn unfinished(id: &str) -> ExitCode {
    output::complain(format_args!(
        "{id} continues: codedeploy-controller follow {id}"
    ));
    ExitCode::from(UNFINISHED)
}

/// Asks again while the controller cannot be reached: it may be restarting, and its work
/// continues. Returns `None` once the time to wait is over.
pub(super) async fn ask_patiently<T>(
    until: Option<Instant>,
    mut ask: impl AsyncFnMut() -> Result<T, OperateError>,
) -> Result<Option<T>, OperateError> {
    let began = Instant::now();
    let mut is_first = true;
    loop {
        let Ok(asked) = tokio::time::timeout(left(until), ask()).await else {
            return Ok(None);
        };
        match asked {
            Err(OperateError::Client(error @ ClientError::Outgoing(_)))
                if began.elapsed() < ABSENCE =>
            {
                if left(until).is_zero() {
                    return Ok(None);
                }
                if is_first {
                    output::complain(format_args!("{error}; trying again"));
                }
                is_first = false;
                tokio::time::sleep(INTERVAL.min(left(until))).await;
            }
            asked => return asked.map(Some),
        }
    }
}

/// Returns the exit code of an ended deployment.
fn outcome(deployment: &DeploymentSummary) -> Option<ExitCode> {
    match deployment.status.as_ref()? {
        DeploymentStatus::Succeeded => Some(ExitCode::SUCCESS),
        DeploymentStatus::Failed => Some(ExitCode::from(FAILED)),
        DeploymentStatus::Stopped => Some(ExitCode::from(STOPPED)),
        _ => None,
    }
}

fn progress(found: &GetDeploymentStatusOutput) -> String {
    let deployment = found.deployment.clone().unwrap_or_default();
    let mut line = format!(
        "{} {}: {}",
        deployment.deployment_id.as_deref().unwrap_or_default(),
        words::status(deployment.status.as_ref()),
        words::overview(deployment.deployment_overview.as_ref())
    );
    let commands = found.commands.as_deref().unwrap_or_default();
    let busy: Vec<String> = commands
        .iter()
        .take(NAMED)
        .map(|command| {
            let text = |text: &Option<String>| words::plain(text.as_deref().unwrap_or_default());
            let waits = match command.state.as_ref().map(|state| state.as_str()) {
                Some("Offered") => " (not fetched)",
                _ => "",
            };
            format!(
                "{} {}{waits}",
                text(&command.instance_name),
                text(&command.lifecycle_event_name)
            )
        })
        .collect();
    if !busy.is_empty() {
        let more = if commands.len() > NAMED { ", …" } else { "" };
        line += &format!("; {}{more}", busy.join(", "));
    }
    if let Some(event) = &deployment.waits_for
        && deployment.start_time.is_some()
    {
        line += &format!("; waits for {}", words::plain(event));
    }
    line
}
