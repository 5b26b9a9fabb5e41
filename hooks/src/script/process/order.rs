//! The messages between agent and keeper: one order, then reports, each a line of JSON.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The order to a keeper. It inherits everything else: the environment, the output, the current
/// folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
    /// The command to run if the kernel does not know the program's format: the user's shell
    /// decides.
    pub(super) shell: Option<Vec<OsString>>,
    /// The user that root switches to.
    pub(super) account: Option<Switch>,
    /// The value of [`super::MARK`] for the script.
    pub(super) mark: String,
    /// The control group that the script enters.
    pub(super) group: Option<PathBuf>,
}

/// A user that root switches to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Switch {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All groups, the primary one included.
    pub(super) groups: Vec<u32>,
    pub(super) session: Option<Session>,
}

/// Gives a script of another user a session of that user: the environment, limits and umask of the
/// host's logins, as with `su`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whether to remove variables that decide which code programs load.
    pub strip_loader_env: bool,
}

/// A report of a keeper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Report {
    /// A warning about the session.
    Warning(String),
    /// Nothing was started: the operating system's error, or a reason in words.
    NotStarted(i32),
    Refused(String),
    /// The script ended with this wait status (waitpid(2)).
    Ended(i32),
}
