//! A private folder for what is only looked at; nothing of it is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use crate::cli::local::LocalError;
use crate::config::Environment;
use crate::deployment_root::remove;
use crate::shutdown::Shutdown;

/// How long work that is given up is waited for; its folder is gone, so that it ends soon.
const ENDING: Duration = Duration::from_secs(5);

/// How often removing is tried, while something still writes.
const ROUNDS: usize = 100;

/// The folder; it goes with this value.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(environment: &Environment) -> io::Result<Self> {
        let folder = environment.text("TMPDIR").filter(|folder| folder.starts_with('/')).unwrap_or("/tmp");
        // Links on the way would make paths of the revision look as if they were elsewhere.
        let folder = fs::canonicalize(folder)?;
        // Private: the revision may hold secrets.
        Ok(Self(tempfile::Builder::new().prefix("codedeploy-plan-").tempdir_in(folder)?.keep()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What `work` in this folder comes to, unless a signal ends it.
    pub(super) async fn with<T>(
        &self,
        shutdown: &Shutdown,
        mut work: Pin<Box<impl Future<Output = T>>>,
    ) -> Result<T, LocalError> {
        tokio::select! {
            done = &mut work => Ok(done),
            () = shutdown.no_more_work.cancelled() => {
                // What is unpacked on another thread cannot be ended, but finds no folder any more.
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
