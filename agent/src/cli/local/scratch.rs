//! A private temporary folder for inspection; nothing of it is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use crate::cli::local::LocalError;
use crate::config::Environment;
use crate::deployment_root::remove;
use crate::shutdown::Shutdown;

/// The wait for cancelled work; its folder is gone, so it ends soon.
const ENDING: Duration = Duration::from_secs(5);

/// The number of attempts to remove the folder while something still writes to it.
const ROUNDS: usize = 100;

/// The folder; it is removed with this value.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(environment: &Environment) -> io::Result<Self> {
        let folder = environment
            .text("TMPDIR")
            .filter(|folder| folder.starts_with('/'))
            .unwrap_or("/tmp");
        // With a link in the path, paths of the revision would seem to lie elsewhere.
        let folder = fs::canonicalize(folder)?;
        // Private: the revision may hold secrets.
        Ok(Self(
            tempfile::Builder::new()
                .prefix("codedeploy-plan-")
                .tempdir_in(folder)?
                .keep(),
        ))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the result of `work` in this folder, unless a signal ends it.
    pub(super) async fn with<T>(
        &self,
        shutdown: &Shutdown,
        mut work: Pin<Box<impl Future<Output = T>>>,
    ) -> Result<T, LocalError> {
        tokio::select! {
            done = &mut work => Ok(done),
            () = shutdown.no_more_work.cancelled() => {
                // Unpacking on another thread cannot be cancelled, but fails because the folder is
                // gone.
                self.remove();
                let _ = tokio::time::timeout(ENDING, work).await;
                Err(LocalError::Interrupted)
            }
        }
    }

    fn remove(&self) {
        for _ in 0..ROUNDS {
            if remove(&self.0).is_ok() {
                break;
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
    }
}
