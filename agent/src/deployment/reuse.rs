//! RESTART deployments: the unpacked archive of an earlier deployment of the group replaces a
//! download.
//!
//! The archive is copied first and the copy is verified, so the verified copy is the one in use. If
//! anything is wrong, the revision is downloaded, with a warning.

use crate::deployment_root::{DeploymentFolder, INCOMING, Store, StoreError, create_folders};
use crate::path_component::PathComponent;
use crate::revision::copy::{CopyError, Keep, copy_tree};
use crate::revision::manifest::{self, ManifestError};
use crate::spec::{DeploymentSpec, ReuseFrom};
use codedeploy_api::chain::Chain;

#[derive(Debug, thiserror::Error)]
enum ReuseError {
    #[error("{text} does not name a deployment")]
    Malformed { text: String },
    #[error("it is this deployment itself")]
    Itself,
    #[error("deployment {id} has no unpacked archive on this host")]
    NoArchive { id: PathComponent },
    #[error("the archive cannot be copied")]
    Copy(#[from] CopyError),
    #[error("the archive cannot be used again")]
    Damaged(#[from] ManifestError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the folder of the earlier deployment, if it is usable.
pub(super) fn folder(
    from: &ReuseFrom,
    store: &Store,
    spec: &DeploymentSpec,
) -> Option<DeploymentFolder> {
    resolve(from, store, spec).ok()
}

fn resolve(
    from: &ReuseFrom,
    store: &Store,
    spec: &DeploymentSpec,
) -> Result<DeploymentFolder, ReuseError> {
    match from {
        ReuseFrom::Malformed(text) => Err(ReuseError::Malformed {
            text: text.chars().take(200).collect(),
        }),
        ReuseFrom::Deployment(id) if *id == spec.deployment_id => Err(ReuseError::Itself),
        ReuseFrom::Deployment(id) => {
            let folder = store.deployment(&spec.deployment_group_id, id);
            let found = folder
                .archive()
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir());
            found
                .then_some(folder)
                .ok_or_else(|| ReuseError::NoArchive { id: id.clone() })
        }
    }
}

/// Copies the earlier deployment's archive to the place for unpacked archives; returns whether that
/// succeeded. Blocks.
pub(super) fn reuse(
    from: &ReuseFrom,
    store: &Store,
    spec: &DeploymentSpec,
    folder: &DeploymentFolder,
) -> bool {
    let copied =
        resolve(from, store, spec).and_then(|earlier| copy(&earlier, folder).map(|()| earlier));
    match copied {
        Ok(earlier) => {
            tracing::info!(from = %earlier.path().display(), "the earlier deployment's archive is used again");
            true
        }
        Err(error) => {
            tracing::warn!(
                reason = %Chain(&error),
                "{} cannot be followed; the revision is downloaded",
                crate::spec::parse::REUSE_ARCHIVE_FROM
            );
            if let Err(error) = store.create(folder) {
                tracing::warn!(reason = %Chain(&error), "an incomplete copy is left over");
            }
            false
        }
    }
}

fn copy(earlier: &DeploymentFolder, folder: &DeploymentFolder) -> Result<(), ReuseError> {
    let target = folder.incoming_archive();
    create_folders(&target, INCOMING)?;
    copy_tree(&earlier.archive(), &target, None, Keep::Everything)?;
    manifest::verify(&target, &earlier.manifest())?;
    manifest::copy(&earlier.manifest(), &folder.manifest())?;
    folder.note_source("archive-reuse", earlier.noted_etag().as_deref())?;
    Ok(())
}
