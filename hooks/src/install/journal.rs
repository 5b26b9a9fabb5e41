//! The journal of an Install in progress: all that is needed to end it after a crash, one way or the other.
//!
//! One record per line, with a checksum. `begun` names what is about to be built; the `change`s follow when all of that is
//! on the disk, then `prepared`, and only then do others see anything change; `committed` is the point of no return. Every
//! record but the changes is on the disk before the next thing happens. The same form, complete, is the undo record of a
//! deployment.
//!
//! What a power cut leaves of a line that was being written is no end, or zeros: that record was never made. Anything else
//! that is no record is damage, and such a journal is not followed. `prepared` and `committed` are written twice: damage
//! in one place cannot make them look as if they had never been written.

mod line;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use self::line::{Line, Lines};
use super::step::{Change, path, paths};
use super::{Counts, StepError};
use crate::fs::{Folder, incoming, replace_in_turn, split};

/// The form of the file that is written. Version 1 had no checksums, and knew what it brought by the inode alone.
const VERSION: u32 = 2;

/// Reserved on the disk for the last record, so that a full one cannot prevent the commit.
const RESERVED: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record<B, C> {
    Begun(B),
    Change(C),
    Prepared { changes: usize },
    Committed {},
}

/// `committed` as version 1 wrote it.
const COMMITTED: &[u8] = b"\"committed\"";

/// What is known before anything is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// Of the file that it was read from; what is written has the newest.
    #[serde(serialize_with = "newest")]
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
    /// The folders on other file systems that keep what is displaced there.
    #[serde(with = "paths", default)]
    pub(super) kept: Vec<PathBuf>,
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
    /// While it was building: those that were to be made, as far as they were written down.
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

fn newest<S: serde::Serializer>(_: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(VERSION)
}

impl Begun {
    /// The same, with what it displaced kept in these folders.
    pub(super) fn with_kept(&self, kept: Vec<PathBuf>) -> Self {
        Self { kept, ..self.clone() }
    }

    pub(super) fn new(action: Action, deployment: PathBuf, pointer: PathBuf, token: String) -> Self {
        Self {
            version: VERSION,
            action,
            deployment,
            pointer,
            token,
            staged: Vec::new(),
            superseded: Vec::new(),
            displaced: Vec::new(),
            kept: Vec::new(),
            counts: Counts::default(),
        }
    }
}

impl Journal {
    /// Starts a journal in place of whatever was there.
    pub(super) fn begin(path: &Path, begun: &Begun) -> io::Result<Self> {
        let file = replace_in_turn(path, |writer| line::write(writer, &Record::<_, ()>::Begun(begun)))?;
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
        self.append(&Record::<(), ()>::Committed {}).inspect_err(|_| {
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
        let mut lines = Vec::new();
        write_twice(&mut lines, record)?;
        self.file.write_all(&lines)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        Ok(())
    }
}

/// Writes a complete journal, durably.
pub(super) fn write_whole(path: &Path, begun: &Begun, changes: &[Change]) -> io::Result<()> {
    let file = replace_in_turn(path, |writer| {
        line::write(writer, &Record::<_, ()>::Begun(begun))?;
        write_changes(writer, changes)?;
        write_twice(writer, &Record::Prepared { changes: changes.len() })?;
        write_twice(writer, &Record::Committed {})
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
    changes.iter().try_for_each(|change| line::write(writer, &Record::<(), _>::Change(change)))
}

fn write_twice(writer: &mut impl Write, record: &Record<(), ()>) -> io::Result<()> {
    line::write(writer, record)?;
    line::write(writer, record)
}

/// Reads a journal; `None` when there is none. A last part that was never finished is left out.
pub(super) fn read(path: &Path) -> Result<Option<Contents>, JournalError> {
    let Some(mut reader) = Reader::open(path)? else { return Ok(None) };
    let begun = reader.begun()?;
    let mut contents = Contents { begun, phase: Phase::Building, changes: Vec::new() };
    let failed = |source| JournalError::Read { path: path.to_path_buf(), source };
    let mut damaged = None;
    let (mut number, mut prepared_at) = (1, 0);
    while let Some(line) = reader.lines.next().map_err(failed)? {
        number += 1;
        let record = match line {
            Line::Bare(text) if contents.begun.version == 1 && text == COMMITTED => Ok(Record::Committed {}),
            Line::Bare(text) if contents.begun.version == 1 => parse(text),
            Line::Sealed(text) if contents.begun.version > 1 => parse(text),
            Line::Bare(_) | Line::Sealed(_) | Line::Damaged => Err("it is not what was written there".into()),
        };
        let complete = |changes: usize| changes == contents.changes.len();
        match record {
            Ok(Record::Change(change)) if contents.phase == Phase::Building => contents.changes.push(change),
            Ok(Record::Prepared { changes }) if contents.phase == Phase::Building && complete(changes) => {
                contents.phase = Phase::Changing;
                prepared_at = number;
                // It can only have been the first of the two.
                damaged = None;
            }
            Ok(Record::Prepared { changes })
                if contents.phase == Phase::Changing && number == prepared_at + 1 && complete(changes) => {}
            Ok(Record::Committed {}) if contents.phase >= Phase::Changing => {
                contents.phase = Phase::Finishing;
            }
            // What vouches for the lines before it is there, and they are not.
            Ok(Record::Prepared { .. } | Record::Committed {}) => {
                let missing = || "records are missing or in the wrong order".to_owned();
                return Err(reader.unusable(&damaged.unwrap_or_else(missing)));
            }
            Ok(_) => return Err(reader.unusable(&format!("line {number} is not in its place"))),
            // It never reached the disk as a whole.
            Err(_) if reader.lines.has_holes() => {}
            // The second of the two.
            Err(_) if contents.begun.version > 1 && number == prepared_at + 1 => {}
            Err(problem) => damaged = damaged.or_else(|| Some(format!("line {number}: {problem}"))),
        }
    }
    match damaged {
        // All that counts is there.
        Some(_) if contents.phase == Phase::Finishing => Ok(Some(contents)),
        Some(problem) => Err(reader.unusable(&problem)),
        None => Ok(Some(contents)),
    }
}

/// What a journal says was begun, without the rest; `None` when there is none.
pub(super) fn read_begun(path: &Path) -> Result<Option<Begun>, JournalError> {
    Reader::open(path)?.map(|mut reader| reader.begun()).transpose()
}

fn parse(text: &[u8]) -> Result<Record<serde::de::IgnoredAny, Change>, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

struct Reader<'a> {
    path: &'a Path,
    lines: Lines<BufReader<File>>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Option<Self>, JournalError> {
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
        Ok(Some(Self { path, lines: Lines::of(BufReader::with_capacity(64 * 1024, file)) }))
    }

    /// The first line.
    fn begun(&mut self) -> Result<Begun, JournalError> {
        let path = self.path;
        let unusable = |problem: String| JournalError::Unusable { path: path.to_path_buf(), problem };
        let read =
            self.lines.next().map_err(|source| JournalError::Read { path: path.to_path_buf(), source });
        let (text, sealed) = match read? {
            None => return Err(unusable("its first line is not finished".into())),
            Some(Line::Damaged) => return Err(unusable("line 1: it is not what was written there".into())),
            Some(Line::Sealed(text)) => (text, true),
            Some(Line::Bare(text)) => (text, false),
        };
        match serde_json::from_slice::<Record<Versioned, serde::de::IgnoredAny>>(text) {
            Ok(Record::Begun(Versioned { version })) if version > VERSION => {
                return Err(JournalError::Newer { path: path.to_path_buf(), version });
            }
            Ok(Record::Begun(Versioned { version })) if sealed != (version > 1) => {
                return Err(unusable("line 1: it has a checksum, or none, against its version".into()));
            }
            _ => {}
        }
        match serde_json::from_slice::<Record<Begun, serde::de::IgnoredAny>>(text) {
            Ok(Record::Begun(begun)) => Ok(begun),
            Ok(_) => Err(unusable("it does not begin with what was begun".into())),
            Err(error) => Err(unusable(format!("line 1: {error}"))),
        }
    }

    fn unusable(&self, problem: &str) -> JournalError {
        JournalError::Unusable { path: self.path.to_path_buf(), problem: problem.into() }
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// In the deployment's folder: how to take its Install back.
const RECORD: &str = "undo.json";

/// Where a deployment's folder has the record of its Install.
pub(super) fn undo_record(deployment: &Path) -> PathBuf {
    deployment.join(RECORD)
}
