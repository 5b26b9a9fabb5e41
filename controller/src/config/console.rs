//! The web console.

use std::time::Duration;

use serde::Deserialize;

/// The settings of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Console {
    /// The time after which a user must log in again.
    pub session: Duration,
}

/// The section of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as session_hours, or {}")]
pub(super) struct FileConsole {
    session_hours: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("console.session_hours is {0}: expected a number of hours from 0.01 to 720")]
    Session(f64),
}

/// A working day.
const SESSION_HOURS: f64 = 12.0;

impl FileConsole {
    pub(super) fn settle(self) -> Result<Console, ConsoleError> {
        let hours = self.session_hours.unwrap_or(SESSION_HOURS);
        if !(0.01..=720.0).contains(&hours) {
            return Err(ConsoleError::Session(hours));
        }
        Ok(Console {
            session: Duration::from_secs_f64(hours * 3600.0),
        })
    }
}
