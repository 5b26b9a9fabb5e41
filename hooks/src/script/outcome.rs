//! All ways in which a command can end, and the report to the service.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use codedeploy_api::command::MAX_DIAGNOSTICS_PAYLOAD;
use codedeploy_api::diagnostics::{CompletionPayload, ErrorCode, MAX_LOG_CHARS};
use nix::sys::signal::Signal;

/// How a command ended. Its `Display` is the message of the completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `note` follows `Succeeded: ` in the message.
    Succeeded {
        note: Option<String>,
    },
    /// `path` is the expected path of the script.
    ScriptMissing {
        location: String,
        path: PathBuf,
        /// A suggestion; empty, or with "; " in front.
        hint: String,
    },
    NotExecutable {
        location: String,
        reason: String,
    },
    TimedOut {
        location: String,
        timeout: Duration,
        user: Option<String>,
    },
    /// Exited with a code other than 0. `hint` states how the script's file may have caused it.
    Failed {
        location: String,
        exit_code: i32,
        user: Option<String>,
        hint: Option<String>,
    },
    /// Ended by a signal from elsewhere.
    Killed {
        location: String,
        signal: i32,
        user: Option<String>,
    },
    /// The script exists, but could not be started.
    NotStarted {
        location: String,
        user: Option<String>,
        reason: String,
    },
    /// Succeeded, but `streams` were still open after the drain grace.
    OutputLeftOpen {
        location: String,
        streams: OpenStreams,
        holders: Vec<Holder>,
        /// The length of that grace.
        drained: Duration,
    },
    /// The agent shut down and could wait no longer. `location` is the script that it ended, if one
    /// was running.
    Stopped {
        location: Option<String>,
    },
    /// The agent was restarted while the command ran, so its progress is unknown.
    FailedAfterRestart {
        message: String,
    },
    /// Anything else.
    Error {
        message: String,
    },
    /// One of these, with an explanation for a person.
    Explained {
        ending: Box<Outcome>,
        hint: String,
    },
}

/// The open streams of a script; at least one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenStreams {
    Stdout,
    Stderr,
    Both,
}

/// A process that holds a script's output open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    /// Its command line, shortened; its name in brackets if it has none.
    pub command: String,
}

/// The number of holders that a message names.
const NAMED_HOLDERS: usize = 5;

/// The number of characters that `script_name` and `message` may each take in the payload, escaped.
/// The log gets the rest, which is enough for [`MAX_LOG_CHARS`] even if a backslash escapes every
/// character.
const MAX_NAME: usize = 1000;
const MAX_MESSAGE: usize = 3000;
const SKELETON: usize = r#"{"error_code":0,"script_name":"","message":"","log":""}"#.len();

impl Outcome {
    /// The error code in the protocol.
    pub fn code(&self) -> ErrorCode {
        match self {
            Outcome::Succeeded { .. } => ErrorCode::Success,
            Outcome::ScriptMissing { .. } => ErrorCode::ScriptMissing,
            Outcome::NotExecutable { .. } => ErrorCode::ScriptNotExecutable,
            Outcome::TimedOut { .. } => ErrorCode::ScriptTimedOut,
            Outcome::Failed { .. } | Outcome::Killed { .. } | Outcome::NotStarted { .. } => {
                ErrorCode::ScriptFailed
            }
            Outcome::Error { .. } => ErrorCode::UnknownError,
            Outcome::OutputLeftOpen { .. } => ErrorCode::OutputLeftOpen,
            Outcome::Stopped { .. } | Outcome::FailedAfterRestart { .. } => {
                ErrorCode::FailedAfterRestart
            }
            Outcome::Explained { ending, .. } => ending.code(),
        }
    }

    pub fn succeeded(&self) -> bool {
        self.code() == ErrorCode::Success
    }

    /// The `location` of the outcome's script; empty where the protocol requires it.
    pub fn script_name(&self) -> &str {
        match self {
            Outcome::ScriptMissing { location, .. }
            | Outcome::NotExecutable { location, .. }
            | Outcome::TimedOut { location, .. }
            | Outcome::Failed { location, .. }
            | Outcome::Killed { location, .. }
            | Outcome::NotStarted { location, .. }
            | Outcome::OutputLeftOpen { location, .. } => location,
            Outcome::Explained { ending, .. } => ending.script_name(),
            Outcome::Succeeded { .. }
            | Outcome::Stopped { .. }
            | Outcome::FailedAfterRestart { .. }
            | Outcome::Error { .. } => "",
        }
    }

    /// The content of PutHostCommandComplete. Its JSON has at most [`MAX_DIAGNOSTICS_PAYLOAD`]
    /// characters: a name or message that is too long loses its end, `log_tail` its oldest lines.
    pub fn diagnostics(&self, log_tail: &str) -> CompletionPayload {
        let script_name = shortened(self.script_name(), MAX_NAME);
        let message = shortened(&self.to_string(), MAX_MESSAGE);
        let room = MAX_DIAGNOSTICS_PAYLOAD - SKELETON - escaped(&script_name) - escaped(&message);
        let log = newest_lines(log_tail, room).to_owned();
        CompletionPayload {
            error_code: self.code(),
            script_name,
            message,
            log,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SCRIPT: &str = "Script at specified location:";
        match self {
            Outcome::Succeeded { note: None } => f.write_str("Succeeded"),
            Outcome::Succeeded { note: Some(note) } => write!(f, "Succeeded: {note}"),
            Outcome::ScriptMissing { path, hint, .. } => {
                write!(
                    f,
                    "Script does not exist at specified location: {}{hint}",
                    path.display()
                )
            }
            Outcome::NotExecutable { location, reason } => {
                write!(
                    f,
                    "{SCRIPT} {location} is not executable and cannot be made so: {reason}"
                )
            }
            Outcome::TimedOut {
                location,
                timeout,
                user,
            } => {
                let seconds = timeout.as_secs_f64();
                write!(
                    f,
                    "{SCRIPT} {location}{} failed to complete in {seconds} seconds",
                    AsUser(user)
                )
            }
            Outcome::Failed {
                location,
                exit_code,
                user,
                hint,
            } => {
                write!(
                    f,
                    "{SCRIPT} {location}{} failed with exit code {exit_code}",
                    AsUser(user)
                )?;
                hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
            }
            Outcome::Killed {
                location,
                signal,
                user,
            } => {
                let name = Signal::try_from(*signal).map_or("unnamed", Signal::as_str);
                write!(
                    f,
                    "{SCRIPT} {location}{} was killed by signal {signal} ({name})",
                    AsUser(user)
                )
            }
            Outcome::NotStarted {
                location,
                user,
                reason,
            } => {
                write!(
                    f,
                    "{SCRIPT} {location}{} could not be started: {reason}",
                    AsUser(user)
                )
            }
            Outcome::OutputLeftOpen {
                location,
                streams,
                holders,
                drained,
            } => {
                let seconds = drained.as_secs_f64();
                write!(
                    f,
                    "{SCRIPT} {location} ended, but its {streams} stayed open for {seconds} more seconds \
                     (output_drain_seconds); {}",
                    HeldBy(holders)
                )
            }
            Outcome::Stopped { location: None } => {
                f.write_str("Failed: the agent was stopped before the command was finished")
            }
            Outcome::Stopped {
                location: Some(location),
            } => {
                write!(
                    f,
                    "Failed: the agent was stopped while the script {location} ran, and ended it"
                )
            }
            Outcome::FailedAfterRestart { message } => write!(f, "Failed: {message}"),
            Outcome::Error { message } => f.write_str(message),
            Outcome::Explained { ending, hint } => write!(f, "{ending}; {hint}"),
        }
    }
}

impl fmt::Display for OpenStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenStreams::Stdout => "stdout",
            OpenStreams::Stderr => "stderr",
            OpenStreams::Both => "stdout and stderr",
        })
    }
}

struct AsUser<'a>(&'a Option<String>);

impl fmt::Display for AsUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|user| write!(f, " run as user {user}"))
    }
}

struct HeldBy<'a>(&'a [Holder]);

impl fmt::Display for HeldBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("which process holds it could not be found out");
        }
        f.write_str("held by ")?;
        for (index, Holder { pid, command }) in self.0.iter().take(NAMED_HOLDERS).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}process {pid} ({command})")?;
        }
        if self.0.len() > NAMED_HOLDERS {
            write!(f, " and {} more", self.0.len() - NAMED_HOLDERS)?;
        }
        f.write_str(
            "; a script that starts a background process must redirect its stdout and stderr",
        )
    }
}

/// The beginning of `text`, at most `limit` characters when escaped.
fn shortened(text: &str, limit: usize) -> String {
    const CUT: &str = "… (shortened)";
    if escaped(text) <= limit {
        return text.to_owned();
    }
    let mut room = limit - CUT.chars().count();
    let fits = |c: &char| match room.checked_sub(escaped_char(*c)) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).chain(CUT.chars()).collect()
}

/// The last whole lines of `log` that fit into [`MAX_LOG_CHARS`], and into `room` when escaped.
fn newest_lines(log: &str, mut room: usize) -> &str {
    let mut chars = MAX_LOG_CHARS;
    let mut start = log.len();
    for line in log.split_inclusive('\n').rev() {
        let left = (
            chars.checked_sub(line.chars().count()),
            room.checked_sub(escaped(line)),
        );
        let (Some(chars_left), Some(room_left)) = left else {
            break;
        };
        (chars, room) = (chars_left, room_left);
        start -= line.len();
    }
    &log[start..]
}

/// The number of characters of `text` inside a JSON string.
fn escaped(text: &str) -> usize {
    text.chars().map(escaped_char).sum()
}

fn escaped_char(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => 1,
    }
}
