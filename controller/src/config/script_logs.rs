//! The script output of commands that the service asks its agents for.

use codedeploy_api::command::MAX_SCRIPT_LOG;
use serde::{Deserialize, Serialize};

/// The commands whose whole script output is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Those that failed.
    #[default]
    Failed,
    All,
    None,
}

/// The limits of the script output that is kept, in bytes of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptLogs {
    pub keep: Keep,
    pub max_bytes: usize,
    pub max_bytes_per_deployment: usize,
}

impl Default for ScriptLogs {
    fn default() -> Self {
        Self {
            keep: Keep::default(),
            max_bytes: 1024 * 1024,
            max_bytes_per_deployment: 64 * 1024 * 1024,
        }
    }
}

/// The section of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as keep: failed")]
pub(super) struct FileScriptLogs {
    #[serde(default)]
    keep: Keep,
    max_bytes: Option<usize>,
    max_bytes_per_deployment: Option<usize>,
    /// For the retention of the history.
    pub(super) keep_days: Option<f64>,
}

impl FileScriptLogs {
    /// Returns the limits, or the value that is out of range.
    pub(super) fn settle(self) -> Result<ScriptLogs, usize> {
        let default = ScriptLogs::default();
        let max_bytes = self.max_bytes.unwrap_or(default.max_bytes);
        if max_bytes == 0 || max_bytes > MAX_SCRIPT_LOG {
            return Err(max_bytes);
        }
        Ok(ScriptLogs {
            keep: self.keep,
            max_bytes,
            max_bytes_per_deployment: self
                .max_bytes_per_deployment
                .unwrap_or(default.max_bytes_per_deployment),
        })
    }
}
