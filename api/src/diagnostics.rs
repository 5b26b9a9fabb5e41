//! A host's report about a command: the JSON text inside the diagnostics envelopes.

use serde::{Deserialize, Serialize};

use crate::codedeploy::Timestamp;

/// Payload of PutHostCommandAcknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AcknowledgementPayload {
    /// True when no hook of the revision lists a script for the command's event.
    pub is_command_noop: bool,
}

/// Payload of PutHostCommandComplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionPayload {
    /// One of [`ErrorCode`] as a number.
    pub error_code: ErrorCode,
    /// The `location` of the script that failed; empty if none did.
    pub script_name: String,
    pub message: String,
    /// The last whole lines of the command's script log, at most [`MAX_LOG_CHARS`] characters.
    pub log: String,
}

/// A script that ran for a command, by the host's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScriptRun {
    /// Its `location` in the AppSpec file.
    pub location: String,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// How it ended.
    pub error_code: ErrorCode,
}

/// The most scripts of a command in a report.
pub const MAX_SCRIPT_RUNS: usize = 50;

/// The longest [`ScriptRun::location`], in characters.
pub const MAX_LOCATION_CHARS: usize = 500;

/// The largest [`CompletionPayload::log`], in characters.
pub const MAX_LOG_CHARS: usize = 2048;

/// The reason for the end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum ErrorCode {
    Success = 0,
    ScriptMissing = 1,
    ScriptNotExecutable = 2,
    ScriptTimedOut = 3,
    ScriptFailed = 4,
    UnknownError = 5,
    /// The script ended, but its stdout or stderr stayed open.
    OutputLeftOpen = 6,
    /// The agent was restarted while the command ran.
    FailedAfterRestart = 7,
}

impl From<ErrorCode> for u8 {
    fn from(code: ErrorCode) -> u8 {
        code as u8
    }
}

impl TryFrom<u8> for ErrorCode {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        use ErrorCode::*;
        [
            Success,
            ScriptMissing,
            ScriptNotExecutable,
            ScriptTimedOut,
            ScriptFailed,
            UnknownError,
            OutputLeftOpen,
            FailedAfterRestart,
        ]
        .into_iter()
        .find(|known| *known as u8 == code)
        .ok_or_else(|| format!("error_code {code} is not one of 0 to 7"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_reads_as_the_official_agents_write_it() {
        let payload = CompletionPayload {
            error_code: ErrorCode::ScriptFailed,
            script_name: "scripts/start.sh".into(),
            message: "failed with exit code 3".into(),
            log: String::new(),
        };
        let json = r#"{"error_code":4,"script_name":"scripts/start.sh","message":"failed with exit code 3","log":""}"#;
        assert_eq!(serde_json::to_string(&payload).unwrap(), json);
        assert_eq!(
            serde_json::from_str::<CompletionPayload>(json).unwrap(),
            payload
        );
        assert!(serde_json::from_str::<CompletionPayload>(&json.replace('4', "8")).is_err());
    }
}
