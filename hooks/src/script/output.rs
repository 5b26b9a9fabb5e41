//! The script log of a command: `scripts.log` of its deployment, the host's deployments log, and
//! the tail that is reported.
//!
//! Bounded for any output: memory by one line of each stream ([`text`]) and the tail ([`tail`]),
//! the disk by [`MAX_LOGGED`] for each script and by the rotation of the deployments log
//! ([`file`]).

mod file;
mod tail;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use codedeploy_api::lifecycle::LifecycleEvent;

use crate::appspec::ArchivePath;
use crate::clock::LocalTime;
use codedeploy_support::plain::harmless;
pub use file::log_readers;
use file::{FILES_KEPT, LogFile, LogPath, ROTATE_AT, Rotation};
use tail::Tail;
use text::Lines;

/// The number of bytes of one script's output in `scripts.log`. Further output is counted, and the
/// log states how much was left out; the last lines are reported in any case.
pub const MAX_LOGGED: u64 = 64 * 1024 * 1024;

/// The prefix of an entry in `scripts.log`.
const TIME: &str = "YYYY-MM-DD HH:MM:SS ";

/// An error that keeps a script log from being written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("cannot make the folder {} of a script log", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot open the script log {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot rotate the deployments log {}", path.display())]
    Rotate { path: PathBuf, source: io::Error },
    #[error("cannot write to the script log {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// One of the two streams that a script writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn prefix(self) -> &'static str {
        match self {
            Stream::Stdout => "[stdout]",
            Stream::Stderr => "[stderr]",
        }
    }
}

/// The places of a command's logs, and the readers of new ones.
#[derive(Debug, Clone, Copy)]
pub struct LogPlaces<'a> {
    /// `scripts.log`, in a folder of the deployment's folder: neither may be a link.
    pub scripts: &'a Path,
    /// The deployments log, whose folder must not be a link.
    pub deployments: Option<&'a Path>,
    /// The name of the group that may read logs.
    pub readers: &'a str,
}

/// The log of one command, written as things happen.
///
/// A log that cannot be written (a full disk, a link in its place) costs a warning, never the
/// script.
#[derive(Debug)]
pub struct ScriptLog {
    scripts: Option<LogFile>,
    deployments: Option<LogFile>,
    deployment_id: String,
    /// Whether a failed write was already warned about.
    warned: bool,
    /// Entries that are not written yet, without times.
    entries: Vec<String>,
    tail: Tail,
    stdout: Lines,
    stderr: Lines,
    /// The bytes of the current script in `scripts.log`, and the bytes of its output that were left
    /// out.
    logged: u64,
    left_out: u64,
}

impl ScriptLog {
    /// Opens the log of a deployment for appending; makes it and its folder if they are missing.
    /// The deployments log gets the same entries under `deployment_id`. If one of them cannot be
    /// opened, a warning reports it.
    pub fn open(places: LogPlaces<'_>, deployment_id: &str) -> Self {
        let readers = log_readers(places.readers);
        let open = |path, own_folders, rotation| {
            let opened = LogFile::open(
                LogPath {
                    path,
                    own_folders,
                    readers,
                },
                rotation,
            );
            opened.inspect_err(warn).ok()
        };
        let scripts = open(places.scripts, 2, None);
        let rotation = Some(Rotation {
            at: ROTATE_AT,
            files: FILES_KEPT,
        });
        let deployments = places.deployments.and_then(|path| open(path, 1, rotation));
        Self {
            scripts,
            deployments,
            deployment_id: deployment_id.to_owned(),
            warned: false,
            entries: Vec::new(),
            tail: Tail::default(),
            stdout: Lines::default(),
            stderr: Lines::default(),
            logged: 0,
            left_out: 0,
        }
    }

    /// The last whole lines of this command, without times, at most 2048 characters.
    pub fn tail(&self) -> String {
        self.tail.text()
    }

    /// Logs that the scripts of `event` begin.
    pub(super) fn event(&mut self, event: &LifecycleEvent) {
        self.entry(format!("LifecycleEvent - {event}"));
        self.write();
    }

    /// Logs that the script at `location` begins.
    pub(super) fn script(&mut self, location: &ArchivePath) {
        (self.logged, self.left_out) = (0, 0);
        self.entry(format!("Script - {}", harmless(location.written())));
        self.write();
    }

    /// Logs `bytes` that the script wrote.
    pub(super) fn output(&mut self, stream: Stream, bytes: &[u8]) {
        self.take(stream, |lines, line| lines.push(bytes, line));
        self.write();
    }

    /// The script writes no more: ends its unterminated lines.
    pub(super) fn end_script(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.take(stream, |lines, line| lines.finish(line));
        }
        if self.left_out > 0 {
            let left_out = self.left_out;
            self.entries.push(format!(
                "{left_out} bytes of output are left out: a script may log {MAX_LOGGED}"
            ));
        }
        self.write();
    }

    /// Feeds the lines of `stream`, and turns the complete ones into entries.
    fn take(&mut self, stream: Stream, read: impl FnOnce(&mut Lines, &mut dyn FnMut(&str))) {
        let Self {
            stdout,
            stderr,
            entries,
            tail,
            logged,
            left_out,
            ..
        } = self;
        let lines = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        read(lines, &mut |line| {
            let entry = [stream.prefix(), line].concat();
            tail.push(&entry);
            let in_log = (TIME.len() + entry.len() + 1) as u64;
            if *left_out == 0 && *logged + in_log <= MAX_LOGGED {
                *logged += in_log;
                entries.push(entry);
            } else {
                *left_out += line.len() as u64 + 1;
            }
        });
    }

    fn entry(&mut self, entry: String) {
        self.tail.push(&entry);
        self.entries.push(entry);
    }

    fn write(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let now = LocalTime::now();
        let (seconds, milliseconds) = (now.seconds(), now.milliseconds());
        let entries = std::mem::take(&mut self.entries);
        let text: String = entries
            .iter()
            .map(|entry| format!("{seconds} {entry}\n"))
            .collect();
        let mut written = self
            .scripts
            .as_mut()
            .map_or(Ok(()), |scripts| scripts.append(&text));
        if let Some(deployments) = &mut self.deployments {
            let id = &self.deployment_id;
            let text: String = entries
                .iter()
                .map(|entry| format!("[{milliseconds}] [{id}]{entry}\n"))
                .collect();
            written = written.and(deployments.append(&text));
        }
        if let Err(error) = written
            && !std::mem::replace(&mut self.warned, true)
        {
            warn(&error);
        }
    }
}

fn warn(error: &LogError) {
    let source = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    tracing::warn!("{error}: {source}; scripts run on, what they write is missing there");
}
