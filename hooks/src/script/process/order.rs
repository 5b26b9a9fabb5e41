//! What agent and keeper say to each other: one order, then reports, each a line of JSON.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a keeper is to run. Everything that is not here it inherits: the environment, the output, the current folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
    /// What runs instead when the kernel does not know the program's format: as a shell decides.
    pub(super) shell: Option<Vec<OsString>>,
    /// Whom root becomes for it.
    pub(super) account: Option<Switch>,
    /// The value of [`super::MARK`] for the script.
    pub(super) mark: String,
    /// The control group that the script enters.
    pub(super) group: Option<PathBuf>,
}

/// A user whom root becomes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Switch {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All groups, the primary one included.
    pub(super) groups: Vec<u32>,
    pub(super) session: Option<Session>,
}

/// That a script of another user gets what a session of that user has: the environment, limits and umask of the host's
/// logins, as `su` gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whether variables that decide which code programs load are kept out.
    pub strip_loader_env: bool,
}

/// What a keeper says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Report {
    /// Somebody should know this of the session.
    Warning(String),
    /// Nothing was started: the operating system's error, or a reason in words.
    NotStarted(i32),
    Refused(String),
    /// The script ended with this wait status (waitpid(2)).
    Ended(i32),
}
