//! Owns the alarms of deployments: where their states are read, and what an active one does.

use serde::Deserialize;

/// Where the states of alarms are read, by the names that deployment groups give them.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Alarms {}
