//! A failed host: its lifecycle event, its script, the exit code, and the last lines of its output.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{HostFailure, ScriptLogState};

use super::view::{When, target_path};

/// The number of failures that a page shows with their output.
pub(super) const SHOWN: usize = 5;

/// A failure.
pub(super) struct Failure {
    pub(super) host: String,
    /// The page with everything that the host did, and the whole output.
    pub(super) href: String,
    pub(super) event: String,
    pub(super) when: Option<When>,
    pub(super) script: Option<String>,
    pub(super) exit_code: Option<i64>,
    pub(super) message: String,
    pub(super) log: Option<String>,
    pub(super) has_whole: bool,
}

impl Failure {
    pub(super) fn new(failure: &HostFailure, deployment: &str, now: Timestamp) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let host = text(&failure.instance_name);
        Failure {
            href: target_path(deployment, &host),
            host,
            event: text(&failure.lifecycle_event_name),
            when: failure.end_time.map(|time| When::new(time, now)),
            script: failure.script_name.clone(),
            exit_code: failure.exit_code,
            // An agent repeats the script and its exit code in the message.
            message: match failure.exit_code {
                Some(_) if failure.script_name.is_some() => String::new(),
                _ => text(&failure.message),
            },
            log: failure
                .log_tail
                .as_deref()
                .map(|log| log.trim_end().to_owned()),
            has_whole: failure.log_state == Some(ScriptLogState::Whole),
        }
    }
}
