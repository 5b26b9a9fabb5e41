//! Folders of the store: made, listed and removed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::deployment_root::{StoreError, failed};

/// Makes `path` with this mode, whatever the umask, and its missing parents so that everybody can pass them.
pub fn create_folders(path: &Path, mode: u32) -> Result<(), StoreError> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    // A relative path ends in the current folder.
    missing.retain(|path| !path.as_os_str().is_empty());
    for folder in missing.into_iter().rev() {
        let mode = if folder == path { mode } else { 0o755 };
        match fs::create_dir(folder) {
            Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(failed("create", folder))?;
    }
    Ok(())
}

/// Removes whatever is at `path`; links are removed, not followed.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.is_dir() {
        return fs::remove_file(path).map_err(failed("remove", path));
    }
    let removed = fs::remove_dir_all(path).or_else(|_| {
        // Folders of a revision may be read-only, which stops everybody but root.
        make_writable(path);
        fs::remove_dir_all(path)
    });
    removed.map_err(failed("remove", path))
}

fn make_writable(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// The folders in `folder`, none when it is missing.
pub(super) fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}
