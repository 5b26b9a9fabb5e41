//! Revisions on this host: a bundle file is linked, a folder is copied as `cp -r` does.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::PathBuf;

use super::copy::{CopyError, Keep, copy_tree};
use super::{DeploymentFolder, FetchedBundle, LocalRevision};
use crate::deployment_root::{INCOMING, StoreError, create_folders};

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("cannot open the bundle {}", path.display())]
    Open {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the bundle {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("cannot link the bundle as {}", path.display())]
    Link {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot find the folder {}", path.display())]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// Links the bundle into the deployment's folder, or copies the folder to the place for unpacked
/// archives.
pub(super) fn fetch(
    revision: &LocalRevision,
    folder: &DeploymentFolder,
) -> Result<FetchedBundle, LocalError> {
    match revision {
        LocalRevision::File {
            location,
            bundle_type,
        } => {
            let file = open(location)?;
            let link = folder.bundle();
            symlink(location, &link).map_err(|source| LocalError::Link { path: link, source })?;
            Ok(FetchedBundle::File {
                file,
                bundle_type: *bundle_type,
            })
        }
        LocalRevision::Directory { location } => {
            let real = |path: &std::path::Path| {
                path.canonicalize().map_err(|source| LocalError::Folder {
                    path: path.to_owned(),
                    source,
                })
            };
            // The agent's state may lie below the deployed folder; it is no part of the revision.
            let (from, state) = (real(location)?, real(folder.root())?);
            let target = folder.incoming_archive();
            create_folders(&target, INCOMING)?;
            copy_tree(&from, &target, Some(&state), Keep::Permissions)?;
            Ok(FetchedBundle::Unpacked)
        }
    }
}

/// Opens without blocking on a FIFO.
fn open(path: &std::path::Path) -> Result<File, LocalError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = opened.map_err(|source| LocalError::Open {
        path: path.to_owned(),
        source,
    })?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        _ => Err(LocalError::NotAFile {
            path: path.to_owned(),
        }),
    }
}
