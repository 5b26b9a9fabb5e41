//! Telling the service how a command ended, until it has taken the answer.

use std::time::Duration;

use codedeploy_api::command::{CommandStatus, Envelope, PutHostCommandCompleteInput};
use codedeploy_hooks::script::Report;
use tokio_util::sync::CancellationToken;

use crate::backoff::jittered;
use crate::command::{CallError, CommandService};

/// The first pause between two attempts is at most this; the limit doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What became of an outcome that the service was told.
#[derive(Debug)]
pub enum Delivered {
    Taken,
    /// The service will never take it.
    Refused(CallError),
    /// There was no more time; the last attempt ended like this.
    NotYet(CallError),
}

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

/// Reports until the service has taken the outcome or refuses it for good. Credentials that are not accepted are no
/// refusal: somebody will renew them. Once `hurry` is cancelled, one more attempt is made.
pub async fn complete(
    service: &CommandService,
    host_command_identifier: &str,
    report: &Report,
    hurry: &CancellationToken,
) -> Delivered {
    let input = completion(host_command_identifier, report);
    let mut longest = FIRST_PAUSE;
    loop {
        let last = hurry.is_cancelled();
        match service.attempt(&input).await {
            Ok(_) => return Delivered::Taken,
            Err(error) if error.is_refusal() => return Delivered::Refused(error),
            Err(error) if last => return Delivered::NotYet(error),
            Err(error) => {
                let pause = jittered(longest);
                tracing::warn!(%error, retry_in_ms = pause.as_millis(), "outcome not reported yet");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = hurry.cancelled() => {}
                }
                longest = (longest * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
