//! Copies a tree of files, folders and links through folder handles: no link is followed, even if
//! somebody moves objects in the meantime.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec;

use codedeploy_hooks::appspec::MAX_FOLDERS;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

/// Opens a folder of a revision.
pub(super) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Opens a file of a revision for reading; does not wait for a FIFO.
pub(super) const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The properties that a copy keeps, besides contents and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Owners, modes, times, and hard links.
    Everything,
    /// As `cp -r` does: the permission bits that the umask allows. Files belong to the agent's
    /// user. Everybody who could enter a folder before still can: scripts run as other users.
    Permissions,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot copy {}", path.display())]
    Copy { path: PathBuf, source: io::Error },
    #[error("{} is more than {MAX_FOLDERS} folders deep, which no revision may be", path.display())]
    TooDeep { path: PathBuf },
    #[error("{} is {found}; a revision holds only files, folders and links", path.display())]
    Kind { path: PathBuf, found: &'static str },
}

/// Copies the contents of the folder `from` into the existing, empty folder `to`, except for the
/// folder `except`.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    except: Option<&Path>,
    keep: Keep,
) -> Result<(), CopyError> {
    let open = |path: &Path| {
        rustix::fs::openat(CWD, path, FOLDER, Mode::empty()).map_err(|errno| CopyError::Copy {
            path: path.to_owned(),
            source: errno.into(),
        })
    };
    let (source, target) = (open(from)?, open(to)?);
    let mut copier = Copier {
        except,
        keep,
        root: to,
        made: HashMap::new(),
    };
    copier.copy(Level::new(
        source,
        target,
        from.to_owned(),
        PathBuf::new(),
        None,
    )?)
}

struct Copier<'a> {
    except: Option<&'a Path>,
    keep: Keep,
    root: &'a Path,
    /// Copied files with several names: device and inode, and the copy's path below the root.
    made: HashMap<(u64, u64), PathBuf>,
}

/// A folder that is being copied, and its remaining names.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    path: PathBuf,
    /// The path below the root.
    relative: PathBuf,
    names: vec::IntoIter<OsString>,
    /// The status that the copy receives when it is complete; `None` for the root.
    stat: Option<Stat>,
}

impl Level {
    fn new(
        from: OwnedFd,
        to: OwnedFd,
        path: PathBuf,
        relative: PathBuf,
        stat: Option<Stat>,
    ) -> Result<Self, CopyError> {
        match names(&from) {
            Ok(names) => Ok(Self {
                from,
                to,
                path,
                relative,
                names: names.into_iter(),
                stat,
            }),
            Err(source) => Err(CopyError::Copy { path, source }),
        }
    }
}

impl Copier<'_> {
    /// Copies a folder with everything below it.
    fn copy(&mut self, top: Level) -> Result<(), CopyError> {
        let mut open = vec![top];
        while let Some(level) = open.last_mut() {
            let Some(name) = level.names.next() else {
                // Last, because it may forbid writing, and writing changes its times.
                if let Some(Level {
                    to,
                    path,
                    stat: Some(stat),
                    ..
                }) = open.pop()
                {
                    self.finish(&to, &stat)
                        .map_err(|source| CopyError::Copy { path, source })?;
                }
                continue;
            };
            let (from, to) = (&level.from, &level.to);
            let (path, relative) = (level.path.join(&name), level.relative.join(&name));
            let failed = |source: io::Error| CopyError::Copy {
                path: path.clone(),
                source,
            };
            let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| failed(errno.into()))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if self.except == Some(&*path) => {}
                FileType::Directory => {
                    let (source, target) = self.folder(from, to, &name, &stat).map_err(failed)?;
                    if open.len() > MAX_FOLDERS {
                        return Err(CopyError::TooDeep { path });
                    }
                    open.push(Level::new(source, target, path, relative, Some(stat))?);
                }
                FileType::RegularFile => self
                    .file(from, to, &name, &stat, &relative)
                    .map_err(failed)?,
                FileType::Symlink => self.link(from, to, &name, &stat).map_err(failed)?,
                other => {
                    return Err(CopyError::Kind {
                        path,
                        found: describe(other),
                    });
                }
            }
        }
        Ok(())
    }

    fn folder(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        let source = rustix::fs::openat(from, name, FOLDER, Mode::empty())?;
        let mode = match self.keep {
            Keep::Everything => Mode::RWXU,
            // The copying user must be able to fill it.
            Keep::Permissions => Mode::from_raw_mode(stat.st_mode & 0o777) | Mode::RWXU,
        };
        rustix::fs::mkdirat(to, name, mode)?;
        let made = rustix::fs::openat(to, name, FOLDER, Mode::empty())?;
        if self.keep == Keep::Permissions {
            let may_enter = Mode::from_raw_mode(stat.st_mode) & (Mode::XGRP | Mode::XOTH);
            rustix::fs::fchmod(
                &made,
                Mode::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) | may_enter,
            )?;
        }
        Ok((source, made))
    }

    fn file(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        relative: &Path,
    ) -> io::Result<()> {
        let several_names = self.keep == Keep::Everything && stat.st_nlink > 1;
        if several_names && let Some(first) = self.made.get(&(stat.st_dev, stat.st_ino)) {
            return Ok(rustix::fs::linkat(
                CWD,
                self.root.join(first),
                to,
                name,
                AtFlags::empty(),
            )?);
        }
        let mut source = File::from(rustix::fs::openat(from, name, READ, Mode::empty())?);
        if !source.metadata()?.is_file() {
            return Err(io::Error::other("it was replaced while it was copied"));
        }
        let mode = match self.keep {
            Keep::Everything => Mode::RUSR | Mode::WUSR,
            Keep::Permissions => Mode::from_raw_mode(stat.st_mode & 0o777),
        };
        let mut target = File::from(rustix::fs::openat(to, name, NEW, mode)?);
        // Shares the blocks if the file system can; a fallback copies inside the kernel.
        if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
            io::copy(&mut source, &mut target)?;
        }
        self.finish(&target, stat)?;
        if several_names {
            self.made
                .insert((stat.st_dev, stat.st_ino), relative.to_owned());
        }
        Ok(())
    }

    fn link(&self, from: &OwnedFd, to: &OwnedFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
        let target = rustix::fs::readlinkat(from, name, Vec::new())?;
        rustix::fs::symlinkat(&target, to, name)?;
        if self.keep == Keep::Everything {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            if rustix::process::geteuid().is_root() {
                rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Sets the owner, mode and times of a copy, in an order in which no call undoes another.
    fn finish(&self, made: impl AsFd, stat: &Stat) -> io::Result<()> {
        if self.keep == Keep::Permissions {
            return special_bits(made, stat);
        }
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::fchown(&made, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        Ok(rustix::fs::futimens(&made, &times(stat))?)
    }
}

/// Sets the set-id and sticky bits of the original on a copy; set-id bits only with the owner that
/// they were meant for.
fn special_bits(made: impl AsFd, stat: &Stat) -> io::Result<()> {
    if stat.st_mode & 0o7000 == 0 {
        return Ok(());
    }
    let copy = rustix::fs::fstat(&made)?;
    let mut special = stat.st_mode & 0o7000;
    if copy.st_uid != stat.st_uid {
        special &= !0o4000;
    }
    if copy.st_gid != stat.st_gid {
        special &= !0o2000;
    }
    Ok(rustix::fs::fchmod(
        &made,
        Mode::from_raw_mode(copy.st_mode & 0o777 | special),
    )?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The name, in a message, of a kind that a revision cannot contain.
fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown kind",
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}
