//! Durable replacement of files, and folder handles through which no operation follows a link.

mod beneath;
mod handles;
mod records;
mod rename;
mod replace;
mod status;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use beneath::{Links, open_beneath};
pub(crate) use handles::{FolderId, Handles, Known};
pub(crate) use records::Readers;
pub use records::replace_record;
pub use rename::rename_new;
pub(crate) use replace::{incoming, replace_in_turn};
pub use replace::{is_unfinished, remove_tree, replace_file, sweep};
pub(crate) use status::Status;

/// Returns a random word for temporary names.
pub(crate) fn token() -> String {
    format!("{:016x}", RandomState::new().hash_one(0))
}

/// The temporary name of an object that waits, or is kept, beside its destination.
pub(crate) fn temporary_name(token: &str, number: usize) -> OsString {
    format!("{TEMPORARY}{token}-{number}").into()
}

/// Whether `name` has the form of [`temporary_name`].
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes().starts_with(TEMPORARY.as_bytes())
}

/// The prefix of every temporary name.
pub(crate) const TEMPORARY: &str = ".codedeploy-";

/// The folder that holds `path`, and its name there.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected the path of a file in a folder",
        )),
    }
}

/// The longest path that the kernel accepts in one call. A temporary name on the way can make a
/// path longer.
const AT_ONCE: usize = 4096;

/// The number of folders that are open at once, each inside the one before, while a tree is
/// removed.
const MOST_OPEN: usize = 64;

/// An open folder. No operation on a name in it follows a symbolic link.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens an absolute path of which no component may be a symbolic link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() >= AT_ONCE {
            return Self::open_step_by_step(path);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(
            rustix::fs::CWD,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS,
        ) {
            // Before Linux 5.6, and in containers that forbid unknown system calls.
            Err(Errno::NOSYS | Errno::PERM) => Self::open_step_by_step(path),
            result => Ok(Self(result?)),
        }
    }

    fn open_step_by_step(path: &Path) -> io::Result<Self> {
        let named = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", named, Mode::empty())?;
        let below = path.strip_prefix("/").unwrap_or(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = beneath::step_by_step(root, below, flags, Links::Rejected)?;
        Ok(Self(opened))
    }

    /// Opens the folder `name`.
    pub(crate) fn folder(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(
            &self.0,
            name,
            flags,
            Mode::empty(),
        )?))
    }

    /// Opens the folder with the relative path `below`, of which no component may be a symbolic
    /// link.
    pub(crate) fn below(&self, below: &Path) -> io::Result<Self> {
        let mut names = below.components().map(Component::as_os_str);
        let mut here = self.folder(names.next().unwrap_or(OsStr::new(".")))?;
        for name in names {
            here = here.folder(name)?;
        }
        Ok(here)
    }

    /// Opens the file `name` for reading; a FIFO does not block.
    pub(crate) fn file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Opens the file `name` for reading without changing its time of access, where that is
    /// allowed.
    pub(crate) fn file_unnoticed(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOATIME
            | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            // Only its owner and root may ask for that.
            Err(Errno::PERM) => self.file(name),
            result => Ok(result?.into()),
        }
    }

    /// Makes the file `name`, which must not exist; at first only its owner may use it.
    pub(crate) fn create_file(&self, name: &OsStr) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Makes the folder `name`, which must not exist; the umask, or this folder's default ACL,
    /// decides who may use it.
    pub(crate) fn create_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(
            &self.0,
            name,
            Mode::from_raw_mode(0o777),
        )?)
    }

    /// Makes the folder `name` for its owner alone.
    pub(crate) fn create_private_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, name, Mode::RWXU)?)
    }

    pub(crate) fn create_link(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Returns the status of `name`; `None` if it does not exist.
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

    /// Renames `from` to `to` in the folder `other`, and replaces an object of that name.
    pub(crate) fn rename(&self, from: &OsStr, other: &Self, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &other.0, to)?)
    }

    /// Renames `from` to `to` in the folder `other`; fails if that name exists.
    pub(crate) fn rename_new(&self, from: &OsStr, other: &Self, to: &OsStr) -> io::Result<()> {
        Ok(rename_new(&self.0, from, &other.0, to)?)
    }

    /// Exchanges two names atomically; fails with `INVAL` or `NOSYS` where the file system cannot.
    pub(crate) fn exchange(&self, name: &OsStr, other: &Self, second: &OsStr) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.0, name, &other.0, second, RenameFlags::EXCHANGE)
    }

    /// Gives the file or link `name` a second name, in the folder `other`.
    pub(crate) fn hard_link(
        &self,
        name: &OsStr,
        other: &Self,
        second: &OsStr,
    ) -> Result<(), Errno> {
        rustix::fs::linkat(&self.0, name, &other.0, second, AtFlags::empty())
    }

    /// Removes a file or link; succeeds if it is gone already.
    pub(crate) fn unlink(&self, name: &OsStr) -> io::Result<()> {
        gone_is_fine(rustix::fs::unlinkat(&self.0, name, AtFlags::empty()))
    }

    /// Removes an empty folder; succeeds if it is gone already.
    pub(crate) fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        gone_is_fine(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR))
    }

    /// Removes `name` and everything below it; succeeds if it is gone already.
    pub(crate) fn remove_tree(&self, name: &OsStr) -> io::Result<()> {
        let Some(mut open) = self.unlink_or_open(name)?.map(|folder| vec![folder]) else {
            return Ok(());
        };
        loop {
            let depth = open.len();
            let Some((folder, names)) = open.last_mut() else {
                return Ok(());
            };
            let Some(inner) = names.last() else {
                open.pop();
                match open.last_mut() {
                    Some((around, names)) => {
                        let name = names.pop().unwrap_or_default();
                        around.remove_folder(&name)?;
                    }
                    None => self.remove_folder(name)?,
                }
                continue;
            };
            match folder.unlink_or_open(inner)? {
                None => drop(names.pop()),
                Some(inner) if depth < MOST_OPEN => open.push(inner),
                // At this depth, continue as if the folder stood at the top.
                Some((inner_folder, _)) => {
                    drop(inner_folder);
                    let inner = names.pop().unwrap_or_default();
                    let top = temporary_name(&token(), 0);
                    let [(first, waiting), .., (folder, _)] = open.as_mut_slice() else {
                        return Ok(());
                    };
                    folder.rename_new(&inner, first, &top)?;
                    // The last entry is the path down to here.
                    waiting.insert(0, top);
                }
            }
        }
    }

    /// Removes `name` if it is no folder; otherwise opens it and returns the names in it, so that
    /// it can be emptied.
    fn unlink_or_open(&self, name: &OsStr) -> io::Result<Option<(Self, Vec<OsString>)>> {
        let Some(stat) = self.stat(name)? else {
            return Ok(None);
        };
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return self.unlink(name).map(|()| None);
        }
        let folder = self.folder(name)?;
        folder.make_writable();
        let names = folder.names()?;
        Ok(Some((folder, names)))
    }

    /// Calls the function for `name` and for everything below it that is on `device`.
    pub(crate) fn each_below(
        &self,
        name: &OsStr,
        device: u64,
        mut look: impl FnMut(&Stat),
    ) -> io::Result<()> {
        let mut open: Vec<(Self, Vec<OsString>)> = Vec::new();
        let mut next = Some(name.to_os_string());
        loop {
            let folder = open.last().map_or(self, |(folder, _)| folder);
            if let Some(name) = next.take()
                && let Some(stat) = folder.stat(&name)?.filter(|stat| stat.st_dev == device)
            {
                look(&stat);
                if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
                    let inner = folder.folder(&name)?;
                    let names = inner.names()?;
                    open.push((inner, names));
                }
            }
            let Some((_, names)) = open.last_mut() else {
                return Ok(());
            };
            next = names.pop();
            if next.is_none() {
                open.pop();
            }
        }
    }

    /// Lets the owner remove the contents of this folder, which is about to be removed. An error
    /// shows when its contents are removed.
    pub(crate) fn make_writable(&self) {
        let _ = rustix::fs::fchmod(&self.0, Mode::RWXU);
    }

    /// Lets only the owner look into this folder.
    pub(crate) fn make_private(&self) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::RWXU)?)
    }

    /// Makes the names in this folder survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }
}

/// The size from which the kernel is asked to write a new file back before anybody waits for that.
pub const WORTH_WRITING_BACK: u64 = 256 * 1024;

/// Lets the kernel begin to write a file to the disk, so that a later sync has little left to do.
/// This promises nothing.
#[allow(
    unsafe_code,
    reason = "no library offers the system call; it gets an open descriptor and numbers"
)]
pub fn begin_writeback(file: &File) {
    let (start, to_the_end) = (0, 0);
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: the descriptor stays open during the call, which takes no pointers.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), start, to_the_end, flags) };
}

/// Up to this number, folders are synced one by one; more are cheaper to sync as whole file
/// systems.
const FEW_FOLDERS: usize = 4;

/// A folder that could not be made durable, and why.
pub(crate) type NotDurable = (PathBuf, io::Error);

/// Makes the names in these folders survive a power cut.
pub(crate) fn sync_names(folders: &BTreeSet<PathBuf>) -> Result<(), NotDurable> {
    if folders.len() > FEW_FOLDERS {
        return sync_file_systems(folders);
    }
    let sync = |path: &PathBuf| Folder::open(path)?.sync();
    folders
        .iter()
        .try_for_each(|path| sync(path).map_err(|error| (path.clone(), error)))
}

/// Does the same for those folders that exist on another file system than `path`. Writes to one
/// file system can reach the disk earlier than older writes to another.
pub(crate) fn sync_elsewhere(folders: &BTreeSet<PathBuf>, path: &Path) -> Result<(), NotDurable> {
    let device = |path: &Path| Ok::<_, io::Error>(rustix::fs::fstat(Folder::open(path)?)?.st_dev);
    let at = |path: &Path, error| (path.to_path_buf(), error);
    let here = split(path)
        .and_then(|(parent, _)| device(parent))
        .map_err(|error| at(path, error))?;
    let mut elsewhere = BTreeSet::new();
    for folder in folders {
        match device(folder) {
            Ok(device) if device == here => {}
            Ok(_) => drop(elsewhere.insert(folder.clone())),
            Err(error) if is_nowhere(&error) => {}
            Err(error) => return Err(at(folder, error)),
        }
    }
    sync_names(&elsewhere)
}

/// Makes everything written to the file systems of these folders survive a power cut.
pub(crate) fn sync_file_systems(folders: &BTreeSet<PathBuf>) -> Result<(), NotDurable> {
    let mut done = BTreeSet::new();
    let mut sync = |path: &PathBuf| {
        let folder = Folder::open(path)?;
        if done.insert(rustix::fs::fstat(&folder)?.st_dev) {
            rustix::fs::syncfs(&folder)?;
        }
        Ok(())
    };
    folders
        .iter()
        .try_for_each(|path| sync(path).map_err(|error| (path.clone(), error)))
}

/// Whether an error means that a folder is gone, or that its name belongs to a link or another
/// object.
pub(crate) fn is_nowhere(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|nowhere| number == Some(nowhere.raw_os_error()))
}

impl From<OwnedFd> for Folder {
    /// Accepts an open folder, however it was reached.
    fn from(folder: OwnedFd) -> Self {
        Self(folder)
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
