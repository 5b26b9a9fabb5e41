//! Reports to this project's controller about rollbacks that no command's outcome covers: each
//! stays on disk until it is delivered. AWS's service does not receive them.

use std::io;
use std::path::PathBuf;

use codedeploy_api::command::PostHostRollbackInput;
use codedeploy_hooks::fs::replace_file;
use time::OffsetDateTime;

use crate::bounded_read;
use crate::command::CommandService;
use crate::deployment::rollback::journal::Journal;
use crate::deployment_root::{Store, StoreError, create_folders};

/// The largest result text of a rollback, in characters.
const MAX_MESSAGE: usize = 2000;

#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write {}, the report of the rollback to the service", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Stores a report of a rollback with the result `words`, to be delivered to the service.
pub fn keep(store: &Store, journal: &Journal, words: &str) -> Result<(), NoticeError> {
    let folder = folder(store);
    create_folders(&folder, 0o700)?;
    let about = &journal.cause.about;
    let notice = PostHostRollbackInput {
        host_identifier: String::new(),
        deployment_id: about.deployment_id.to_string(),
        previous_deployment_id: journal.previous(),
        rolled_back_at: Some(OffsetDateTime::now_utc().unix_timestamp() as f64),
        message: words.chars().take(MAX_MESSAGE).collect(),
    };
    // The name identifies the rollback, so one that was interrupted at its end is stored once.
    let path = folder.join(format!("{}.json", about.deployment_id));
    let text = serde_json::to_vec_pretty(&notice).map_err(io::Error::from);
    text.and_then(|text| replace_file(&path, &text, 0o600))
        .map_err(|source| NoticeError::Write { path, source })
}

/// Whether a report is waiting.
pub fn is_waiting(store: &Store) -> bool {
    std::fs::read_dir(folder(store)).is_ok_and(|mut entries| entries.next().is_some())
}

/// Delivers all waiting reports to the controller; those that it does not answer stay for later.
pub async fn tell(store: &Store, service: &CommandService) {
    for path in waiting(store) {
        let notice = bounded_read::read(&path).and_then(|text| {
            serde_json::from_slice::<PostHostRollbackInput>(&text).map_err(io::Error::from)
        });
        let notice = match notice {
            Ok(notice) => notice,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "removed an unreadable record of a rollback");
                remove(&path);
                continue;
            }
        };
        let notice = PostHostRollbackInput {
            host_identifier: service.host_identifier().to_owned(),
            ..notice
        };
        match service.attempt(&notice).await {
            Ok(_) => {
                tracing::info!(
                    deployment_id = notice.deployment_id,
                    "the rollback is reported to the service"
                );
                remove(&path);
            }
            Err(error) if error.is_refusal() => {
                tracing::warn!(deployment_id = notice.deployment_id, %error, "the service rejects the report of the rollback");
                remove(&path);
            }
            Err(error) => {
                tracing::warn!(deployment_id = notice.deployment_id, %error, "the rollback could not be reported yet");
                return;
            }
        }
    }
}

/// Drops all reports: the service is not this project's controller.
pub fn drop_all(store: &Store) {
    waiting(store).iter().for_each(remove);
}

fn folder(store: &Store) -> PathBuf {
    store.commands().join("rollbacks")
}

fn waiting(store: &Store) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(store))
        .into_iter()
        .flatten()
        .flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort();
    paths
}

fn remove(path: &PathBuf) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove the record of a reported rollback");
    }
}
