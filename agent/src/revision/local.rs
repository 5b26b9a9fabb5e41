//! Revisions on this host: a bundle file is linked, a folder is copied.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{DeploymentFolder, FetchedBundle, LocalRevision};

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("cannot open the bundle {}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot link the bundle as {}", path.display())]
    Link { path: PathBuf, source: std::io::Error },
    #[error("cannot copy {}", path.display())]
    Copy { path: PathBuf, source: std::io::Error },
    #[error("{} is neither a file, a folder nor a link; a revision holds nothing else", path.display())]
    Kind { path: PathBuf },
}

pub(super) fn fetch(
    revision: &LocalRevision,
    folder: &DeploymentFolder,
) -> Result<FetchedBundle, LocalError> {
    match revision {
        LocalRevision::File { location, bundle_type } => {
            let file = fs::File::open(location)
                .map_err(|source| LocalError::Open { path: location.clone(), source })?;
            let link = folder.bundle();
            symlink(location, &link).map_err(|source| LocalError::Link { path: link, source })?;
            Ok(FetchedBundle::File { file, bundle_type: *bundle_type })
        }
        LocalRevision::Directory { location } => {
            let archive = folder.archive();
            fs::create_dir(&archive).map_err(|source| LocalError::Copy { path: archive.clone(), source })?;
            // The state folder may lie below the folder that is deployed: it must not be copied into itself.
            copy_below(location, &archive, folder.path())?;
            Ok(FetchedBundle::Unpacked)
        }
    }
}

/// Copies what is in `from` into the existing folder `to`: links verbatim, modes and times kept, `except` left out.
fn copy_below(from: &Path, to: &Path, except: &Path) -> Result<(), LocalError> {
    let failed = |source| LocalError::Copy { path: from.to_owned(), source };
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let failed = |error| LocalError::Copy { path: source.clone(), source: error };
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_symlink() {
            symlink(fs::read_link(&source).map_err(failed)?, &target).map_err(failed)?;
        } else if metadata.is_dir() {
            if except.starts_with(&source) {
                continue;
            }
            fs::create_dir(&target).map_err(failed)?;
            copy_below(&source, &target, except)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777))
                .map_err(failed)?;
        } else if metadata.is_file() {
            fs::copy(&source, &target).map_err(failed)?;
            keep_owner_and_time(&metadata, &target).map_err(failed)?;
        } else {
            return Err(LocalError::Kind { path: source });
        }
    }
    Ok(())
}

fn keep_owner_and_time(metadata: &fs::Metadata, target: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::lchown(target, Some(metadata.uid()), Some(metadata.gid()))?;
        // A change of owner takes the setuid bits away.
        fs::set_permissions(target, fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777))?;
    }
    fs::File::options()
        .write(true)
        .open(target)
        .and_then(|file| file.set_modified(metadata.modified()?))
        .or(Ok(()))
}
