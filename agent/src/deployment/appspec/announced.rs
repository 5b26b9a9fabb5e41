//! Logs the warnings about an AppSpec file once.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The AppSpec files whose warnings were logged: every event of a deployment reads the same one.
/// Clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::deployment) struct Announced(Arc<Mutex<VecDeque<PathBuf>>>);

/// The number of files that are remembered; the oldest is dropped first.
const MAX_ANNOUNCED: usize = 64;

impl Announced {
    /// Logs the warnings about the AppSpec file at `path` once. Without a path, the warnings belong
    /// to this event alone.
    pub(in crate::deployment) fn warn(&self, path: &Path, warnings: &[String]) {
        if path.as_os_str().is_empty() {
            return warnings
                .iter()
                .for_each(|warning| tracing::warn!("{warning}"));
        }
        if warnings.is_empty() || !self.is_first(path) {
            return;
        }
        for warning in warnings {
            tracing::warn!(file = %path.display(), "{warning}");
        }
    }

    fn is_first(&self, path: &Path) -> bool {
        let mut announced = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.iter().any(|known| known == path) {
            return false;
        }
        announced.push_back(path.to_owned());
        if announced.len() > MAX_ANNOUNCED {
            announced.pop_front();
        }
        true
    }
}
