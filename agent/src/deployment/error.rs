//! The errors that end a command other than a failing script.

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::install::InstallError;
use tokio::task::JoinError;

use super::appspec::AppSpecError;
use super::installed::InstalledError;
use super::slots::placed::SlotsError;
use crate::deployment_root::StoreError;
use crate::path_component::PathComponent;
use crate::recovery::RecoveryError;
use crate::revision::FetchError;
use crate::revision::archive::UnpackError;
use crate::revision::manifest::ManifestError;

#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("{0} is performed by the service; a host has nothing to do for it")]
    NotForHosts(LifecycleEvent),
    #[error(
        "the deployment group's id {0:?} is the name of something of the agent itself in root_dir; nothing was done. Use a \
         deployment group with another id"
    )]
    ReservedGroup(PathComponent),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the bundle cannot be unpacked")]
    Unpack(#[from] UnpackError),
    #[error("the unpacked revision cannot be guarded against changes")]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    AppSpec(#[from] AppSpecError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Installed(#[from] InstalledError),
    #[error(transparent)]
    Slots(#[from] SlotsError),
    #[error("the work was interrupted")]
    Interrupted(#[from] JoinError),
}
