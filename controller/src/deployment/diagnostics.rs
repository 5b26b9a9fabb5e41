//! Hosts' reports about commands, in the form for clients.

use codedeploy_api::codedeploy::{Diagnostics, LifecycleErrorCode};
use codedeploy_api::command::Envelope;
use codedeploy_api::diagnostics::{AcknowledgementPayload, ErrorCode};
use serde_json::Value;

/// The number of characters of a log that are kept.
const MAX_LOG: usize = 4096;
/// The number of characters of a message or a script's name that are kept.
const MAX_TEXT: usize = 2048;

/// Reads the diagnostics of a completed command. An unreadable report is shown unchanged: its form
/// is no reason to lose a host's result.
pub fn read(succeeded: bool, envelope: Option<&Envelope>) -> Diagnostics {
    if succeeded {
        let payload = envelope.and_then(payload);
        let message = payload.as_ref().and_then(note).unwrap_or("Succeeded");
        return diagnostics(LifecycleErrorCode::Success, "", message, "");
    }
    let Some(envelope) = envelope.filter(|envelope| !envelope.payload.is_empty()) else {
        return diagnostics(
            LifecycleErrorCode::UnknownError,
            "",
            "The agent gave no diagnostics.",
            "",
        );
    };
    let Some(payload) = payload(envelope) else {
        return diagnostics(LifecycleErrorCode::UnknownError, "", &envelope.payload, "");
    };
    let text = |member: &str| {
        payload
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    diagnostics(
        code(payload.get("error_code")),
        text("script_name"),
        text("message"),
        text("log"),
    )
}

fn payload(envelope: &Envelope) -> Option<Value> {
    let json = (envelope.format == Envelope::JSON).then_some(&envelope.payload)?;
    serde_json::from_str(json).ok().filter(Value::is_object)
}

/// Returns the message of a success, if it is a sentence for people; a single word is for the
/// service (`BundleSource=downloaded`).
fn note(payload: &Value) -> Option<&str> {
    let message = payload.get("message")?.as_str()?;
    message
        .strip_prefix("Succeeded: ")
        .filter(|note| note.trim().contains(' '))
        .map(|_| message)
}

/// Whether an acknowledgement reports that there is no script for the event.
pub fn is_noop(envelope: Option<&Envelope>) -> Option<bool> {
    let envelope = envelope.filter(|envelope| envelope.format == Envelope::JSON)?;
    let payload: AcknowledgementPayload = serde_json::from_str(&envelope.payload).ok()?;
    Some(payload.is_command_noop)
}

fn code(code: Option<&Value>) -> LifecycleErrorCode {
    let number = code
        .and_then(Value::as_u64)
        .and_then(|number| u8::try_from(number).ok());
    match number.and_then(|number| ErrorCode::try_from(number).ok()) {
        Some(ErrorCode::ScriptMissing) => LifecycleErrorCode::ScriptMissing,
        Some(ErrorCode::ScriptNotExecutable) => LifecycleErrorCode::ScriptNotExecutable,
        Some(ErrorCode::ScriptTimedOut) => LifecycleErrorCode::ScriptTimedOut,
        Some(ErrorCode::ScriptFailed | ErrorCode::OutputLeftOpen) => {
            LifecycleErrorCode::ScriptFailed
        }
        // A failure that calls itself a success has an unknown cause.
        Some(ErrorCode::Success | ErrorCode::UnknownError | ErrorCode::FailedAfterRestart)
        | None => LifecycleErrorCode::UnknownError,
    }
}

fn diagnostics(code: LifecycleErrorCode, script: &str, message: &str, log: &str) -> Diagnostics {
    let head = |text: &str| text.chars().take(MAX_TEXT).collect();
    let skipped = log.chars().count().saturating_sub(MAX_LOG);
    Diagnostics {
        error_code: Some(code),
        script_name: Some(head(script)),
        message: Some(head(message)),
        log_tail: Some(log.chars().skip(skipped).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(format: &str, payload: &str) -> (String, String) {
        let envelope = Envelope {
            format: format.into(),
            payload: payload.into(),
        };
        let diagnostics = read(false, Some(&envelope));
        (
            diagnostics.error_code.unwrap().to_string(),
            diagnostics.message.unwrap(),
        )
    }

    #[test]
    fn codes_of_agents_and_the_codes_of_the_api() {
        let names = [
            "UnknownError",
            "ScriptMissing",
            "ScriptNotExecutable",
            "ScriptTimedOut",
            "ScriptFailed",
            "UnknownError",
            "ScriptFailed",
            "UnknownError",
            "UnknownError",
        ];
        for (code, name) in names.iter().enumerate() {
            let payload =
                format!(r#"{{"error_code":{code},"script_name":"s","message":"m","log":"l"}}"#);
            assert_eq!(
                failed("JSON", &payload),
                ((*name).to_owned(), "m".to_owned()),
                "{code}"
            );
        }
    }

    #[test]
    fn reports_of_odd_forms_keep_their_text() {
        for (format, payload, message) in [
            ("JSON", r#"{"error_code":"Unknown","message":"m"}"#, "m"),
            ("JSON", "not json", "not json"),
            ("JSON", "[1]", "[1]"),
            ("TEXT", r#"{"error_code":4}"#, r#"{"error_code":4}"#),
            ("JSON", "{}", ""),
            ("JSON", r#"{"error_code":-1e300,"message":7}"#, ""),
        ] {
            assert_eq!(
                failed(format, payload),
                ("UnknownError".into(), message.into()),
                "{payload}"
            );
        }
        assert!(
            read(false, None)
                .message
                .unwrap()
                .contains("no diagnostics")
        );
        assert!(failed("", "").1.contains("no diagnostics"));
    }

    #[test]
    fn a_success_is_shown_alike_unless_the_agent_has_something_to_tell() {
        let message = |payload: &str| {
            let envelope = Envelope {
                format: "JSON".into(),
                payload: payload.into(),
            };
            read(true, Some(&envelope)).message.unwrap()
        };
        for payload in [
            r#"{"error_code":0,"message":"Succeeded: "}"#,
            r#"{"message":"Succeeded: BundleSource=downloaded"}"#,
            "{}",
            "[",
        ] {
            assert_eq!(message(payload), "Succeeded", "{payload}");
        }
        assert_eq!(read(true, None).message.as_deref(), Some("Succeeded"));
        let told =
            r#"{"error_code":0,"message":"Succeeded: these scripts never run","log":"left out"}"#;
        assert_eq!(message(told), "Succeeded: these scripts never run");
    }

    #[test]
    fn the_newest_end_of_a_log_is_kept() {
        let log = format!("{}end", "ä".repeat(5000));
        let payload = serde_json::json!({"error_code": 4, "log": log}).to_string();
        let envelope = Envelope {
            format: "JSON".into(),
            payload,
        };
        let tail = read(false, Some(&envelope)).log_tail.unwrap();
        assert!(tail.ends_with("end") && tail.chars().count() == MAX_LOG);
    }
}
