//! The journal of an Install in progress: everything that is needed to finish it after a crash,
//! forwards or backwards.
//!
//! One record per line, with a checksum. `begun` lists what is about to be built; the `change`s
//! follow when all of that is on the disk, then `prepared`, and only then do others see anything
//! change; `committed` is the point of no return. Every record but the changes is on the disk
//! before the next step. The same form, complete, is the undo record of a deployment.
//!
//! After a power cut, an unfinished line has no end, or is zeros: that record was never made. Any
//! other malformed line is damage, and such a journal is not followed. `prepared` and `committed`
//! are written twice, so damage in one place cannot hide them.

mod changes;
mod line;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

pub(super) use self::changes::Changes;
use self::line::{Line, Lines};
use super::step::{Change, path, paths};
use super::{Counts, StepError};
use crate::fs::{Folder, incoming, replace_in_turn, split};

/// The version that is written. Version 1 had no checksums, and identified its objects by inode
/// alone. Version 2 had no objects that stay in place.
const VERSION: u32 = 3;

/// Bytes reserved on the disk for the last record, so that a full disk cannot prevent the commit.
const RESERVED: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record<B, C> {
    Begun(B),
    Change(C),
    Prepared { changes: usize },
    Committed {},
}

/// `committed` in version 1.
const COMMITTED: &[u8] = b"\"committed\"";

/// The facts that are known before anything is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The version of the file that was read; written files have the newest.
    #[serde(serialize_with = "newest")]
    version: u32,
    pub(super) action: Action,
    /// The deployment's folder, which keeps displaced files.
    #[serde(with = "path")]
    pub(super) deployment: PathBuf,
    #[serde(with = "path")]
    pub(super) pointer: PathBuf,
    /// A part of every temporary name.
    pub(super) token: String,
    /// Undo records that become useless when this is committed.
    #[serde(with = "paths")]
    pub(super) superseded: Vec<PathBuf>,
    /// Objects that an earlier transaction of the deployment displaced, at the places where this
    /// one found them.
    #[serde(with = "paths")]
    pub(super) displaced: Vec<PathBuf>,
    /// The folders on other file systems that keep displaced objects.
    #[serde(with = "paths", default)]
    pub(super) kept: Vec<PathBuf>,
    pub(super) counts: Counts,
}

/// The kind of transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Puts the files of a deployment in place.
    Install,
    /// Takes an Install back.
    Restore,
}

/// The progress of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Builds new files under temporary names; nobody else sees them.
    Building,
    /// Changes names.
    Changing,
    /// Everything is in place; displaced objects are being put away.
    Finishing,
}

/// The first line of a journal.
#[derive(Serialize)]
struct FirstLine<'a, S: Serialize> {
    #[serde(flatten)]
    begun: &'a Begun,
    staged: S,
}

/// The temporary names of the objects to build.
#[derive(Deserialize)]
struct Staged {
    #[serde(with = "paths", default)]
    staged: Vec<PathBuf>,
}

/// The contents of a journal.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) begun: Begun,
    pub(super) phase: Phase,
    /// The temporary names of the objects to build.
    pub(super) staged: Vec<PathBuf>,
    /// In the building phase: the planned changes, as far as they were written.
    pub(super) changes: Changes,
}

/// The reason why a journal cannot be followed.
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

fn newest<S: serde::Serializer>(_: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(VERSION)
}

impl Begun {
    /// The same, with the folders that keep its displaced objects.
    pub(super) fn with_kept(&self, kept: Vec<PathBuf>) -> Self {
        Self {
            kept,
            ..self.clone()
        }
    }

    pub(super) fn new(
        action: Action,
        deployment: PathBuf,
        pointer: PathBuf,
        token: String,
    ) -> Self {
        Self {
            version: VERSION,
            action,
            deployment,
            pointer,
            token,
            superseded: Vec::new(),
            displaced: Vec::new(),
            kept: Vec::new(),
            counts: Counts::default(),
        }
    }
}

impl Journal {
    /// Starts a journal and replaces an existing one; `staged` are the temporary names of the
    /// objects to build.
    pub(super) fn begin<I: Iterator<Item = PathBuf>>(
        path: &Path,
        begun: &Begun,
        staged: impl Fn() -> I,
    ) -> io::Result<Self> {
        let file = replace_in_turn(path, |writer| write_begun(writer, begun, staged))?;
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            path: path.to_path_buf(),
            length,
            uncertain: false,
        })
    }

    /// Records that everything in `begun` is built and on the disk; `changes` come next, unless one
    /// of them is an error.
    pub(super) fn prepare(
        &mut self,
        changes: impl Iterator<Item = Result<Change, StepError>>,
    ) -> Result<Changes, StepError> {
        let mut writer = BufWriter::with_capacity(64 * 1024, &self.file);
        let mut starts = vec![self.length];
        for change in changes {
            let length = line::write(&mut writer, &Record::<(), _>::Change(change?))
                .map_err(self.failed())?;
            self.length += length;
            starts.push(self.length);
        }
        writer.flush().map_err(self.failed())?;
        drop(writer);
        self.vouch(starts.len() - 1).map_err(self.failed())?;
        let file = self.file.try_clone().map_err(self.failed())?;
        Ok(Changes::of(file, starts))
    }

    fn vouch(&mut self, changes: usize) -> io::Result<()> {
        // Sync before writing the record that vouches for the changes: then a damaged line cannot
        // be taken for one that was never written.
        self.file.sync_data()?;
        self.append(&Record::<(), ()>::Prepared { changes })?;
        // Only a precaution: without it, a disk that fills up now fails the Install and does no
        // other harm.
        let _ = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, RESERVED);
        Ok(())
    }

    /// Records that the changes are made and on the disk. After an error the journal is as if this
    /// had not been tried, unless it is [`Journal::is_uncertain`].
    pub(super) fn commit(&mut self) -> io::Result<()> {
        self.append(&Record::<(), ()>::Committed {})
            .inspect_err(|_| {
                let withdrawn = self
                    .file
                    .set_len(self.length)
                    .and_then(|()| self.file.sync_all());
                self.uncertain = withdrawn.is_err();
            })
    }

    /// Whether the commit failed but may be on the disk. Then nothing may be taken back before the
    /// journal is read again.
    pub(super) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Removes the journal: nothing is left to do.
    pub(super) fn close(self) -> io::Result<()> {
        remove(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Turns an error of these operations into words.
    pub(super) fn failed(&self) -> impl Fn(io::Error) -> StepError + use<> {
        let path = self.path.clone();
        move |source| StepError {
            action: "write",
            path: path.clone(),
            source,
        }
    }

    fn append(&mut self, record: &Record<(), ()>) -> io::Result<()> {
        let mut lines = Vec::new();
        write_twice(&mut lines, record)?;
        self.file.write_all(&lines)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        Ok(())
    }
}

/// Writes a complete journal, durably.
pub(super) fn write_whole(path: &Path, begun: &Begun, changes: &Changes) -> io::Result<()> {
    let file = replace_in_turn(path, |writer| {
        write_begun(writer, begun, std::iter::empty)?;
        for change in changes.iter() {
            line::write(writer, &Record::<(), _>::Change(change?))?;
        }
        write_twice(
            writer,
            &Record::Prepared {
                changes: changes.len(),
            },
        )?;
        write_twice(writer, &Record::Committed {})
    });
    file.map(drop)
}

/// Removes a journal and its unfinished successor, durably; succeeds if they are gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let folder = Folder::open(parent)?;
    folder.unlink(&incoming(name))?;
    folder.unlink(name)?;
    folder.sync()
}

fn write_begun<I: Iterator<Item = PathBuf>>(
    writer: &mut impl Write,
    begun: &Begun,
    staged: impl Fn() -> I,
) -> io::Result<()> {
    let first = FirstLine {
        begun,
        staged: paths::Each(staged),
    };
    line::write(writer, &Record::<_, ()>::Begun(first)).map(drop)
}

fn write_twice(writer: &mut impl Write, record: &Record<(), ()>) -> io::Result<()> {
    line::write(writer, record)?;
    line::write(writer, record).map(drop)
}

/// Reads a journal; `None` if there is none. An unfinished last part is left out.
pub(super) fn read(path: &Path) -> Result<Option<Contents>, JournalError> {
    let Some(mut reader) = Reader::open(path)? else {
        return Ok(None);
    };
    let (begun, staged) = reader.begun(|text| {
        serde_json::from_slice::<Record<Staged, serde::de::IgnoredAny>>(text).map(|first| {
            match first {
                Record::Begun(Staged { staged }) => staged,
                _ => Vec::new(),
            }
        })
    })?;
    let failed = |source| JournalError::Read {
        path: path.to_path_buf(),
        source,
    };
    let (mut phase, mut starts) = (Phase::Building, vec![reader.lines.position()]);
    let mut damaged = None;
    // Whether every line so far is a change; the ones behind another line are not vouched for.
    let mut whole = true;
    let (mut number, mut prepared_at) = (1, 0);
    while let Some(line) = reader.lines.next().map_err(failed)? {
        number += 1;
        let record = match line {
            Line::Bare(text) if begun.version == 1 && text == COMMITTED => Ok(Record::Committed {}),
            Line::Bare(text) if begun.version == 1 => parse(text),
            Line::Sealed(text) if begun.version > 1 => parse(text),
            Line::Bare(_) | Line::Sealed(_) | Line::Damaged => {
                Err("it does not match its checksum".into())
            }
        };
        let complete = |changes: usize| changes == starts.len() - 1;
        whole &= record.is_ok();
        match record {
            Ok(Record::Change(_)) if phase == Phase::Building && whole => {
                starts.push(reader.lines.position())
            }
            Ok(Record::Change(_)) if phase == Phase::Building => {}
            Ok(Record::Prepared { changes }) if phase == Phase::Building && complete(changes) => {
                phase = Phase::Changing;
                prepared_at = number;
                // It can only have been the first of the two copies.
                damaged = None;
            }
            Ok(Record::Prepared { changes })
                if phase == Phase::Changing && number == prepared_at + 1 && complete(changes) => {}
            Ok(Record::Committed {}) if phase >= Phase::Changing => phase = Phase::Finishing,
            // The record that vouches for earlier lines is there, and they are not.
            Ok(Record::Prepared { .. } | Record::Committed {}) => {
                let missing = || "records are missing or in the wrong order".to_owned();
                return Err(reader.unusable(&damaged.unwrap_or_else(missing)));
            }
            Ok(_) => return Err(reader.unusable(&format!("line {number} is out of order"))),
            // It never reached the disk as a whole.
            Err(_) if reader.lines.has_holes() => {}
            // The second of the two.
            Err(_) if begun.version > 1 && number == prepared_at + 1 => {}
            Err(problem) => damaged = damaged.or_else(|| Some(format!("line {number}: {problem}"))),
        }
    }
    match damaged {
        // All that counts is there.
        Some(_) if phase == Phase::Finishing => {}
        Some(problem) => return Err(reader.unusable(&problem)),
        None => {}
    }
    let file = reader.file.try_clone().map_err(failed)?;
    Ok(Some(Contents {
        begun,
        phase,
        staged,
        changes: Changes::of(file, starts),
    }))
}

/// Reads what a journal says was begun, without the rest; `None` when there is none.
pub(super) fn read_begun(path: &Path) -> Result<Option<Begun>, JournalError> {
    let begun = Reader::open(path)?.map(|mut reader| reader.begun(|_| Ok(())));
    Ok(begun.transpose()?.map(|(begun, ())| begun))
}

fn parse(text: &[u8]) -> Result<Record<serde::de::IgnoredAny, Change>, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

struct Reader<'a> {
    path: &'a Path,
    file: File,
    lines: Lines<BufReader<File>>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Option<Self>, JournalError> {
        let failed = |source: io::Error| JournalError::Read {
            path: path.to_path_buf(),
            source,
        };
        let unusable = |problem: &str| JournalError::Unusable {
            path: path.to_path_buf(),
            problem: problem.into(),
        };
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
        let reader = BufReader::with_capacity(64 * 1024, file.try_clone().map_err(failed)?);
        Ok(Some(Self {
            path,
            file,
            lines: Lines::of(reader),
        }))
    }

    /// Reads the first line, and what `more` makes of its text.
    fn begun<T>(
        &mut self,
        more: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> Result<(Begun, T), JournalError> {
        let path = self.path;
        let unusable = |problem: String| JournalError::Unusable {
            path: path.to_path_buf(),
            problem,
        };
        let read = self.lines.next().map_err(|source| JournalError::Read {
            path: path.to_path_buf(),
            source,
        });
        let (text, sealed) = match read? {
            None => return Err(unusable("its first line is not finished".into())),
            Some(Line::Damaged) => {
                return Err(unusable("line 1: it does not match its checksum".into()));
            }
            Some(Line::Sealed(text)) => (text, true),
            Some(Line::Bare(text)) => (text, false),
        };
        match serde_json::from_slice::<Record<Versioned, serde::de::IgnoredAny>>(text) {
            Ok(Record::Begun(Versioned { version })) if version > VERSION => {
                return Err(JournalError::Newer {
                    path: path.to_path_buf(),
                    version,
                });
            }
            Ok(Record::Begun(Versioned { version })) if sealed != (version > 1) => {
                return Err(unusable(
                    "line 1: it has a checksum, or none, against its version".into(),
                ));
            }
            _ => {}
        }
        let begun = match serde_json::from_slice::<Record<Begun, serde::de::IgnoredAny>>(text) {
            Ok(Record::Begun(begun)) => begun,
            Ok(_) => return Err(unusable("its first record is missing".into())),
            Err(error) => return Err(unusable(format!("line 1: {error}"))),
        };
        let more = more(text).map_err(|error| unusable(format!("line 1: {error}")))?;
        Ok((begun, more))
    }

    fn unusable(&self, problem: &str) -> JournalError {
        JournalError::Unusable {
            path: self.path.to_path_buf(),
            problem: problem.into(),
        }
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// In the deployment's folder: the record that takes its Install back.
const RECORD: &str = "undo.json";

/// The path of a deployment's undo record.
pub(super) fn undo_record(deployment: &Path) -> PathBuf {
    deployment.join(RECORD)
}
