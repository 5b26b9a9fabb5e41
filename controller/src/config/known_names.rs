//! The names of alarms and topics that deployment groups may use.

use std::collections::BTreeSet;

use super::Settings;

/// The names in the settings.
#[derive(Debug, Clone, Default)]
pub struct KnownNames {
    pub(crate) alarms: BTreeSet<String>,
    /// ARNs.
    pub(crate) topics: BTreeSet<String>,
    /// Whether other names are rejected.
    pub(crate) strict: bool,
}

impl KnownNames {
    pub fn of(settings: &Settings) -> Self {
        KnownNames {
            alarms: settings.alarms.names().map(str::to_owned).collect(),
            topics: settings.events.topics.keys().cloned().collect(),
            strict: settings.strict_names,
        }
    }
}
