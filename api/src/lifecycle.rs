//! The names of lifecycle events. They are written here and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A lifecycle event of a deployment; a host command carries the name of the event it performs.
///
/// The order of the variants is the order of an in-place deployment behind a load balancer
/// (AWS CodeDeploy User Guide, "Lifecycle event hook availability").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum LifecycleEvent {
    BeforeBlockTraffic,
    /// Performed by the service; never sent to a host.
    BlockTraffic,
    AfterBlockTraffic,
    ApplicationStop,
    DownloadBundle,
    BeforeInstall,
    Install,
    AfterInstall,
    ApplicationStart,
    ValidateService,
    BeforeAllowTraffic,
    /// Performed by the service; never sent to a host.
    AllowTraffic,
    AfterAllowTraffic,
    /// An event that only the AppSpec of a revision defines.
    Custom(CustomEvent),
}

/// The name of an event outside the standard ones; only [`LifecycleEvent::from_str`] makes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomEvent(String);

/// A text that cannot name a lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a lifecycle event: expected letters, digits, '-' or '_'")]
pub struct InvalidEventName(String);

/// The standard events by name, in the order of a deployment.
const STANDARD: [(&str, LifecycleEvent); 13] = [
    ("BeforeBlockTraffic", LifecycleEvent::BeforeBlockTraffic),
    ("BlockTraffic", LifecycleEvent::BlockTraffic),
    ("AfterBlockTraffic", LifecycleEvent::AfterBlockTraffic),
    ("ApplicationStop", LifecycleEvent::ApplicationStop),
    ("DownloadBundle", LifecycleEvent::DownloadBundle),
    ("BeforeInstall", LifecycleEvent::BeforeInstall),
    ("Install", LifecycleEvent::Install),
    ("AfterInstall", LifecycleEvent::AfterInstall),
    ("ApplicationStart", LifecycleEvent::ApplicationStart),
    ("ValidateService", LifecycleEvent::ValidateService),
    ("BeforeAllowTraffic", LifecycleEvent::BeforeAllowTraffic),
    ("AllowTraffic", LifecycleEvent::AllowTraffic),
    ("AfterAllowTraffic", LifecycleEvent::AfterAllowTraffic),
];

impl LifecycleEvent {
    /// The thirteen standard events, in the order of a deployment.
    pub fn standard() -> impl Iterator<Item = LifecycleEvent> {
        STANDARD.into_iter().map(|(_, event)| event)
    }

    /// Their names.
    pub fn standard_names() -> impl Iterator<Item = &'static str> {
        STANDARD.iter().map(|(name, _)| *name)
    }

    /// The name as AWS writes it.
    pub fn name(&self) -> &str {
        if let LifecycleEvent::Custom(CustomEvent(name)) = self {
            return name;
        }
        STANDARD
            .iter()
            .find(|(_, event)| event == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether an AppSpec may name scripts for this event without the deployment listing it as a
    /// custom one.
    pub fn is_hook(&self) -> bool {
        use LifecycleEvent::*;
        !matches!(
            self,
            DownloadBundle | Install | BlockTraffic | AllowTraffic | Custom(_)
        )
    }
}

impl fmt::Display for LifecycleEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for LifecycleEvent {
    type Err = InvalidEventName;

    fn from_str(name: &str) -> Result<Self, InvalidEventName> {
        if let Some((_, event)) = STANDARD.iter().find(|(known, _)| *known == name) {
            return Ok(event.clone());
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
            return Err(InvalidEventName(name.chars().take(128).collect()));
        }
        Ok(LifecycleEvent::Custom(CustomEvent(name.to_owned())))
    }
}

impl From<LifecycleEvent> for String {
    fn from(event: LifecycleEvent) -> Self {
        event.name().to_owned()
    }
}

impl TryFrom<String> for LifecycleEvent {
    type Error = InvalidEventName;

    fn try_from(name: String) -> Result<Self, InvalidEventName> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standard_name_reads_back_as_itself() {
        for event in LifecycleEvent::standard() {
            assert_eq!(event.name().parse::<LifecycleEvent>().unwrap(), event);
            assert!(!matches!(event, LifecycleEvent::Custom(_)));
        }
        assert_eq!(LifecycleEvent::standard().count(), 13);
    }

    #[test]
    fn names_that_could_not_be_a_path_or_a_log_field_are_refused() {
        for name in ["", "a/b", "..", "with space", "new\nline"] {
            assert!(name.parse::<LifecycleEvent>().is_err(), "{name:?}");
        }
        assert_eq!(
            "WarmUp-2".parse::<LifecycleEvent>().unwrap().name(),
            "WarmUp-2"
        );
    }
}
