//! The status of an object, as far as the kernel and the file system report it.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Stat, Statx, StatxFlags};
use rustix::io::Errno;

/// The status of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) kind: FileType,
    /// The permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) size: u64,
    /// In nanoseconds.
    pub(crate) modified: i64,
    /// The time of the last change of content, access, names or times, in nanoseconds. No program
    /// can set it.
    pub(crate) changed: i64,
    /// The creation time in nanoseconds; `None` if the file system has none, and before Linux 4.11.
    pub(crate) born: Option<i64>,
    /// Whether it is marked as immutable or append-only; before Linux 4.11 never.
    pub(crate) immutable: bool,
    /// Whether something is mounted here; before Linux 5.8 never.
    pub(crate) mount_point: bool,
    /// The mount that it is on; `None` before Linux 5.8.
    pub(crate) mount: Option<u64>,
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

const MOUNT_ROOT: u64 = 0x2000;

impl Status {
    /// Returns the status of `name` in `folder`, never that of a link's target.
    pub(crate) fn at(folder: impl AsFd, name: impl AsRef<std::path::Path>) -> Result<Self, Errno> {
        look(folder, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Returns the status of an open object.
    pub(crate) fn of(object: impl AsFd) -> Result<Self, Errno> {
        look(object, "".as_ref(), AtFlags::EMPTY_PATH)
    }
}

fn look(folder: impl AsFd, name: &std::path::Path, flags: AtFlags) -> Result<Status, Errno> {
    match rustix::fs::statx(&folder, name, flags, WANTED) {
        Ok(stat) => Ok(stat.into()),
        // Before Linux 4.11, and in containers that forbid unknown system calls.
        Err(Errno::NOSYS | Errno::PERM) => Ok(rustix::fs::statat(&folder, name, flags)?.into()),
        Err(error) => Err(error),
    }
}

impl From<Statx> for Status {
    fn from(stat: Statx) -> Self {
        let given = StatxFlags::from_bits_retain(stat.stx_mask);
        let is = |attribute: u64| stat.stx_attributes.bits() & attribute != 0;
        let time = |time: rustix::fs::StatxTimestamp| nanoseconds(time.tv_sec, time.tv_nsec.into());
        Self {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            size: stat.stx_size,
            modified: time(stat.stx_mtime),
            changed: time(stat.stx_ctime),
            born: given
                .contains(StatxFlags::BTIME)
                .then(|| time(stat.stx_btime)),
            immutable: is((libc::STATX_ATTR_IMMUTABLE | libc::STATX_ATTR_APPEND) as u64),
            mount_point: is(MOUNT_ROOT),
            mount: given
                .contains(StatxFlags::MNT_ID)
                .then_some(stat.stx_mnt_id),
        }
    }
}

impl From<Stat> for Status {
    fn from(stat: Stat) -> Self {
        let time =
            |seconds, part: u64| nanoseconds(seconds, i64::try_from(part).unwrap_or_default());
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            size: stat.st_size.cast_unsigned(),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
            born: None,
            immutable: false,
            mount_point: false,
            mount: None,
        }
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_reports_is_the_same() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::write(temporary.path().join("file"), "text").unwrap();
        std::os::unix::fs::symlink("nowhere", temporary.path().join("link")).unwrap();
        let folder = std::fs::File::open(temporary.path()).unwrap();
        for name in ["file", "link", "."] {
            let new = Status::at(&folder, name).unwrap();
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let old: Status = rustix::fs::statat(&folder, name, flags).unwrap().into();
            let known = Status {
                born: None,
                mount: None,
                mount_point: false,
                ..new
            };
            assert_eq!(old, known, "{name}");
        }
        assert_eq!(
            Status::of(&folder).unwrap(),
            Status::at(&folder, ".").unwrap()
        );
    }
}
