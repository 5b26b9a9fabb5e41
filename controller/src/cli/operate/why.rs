//! `why`: a deployment, the causes of its failure, and what to do.

use codedeploy_api::controller::{
    DeploymentSummary, GetDeploymentStatusOutput, HostCommand, HostFailure,
};

use super::{OperateError, words};
use crate::cli::output;

/// The number of failed hosts that are shown with their output.
const WITH_OUTPUT: usize = 3;
/// The number of the last lines of an output.
const LINES: usize = 15;

pub(super) fn show(found: &GetDeploymentStatusOutput, json: bool) -> Result<(), OperateError> {
    let shown = if json {
        words::json(found)
    } else {
        page(found)
    };
    Ok(output::show(shown)?)
}

pub(super) fn page(found: &GetDeploymentStatusOutput) -> String {
    let deployment = found.deployment.clone().unwrap_or_default();
    let mut page = heading(&deployment);
    let failures = found.failures.as_deref().unwrap_or_default();
    for failure in failures.iter().take(WITH_OUTPUT) {
        page += &failure_words(failure);
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
    let advice = found.advice.as_deref().unwrap_or_default();
    if !advice.is_empty() {
        page += "\nWhat to do\n";
    }
    for (number, advice) in advice.iter().enumerate() {
        page += &format!("  {}. {}\n", number + 1, words::plain(advice));
    }
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
    let error = deployment.error_information.clone().unwrap_or_default();
    let reason = match (&error.code, &error.message) {
        (Some(code), Some(message)) => Some(format!("{code}: {}", words::plain(message))),
        (None, Some(message)) => Some(words::plain(message)),
        (Some(code), None) => Some(code.to_string()),
        (None, None) => None,
    };
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

fn failure_words(failure: &HostFailure) -> String {
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
    if let Some(log) = &failure.log_tail {
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
