//! The commands in progress, on disk: one file per deployment that holds the command's identifier, so that a restarted
//! agent can say which command it lost (spec: Start-up recovery).

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use codedeploy_hooks::fs::replace_file;

use crate::revision::store::{Store, StoreError, create_folders};
use crate::spec::PathComponent;

/// Entries older than this belong to deployments that the service has given up.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Longest command identifier that is read back, in bytes.
const MAX_IDENTIFIER: u64 = 64 * 1024;

/// The folder of commands in progress.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
}

/// A command in progress; its entry goes with [`Entry::close`], and stays when the process dies before that.
#[derive(Debug)]
#[must_use]
pub struct Entry {
    path: PathBuf,
}

/// A command that an earlier run of the agent began and did not finish.
#[derive(Debug, PartialEq, Eq)]
pub struct Interrupted {
    pub deployment_id: String,
    pub host_command_identifier: String,
}

impl Ledger {
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let folder = store.ongoing();
        create_folders(&folder, 0o700)?;
        Ok(Self { folder })
    }

    pub fn begin(&self, deployment: &PathComponent, host_command_identifier: &str) -> io::Result<Entry> {
        let path = self.folder.join(deployment.as_str());
        replace_file(&path, host_command_identifier.as_bytes(), 0o600)?;
        Ok(Entry { path })
    }

    /// What earlier runs left behind. Entries that are too old or unreadable are removed, with a warning.
    pub fn interrupted(&self) -> io::Result<Vec<(Entry, Interrupted)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let (entry, name) = (Entry { path: entry.path() }, entry.file_name());
            match read(&entry.path) {
                Ok(Some(host_command_identifier)) => {
                    let deployment_id = name.to_string_lossy().into_owned();
                    found.push((entry, Interrupted { deployment_id, host_command_identifier }));
                }
                Ok(None) => {
                    tracing::warn!(path = %entry.path.display(), "record of a command in progress is of no use; removed");
                    entry.close();
                }
                Err(error) => {
                    tracing::warn!(path = %entry.path.display(), %error, "cannot read a command in progress")
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        Ok(found)
    }
}

/// The identifier in the file; `None` when it is too old, or no identifier.
fn read(path: &std::path::Path) -> io::Result<Option<String>> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    if age > FORGOTTEN_AFTER || metadata.len() > MAX_IDENTIFIER {
        return Ok(None);
    }
    let text = String::from_utf8(fs::read(path)?).unwrap_or_default();
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

impl Entry {
    pub fn close(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the record of a finished command");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_young_readable_entries_are_interrupted_commands() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        let ledger = Ledger::open(&store).unwrap();
        let deployment = |name| PathComponent::new(name).unwrap();
        ledger.begin(&deployment("d-A"), "command-a").unwrap().close();
        let _left = ledger.begin(&deployment("d-B"), "command-b").unwrap();
        let _old = ledger.begin(&deployment("d-C"), "command-c").unwrap();
        let _empty = ledger.begin(&deployment("d-D"), "").unwrap();
        let day_before = SystemTime::now() - Duration::from_secs(25 * 3600);
        fs::File::options()
            .write(true)
            .open(store.ongoing().join("d-C"))
            .unwrap()
            .set_modified(day_before)
            .unwrap();

        let found = ledger.interrupted().unwrap();
        assert_eq!(found.len(), 1);
        let expected =
            Interrupted { deployment_id: "d-B".into(), host_command_identifier: "command-b".into() };
        assert_eq!(found[0].1, expected);
        assert!(!store.ongoing().join("d-C").exists() && !store.ongoing().join("d-D").exists());
    }
}
