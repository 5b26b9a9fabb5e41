//! `why`: a deployment, the causes of its failure, and what to do.

use codedeploy_api::codedeploy::{
    GetDeploymentTargetInput, GetDeploymentTargetOutput, LifecycleEventStatus,
};
use codedeploy_api::controller::{
    DeploymentSummary, GetDeploymentStatusOutput, GetScriptLogInput, GetScriptLogOutput,
    HostCommand, HostFailure, ScriptLogState,
};
use serde::Serialize;

use super::connect::Session;
use super::{OperateError, words};
use crate::cli::output;

/// The number of failed hosts that are shown with their output.
const WITH_OUTPUT: usize = 3;
/// The number of the last lines of an output.
const LINES: usize = 15;

/// The part of an explanation that is wanted.
#[derive(Debug, Default)]
pub(super) struct Only {
    pub(super) host: Option<String>,
    /// The whole output of scripts in place of the last lines.
    pub(super) log: bool,
}

/// An explanation with whole outputs, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WithLogs<'a> {
    #[serde(flatten)]
    found: &'a GetDeploymentStatusOutput,
    script_logs: &'a [GetScriptLogOutput],
}

pub(super) async fn show(
    session: &mut Session,
    id: &str,
    only: Only,
    json: bool,
) -> Result<(), OperateError> {
    let mut found = super::ask(session, id).await?;
    if let Some(host) = only.host {
        let mut failures = found.failures.take().unwrap_or_default();
        failures.retain(|failure| failure.instance_name.as_ref() == Some(&host));
        if failures.is_empty() {
            // A page shows the first failed hosts.
            failures.push(failure_of(session, id, &host).await?);
        }
        found.failures = Some(failures);
    }
    if !only.log {
        let shown = if json {
            words::json(&found)
        } else {
            page(&found)
        };
        return Ok(output::show(shown)?);
    }
    let mut logs = Vec::new();
    for failure in found.failures.iter().flatten().take(WITH_OUTPUT) {
        logs.push(log_of(session, id, failure).await?);
    }
    let shown = if json {
        words::json(&WithLogs {
            found: &found,
            script_logs: &logs,
        })
    } else {
        page_with(&found, &logs)
    };
    Ok(output::show(shown)?)
}

/// Returns the failure of a host that is not among the first.
async fn failure_of(
    session: &mut Session,
    id: &str,
    host: &str,
) -> Result<HostFailure, OperateError> {
    let input = GetDeploymentTargetInput {
        deployment_id: Some(id.to_owned()),
        target_id: Some(host.to_owned()),
    };
    let client = session.client()?;
    let output: GetDeploymentTargetOutput =
        client.codedeploy("GetDeploymentTarget", &input).await?;
    let target = output.deployment_target.unwrap_or_default();
    let target = target.instance_target.unwrap_or_default();
    let mut events = target.lifecycle_events.into_iter().flatten();
    let failed = events.find(|event| event.status == Some(LifecycleEventStatus::Failed));
    let event = failed.ok_or_else(|| OperateError::DidNotFail {
        host: host.to_owned(),
        id: id.to_owned(),
    })?;
    let diagnostics = event.diagnostics.unwrap_or_default();
    Ok(HostFailure {
        instance_name: Some(host.to_owned()),
        status: target.status,
        lifecycle_event_name: event.lifecycle_event_name,
        end_time: event.end_time,
        error_code: diagnostics.error_code,
        script_name: diagnostics.script_name.filter(|name| !name.is_empty()),
        message: diagnostics.message,
        log_tail: diagnostics.log_tail.filter(|tail| !tail.is_empty()),
        ..HostFailure::default()
    })
}

async fn log_of(
    session: &mut Session,
    id: &str,
    failure: &HostFailure,
) -> Result<GetScriptLogOutput, OperateError> {
    let input = GetScriptLogInput {
        deployment_id: Some(id.to_owned()),
        instance_name: failure.instance_name.clone(),
        lifecycle_event_name: failure.lifecycle_event_name.clone(),
    };
    Ok(session.client()?.controller("GetScriptLog", &input).await?)
}

/// The explanation for people, with the last lines of outputs.
pub(super) fn page(found: &GetDeploymentStatusOutput) -> String {
    page_with(found, &[])
}

/// The same with the whole outputs of the first failed hosts, if there are any.
fn page_with(found: &GetDeploymentStatusOutput, logs: &[GetScriptLogOutput]) -> String {
    let deployment = found.deployment.clone().unwrap_or_default();
    let mut page = heading(&deployment);
    let failures = found.failures.as_deref().unwrap_or_default();
    for (position, failure) in failures.iter().take(WITH_OUTPUT).enumerate() {
        page += &failure_words(failure, logs.get(position));
    }
    let others: Vec<String> = failures
        .iter()
        .skip(WITH_OUTPUT)
        .map(|failure| {
            let text = |text: &Option<String>| words::plain(text.as_deref().unwrap_or_default());
            format!(
                "{} ({})",
                text(&failure.instance_name),
                text(&failure.lifecycle_event_name)
            )
        })
        .collect();
    if !others.is_empty() {
        page += &format!("\nAlso failed: {}\n", others.join(", "));
    }
    let commands = found.commands.as_deref().unwrap_or_default();
    if !commands.is_empty() {
        page += "\nStill out\n";
    }
    for command in commands {
        page += &format!("  {}\n", command_words(command));
    }
    page += &words::steps(found.advice.as_deref().unwrap_or_default());
    page
}

fn heading(deployment: &DeploymentSummary) -> String {
    let text = |text: &Option<String>| words::plain(text.as_deref().unwrap_or("-"));
    let time = deployment.complete_time.or(deployment.create_time);
    let mut heading = format!(
        "{} {} {}\n",
        text(&deployment.deployment_id),
        words::status(deployment.status.as_ref()),
        words::ago(time)
    );
    let error = deployment.error_information.as_ref();
    let reason = error
        .filter(|error| error.code.is_some() || error.message.is_some())
        .map(words::error);
    let wait = deployment.waits_for.as_ref().map(|event| {
        let until = deployment.waits_until.map(words::until);
        let until = until.map(|until| format!(" (ends {until})"));
        format!("{}{}", words::plain(event), until.unwrap_or_default())
    });
    let group = format!(
        "{}/{}",
        text(&deployment.application_name),
        text(&deployment.deployment_group_name)
    );
    let lines = [
        ("group", Some(group)),
        ("by", Some(words::creator(deployment))),
        (
            "revision",
            Some(words::revision(deployment.revision.as_ref())),
        ),
        (
            "purpose",
            deployment.description.as_deref().map(words::plain),
        ),
        (
            "hosts",
            Some(words::overview(deployment.deployment_overview.as_ref())),
        ),
        ("reason", reason),
        ("waits for", wait),
        ("rolls back", deployment.rolls_back.clone()),
        ("rolled back", deployment.rolled_back_by.clone()),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            heading += &format!("  {name:<12}{value}\n");
        }
    }
    heading
}

fn failure_words(failure: &HostFailure, whole: Option<&GetScriptLogOutput>) -> String {
    let text = |text: &Option<String>| words::plain(text.as_deref().unwrap_or_default());
    let mut page = format!(
        "\n{} failed at {} {}\n",
        text(&failure.instance_name),
        text(&failure.lifecycle_event_name),
        words::ago(failure.end_time)
    );
    if failure.script_name.is_some() {
        page += &format!("  {:<12}{}\n", "script", text(&failure.script_name));
    }
    if let Some(code) = failure.exit_code {
        page += &format!("  {:<12}{code}\n", "exit code");
    }
    page += &format!("  {:<12}{}\n", "message", text(&failure.message));
    if let Some(whole) = whole {
        let log = whole.log.as_deref().unwrap_or_default();
        page += &format!("{}\n", words::quoted(log.trim_end_matches('\n'), "    | "));
        if whole.log_state != Some(ScriptLogState::Whole) {
            page += "  These last lines are all that the controller has.\n";
        }
    } else if let Some(log) = &failure.log_tail {
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.len().saturating_sub(LINES);
        let last = lines.get(shown..).unwrap_or_default().join("\n");
        page += &format!("{}\n", words::quoted(&last, "    | "));
    }
    page
}

pub(super) fn command_words(command: &HostCommand) -> String {
    let text = |text: &Option<String>| words::plain(text.as_deref().unwrap_or_default());
    let state = match command.state.as_ref().map(|state| state.as_str()) {
        Some("Offered") => "not fetched",
        Some("Fetched") => "fetched",
        _ => "running",
    };
    let expires = command
        .expires
        .map(|expires| format!(", given up {}", words::until(expires)));
    format!(
        "{} {} {state}, {}{}",
        text(&command.instance_name),
        text(&command.lifecycle_event_name),
        words::ago(command.since),
        expires.unwrap_or_default()
    )
}
