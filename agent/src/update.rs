//! The update of the agent with a command of the operator (`update_command`), on request of the
//! service.
//!
//! The command may replace and restart the agent that started it. So it runs in a process of its
//! own ([`runner`]), which [`launch`] starts outside of the agent's systemd unit. Order and result
//! are files, so that the next agent finds them:
//!
//! * `order.json`: the service's command and the command line, written before the runner starts;
//! * `lock`: locked by the runner for as long as it lives;
//! * `result.json`: written by the runner when the command has ended.

pub mod launch;
pub mod runner;

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_hooks::fs::replace_file;
use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bounded_read;
use crate::deployment_root::{Store, StoreError};

/// The host command that asks for an update.
pub const COMMAND: &str = codedeploy_api::command::UPDATE;

/// The time that the operator's command may take.
pub const LIMIT: Duration = Duration::from_secs(3600);

/// The only version of the files so far.
const VERSION: u32 = 1;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// An update that the service asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    version: u32,
    pub host_command_identifier: String,
    /// For `/bin/sh -c`.
    pub command_line: String,
    /// The agent that started it.
    pub agent_version: String,
}

/// The end of the operator's command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    version: u32,
    pub ending: Ending,
    /// Its last lines, from both streams.
    pub output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    ExitCode(i32),
    Signal(i32),
    /// After [`LIMIT`].
    TimedOut,
    NotStarted(String),
}

/// The state of an ordered update.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Ended(Ended),
    /// No runner lives, and none left a result.
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error(transparent)]
    Folder(#[from] StoreError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Order {
    pub fn new(host_command_identifier: String, command_line: String, agent_version: &str) -> Self {
        Self {
            version: VERSION,
            host_command_identifier,
            command_line,
            agent_version: agent_version.to_owned(),
        }
    }
}

impl Ended {
    fn new(ending: Ending, output: String) -> Self {
        Self {
            version: VERSION,
            ending,
            output,
        }
    }
}

/// The folder of the present update, if any.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn of(store: &Store) -> Self {
        Self(store.commands().join("update"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the order that has not been reported yet. A file that no agent writes counts as
    /// none, and is removed.
    pub fn order(&self) -> Option<Order> {
        let path = self.0.join("order.json");
        match read::<Order>(&path) {
            Ok(order) if order.version == VERSION => Some(order),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            unusable => {
                let error = unusable.err().map(tracing::field::display);
                tracing::warn!(path = %path.display(), error, "not the record of an update; removed");
                self.remove();
                None
            }
        }
    }

    /// Records the order, before its runner starts.
    pub fn begin(&self, store: &Store, order: &Order) -> Result<(), UpdateError> {
        self.remove();
        store.make_folder(&self.0, 0o700)?;
        self.write("order.json", order)
    }

    fn end(&self, ended: &Ended) -> Result<(), UpdateError> {
        self.write("result.json", ended)
    }

    fn write(&self, name: &str, record: &impl Serialize) -> Result<(), UpdateError> {
        let path = self.0.join(name);
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::from);
        bytes
            .and_then(|bytes| replace_file(&path, &bytes, 0o600))
            .map_err(|source| UpdateError::Write { path, source })
    }

    pub fn state(&self) -> State {
        // The lock first: a runner writes its result before it releases the lock.
        let runs = File::open(self.0.join("lock")).is_ok_and(|lock| {
            rustix::fs::flock(lock, FlockOperation::NonBlockingLockShared).is_err()
        });
        match read::<Ended>(&self.0.join("result.json")) {
            Ok(ended) => State::Ended(ended),
            Err(_) if runs => State::Running,
            Err(_) => State::Gone,
        }
    }

    /// Locks the folder for the life of a runner.
    fn lock(&self) -> io::Result<File> {
        let lock = File::create(self.0.join("lock"))?;
        lock.set_permissions(Permissions::from_mode(0o600))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    /// Removes the record of an update that is in the outbox, or was reported.
    pub fn remove(&self) {
        for name in ["order.json", "result.json", "lock"] {
            match std::fs::remove_file(self.0.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %self.0.display(), %error, "cannot remove the record of an update");
                }
                _ => {}
            }
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&bounded_read::read_up_to(
        path, MAX_BYTES,
    )?)?)
}
