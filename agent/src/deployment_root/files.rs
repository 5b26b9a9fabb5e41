//! Makes, lists and removes folders of the store.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use codedeploy_hooks::fs::remove_tree;

use crate::deployment_root::{StoreError, failed};

/// Makes `path` with this mode, independent of the umask, and its missing parents so that everybody
/// can pass through them.
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

/// Removes the object at `path`; links are removed, not followed.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match remove_tree(path) {
        Err(error) if is_nowhere(&error) => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

fn is_nowhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the folders in `folder`; none if it is missing.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_removed_however_deep_it_is_and_what_its_links_lead_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let (tree, kept) = (root.path().join("tree"), root.path().join("kept"));
        fs::create_dir_all(tree.join("d/".repeat(1500))).unwrap();
        fs::write(&kept, "").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o500)).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && kept.exists());
        remove(&tree).unwrap();
        remove(&kept.join("below")).unwrap();
    }
}
