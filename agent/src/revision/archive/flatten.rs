//! Makes the only folder of a revision its root, which archives from GitHub need.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use codedeploy_hooks::fs::rename_new;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::UnpackError;

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Strips the only top-level folder if it contains an AppSpec file: its contents become the root.
///
/// Returns whether it did so. Does nothing if `dir` contains anything else, or if the folder is a
/// symbolic link; names are taken literally, and links are moved, not followed.
///
/// # Errors
///
/// Fails if a folder cannot be read or an object cannot be moved; `dir` must then be unpacked
/// again.
pub fn flatten_single_folder(dir: &Path, appspec_names: &[&str]) -> Result<bool, UnpackError> {
    let failed = |operation, name: &OsStr| {
        let path = dir.join(name);
        move |errno: Errno| UnpackError::Flatten {
            path,
            operation,
            source: errno.into(),
        }
    };
    let here = OsStr::new("");
    let root = rustix::fs::openat(CWD, dir, OPEN, Mode::empty()).map_err(failed("open", here))?;
    let [only] = &names(&root).map_err(failed("list", here))?[..] else {
        return Ok(false);
    };
    let folder = match rustix::fs::openat(&root, only, OPEN, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(errno) => return Err(failed("open", only)(errno)),
    };
    let children = names(&folder).map_err(failed("list", only))?;
    if !children
        .iter()
        .any(|child| appspec_names.iter().any(|name| child == name))
    {
        return Ok(false);
    }

    // The folder is about to be removed; until then its children must be movable.
    rustix::fs::fchmod(&folder, Mode::RWXU).map_err(failed("open up", only))?;
    let emptied = if children.contains(only) {
        let free = unlike(&children);
        rename_new(root.as_fd(), only, root.as_fd(), &free).map_err(failed("move aside", only))?;
        free
    } else {
        only.clone()
    };
    for child in &children {
        move_up(folder.as_fd(), root.as_fd(), child).map_err(failed("move up", child))?;
    }
    rustix::fs::unlinkat(&root, &emptied, AtFlags::REMOVEDIR)
        .map_err(failed("remove", &emptied))?;
    Ok(true)
}

/// Returns a name that none of `children` has.
fn unlike(children: &[OsString]) -> OsString {
    let mut name = OsString::from(".emptied");
    while children.contains(&name) {
        name.push("_");
    }
    name
}

fn move_up(folder: BorrowedFd<'_>, root: BorrowedFd<'_>, child: &OsStr) -> Result<(), Errno> {
    match rename_new(folder, child, root, child) {
        // Moving a folder rewrites its "..", which needs write permission in it for everybody but
        // root.
        Err(Errno::ACCESS) => {
            let found = rustix::fs::statat(folder, child, AtFlags::SYMLINK_NOFOLLOW)?;
            if !FileType::from_raw_mode(found.st_mode).is_dir() {
                return Err(Errno::ACCESS);
            }
            let mode = Mode::from_raw_mode(found.st_mode);
            rustix::fs::chmodat(folder, child, mode | Mode::RWXU, AtFlags::empty())?;
            rename_new(folder, child, root, child)?;
            rustix::fs::chmodat(root, child, mode, AtFlags::empty())
        }
        moved => moved,
    }
}

fn names(folder: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = CString::from(entry?.file_name()).into_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}
