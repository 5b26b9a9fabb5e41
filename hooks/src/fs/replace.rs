//! Durable replacement of a file, and removal of the files that an interrupted replacement left.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Folder, TEMPORARY, split, temporary_name, token};

/// The number in the temporary names of [`replace_file`]; Install counts from 1.
const NUMBER: usize = 0;

/// How many times a temporary file may be swept away before its writer has locked it.
const ATTEMPTS: usize = 100;

/// Replaces `path` with a file of these bytes and permission bits. After a crash at any moment,
/// either the whole old file or the whole new one is there. The folder must exist; when this
/// returns, the change survives a power cut. [`sweep`] removes the temporary file of a process that
/// died in the middle.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let folder = open(parent)?;
    let (temporary, mut file) = create_locked(&folder)?;
    let written = file.write_all(bytes).and_then(|()| {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        folder.rename(&temporary, &folder, name)?;
        folder.sync()
    });
    if written.is_err() {
        // If only the last sync failed, the file is already renamed and this name is gone.
        let _ = folder.unlink(&temporary);
    }
    written
}

/// Removes the temporary files of [`replace_file`] in `folder` whose processes died in the middle.
/// A file of a living process stays. Succeeds if there is no such folder.
pub fn sweep(folder: &Path) -> io::Result<()> {
    let folder = match open(folder) {
        Ok(folder) => folder,
        Err(error) if super::is_nowhere(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in folder.names()?.iter().filter(|name| is_unfinished(name)) {
        let Some(stat) = folder.stat(name)? else {
            continue;
        };
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            continue;
        }
        let file = match folder.file(name) {
            Ok(file) => file,
            Err(error) if super::is_nowhere(&error) => continue,
            Err(error) => return Err(error),
        };
        // The writer holds the lock as long as it lives.
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            folder.unlink(name)?;
        }
    }
    Ok(())
}

/// Removes everything at `path`, at any depth; follows no link below its folder. Succeeds if
/// nothing is there.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    open(parent)?.remove_tree(name)
}

fn open(folder: &Path) -> io::Result<Folder> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Folder(rustix::fs::open(folder, flags, Mode::empty())?))
}

/// Creates a file under a temporary name, which [`sweep`] leaves alone while it is open.
fn create_locked(folder: &Folder) -> io::Result<(OsString, File)> {
    for _ in 0..ATTEMPTS {
        let name = temporary_name(&token(), NUMBER);
        let file = folder.create_file(&name)?;
        // Where files cannot be locked, no process sweeps.
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) {
            // A sweep is removing it.
            continue;
        }
        if rustix::fs::fstat(&file)?.st_nlink > 0 {
            return Ok((name, file));
        }
    }
    Err(io::Error::other(
        "another process removes each file that is begun there",
    ))
}

/// Whether `name` is a temporary name of [`replace_file`], so that the file is not complete.
pub fn is_unfinished(name: &OsStr) -> bool {
    let word = name.as_bytes().strip_prefix(TEMPORARY.as_bytes());
    let word = word.and_then(|rest| rest.strip_suffix(format!("-{NUMBER}").as_bytes()));
    word.is_some_and(|word| word.len() == 16 && word.iter().all(u8::is_ascii_hexdigit))
}

/// Replaces `path` as [`replace_file`] does, for writers that take turns. The temporary name is
/// always the same, so interrupted writers leave at most one file. Returns the file, open for
/// appending.
pub(crate) fn replace_in_turn(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<File> {
    let (parent, name) = split(path)?;
    let folder = Folder::open(parent)?;
    let temporary = incoming(name);
    folder.remove_tree(&temporary)?;
    let file = folder.create_file(&temporary)?;
    let mut writer = BufWriter::with_capacity(64 * 1024, &file);
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.sync_all()?;
    folder.rename(&temporary, &folder, name)?;
    folder.sync()?;
    Ok(file)
}

/// The temporary name of a file that [`replace_in_turn`] writes.
pub(crate) fn incoming(name: &OsStr) -> OsString {
    let mut incoming = name.to_os_string();
    incoming.push(".new");
    incoming
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_writer_left_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let others = [
            ".codedeploy-0123456789abcdef-1",
            ".codedeploy-notes-0",
            "state",
            "state.new",
        ];
        others
            .iter()
            .for_each(|name| std::fs::write(at(name), "").unwrap());
        std::fs::write(at(".codedeploy-0123456789abcdef-0"), "half").unwrap();
        std::fs::create_dir(at(".codedeploy-fedcba9876543210-0")).unwrap();
        let (living, file) = create_locked(&open(folder.path()).unwrap()).unwrap();
        sweep(folder.path()).unwrap();
        let names = || open(folder.path()).unwrap().names().unwrap();
        assert!(
            names().contains(&living) && !at(".codedeploy-0123456789abcdef-0").exists(),
            "{:?}",
            names()
        );
        assert_eq!(names().len(), others.len() + 2);
        drop(file);
        sweep(folder.path()).unwrap();
        assert!(!names().contains(&living));
        sweep(&at("nowhere")).unwrap();
    }
}
