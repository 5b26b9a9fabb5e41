//! Reports the outcome of a command to the service until the service accepts it; and then the whole
//! output of its scripts, if the service asks for that ([`script_log`]).

pub mod script_log;

use std::collections::VecDeque;
use std::time::Duration;

use codedeploy_api::command::{
    CommandStatus, Envelope, MAX_DIAGNOSTICS_PAYLOAD, PutHostCommandCompleteInput, WantedScriptLog,
};
use codedeploy_api::diagnostics::CompletionPayload;
use codedeploy_hooks::script::Report;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::jittered;
use crate::command::{CallError, CommandService};

/// The limit of the first pause between two attempts; the limit doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The time of the last attempt, if the outcome is safe without it.
const LAST_ATTEMPT: Duration = Duration::from_secs(10);

/// The fate of a reported outcome.
#[derive(Debug)]
pub enum Delivered {
    /// With the script log that the service asks for, if it does.
    Taken(Option<WantedScriptLog>),
    /// The service will never accept it.
    Refused(CallError),
    /// There was no more time; with the error of the last finished attempt, if any.
    NotYet(Option<CallError>),
}

/// The limit of reporting an outcome.
#[derive(Debug, Clone)]
pub enum DeliveryPolicy {
    /// It is on disk: once `one_more` is cancelled, one more attempt is made in a short time; once
    /// `end` is, none.
    Safe {
        one_more: CancellationToken,
        end: CancellationToken,
    },
    /// It exists only in memory: once this is cancelled, one more attempt is made.
    Unsafe(CancellationToken),
}

impl DeliveryPolicy {
    fn one_more(&self) -> &CancellationToken {
        match self {
            Self::Safe { one_more, .. } | Self::Unsafe(one_more) => one_more,
        }
    }

    /// Returns when an attempt is no longer awaited.
    async fn ends(&self) {
        let Self::Safe { one_more, end } = self else {
            return std::future::pending().await;
        };
        let short = async {
            one_more.cancelled().await;
            sleep(LAST_ATTEMPT).await;
        };
        tokio::select! {
            () = end.cancelled() => {}
            () = short => {}
        }
    }
}

/// The content of PutHostCommandComplete.
pub fn completion(host_command_identifier: &str, report: &Report) -> PutHostCommandCompleteInput {
    let status = if report.outcome.succeeded() {
        CommandStatus::Succeeded
    } else {
        CommandStatus::Failed
    };
    let payload = report.outcome.diagnostics(&report.log_tail);
    let payload = serde_json::to_string(&payload).unwrap_or_default();
    PutHostCommandCompleteInput {
        host_command_identifier: host_command_identifier.to_owned(),
        command_status: status,
        diagnostics: Some(Envelope {
            format: Envelope::JSON.into(),
            payload,
        }),
        scripts: Some(report.scripts.clone()).filter(|scripts| !scripts.is_empty()),
    }
}

/// The content of PutHostCommandComplete after a failure and a rollback with the result `words`.
pub fn failed_and_rolled_back(
    host_command_identifier: &str,
    failure: CompletionPayload,
    words: &str,
) -> PutHostCommandCompleteInput {
    let mut lines: VecDeque<&str> = failure.log.lines().chain([words]).collect();
    let payload = loop {
        let log: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let payload = serde_json::to_string(&CompletionPayload {
            log,
            ..failure.clone()
        })
        .unwrap_or_default();
        if payload.chars().count() <= MAX_DIAGNOSTICS_PAYLOAD || lines.pop_front().is_none() {
            break payload;
        }
    };
    PutHostCommandCompleteInput {
        host_command_identifier: host_command_identifier.to_owned(),
        command_status: CommandStatus::Failed,
        diagnostics: Some(Envelope {
            format: Envelope::JSON.into(),
            payload,
        }),
        scripts: None,
    }
}

/// Reports until the service accepts the outcome, rejects it for good, or `policy` allows no more;
/// calls `failed` for every failed attempt. Rejected credentials are no rejection of the outcome:
/// somebody will renew them.
///
/// `maybe_told`: the service may already have the outcome, because the result of an earlier attempt
/// is unknown. If the service then rejects it, the service has it.
pub async fn complete(
    service: &CommandService,
    completion: &PutHostCommandCompleteInput,
    mut maybe_told: bool,
    policy: &DeliveryPolicy,
    mut failed: impl FnMut(&CallError),
) -> Delivered {
    let mut longest = FIRST_PAUSE;
    let mut latest = None;
    loop {
        let last = policy.one_more().is_cancelled();
        let error = tokio::select! {
            answer = service.attempt(completion) => match answer {
                Ok(output) => return Delivered::Taken(output.script_log),
                Err(error) => error,
            },
            () = policy.ends() => return Delivered::NotYet(latest),
        };
        if error.is_refusal() {
            if maybe_told {
                tracing::info!(%error, "the service rejects the outcome; it counts as delivered, because the response to an earlier attempt was lost");
                return Delivered::Taken(None);
            }
            return Delivered::Refused(error);
        }
        failed(&error);
        maybe_told |= error.may_have_arrived();
        if last {
            return Delivered::NotYet(Some(error));
        }
        let pause = jittered(longest);
        tracing::warn!(%error, retry_in_ms = pause.as_millis(), "cannot report the outcome yet");
        latest = Some(error);
        tokio::select! {
            () = sleep(pause) => {}
            () = policy.one_more().cancelled() => {}
        }
        longest = (longest * 2).min(LONGEST_PAUSE);
    }
}
