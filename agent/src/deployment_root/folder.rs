//! The folder of one deployment, and the paths in it.

use std::path::{Path, PathBuf};

use codedeploy_hooks::fs::replace_record;

use crate::deployment_root::state::{MAX_POINTER, read_state};
use crate::deployment_root::{StoreError, failed};

/// The folder of one deployment of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentFolder {
    path: PathBuf,
}

impl DeploymentFolder {
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder of the deployment whose revision is in `archive`.
    pub fn of_archive(archive: &Path) -> Self {
        Self {
            path: archive.parent().unwrap_or(archive).to_owned(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The downloaded bundle, whatever its type.
    pub fn bundle(&self) -> PathBuf {
        self.path.join("bundle.tar")
    }

    /// The unpacked revision.
    pub fn archive(&self) -> PathBuf {
        self.path.join("deployment-archive")
    }

    /// The description of the installed deployment.
    pub fn description(&self) -> PathBuf {
        self.path.join("deployment.json")
    }

    /// The deployment's id.
    pub fn id(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub fn scripts_log(&self) -> PathBuf {
        self.path.join("logs/scripts.log")
    }

    /// The agent's whole state, of which this is a part.
    pub fn root(&self) -> &Path {
        self.path.ancestors().nth(2).unwrap_or(&self.path)
    }

    /// The path of an incomplete bundle.
    pub fn incoming_bundle(&self) -> PathBuf {
        self.path.join(".bundle.tar.incoming")
    }

    /// The path of an incomplete revision.
    pub fn incoming_archive(&self) -> PathBuf {
        self.path.join(".deployment-archive.incoming")
    }

    /// The manifest of the archive, from when it was unpacked.
    pub fn manifest(&self) -> PathBuf {
        self.path.join(".archive-manifest")
    }

    /// Records the source of the archive, and the ETag of its bundle if it has one.
    pub fn note_source(&self, source: &str, etag: Option<&str>) -> Result<(), StoreError> {
        let write = |path: &Path, text: &str| {
            replace_record(path, text.as_bytes()).map_err(failed("write", path))
        };
        etag.map_or(Ok(()), |etag| write(&self.etag(), etag))?;
        write(&self.origin(), source)
    }

    /// The ETag of the bundle, as this agent or an official one recorded it.
    pub fn noted_etag(&self) -> Option<String> {
        let text = String::from_utf8(read_state(&self.etag(), MAX_POINTER).ok()??).ok()?;
        let etag = text.trim().trim_matches('"');
        let plain = !etag.is_empty() && etag.chars().all(|c| c.is_ascii_graphic());
        plain.then(|| etag.to_owned())
    }

    pub(super) fn etag(&self) -> PathBuf {
        self.path.join(".bundle-etag")
    }

    pub(super) fn origin(&self) -> PathBuf {
        self.path.join(".bundle-source")
    }
}
