//! Telling the service how a command ended, until it has taken the answer.

use std::time::Duration;

use codedeploy_api::command::{CommandStatus, Envelope, PutHostCommandCompleteInput};
use codedeploy_hooks::script::Report;

use crate::command::{CallError, CommandService};

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What PutHostCommandComplete is told.
pub fn completion(host_command_identifier: &str, report: &Report) -> PutHostCommandCompleteInput {
    let status = if report.outcome.succeeded() { CommandStatus::Succeeded } else { CommandStatus::Failed };
    let payload = report.outcome.diagnostics(&report.log_tail);
    let payload = serde_json::to_string(&payload).unwrap_or_default();
    PutHostCommandCompleteInput {
        host_command_identifier: host_command_identifier.to_owned(),
        command_status: status,
        diagnostics: Some(Envelope { format: Envelope::JSON.into(), payload }),
    }
}

/// Reports until the service has taken the outcome or refuses it for good; the pause between attempts doubles.
pub async fn complete(
    service: &CommandService,
    host_command_identifier: &str,
    report: &Report,
) -> Result<(), CallError> {
    let input = completion(host_command_identifier, report);
    let mut pause = Duration::from_secs(1);
    loop {
        match service.call(&input).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_temporary() => {
                tracing::warn!(%error, retry_in_seconds = pause.as_secs(), "outcome not reported yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}
