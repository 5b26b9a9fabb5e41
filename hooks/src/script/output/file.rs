//! Log files of script output: their readers, growth and rotation.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, flock};
use rustix::io::Errno;

use super::LogError;
use crate::fs::{Folder, is_nowhere, split};

/// The deployments log is rotated before it would exceed this number of bytes.
pub(super) const ROTATE_AT: u64 = 64 * 1024 * 1024;

/// The number of files of the deployments log, including the current one. The official agent uses
/// the same names and number: `codedeploy-agent-deployments.log`, then `.0` (the newest) to `.6`.
pub(super) const FILES_KEPT: usize = 8;

/// The mode of a new file of script output: its owner and the group that reads logs may read it.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// A log file that grows. Every write is one call on a file opened for appending, so entries of
/// several writers (parallel commands, or `codedeploy-local` beside the agent) do not mix within a
/// line.
///
/// Its folder stays open: even if a hook replaces it, nothing is written through a link.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    folder: Folder,
    name: OsString,
    file: File,
    rotation: Option<Rotation>,
    /// The group that may read a new file.
    readers: Option<u32>,
    /// The last write ended within a line, as it does on a full disk.
    torn: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    pub(super) at: u64,
    pub(super) files: usize,
}

/// The place of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogPath<'a> {
    pub(super) path: &'a Path,
    /// The number of innermost folders that belong to the agent: none of these may be a link.
    pub(super) own_folders: usize,
    /// The group that may read a new file.
    pub(super) readers: Option<u32>,
}

impl LogFile {
    /// Opens the file for appending; makes it, and its folders, if they are missing. An existing
    /// file keeps its readers.
    pub(super) fn open(place: LogPath<'_>, rotation: Option<Rotation>) -> Result<Self, LogError> {
        let LogPath {
            path,
            own_folders,
            readers,
        } = place;
        let failed = |source| LogError::Open {
            path: path.to_owned(),
            source,
        };
        let (parent, name) = split(path).map_err(failed)?;
        let folder = folder(parent, own_folders, readers).map_err(|source| LogError::Folder {
            path: parent.to_owned(),
            source,
        })?;
        let file = open(&folder, name, readers).map_err(failed)?;
        let (path, name) = (path.to_owned(), name.to_owned());
        Ok(Self {
            path,
            folder,
            name,
            file,
            rotation,
            readers,
            torn: false,
        })
    }

    /// Appends `entries`, whole lines, even if the file should be rotated and cannot be.
    pub(super) fn append(&mut self, entries: &str) -> Result<(), LogError> {
        let rotated = match self.rotation {
            Some(rotation) => self.rotate(rotation, entries.len() as u64),
            None => Ok(()),
        };
        if self.torn {
            self.write("\n").and_then(|()| self.write(entries))
        } else {
            self.write(entries)
        }
        .map_err(|source| LogError::Write {
            path: self.path.clone(),
            source,
        })?;
        rotated.map_err(|source| LogError::Rotate {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes room for `more` bytes. Another process may have rotated the file since the last write,
    /// or be about to: the lock, and a second look at the file behind the path, decide which
    /// process does it. Nobody waits for the lock; its holder rotates.
    fn rotate(&mut self, rotation: Rotation, more: u64) -> io::Result<()> {
        self.follow()?;
        let size = self.file.metadata()?.len();
        if size == 0 || size.saturating_add(more) <= rotation.at {
            return Ok(());
        }
        let locked = self.file.try_clone()?;
        match flock(&locked, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(()),
            taken => taken?,
        }
        let renamed = match self.follow() {
            Ok(false) => self.rename_all(rotation.files),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        flock(&locked, FlockOperation::Unlock)?;
        renamed
    }

    fn rename_all(&mut self, files: usize) -> io::Result<()> {
        for number in (0..files.saturating_sub(2)).rev() {
            match self.folder.rename(
                &self.numbered(number),
                &self.folder,
                &self.numbered(number + 1),
            ) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let before = self.file.metadata()?;
        self.folder
            .rename(&self.name, &self.folder, &self.numbered(0))?;
        self.file = open(&self.folder, &self.name, self.readers)?;
        // The readers of the old log can read the new one.
        let _ = fchown(&self.file, Some(before.uid()), Some(before.gid()));
        self.file.set_permissions(before.permissions())
    }

    /// Opens the path again if it no longer names the open file; returns whether it did.
    fn follow(&mut self) -> io::Result<bool> {
        let open_file = self.file.metadata()?;
        let named = self.folder.stat(&self.name)?;
        let same = named.is_some_and(|named| {
            (named.st_dev, named.st_ino) == (open_file.dev(), open_file.ino())
        });
        if !same {
            self.file = open(&self.folder, &self.name, self.readers)?;
        }
        Ok(!same)
    }

    fn numbered(&self, number: usize) -> OsString {
        let mut name = self.name.clone();
        name.push(format!(".{number}"));
        name
    }
}

/// Opens a file, but never through a link.
fn open(folder: &Folder, name: &OsStr, readers: Option<u32>) -> io::Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(FILE_MODE);
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        Err(Errno::LOOP) => {
            return Err(io::Error::other(
                "found a symbolic link, expected a file; remove it",
            ));
        }
        opened => return Ok(opened?.into()),
    }
    match rustix::fs::openat(folder, name, flags | OFlags::CREATE | OFlags::EXCL, mode) {
        Ok(made) => {
            let file = File::from(made);
            if let Some(group) = readers {
                fchown(&file, None, Some(group))?;
            }
            // Independent of the umask.
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            Ok(file)
        }
        // Another writer was faster.
        Err(Errno::EXIST) => Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?.into()),
        Err(error) => Err(error.into()),
    }
}

/// Opens the folder at `path`, whose last `own` folders must not be links; makes missing ones.
fn folder(path: &Path, own: usize, readers: Option<u32>) -> io::Result<Folder> {
    let base = path.ancestors().nth(own).unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(base)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = Folder::from(rustix::fs::open(base, flags, Mode::empty())?);
    let own = path.strip_prefix(base).unwrap_or(path);
    for (name, is_last) in own
        .iter()
        .zip((0..own.iter().count()).rev().map(|left| left == 0))
    {
        here = match here.folder(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(&here, name, is_last, readers)?
            }
            Err(error) if is_nowhere(&error) => {
                let found = format!(
                    "found a link or a file at {}, expected a folder; remove it",
                    name.display()
                );
                return Err(io::Error::other(found));
            }
            opened => opened?,
        };
    }
    Ok(here)
}

/// The last folder holds the log; those before it hold more than logs.
fn make_folder(
    parent: &Folder,
    name: &OsStr,
    is_last: bool,
    readers: Option<u32>,
) -> io::Result<Folder> {
    let made = match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(FOLDER_MODE)) {
        Err(Errno::EXIST) => return parent.folder(name),
        made => made
            .map_err(io::Error::from)
            .and_then(|()| parent.folder(name))?,
    };
    if let Some(group) = readers.filter(|_| is_last) {
        rustix::fs::fchown(&made, None, Some(Gid::from_raw(group)))?;
    }
    let mode = if is_last { FOLDER_MODE } else { 0o755 };
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    Ok(made)
}

/// The group that reads logs, if it exists and this process may give files to it.
pub fn log_readers(name: &str) -> Option<u32> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    nix::unistd::Group::from_name(name)
        .ok()
        .flatten()
        .map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Rotation = Rotation { at: 10, files: 4 };

    fn open_log(path: &Path, rotation: Option<Rotation>) -> LogFile {
        LogFile::open(
            LogPath {
                path,
                own_folders: 1,
                readers: log_readers("adm"),
            },
            rotation,
        )
        .unwrap()
    }

    fn contents(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open_log(&folder.path().join("log"), Some(SMALL));
        for entry in [
            "aaaaaa\n",
            "bb\n",
            "cccccc\n",
            "dddddd\n",
            "longer than the limit\n",
            "e\n",
        ] {
            log.append(entry).unwrap();
        }
        let expected = [
            ("log", "e\n"),
            ("log.0", "longer than the limit\n"),
            ("log.1", "dddddd\n"),
            ("log.2", "cccccc\n"),
        ];
        assert_eq!(
            contents(folder.path()),
            expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn a_writer_follows_when_another_one_rotates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut one = open_log(&path, Some(SMALL));
        let mut other = open_log(&path, Some(SMALL));
        one.append("aaaaaa\n").unwrap();
        other.append("bbbbbb\n").unwrap();
        one.append("c\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "bbbbbb\nc\n");
    }

    #[test]
    fn entries_are_kept_when_the_file_cannot_be_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = open_log(&path, Some(SMALL));
        log.append("aaaaaa\n").unwrap();
        // The next name is taken by a folder that is not empty.
        std::fs::create_dir_all(folder.path().join("log.2/full")).unwrap();
        std::fs::create_dir_all(folder.path().join("log.1/full")).unwrap();
        for entry in ["bbbbbb\n", "cccccc\n"] {
            assert!(matches!(log.append(entry), Err(LogError::Rotate { .. })));
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "aaaaaa\nbbbbbb\ncccccc\n"
        );
    }

    #[test]
    fn nobody_waits_for_another_writer_that_rotates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = open_log(&path, Some(SMALL));
        log.append("aaaaaa\n").unwrap();
        let other = File::open(&path).unwrap();
        flock(&other, FlockOperation::LockExclusive).unwrap();
        log.append("bbbbbb\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "aaaaaa\nbbbbbb\n");
        drop(other);
        log.append("cccccc\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cccccc\n");
    }

    #[test]
    fn a_new_log_is_for_root_and_its_readers_and_one_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/scripts.log");
        open_log(&path, None);
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o640);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        if let Some(group) = log_readers("adm") {
            assert_eq!(path.metadata().unwrap().gid(), group);
        }

        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut log = open_log(&path, Some(SMALL));
        assert_eq!(mode(&path), 0o644, "a log shipper reads it");
        for entry in ["aaaaaa\n", "bbbbbb\n"] {
            log.append(entry).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "bbbbbb\n");
        assert_eq!(mode(&path), 0o644, "after it was rotated");
    }

    #[test]
    fn nothing_is_written_through_a_link_that_took_a_folders_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("victim")).unwrap();
        let place = path("d-1/logs/scripts.log");
        let place = LogPath {
            path: &place,
            own_folders: 2,
            readers: None,
        };
        let mut log = LogFile::open(place, Some(SMALL)).unwrap();
        std::fs::rename(path("d-1/logs"), path("moved")).unwrap();
        std::os::unix::fs::symlink(path("victim"), path("d-1/logs")).unwrap();
        for entry in ["aaaaaa\n", "bbbbbb\n"] {
            log.append(entry).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path("moved/scripts.log")).unwrap(),
            "bbbbbb\n"
        );
        let error = LogFile::open(place, None).unwrap_err();
        assert!(matches!(error, LogError::Folder { .. }), "{error}");
        std::fs::rename(path("d-1"), path("moved/d-1")).unwrap();
        std::os::unix::fs::symlink(path("victim"), path("d-1")).unwrap();
        LogFile::open(place, None).unwrap_err();
        assert_eq!(std::fs::read_dir(path("victim")).unwrap().count(), 0);
    }
}
