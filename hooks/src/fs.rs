//! Files that others rely on: replacing one durably, and folder handles through which nothing follows a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

/// Replaces `path` with a file of these bytes and permission bits: after a crash at any moment, the whole old or the
/// whole new file is there. The folder must exist; when this returns, the change survives a power cut.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let folder = Folder(rustix::fs::open(
        parent,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let temporary = temporary_name(&token(), 0);
    let result = folder.create_file(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        folder.rename(&temporary, name)?;
        folder.sync()
    });
    if result.is_err() {
        // Already renamed when only the last sync failed: then there is nothing of this name.
        let _ = folder.unlink(&temporary);
    }
    result
}

/// A random word for temporary names.
pub(crate) fn token() -> String {
    format!("{:016x}", RandomState::new().hash_one(0))
}

/// The name under which something waits, or is kept, beside its place.
pub(crate) fn temporary_name(token: &str, number: usize) -> OsString {
    format!(".codedeploy-{token}-{number}").into()
}

/// The folder that holds `path`, and its name there.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "expected the path of a file in a folder")),
    }
}

/// An open folder. No operation on a name in it follows a symbolic link.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens an absolute path of which no component may be a symbolic link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let passing = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut here = rustix::fs::open("/", passing, Mode::empty())?;
        for component in path.components() {
            if let Component::Normal(name) = component {
                here = rustix::fs::openat(&here, name, passing, Mode::empty())?;
            }
        }
        Self(here).folder(OsStr::new("."))
    }

    /// Opens the folder `name`.
    pub(crate) fn folder(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Opens the folder at `below`, a relative path; empty is this folder.
    pub(crate) fn descend(&self, below: &Path) -> io::Result<Self> {
        below.iter().try_fold(self.folder(OsStr::new("."))?, |folder, name| folder.folder(name))
    }

    /// Opens the file `name` for reading; a FIFO does not block.
    pub(crate) fn file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Makes the file `name`, which must not exist; its owner alone may use it at first.
    pub(crate) fn create_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    pub(crate) fn create_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777))?)
    }

    pub(crate) fn create_link(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// What `name` is; `None` when there is nothing.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in this folder, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_os_string());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Renames within this folder; replaces what has the name `to`.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Renames within this folder; fails when `to` exists.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE) {
            // A file system that cannot do it atomically, such as NFS.
            Err(Errno::INVAL | Errno::NOSYS) => match self.stat(to)? {
                Some(_) => Err(Errno::EXIST.into()),
                None => self.rename(from, to),
            },
            result => Ok(result?),
        }
    }

    /// Gives the file or link `name` a second name.
    pub(crate) fn hard_link(&self, name: &OsStr, second: &OsStr) -> Result<(), Errno> {
        rustix::fs::linkat(&self.0, name, &self.0, second, AtFlags::empty())
    }

    /// Removes a file or link; fine when it is gone.
    pub(crate) fn unlink(&self, name: &OsStr) -> io::Result<()> {
        gone_is_fine(rustix::fs::unlinkat(&self.0, name, AtFlags::empty()))
    }

    /// Removes an empty folder; fine when it is gone.
    pub(crate) fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        gone_is_fine(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR))
    }

    /// Removes `name` and all below it; fine when it is gone.
    pub(crate) fn remove_tree(&self, name: &OsStr) -> io::Result<()> {
        let Some(stat) = self.stat(name)? else {
            return Ok(());
        };
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return self.unlink(name);
        }
        let folder = self.folder(name)?;
        folder.make_writable();
        for child in folder.names()? {
            folder.remove_tree(&child)?;
        }
        self.remove_folder(name)
    }

    /// Lets its owner remove what is in this folder, which goes anyway; who may not do that finds out when removing.
    pub(crate) fn make_writable(&self) {
        let _ = rustix::fs::fchmod(&self.0, Mode::RWXU);
    }

    /// Makes the names in this folder survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// Makes everything written to this folder's file system survive a power cut.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn gone_is_fine(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
