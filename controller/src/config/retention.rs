//! The retention of finished deployments, of script output and of the audit. Without settings,
//! everything is kept.

use std::time::Duration;

use serde::Deserialize;

/// The history to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    pub deployments: DeploymentRetention,
    /// The age of a finished deployment at which the output of its scripts is deleted.
    pub script_logs: Option<Duration>,
    /// The age at which entries of the audit are deleted.
    pub audit: Option<Duration>,
}

/// The finished deployments to keep. One stays if any rule keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeploymentRetention {
    /// Those that ended less than this ago.
    pub age: Option<Duration>,
    /// This number of the newest of every group, at least 1.
    pub per_group: Option<usize>,
}

impl DeploymentRetention {
    /// Whether it deletes nothing.
    pub fn is_endless(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as keep_days: 365")]
pub(super) struct FileAudit {
    pub(super) keep_days: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as keep_days: 365")]
pub(super) struct FileDeployments {
    pub(super) keep_days: Option<f64>,
    pub(super) keep_per_group: Option<usize>,
}
