//! The target folder of a bundle, held by its handle, with the rules for everything in it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use codedeploy_hooks::fs::{Links, open_beneath};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::super::super::digest::{Digest, Digests};
use super::super::Limits;
use super::super::entry::EntryPath;
use super::super::error::{Refusal, UnpackError};
use super::super::meter::Meter;
use super::super::remarks::{Remark, Remarks};
use super::{Attributes, failed};

const OPEN_FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;

/// The target folder. Every path is resolved beneath its handle and through no symbolic link.
#[derive(Debug)]
pub(in super::super) struct Root<'a> {
    folder: OwnedFd,
    superuser: bool,
    pub(super) limits: &'a Limits,
    pub(in super::super) meter: Meter,
    pub(in super::super) remarks: Remarks,
    digests: Mutex<Digests>,
}

impl<'a> Root<'a> {
    /// Opens an existing, empty folder and reads the free space of its file system.
    pub(in super::super) fn open(path: &Path, limits: &'a Limits) -> Result<Self, UnpackError> {
        let target = |errno: Errno| UnpackError::Target {
            path: path.to_owned(),
            source: errno.into(),
        };
        let folder = rustix::fs::openat(CWD, path, OPEN_FOLDER, Mode::empty()).map_err(target)?;
        for entry in rustix::fs::Dir::read_from(&folder).map_err(target)? {
            let entry = entry.map_err(target)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(UnpackError::TargetNotEmpty {
                    path: path.to_owned(),
                });
            }
        }
        let space = rustix::fs::fstatvfs(&folder).map_err(target)?;
        Ok(Self {
            folder,
            superuser: rustix::process::geteuid().is_root(),
            limits,
            meter: Meter::new(
                limits.max_extracted_bytes,
                space.f_bavail.saturating_mul(space.f_frsize),
            ),
            remarks: Remarks::default(),
            digests: Mutex::default(),
        })
    }

    /// Whether files get the owners in an archive.
    pub(in super::super) fn sets_owners(&self) -> bool {
        self.superuser && !self.limits.ignore_ownership
    }

    /// Keeps the digest of a new file; `None` if it has holes.
    pub(super) fn digested(
        &self,
        path: &EntryPath,
        file: &File,
        digest: Option<Digest>,
    ) -> Result<(), UnpackError> {
        let found = rustix::fs::fstat(file).map_err(|errno| failed(path, "look at", errno))?;
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.set(found.st_ino, digest);
        Ok(())
    }

    pub(in super::super) fn into_digests(self) -> Digests {
        let digests = self.digests.into_inner();
        digests.unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a folder of the tree.
    pub(super) fn open_folder(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        open_beneath(
            &self.folder,
            path.as_os_str().as_ref(),
            OPEN_FOLDER,
            Links::Rejected,
        )
    }

    /// Fails if the operator forbids the permissions.
    pub(super) fn check_permissions(
        &self,
        path: &EntryPath,
        mode: u32,
        kind: FileType,
    ) -> Result<(), UnpackError> {
        let shared_folder = kind.is_dir() && mode & STICKY != 0;
        let unsafe_bits = mode & (SET_USER_ID | SET_GROUP_ID) != 0
            || (mode & OTHERS_WRITE != 0 && !shared_folder);
        if self.limits.reject_unsafe_permissions && unsafe_bits {
            return Err(Refusal::UnsafePermissions { mode }.of(path));
        }
        Ok(())
    }

    /// Returns the owner to set, if any, and the mode. Set-id bits are removed if the owner that
    /// they were meant for is not set.
    pub(super) fn granted(&self, attributes: &Attributes) -> (Option<(Uid, Gid)>, u32) {
        let Some((user, group)) = attributes.owner else {
            return (None, attributes.mode);
        };
        if self.sets_owners() {
            return (
                Some((Uid::from_raw(user), Gid::from_raw(group))),
                attributes.mode,
            );
        }
        let mut mode = attributes.mode;
        if user != rustix::process::geteuid().as_raw() {
            mode &= !SET_USER_ID;
        }
        if group != rustix::process::getegid().as_raw() {
            mode &= !SET_GROUP_ID;
        }
        (None, mode)
    }

    /// Sets owner, mode and time of a new file or folder, in an order in which no call undoes
    /// another.
    pub(super) fn apply(
        &self,
        path: &EntryPath,
        made: impl AsFd,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let (owner, mode) = self.granted(attributes);
        if mode != attributes.mode {
            self.remarks.add(Remark::SetIdBits, path);
        }
        if let Some((user, group)) = owner {
            rustix::fs::fchown(&made, Some(user), Some(group))
                .map_err(|errno| failed(path, "set the owner of", errno))?;
        }
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))
            .map_err(|errno| failed(path, "set the mode of", errno))?;
        if let Some(times) = attributes.times() {
            rustix::fs::futimens(&made, &times)
                .map_err(|errno| failed(path, "set the time of", errno))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_open_beneath_the_root_and_through_no_link() {
        let temporary = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let root = Root::open(temporary.path(), &limits).unwrap();
        std::fs::create_dir_all(temporary.path().join("a/b")).unwrap();
        std::fs::write(temporary.path().join("file"), "").unwrap();
        symlink("a", temporary.path().join("link")).unwrap();
        let path = |raw: &str| EntryPath::parse(raw.as_bytes()).unwrap();
        root.open_folder(&path("a/b")).unwrap();
        root.open_folder(&path(".")).unwrap();
        assert_eq!(
            root.open_folder(&path("a/missing")).unwrap_err(),
            Errno::NOENT
        );
        assert_eq!(
            root.open_folder(&path("file/x")).unwrap_err(),
            Errno::NOTDIR
        );
        for linked in ["link", "link/b"] {
            let errno = root.open_folder(&path(linked)).unwrap_err();
            assert!(
                matches!(errno, Errno::LOOP | Errno::NOTDIR),
                "{linked}: {errno}"
            );
        }
    }
}
