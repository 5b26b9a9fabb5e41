//! Renames that replace nothing.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

/// Renames `from` in one folder to `to` in another; fails with `EXIST` if that name exists.
pub fn rename_new(
    folder: impl AsFd,
    from: impl AsRef<Path>,
    other: impl AsFd,
    to: impl AsRef<Path>,
) -> Result<(), Errno> {
    let (from, to) = (from.as_ref(), to.as_ref());
    match rustix::fs::renameat_with(&folder, from, &other, to, RenameFlags::NOREPLACE) {
        // Before Linux 3.15, and on some file systems, such as NFS, it cannot be done atomically.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match rustix::fs::statat(&other, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(folder, from, other, to),
                Err(error) => Err(error),
            }
        }
        renamed => renamed,
    }
}
