//! The revision of a deployment: its location, and its download to this host.
//!
//! A [`Revision`] is fetched into a deployment's folder as one file, or as a folder that exists
//! already; [`archive`] unpacks it; [`store`] defines where all data of a deployment lie.

pub mod archive;
mod arrival;
pub(crate) mod copy;
mod custody;
pub mod digest;
mod download;
mod github;
mod local;
pub mod manifest;
mod retry;
mod s3;
mod web;

use std::path::PathBuf;

use tokio::sync::oneshot;

use crate::aws::{Access, AccessError, http_client};
use crate::config::Settings;
use crate::deployment_root::{DeploymentFolder, StoreError};
use archive::{Bundle, BundleType};
pub use github::AccessToken;
use github::GitHub;

/// The location of a revision's bundle.
#[derive(Debug, Clone)]
pub enum Revision {
    S3(S3Revision),
    GitHub(GitHubRevision),
    Local(LocalRevision),
}

/// An object in S3.
#[derive(Debug, Clone)]
pub struct S3Revision {
    pub bucket: String,
    pub key: String,
    pub bundle_type: BundleType,
    /// Absent: the newest version.
    pub version: Option<String>,
    /// Without quotes. Absent: the object in its present form.
    pub etag: Option<String>,
}

/// A commit of a GitHub repository.
#[derive(Debug, Clone)]
pub struct GitHubRevision {
    pub account: String,
    pub repository: String,
    pub commit_id: String,
    pub bundle_type: BundleType,
    /// Absent: the request is anonymous.
    pub token: Option<AccessToken>,
}

/// A bundle on this host; only the local command deploys one.
#[derive(Debug, Clone)]
pub enum LocalRevision {
    File {
        location: PathBuf,
        bundle_type: BundleType,
    },
    Directory {
        location: PathBuf,
    },
}

/// Takes a bundle that is on its way, if it can be read before it is complete.
pub type Arriving = oneshot::Sender<(Bundle, BundleType)>;

/// The result of a fetch in the deployment's folder.
#[derive(Debug)]
pub enum FetchedBundle {
    /// The complete bundle, and the handle through which it was checked.
    File {
        file: std::fs::File,
        bundle_type: BundleType,
    },
    /// The unpacked revision itself, in the folder where archives are unpacked.
    Unpacked,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    S3(#[from] s3::S3Error),
    #[error(transparent)]
    GitHub(#[from] github::GitHubError),
    #[error(transparent)]
    Local(#[from] local::LocalError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the revision is in S3, but this command was started without access to S3")]
    NoAccess,
}

/// Fetches the revision's bundle into `folder`, which holds no earlier one. `arriving` gets a tar
/// that can be read while it arrives; only the result tells whether it is the right one, and whole.
pub async fn fetch(
    revision: &Revision,
    folder: &DeploymentFolder,
    access: Option<&Access>,
    settings: &Settings,
    arriving: Arriving,
) -> Result<FetchedBundle, FetchError> {
    let (bundle, etag) = match revision {
        Revision::S3(s3) => {
            let access = access.ok_or(FetchError::NoAccess)?;
            let (bundle, etag) = s3::fetch(s3, folder, access, arriving).await?;
            (bundle, Some(etag))
        }
        Revision::Local(local) => (local::fetch(local, folder)?, None),
        Revision::GitHub(github) => {
            let http = match access {
                Some(access) => access.http.clone(),
                None => http_client(&settings.endpoints)?,
            };
            let endpoint = settings
                .endpoints
                .github
                .as_deref()
                .unwrap_or(github::DEFAULT_ENDPOINT);
            let hub = GitHub {
                http,
                endpoint,
                read_timeout: settings.http_read_timeout,
            };
            (hub.fetch(github, folder).await?, None)
        }
    };
    folder.note_source("downloaded", etag.as_deref())?;
    Ok(bundle)
}
