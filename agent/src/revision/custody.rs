//! Gives one path of an archive to root, so that everybody can still read and execute what the
//! bundle allows.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use codedeploy_hooks::custody::Access;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const ACCESS_ACL: &str = "system.posix_acl_access";
/// The id of entries that belong to no user or group.
const NOBODY: u32 = u32::MAX;

/// Gives the file or folder at `path` below `archive` to root. An ACL keeps the permissions that
/// only the bundle's owner had.
pub(super) fn hold(archive: &OwnedFd, path: &Path, given: Access) -> io::Result<()> {
    let held = given.held();
    if held == given {
        return Ok(());
    }
    let file = rustix::fs::openat(archive, path, PATH, Mode::empty())?;
    let (uid, gid) = (Uid::from_raw(held.uid), Gid::from_raw(held.gid));
    let stat = rustix::fs::fstat(&file)?;
    // It is a copy of an archive that root holds already, in which a script may have been made
    // executable.
    let is_held = (stat.st_uid, stat.st_gid) == (held.uid, held.gid);
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
    let executable = if is_held && is_file {
        stat.st_mode & 0o111
    } else {
        0
    };
    rustix::fs::chownat(&file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    let own_path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    rustix::fs::chmod(&own_path, Mode::from_raw_mode(held.mode | executable))?;
    if let Some(permissions) = given.owners_own() {
        let list = access_list(given, permissions);
        match rustix::fs::setxattr(&own_path, ACCESS_ACL, &list, XattrFlags::empty()) {
            // Without ACLs the mode alone expresses it: the group gets the owner's permissions.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Builds the kernel's form of an ACL: its version, then entries of tag, permissions and id.
fn access_list(given: Access, owner: u32) -> Vec<u8> {
    let group = given.mode >> 3 & 5;
    let entries = [
        (0x01, given.held().mode >> 6 & 7, NOBODY),
        (0x02, owner, given.uid),
        (0x04, group, NOBODY),
        (0x10, group | owner, NOBODY),
        (0x20, given.mode & 5, NOBODY),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend_from_slice(&(tag as u16).to_le_bytes());
        list.extend_from_slice(&(permissions as u16).to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    list
}
