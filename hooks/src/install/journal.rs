//! The journal of an Install in progress: all that is needed to end it after a crash, one way or the other.
//!
//! One record per line. `begun` names what is about to be built; the `change`s follow when all of that is on the disk,
//! then `prepared`, and only then do others see anything change; `committed` is the point of no return. Every record
//! but the changes is on the disk before the next thing happens. The same form, complete, is the undo record of a
//! deployment.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::step::{Change, path, paths};
use super::{Counts, StepError};
use crate::fs::{Folder, incoming, replace_in_turn, split};

/// The one form of the file that there has been.
const VERSION: u32 = 1;

/// Reserved on the disk for the last record, so that a full one cannot prevent the commit.
const RESERVED: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record<B, C> {
    Begun(B),
    Change(C),
    Prepared { changes: usize },
    Committed,
}

/// What is known before anything is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    version: u32,
    pub(super) action: Action,
    /// The deployment's folder, which keeps what is displaced.
    #[serde(with = "path")]
    pub(super) deployment: PathBuf,
    #[serde(with = "path")]
    pub(super) pointer: PathBuf,
    /// In every temporary name.
    pub(super) token: String,
    /// The temporary names under which something is built.
    #[serde(with = "paths")]
    pub(super) staged: Vec<PathBuf>,
    /// Undo records that are of no use once this is committed.
    #[serde(with = "paths")]
    pub(super) superseded: Vec<PathBuf>,
    /// What an earlier transaction of the deployment displaced, and this one found in that place.
    #[serde(with = "paths")]
    pub(super) displaced: Vec<PathBuf>,
    pub(super) counts: Counts,
}

/// What is done to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The files of a deployment are put in place.
    Install,
    /// What an Install did is taken back.
    Restore,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// New files were being built under temporary names; nobody else sees them.
    Building,
    /// Names were being changed.
    Changing,
    /// Everything is in place; what was displaced was being put away.
    Finishing,
}

/// All that a journal says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) begun: Begun,
    pub(super) phase: Phase,
    pub(super) changes: Vec<Change>,
}

/// Why a journal cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot read the journal {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot remove the journal {}, which is no longer needed", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("the journal {} has version {version}, and this agent knows version {VERSION}; run the newer agent that wrote it, once", path.display())]
    Newer { path: PathBuf, version: u32 },
    #[error("{} is no journal of an Install: {problem}", path.display())]
    Unusable { path: PathBuf, problem: String },
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    length: u64,
    uncertain: bool,
}

impl Begun {
    pub(super) fn new(action: Action, deployment: PathBuf, pointer: PathBuf, token: String) -> Self {
        let (staged, superseded, displaced) = (Vec::new(), Vec::new(), Vec::new());
        let counts = Counts::default();
        Self { version: VERSION, action, deployment, pointer, token, staged, superseded, displaced, counts }
    }
}

impl Journal {
    /// Starts a journal in place of whatever was there.
    pub(super) fn begin(path: &Path, begun: &Begun) -> io::Result<Self> {
        let file = replace_in_turn(path, |writer| write(writer, &Record::<_, ()>::Begun(begun)))?;
        let length = file.metadata()?.len();
        Ok(Self { file, path: path.to_path_buf(), length, uncertain: false })
    }

    /// Everything that was begun is built and on the disk; `changes` come next.
    pub(super) fn prepare(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut writer = BufWriter::with_capacity(64 * 1024, &self.file);
        write_changes(&mut writer, changes)?;
        writer.flush()?;
        drop(writer);
        // Before the record that vouches for them: a line that is damaged later is told from one that never was written.
        self.file.sync_data()?;
        self.length = self.file.metadata()?.len();
        self.append(&Record::<(), ()>::Prepared { changes: changes.len() })?;
        // A courtesy: without it, a disk that fills up now costs the Install, and nothing else.
        let _ = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, RESERVED);
        Ok(())
    }

    /// The changes are made and on the disk. After an error the journal is as if this had not been tried, unless it is
    /// [`Journal::is_uncertain`].
    pub(super) fn commit(&mut self) -> io::Result<()> {
        self.append(&Record::<(), ()>::Committed).inspect_err(|_| {
            let withdrawn = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
            self.uncertain = withdrawn.is_err();
        })
    }

    /// Whether the journal may say that it is committed although that failed. Then nothing may be taken back before it was
    /// read again.
    pub(super) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Nothing is left to do.
    pub(super) fn close(self) -> io::Result<()> {
        remove(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error of one of the above, in words.
    pub(super) fn failed(&self) -> impl FnOnce(io::Error) -> StepError + use<> {
        let path = self.path.clone();
        move |source| StepError { action: "write", path, source }
    }

    fn append(&mut self, record: &Record<(), ()>) -> io::Result<()> {
        let mut line = Vec::new();
        write(&mut line, record)?;
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Writes a complete journal, durably.
pub(super) fn write_whole(path: &Path, begun: &Begun, changes: &[Change]) -> io::Result<()> {
    let file = replace_in_turn(path, |writer| {
        write(writer, &Record::<_, ()>::Begun(begun))?;
        write_changes(writer, changes)?;
        write(writer, &Record::<(), ()>::Prepared { changes: changes.len() })?;
        write(writer, &Record::<(), ()>::Committed)
    });
    file.map(drop)
}

/// Removes a journal, durably, and what was to become one; fine when they are gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let folder = Folder::open(parent)?;
    folder.unlink(&incoming(name))?;
    folder.unlink(name)?;
    folder.sync()
}

fn write_changes(writer: &mut impl Write, changes: &[Change]) -> io::Result<()> {
    changes.iter().try_for_each(|change| write(writer, &Record::<(), _>::Change(change)))
}

fn write(writer: &mut impl Write, record: &Record<impl Serialize, impl Serialize>) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, record)?;
    writer.write_all(b"\n")
}

/// Reads a journal; `None` when there is none. A last part that was never finished is left out.
pub(super) fn read(path: &Path) -> Result<Option<Contents>, JournalError> {
    let failed = |source: io::Error| JournalError::Read { path: path.to_path_buf(), source };
    let unusable =
        |problem: &str| JournalError::Unusable { path: path.to_path_buf(), problem: problem.into() };
    // A FIFO in its place must not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err(unusable("it is a symbolic link")),
        Err(error) => return Err(failed(error.into())),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(unusable("it is not a regular file"));
    }
    let mut lines = Lines { reader: BufReader::with_capacity(64 * 1024, file), line: Vec::new() };
    let first = lines.next().map_err(failed)?.ok_or_else(|| unusable("its first line is not finished"))?;
    let begun = match serde_json::from_slice::<Record<Versioned, serde::de::IgnoredAny>>(first) {
        Ok(Record::Begun(Versioned { version })) if version > VERSION => {
            return Err(JournalError::Newer { path: path.to_path_buf(), version });
        }
        _ => serde_json::from_slice::<Record<Begun, serde::de::IgnoredAny>>(first),
    };
    let begun = match begun {
        Ok(Record::Begun(begun)) => begun,
        Ok(_) => return Err(unusable("it does not begin with what was begun")),
        Err(error) => return Err(unusable(&format!("line 1: {error}"))),
    };
    let mut contents = Contents { begun, phase: Phase::Building, changes: Vec::new() };
    let mut damaged = None;
    let mut number = 1;
    while let Some(line) = lines.next().map_err(failed)? {
        number += 1;
        match serde_json::from_slice::<Record<serde::de::IgnoredAny, Change>>(line) {
            Ok(Record::Change(change)) if contents.phase == Phase::Building => contents.changes.push(change),
            Ok(Record::Prepared { changes })
                if contents.phase == Phase::Building
                    && changes == contents.changes.len()
                    && damaged.is_none() =>
            {
                contents.phase = Phase::Changing;
            }
            Ok(Record::Committed) if contents.phase == Phase::Changing => contents.phase = Phase::Finishing,
            // What vouches for the lines before it is there, and they are not.
            Ok(Record::Prepared { .. } | Record::Committed) => {
                return Err(unusable(
                    damaged.as_deref().unwrap_or("records are missing or in the wrong order"),
                ));
            }
            Ok(_) => return Err(unusable(&format!("line {number} is not in its place"))),
            Err(error) => damaged = damaged.or_else(|| Some(format!("line {number}: {error}"))),
        }
    }
    match (contents.phase, damaged) {
        // The changes were being written when it ended: none of them was made.
        (Phase::Building, _) => contents.changes.clear(),
        (_, None) => {}
        (_, Some(problem)) => return Err(unusable(&problem)),
    }
    Ok(Some(contents))
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The finished lines of a file.
struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        self.reader.read_until(b'\n', &mut self.line)?;
        Ok(self.line.strip_suffix(b"\n"))
    }
}
