//! The scripts of one event, in order, and their folder.

use std::path::PathBuf;

use codedeploy_api::lifecycle::LifecycleEvent;

use crate::appspec::{AppSpec, Script};

/// The scripts that one lifecycle event runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookPlan {
    pub event: LifecycleEvent,
    /// The absolute path of the unpacked revision that the scripts run from; empty if there are
    /// none.
    pub archive: PathBuf,
    pub scripts: Vec<Script>,
}

impl HookPlan {
    /// The scripts that `appspec`, the AppSpec of the revision in `archive`, lists for `event`.
    pub fn new(event: LifecycleEvent, archive: impl Into<PathBuf>, appspec: &AppSpec) -> Self {
        let scripts = appspec.scripts(&event).to_vec();
        Self {
            event,
            archive: archive.into(),
            scripts,
        }
    }

    /// The plan of an event that has no revision to run scripts from.
    pub fn nothing(event: LifecycleEvent) -> Self {
        Self {
            event,
            archive: PathBuf::new(),
            scripts: Vec::new(),
        }
    }

    /// Whether the host command of this event has nothing to do, which its acknowledgement reports.
    /// DownloadBundle and Install always have something to do.
    pub fn is_noop(&self) -> bool {
        !matches!(
            self.event,
            LifecycleEvent::DownloadBundle | LifecycleEvent::Install
        ) && self.scripts.is_empty()
    }
}
