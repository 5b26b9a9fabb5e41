//! Reads the lines of a log through all its files, oldest first, and continues when it grows, is
//! rotated or is truncated.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::telemetry::LogName;

/// The size in bytes up to which a line is read as a whole.
const MAX_LINE: usize = 64 * 1024;

/// The number of times that files are listed again because of a rotation.
const ATTEMPTS: usize = 8;

/// The files of one log.
#[derive(Debug, Clone)]
pub(super) enum Files {
    /// Rotated into `<program>.<day>.log`.
    Agent(LogName),
    /// Rotated into `<path>.0`, the newest, and so on.
    Numbered(PathBuf),
    Single(PathBuf),
}

/// A log that is being read.
#[derive(Debug)]
pub(super) struct Series {
    files: Files,
    /// Files that were last written before this are left out.
    since: Option<SystemTime>,
    open: Option<Open>,
    /// Unreadable files, with the reason; each is reported once.
    unreadable: BTreeSet<PathBuf>,
    problems: Vec<Problem>,
}

/// A file that was left out.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(super) struct Problem {
    path: PathBuf,
    pub(super) reason: io::Error,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    identity: (u64, u64),
    reader: BufReader<File>,
    /// The number of bytes read, and the incomplete line at their end.
    read: u64,
    partial: Vec<u8>,
}

impl Files {
    fn current(&self) -> PathBuf {
        match self {
            Self::Agent(name) => name.current(),
            Self::Numbered(path) | Self::Single(path) => path.clone(),
        }
    }

    /// The possible files, oldest first.
    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = match self {
            Self::Agent(name) => name.rotated()?,
            Self::Numbered(path) => numbered(path)?,
            Self::Single(_) => Vec::new(),
        };
        paths.push(self.current());
        Ok(paths)
    }
}

fn numbered(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|entry| entry.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        found.extend(number.map(|number: u32| (number, entry.path())));
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

impl Series {
    pub(super) fn new(files: Files, since: Option<SystemTime>) -> Self {
        Self {
            files,
            since,
            open: None,
            unreadable: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Returns the next whole line, without its end; `None` if there is none for now.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(open) = &mut self.open {
                match open.line() {
                    Ok(Some(line)) => return Some(line),
                    Ok(None) => {}
                    Err(source) => {
                        let path = open.path.clone();
                        self.open = None;
                        self.leave_out(path, source);
                    }
                }
            }
            let next = self.advance()?;
            if let Some(rest) = self.open.replace(next).and_then(Open::rest) {
                return Some(rest);
            }
        }
    }

    /// Returns an unterminated last line.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        self.open
            .as_mut()
            .map(|open| std::mem::take(&mut open.partial))
            .filter(|rest| !rest.is_empty())
    }

    /// Returns the files that turned out to be unreadable since the last call.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    fn leave_out(&mut self, path: PathBuf, source: io::Error) {
        if source.kind() != io::ErrorKind::NotFound && self.unreadable.insert(path.clone()) {
            self.problems.push(Problem {
                path,
                reason: source,
            });
        }
    }

    /// Opens the file that follows the open one.
    fn advance(&mut self) -> Option<Open> {
        for _ in 0..ATTEMPTS {
            let paths = match self.files.list() {
                Ok(paths) => paths,
                Err(source) => {
                    let current = self.files.current();
                    self.leave_out(current.parent().unwrap_or(&current).to_owned(), source);
                    return None;
                }
            };
            let (path, identity) = self.choose(paths)?;
            match Open::new(&path) {
                Ok(open) if open.identity == identity => return Some(open),
                // It was rotated after it was listed.
                Ok(_) => {}
                Err(source) => self.leave_out(path, source),
            }
        }
        None
    }

    fn choose(&self, paths: Vec<PathBuf>) -> Option<(PathBuf, (u64, u64))> {
        let current = self.files.current();
        let mut found: Vec<(PathBuf, Metadata)> = paths
            .into_iter()
            .filter(|path| !self.unreadable.contains(path))
            .filter_map(|path| {
                std::fs::metadata(&path)
                    .ok()
                    .map(|metadata| (path, metadata))
            })
            .collect();
        match &self.open {
            None => {
                let since = self.since;
                found.retain(|(_, metadata)| {
                    since.is_none_or(|since| metadata.modified().is_ok_and(|time| time >= since))
                });
            }
            Some(open) => match found
                .iter()
                .position(|(_, metadata)| identity(metadata) == open.identity)
            {
                Some(position) => drop(found.drain(..=position)),
                // It was removed: the file that was current then is followed by the one that is
                // current now.
                None if open.path == current => found.retain(|(path, _)| *path == current),
                None => {}
            },
        }
        let (path, metadata) = found.into_iter().next()?;
        Some((path, identity(&metadata)))
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        // Non-blocking, because it may be a FIFO.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("is not a file; expected a log"));
        }
        let reader = BufReader::with_capacity(MAX_LINE, file);
        Ok(Self {
            path: path.to_owned(),
            identity: identity(&metadata),
            reader,
            read: 0,
            partial: Vec::new(),
        })
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = (MAX_LINE - self.partial.len()) as u64;
        self.read += (&mut self.reader)
            .take(room)
            .read_until(b'\n', &mut self.partial)? as u64;
        if self.partial.last() == Some(&b'\n') {
            self.partial.pop();
            return Ok(Some(std::mem::take(&mut self.partial)));
        }
        if self.partial.len() >= MAX_LINE {
            return Ok(Some(std::mem::take(&mut self.partial)));
        }
        if self.reader.get_ref().metadata()?.len() < self.read {
            // It was truncated, as by logrotate's copytruncate.
            self.reader.rewind()?;
            self.read = 0;
            self.partial.clear();
        }
        Ok(None)
    }

    fn rest(self) -> Option<Vec<u8>> {
        Some(self.partial).filter(|partial| !partial.is_empty())
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
