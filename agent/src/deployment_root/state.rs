//! Single files of the store that others may have changed: they are read with care, and set aside
//! if they are unusable.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use super::files::remove;
use super::{StoreError, failed};

/// The longest text of a pointer, in bytes; no path is longer.
pub(super) const MAX_POINTER: u64 = 4096;

/// The longest name in a folder, in bytes (limits.h).
const NAME_MAX: usize = 255;

/// Returns the path in a pointer. Official agents write it without a newline; an editor adds one.
pub(super) fn deployment_path(bytes: &[u8]) -> Option<PathBuf> {
    let path = PathBuf::from(OsStr::from_bytes(
        bytes.strip_suffix(b"\n").unwrap_or(bytes),
    ));
    let possible =
        |part: Component<'_>| part != Component::ParentDir && part.as_os_str().len() <= NAME_MAX;
    let plain = path.is_absolute()
        && path.components().all(possible)
        && !bytes.contains(&0)
        && path.file_name().is_some();
    plain.then_some(path)
}

/// Reads a small regular file; `None` if nothing exists. Never blocks on a FIFO.
pub(super) fn read_state(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = match fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > most {
        return Err(io::Error::other(format!(
            "it has {} bytes, more than {most}",
            metadata.len()
        )));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

pub(super) fn set_aside_unless_file(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => set_aside(path, "it is not a regular file"),
        _ => Ok(()),
    }
}

/// Renames an unusable state file, for inspection, so that the agent can continue.
pub(super) fn set_aside(path: &Path, problem: &str) -> Result<(), StoreError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unusable");
    let aside = PathBuf::from(aside);
    remove(&aside)?;
    fs::rename(path, &aside).map_err(failed("set aside", path))?;
    tracing::warn!(path = %path.display(), kept = %aside.display(), "set aside: {problem}");
    Ok(())
}
