//! The daemon's status interface: its socket, and its responses.

pub mod socket;
pub mod status;

use std::path::PathBuf;

use crate::config::Settings;
use crate::deployment_root::HISTORY;

/// The files that show whether the agent of a configuration is running.
#[derive(Debug, Clone)]
pub struct Place {
    pub pid_file: PathBuf,
    pub socket: PathBuf,
    pub history: PathBuf,
}

impl Place {
    pub fn of(settings: &Settings) -> Self {
        let file = |suffix: &str| {
            settings
                .pid_dir
                .join(format!("{}.{suffix}", settings.program_name))
        };
        Self {
            pid_file: file("pid"),
            socket: file("sock"),
            history: settings.root_dir.join(HISTORY),
        }
    }
}
