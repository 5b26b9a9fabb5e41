//! The notes of official agents about commands in progress: one file per deployment with the
//! command's identifier (spec: Start-up recovery). This agent writes the same files, so that either
//! agent can take over from the other.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use codedeploy_hooks::fs::{is_unfinished, replace_record, sweep};

use super::LedgerError;
use crate::path_component::PathComponent;

/// The longest command identifier that is read, in bytes.
const MAX_IDENTIFIER: u64 = 64 * 1024;

/// A command that an earlier run of an agent began and did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignCommand {
    pub deployment_id: String,
    pub host_command_identifier: String,
}

/// The reason why a file is not a record of an interrupted command.
#[derive(Debug, thiserror::Error)]
pub(super) enum Useless {
    #[error("it is not a regular file")]
    Kind,
    #[error("it holds no command identifier")]
    Noise,
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// Records that a command of `deployment` is in progress.
pub(super) fn write(
    folder: &Path,
    deployment: &PathComponent,
    host_command_identifier: &str,
) -> Result<(), LedgerError> {
    let path = folder.join(deployment.as_str());
    replace_record(&path, host_command_identifier.as_bytes()).map_err(|source| LedgerError {
        path: path.clone(),
        source,
    })
}

/// Removes the note, unless a later command of the same deployment has replaced it.
pub(super) fn remove(folder: &Path, deployment: &str, host_command_identifier: &str) {
    let path = folder.join(deployment);
    if read(&path).is_ok_and(|current| current != host_command_identifier) {
        return;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove the record of a finished command");
        }
        _ => {}
    }
}

/// Whether there is no note of this command any more, or another command's in its place.
pub(super) fn is_gone(
    folder: &Path,
    deployment: &PathComponent,
    host_command_identifier: &str,
) -> bool {
    match read(&folder.join(deployment.as_str())) {
        Ok(current) => current != host_command_identifier,
        Err(Useless::Read(error)) => error.kind() == io::ErrorKind::NotFound,
        Err(Useless::Kind | Useless::Noise) => false,
    }
}

/// Returns all notes in the folder, sorted by name. Everything else there is removed, with a
/// warning.
pub(super) fn all(folder: &Path) -> Vec<ForeignCommand> {
    if let Err(error) = sweep(folder) {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove the unfinished notes of an earlier run");
    }
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.unwrap_or_else(|error| {
        tracing::warn!(folder = %folder.display(), %error, "cannot read the notes of the commands that an earlier run left unfinished");
        Vec::new()
    });
    let mut found = Vec::new();
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        // It is still being written.
        if is_unfinished(&name) {
            continue;
        }
        match read(&path) {
            Ok(host_command_identifier) => {
                found.push(ForeignCommand {
                    deployment_id: name.to_string_lossy().into_owned(),
                    host_command_identifier,
                });
            }
            Err(reason) => clear(&path, &reason),
        }
    }
    found.sort_by(|a, b| a.deployment_id.cmp(&b.deployment_id));
    found
}

/// Reads the identifier in the file.
pub(super) fn read(path: &Path) -> Result<String, Useless> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(Useless::Kind);
    }
    // The file may have been replaced since: never block, and follow no link.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_IDENTIFIER + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| Useless::Noise)?;
    let text = text.trim();
    let usable =
        !text.is_empty() && text.len() as u64 <= MAX_IDENTIFIER && !text.contains(char::is_control);
    if usable {
        Ok(text.to_owned())
    } else {
        Err(Useless::Noise)
    }
}

/// Removes a useless file; a folder that is not empty stays, for its owner.
fn clear(path: &Path, reason: &Useless) {
    tracing::warn!(path = %path.display(), %reason, "this is not the note of a command in progress; it is removed");
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        _ => fs::remove_file(path),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "cannot remove it; remove it by hand");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(folder: &Path, deployment: &str, id: &str) {
        write(folder, &PathComponent::new(deployment).unwrap(), id).unwrap();
    }

    #[test]
    fn every_readable_note_is_an_interrupted_command_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        begin(folder.path(), "d-A", "command-a");
        remove(folder.path(), "d-A", "command-a");
        begin(folder.path(), "d-B", "command-b");
        begin(folder.path(), "d-C", "command-c");
        begin(folder.path(), "d-D", "");
        fs::write(
            at(".codedeploy-0123456789abcdef-0"),
            "never renamed to its place",
        )
        .unwrap();
        let day_before = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
        fs::File::options()
            .write(true)
            .open(at("d-C"))
            .unwrap()
            .set_modified(day_before)
            .unwrap();

        let expected = |deployment_id: &str, id: &str| ForeignCommand {
            deployment_id: deployment_id.into(),
            host_command_identifier: id.into(),
        };
        assert_eq!(
            all(folder.path()),
            [expected("d-B", "command-b"), expected("d-C", "command-c")]
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn whatever_else_is_in_the_folder_is_cleared_and_hides_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("ongoing-deployment");
        fs::create_dir(&folder).unwrap();
        let at = |name: &str| folder.join(name);
        let outside = root.path().join("outside");
        fs::write(&outside, "a command of nobody").unwrap();
        fs::create_dir(at("d-folder")).unwrap();
        fs::create_dir_all(at("d-full/kept")).unwrap();
        nix::unistd::mkfifo(&at("d-fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&outside, at("d-link")).unwrap();
        fs::write(at("d-utf8"), b"\xff\xfe").unwrap();
        fs::write(at("d-control"), b"command\x07\x00").unwrap();
        fs::write(at("d-noise"), vec![b'x'; 10 * 1024 * 1024]).unwrap();
        begin(&folder, "d-real", "command");

        let found: Vec<_> = all(&folder)
            .into_iter()
            .map(|found| found.deployment_id)
            .collect();
        assert_eq!(found, ["d-real"]);
        let mut left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["d-full", "d-real"]);
        assert!(outside.exists());
    }

    #[test]
    fn removing_leaves_the_note_of_the_next_command_alone() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), "d-A", "first");
        begin(folder.path(), "d-A", "second");
        remove(folder.path(), "d-A", "first");
        assert!(folder.path().join("d-A").exists());
        remove(folder.path(), "d-A", "second");
        assert!(!folder.path().join("d-A").exists());
    }
}
