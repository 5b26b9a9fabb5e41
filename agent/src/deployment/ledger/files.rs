//! The files of the ledger: written whole, read with care, set aside if they are unusable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use codedeploy_api::chain::Chain;
use codedeploy_hooks::fs::replace_file;

use super::record::{self, Record};

/// A command that cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("the command was not performed: cannot write {}, without which a restarted agent would not know the command", path.display())]
pub struct LedgerError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Writes a record; a crash leaves the earlier one or this one.
pub(super) fn save(path: &Path, record: &impl Record) -> Result<(), LedgerError> {
    let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::from);
    bytes
        .and_then(|bytes| replace_file(path, &bytes, 0o600))
        .map_err(|source| LedgerError {
            path: path.to_owned(),
            source,
        })
}

/// Reads the record at `path`; sets an unusable one aside for inspection, so that the agent can
/// continue.
pub(super) fn usable<R: Record>(path: &Path) -> Option<R> {
    let error = match record::read(path) {
        Ok(record) => return Some(record),
        Err(error) => error,
    };
    set_aside(path, &Chain(&error).to_string());
    None
}

/// Renames an unusable record.
pub(super) fn set_aside(path: &Path, reason: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    match fs::rename(path, &aside) {
        Ok(()) => {
            tracing::warn!(path = %path.display(), kept_as = %aside.display(), reason, "unusable record of commands; it is set aside");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), reason, %error, "unusable record of commands, which cannot be set aside; remove it");
        }
    }
}

/// The records in `folder`.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths = paths(folder);
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(folder = %folder.display(), %error, "cannot read the records of earlier runs");
            }
            Vec::new()
        }
    }
}

pub(super) fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::symlink_metadata(path)?.modified()
}

/// Removes a record; a missing one is none.
pub(super) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove the record of a finished command");
        }
        _ => {}
    }
}
