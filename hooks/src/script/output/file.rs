//! Log files that hold script output: who may read them, how they grow and how they are rotated.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::LogError;

/// The deployments log is rotated before it would grow beyond this many bytes.
pub(super) const ROTATE_AT: u64 = 64 * 1024 * 1024;

/// Files of the deployments log, the one that is written included. The official agent names them and counts them the
/// same way: `codedeploy-agent-deployments.log`, then `.0` (the newest) to `.6`.
pub(super) const FILES_KEPT: usize = 8;

/// What a file of script output may be read by: root and the group that reads logs.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;
const READERS: &str = "adm";

/// A log file that grows. Every write is one call on a file opened for appending, so that entries of several writers
/// (commands in parallel, `codedeploy-local` beside the agent) do not mix within a line.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    rotation: Option<Rotation>,
    /// The last write ended within a line, as on a full disk.
    torn: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    pub(super) at: u64,
    pub(super) files: usize,
}

impl LogFile {
    /// Opens the file for appending; makes it, and its folder, when they are missing.
    pub(super) fn open(path: &Path, rotation: Option<Rotation>) -> Result<Self, LogError> {
        let failed = |source| LogError::Open { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            make_folder(folder).map_err(|source| LogError::Folder { path: folder.to_owned(), source })?;
        }
        let file = open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, rotation, torn: false })
    }

    /// Adds `entries`, whole lines. They are written also when the file should be rotated and cannot be.
    pub(super) fn append(&mut self, entries: &str) -> Result<(), LogError> {
        let rotated = match self.rotation {
            Some(rotation) => self.rotate(rotation, entries.len() as u64),
            None => Ok(()),
        };
        if self.torn { self.write("\n").and_then(|()| self.write(entries)) } else { self.write(entries) }
            .map_err(|source| LogError::Write { path: self.path.clone(), source })?;
        rotated.map_err(|source| LogError::Rotate { path: self.path.clone(), source })
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

    /// Makes room for `more` bytes. Another process may have rotated the file since the last write, or be about to: the
    /// lock and a second look at what the path names decide who does. Nobody waits for the lock; who holds it rotates.
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
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(0))?;
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Opens the path again when it no longer names the open file; says whether it did.
    fn follow(&mut self) -> io::Result<bool> {
        let open_file = self.file.metadata()?;
        let same = match std::fs::symlink_metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) == (open_file.dev(), open_file.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !same {
            self.file = open(&self.path)?;
        }
        Ok(!same)
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

/// Opens a file, never one behind a link, and sees to it that the right users can read it.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(file);
    }
    // One that the official agent made is open to everybody.
    if found.permissions().mode() & 0o7777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    if let Some(group) = readers()
        && found.gid() != group
    {
        fchown(&file, None, Some(group))?;
    }
    Ok(file)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    match readers() {
        Some(group) => std::os::unix::fs::chown(folder, None, Some(group)),
        None => Ok(()),
    }
}

/// The group that reads logs, where it exists and files may be given to it.
fn readers() -> Option<u32> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    nix::unistd::Group::from_name(READERS).ok().flatten().map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Rotation = Rotation { at: 10, files: 4 };

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
        let mut log = LogFile::open(&folder.path().join("log"), Some(SMALL)).unwrap();
        for entry in ["aaaaaa\n", "bb\n", "cccccc\n", "dddddd\n", "longer than the limit\n", "e\n"] {
            log.append(entry).unwrap();
        }
        let expected = [
            ("log", "e\n"),
            ("log.0", "longer than the limit\n"),
            ("log.1", "dddddd\n"),
            ("log.2", "cccccc\n"),
        ];
        assert_eq!(contents(folder.path()), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn a_writer_follows_when_another_one_rotates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut one = LogFile::open(&path, Some(SMALL)).unwrap();
        let mut other = LogFile::open(&path, Some(SMALL)).unwrap();
        one.append("aaaaaa\n").unwrap();
        other.append("bbbbbb\n").unwrap();
        one.append("c\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "bbbbbb\nc\n");
    }

    #[test]
    fn entries_are_kept_when_the_file_cannot_be_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::open(&path, Some(SMALL)).unwrap();
        log.append("aaaaaa\n").unwrap();
        // Where the next name is taken by a folder that is not empty.
        std::fs::create_dir_all(folder.path().join("log.2/full")).unwrap();
        std::fs::create_dir_all(folder.path().join("log.1/full")).unwrap();
        for entry in ["bbbbbb\n", "cccccc\n"] {
            assert!(matches!(log.append(entry), Err(LogError::Rotate { .. })));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "aaaaaa\nbbbbbb\ncccccc\n");
    }

    #[test]
    fn nobody_waits_for_another_writer_that_rotates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::open(&path, Some(SMALL)).unwrap();
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
    fn only_root_and_the_readers_of_logs_can_read_script_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/scripts.log");
        LogFile::open(&path, None).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o640);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        if let Some(group) = readers() {
            assert_eq!(path.metadata().unwrap().gid(), group);
        }

        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        LogFile::open(&path, None).unwrap();
        assert_eq!(mode(&path), 0o640, "a file of an official agent");
    }
}
