//! The commands in progress, on disk: one file per deployment that holds the command's identifier, so that a restarted
//! agent can say which command it lost (spec: Start-up recovery).

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
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
    host_command_identifier: String,
}

/// A command that an earlier run of the agent began and did not finish.
#[derive(Debug, PartialEq, Eq)]
pub struct Interrupted {
    pub deployment_id: String,
    pub host_command_identifier: String,
}

#[derive(Debug, thiserror::Error)]
#[error("the command was not performed, because {} cannot be written; it says after a restart what was in progress", path.display())]
pub struct LedgerError {
    path: PathBuf,
    source: io::Error,
}

/// Why a file is no record of an interrupted command.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("it is not a regular file")]
    Kind,
    #[error("it is older than a day; the service has given up on that command")]
    Old,
    #[error("it holds no command identifier")]
    Noise,
    #[error(transparent)]
    Read(#[from] io::Error),
}

impl Ledger {
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let folder = store.ongoing();
        create_folders(&folder, 0o700)?;
        Ok(Self { folder })
    }

    pub fn begin(
        &self,
        deployment: &PathComponent,
        host_command_identifier: &str,
    ) -> Result<Entry, LedgerError> {
        let path = self.folder.join(deployment.as_str());
        replace_file(&path, host_command_identifier.as_bytes(), 0o600)
            .map_err(|source| LedgerError { path: path.clone(), source })?;
        Ok(Entry { path, host_command_identifier: host_command_identifier.to_owned() })
    }

    /// What earlier runs left behind. Whatever else is in the folder is removed, with a warning.
    pub fn interrupted(&self) -> Vec<(Entry, Interrupted)> {
        let entries = fs::read_dir(&self.folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.unwrap_or_else(|error| {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot tell which commands an earlier run left unfinished");
            Vec::new()
        });
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.path();
            match read(&path) {
                Ok(host_command_identifier) => {
                    let deployment_id = entry.file_name().to_string_lossy().into_owned();
                    let entry = Entry { path, host_command_identifier: host_command_identifier.clone() };
                    found.push((entry, Interrupted { deployment_id, host_command_identifier }));
                }
                Err(reason) => clear(&path, &reason),
            }
        }
        found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        found
    }
}

/// The identifier in the file.
fn read(path: &Path) -> Result<String, Useless> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(Useless::Kind);
    }
    // It may have become something else since: nothing is waited for, no link is followed.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = fs::File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    if age > FORGOTTEN_AFTER {
        return Err(Useless::Old);
    }
    let mut bytes = Vec::new();
    file.take(MAX_IDENTIFIER + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| Useless::Noise)?;
    let text = text.trim();
    let usable = !text.is_empty() && text.len() as u64 <= MAX_IDENTIFIER && !text.contains(char::is_control);
    if usable { Ok(text.to_owned()) } else { Err(Useless::Noise) }
}

/// Removes what is of no use; a folder that is not empty stays, for whoever put it there.
fn clear(path: &Path, reason: &Useless) {
    tracing::warn!(path = %path.display(), %reason, "no record of a command in progress; removed");
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        _ => fs::remove_file(path),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "cannot remove it; remove it by hand");
    }
}

impl Entry {
    /// The command is over and told; a later command of the same deployment may have taken the file over.
    pub fn close(self) {
        if read(&self.path).is_ok_and(|current| current != self.host_command_identifier) {
            return;
        }
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

        let found = ledger.interrupted();
        assert_eq!(found.len(), 1);
        let expected =
            Interrupted { deployment_id: "d-B".into(), host_command_identifier: "command-b".into() };
        assert_eq!(found[0].1, expected);
        assert!(!store.ongoing().join("d-C").exists() && !store.ongoing().join("d-D").exists());
    }
    #[test]
    fn whatever_else_is_in_the_folder_is_cleared_and_hides_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        let ledger = Ledger::open(&store).unwrap();
        let at = |name: &str| store.ongoing().join(name);
        let outside = root.path().join("outside");
        fs::write(&outside, "a command of nobody").unwrap();
        fs::create_dir(at("d-folder")).unwrap();
        fs::create_dir_all(at("d-full/kept")).unwrap();
        nix::unistd::mkfifo(&at("d-fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&outside, at("d-link")).unwrap();
        fs::write(at("d-utf8"), b"\xff\xfe").unwrap();
        fs::write(at("d-control"), b"command\x07\x00").unwrap();
        fs::write(at("d-noise"), vec![b'x'; 10 * 1024 * 1024]).unwrap();
        let _left = ledger.begin(&PathComponent::new("d-real").unwrap(), "command").unwrap();

        let found: Vec<_> = ledger.interrupted().into_iter().map(|(_, found)| found.deployment_id).collect();
        assert_eq!(found, ["d-real"]);
        let mut left: Vec<_> =
            fs::read_dir(store.ongoing()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["d-full", "d-real"]);
        assert!(outside.exists());
    }

    #[test]
    fn an_entry_that_cannot_be_written_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        let ledger = Ledger::open(&store).unwrap();
        fs::create_dir_all(store.ongoing().join("d-A/full")).unwrap();
        let error = ledger.begin(&PathComponent::new("d-A").unwrap(), "command").unwrap_err();
        assert!(error.to_string().contains("ongoing-deployment/d-A cannot be written"), "{error}");
    }

    #[test]
    fn closing_leaves_the_entry_of_the_next_command_alone() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        let ledger = Ledger::open(&store).unwrap();
        let deployment = PathComponent::new("d-A").unwrap();
        let first = ledger.begin(&deployment, "first").unwrap();
        let second = ledger.begin(&deployment, "second").unwrap();
        first.close();
        assert!(store.ongoing().join("d-A").exists());
        second.close();
        assert!(!store.ongoing().join("d-A").exists());
    }
}
