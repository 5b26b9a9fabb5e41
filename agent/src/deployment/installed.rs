//! The description of a deployment in its folder, so that it can be taken back when its
//! specification is no longer available.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use codedeploy_hooks::fs::replace_file;
use serde::{Deserialize, Serialize};

use super::environment;
use super::ledger::DeploymentNames;
use crate::bounded_read;
use crate::deployment_root::DeploymentFolder;
use crate::spec::DeploymentSpec;

/// The only version of the file so far.
const VERSION: u32 = 1;

/// A deployment whose Install began on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    version: u32,
    #[serde(flatten)]
    pub about: DeploymentNames,
    pub appspec_filename: String,
    /// The variables that describe the deployment to scripts, except for the event.
    pub variables: BTreeMap<String, String>,
}

/// The reason why a deployment's description is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    #[error("cannot read {}, which says what the deployment is; it was not installed by this agent", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not what an agent writes of a deployment", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{} has version {found}; this agent reads version {VERSION}, so run the newer one that wrote it", path.display())]
    Version { path: PathBuf, found: u64 },
    #[error("cannot write {}, without which the deployment could not be taken back", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Installed {
    pub(super) fn of(spec: &DeploymentSpec, folder: &DeploymentFolder) -> Self {
        Self {
            version: VERSION,
            about: DeploymentNames::of(spec),
            appspec_filename: spec.appspec_filename.clone(),
            variables: environment::variables(spec, folder.noted_etag()),
        }
    }

    pub(super) fn write(&self, folder: &DeploymentFolder) -> Result<(), InstalledError> {
        let path = folder.description();
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        text.and_then(|text| replace_file(&path, &text, 0o600))
            .map_err(|source| InstalledError::Write { path, source })
    }

    /// Reads the description in `folder`.
    pub fn read(folder: &DeploymentFolder) -> Result<Self, InstalledError> {
        let path = folder.description();
        let bytes = match bounded_read::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(InstalledError::Read { path, source }),
        };
        let parsed = serde_json::from_slice::<serde_json::Value>(&bytes);
        let found = parsed
            .as_ref()
            .ok()
            .and_then(|value| value["version"].as_u64());
        match found {
            Some(found) if found != u64::from(VERSION) => {
                Err(InstalledError::Version { path, found })
            }
            _ => parsed
                .and_then(serde_json::from_value)
                .map_err(|source| InstalledError::Json { path, source }),
        }
    }
}
