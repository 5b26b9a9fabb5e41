//! Checks that need only this host: permissions, disk space, users.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access as Wanted;

use crate::cli::doctor::{Check, users};
use crate::config::Settings;

const MIB: u64 = 1024 * 1024;
/// Below this, a deployment fails; below the second one, it may fail.
const TOO_LITTLE: u64 = 100 * MIB;
const LITTLE: u64 = 1024 * MIB;
const TOO_FEW_INODES: u64 = 1000;

pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    vec![
        permissions(&folders(settings), secret(settings)),
        disk(&spaces(settings)),
        users::check(settings).await,
    ]
}

/// A folder that the agent writes to.
#[derive(Debug)]
struct Folder {
    key: &'static str,
    path: PathBuf,
    /// Whether the caller can write to it, or to the part of its path that exists.
    writable: bool,
    /// Whether others than its owner may replace its contents.
    open_to_all: bool,
    /// Whether something else is in its place.
    not_a_folder: bool,
}

/// The file with the host's secrets, if others may read it, and its mode; `None` if it cannot be
/// seen.
type Secret = Option<(PathBuf, u32)>;

fn folders(settings: &Settings) -> Vec<Folder> {
    let folders = [
        ("root_dir", &settings.root_dir),
        ("log_dir", &settings.log_dir),
        ("pid_dir", &settings.pid_dir),
    ];
    let see = |(key, path): (&'static str, &PathBuf)| {
        let there = existing(path);
        let mode = there.metadata().map_or(0, |metadata| metadata.mode());
        Folder {
            key,
            path: path.clone(),
            writable: rustix::fs::access(there, Wanted::WRITE_OK | Wanted::EXEC_OK).is_ok(),
            open_to_all: there == path && mode & 0o002 != 0 && mode & 0o1000 == 0,
            not_a_folder: !there.is_dir(),
        }
    };
    folders.into_iter().map(see).collect()
}

/// The part of `path` that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.symlink_metadata().is_ok())
        .unwrap_or(Path::new("/"))
}

fn secret(settings: &Settings) -> Secret {
    let path = &settings.on_premises_config_file;
    path.metadata()
        .ok()
        .map(|metadata| (path.clone(), metadata.mode() & 0o7777))
}

fn permissions(folders: &[Folder], secret: Secret) -> Check {
    const NAME: &str = "permissions";
    if let Some(folder) = folders.iter().find(|folder| folder.not_a_folder) {
        let text = format!("{} {} is not a folder", folder.key, folder.path.display());
        return Check::problem(NAME, text, "remove it, or set another folder");
    }
    if let Some(folder) = folders.iter().find(|folder| folder.open_to_all) {
        let text = format!(
            "{} {} is writable by everybody",
            folder.key,
            folder.path.display()
        );
        return Check::problem(NAME, text, format!("chmod o-w {}", folder.path.display()));
    }
    let closed: Vec<String> = folders
        .iter()
        .filter(|folder| !folder.writable)
        .map(|folder| format!("{} {}", folder.key, folder.path.display()))
        .collect();
    if !closed.is_empty() {
        let text = format!("this user cannot write to {}", closed.join(", "));
        return if nix::unistd::geteuid().is_root() {
            Check::problem(
                NAME,
                text,
                "check whether its file system is mounted read-only",
            )
        } else {
            Check::warning(
                NAME,
                text,
                "the agent must be able to; run doctor as the agent's user",
            )
        };
    }
    match secret {
        Some((path, mode)) if mode & 0o077 != 0 => Check::warning(
            NAME,
            format!(
                "{} contains secrets and has mode {mode:04o}",
                path.display()
            ),
            format!("chmod 600 {}", path.display()),
        ),
        _ => Check::ok(NAME, "root_dir, log_dir and pid_dir are writable"),
    }
}

/// The free space of a file system.
#[derive(Debug)]
struct Space {
    key: &'static str,
    path: PathBuf,
    /// For this user, in bytes.
    available: u64,
    /// Absent on file systems that do not count inodes.
    inodes: Option<u64>,
    read_only: bool,
}

fn spaces(settings: &Settings) -> Vec<Space> {
    let see = |(key, path): (&'static str, &PathBuf)| {
        let there = rustix::fs::statvfs(existing(path)).ok()?;
        Some(Space {
            key,
            path: path.clone(),
            available: there.f_bavail.saturating_mul(there.f_frsize),
            inodes: (there.f_files > 0).then_some(there.f_favail),
            read_only: there.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    };
    [
        ("root_dir", &settings.root_dir),
        ("log_dir", &settings.log_dir),
    ]
    .into_iter()
    .filter_map(see)
    .collect()
}

fn disk(spaces: &[Space]) -> Check {
    const NAME: &str = "disk";
    let judge = |space: &Space| {
        let place = format!("{} {}", space.key, space.path.display());
        let left = format!("{place} has {} MiB left", space.available / MIB);
        if space.read_only {
            Check::problem(
                NAME,
                format!("{place} is on a read-only file system"),
                "remount it for writing",
            )
        } else if space.available < TOO_LITTLE {
            Check::problem(NAME, left, "make room, or lower max_revisions")
        } else if space.inodes.is_some_and(|inodes| inodes < TOO_FEW_INODES) {
            let text = format!(
                "{place} has {} inodes left",
                space.inodes.unwrap_or_default()
            );
            Check::problem(NAME, text, "remove files, or lower max_revisions")
        } else if space.available < LITTLE {
            Check::warning(
                NAME,
                left,
                "a large bundle will not fit; make room, or lower max_revisions",
            )
        } else {
            Check::ok(NAME, left)
        }
    };
    let unknown = Check::warning(NAME, "the free space is unknown", "check it with `df`");
    // The first of the worst.
    spaces
        .iter()
        .map(judge)
        .reduce(|worst, next| {
            if next.verdict > worst.verdict {
                next
            } else {
                worst
            }
        })
        .unwrap_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn space(available: u64, inodes: Option<u64>, read_only: bool) -> Space {
        Space {
            key: "root_dir",
            path: "/r".into(),
            available,
            inodes,
            read_only,
        }
    }

    #[test]
    fn the_worst_file_system_is_told() {
        let plenty = || space(LITTLE, Some(TOO_FEW_INODES), false);
        let cases = [
            (vec![plenty()], Verdict::Ok, "1024 MiB left"),
            (
                vec![plenty(), space(LITTLE - 1, None, false)],
                Verdict::Warning,
                "1023 MiB left",
            ),
            (
                vec![space(TOO_LITTLE - 1, None, false), plenty()],
                Verdict::Problem,
                "99 MiB left",
            ),
            (
                vec![plenty(), space(LITTLE, Some(999), false)],
                Verdict::Problem,
                "999 inodes left",
            ),
            (
                vec![space(LITTLE, None, true)],
                Verdict::Problem,
                "read-only",
            ),
            (vec![], Verdict::Warning, "unknown"),
        ];
        for (spaces, verdict, text) in cases {
            let check = disk(&spaces);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.text.contains(text), "{check:?}");
        }
    }

    #[test]
    fn folders_open_to_all_and_readable_secrets_are_told() {
        let folder = |writable, open_to_all| Folder {
            key: "root_dir",
            path: "/r".into(),
            writable,
            open_to_all,
            not_a_folder: false,
        };
        let secret = |mode| Some((PathBuf::from("/s"), mode));
        assert_eq!(
            permissions(&[folder(true, false)], secret(0o600)).verdict,
            Verdict::Ok
        );
        assert_eq!(
            permissions(&[folder(true, false)], None).verdict,
            Verdict::Ok
        );
        let readable = permissions(&[folder(true, false)], secret(0o644));
        assert_eq!(readable.advice.as_deref(), Some("chmod 600 /s"));
        assert_eq!(
            permissions(&[folder(true, true)], None).verdict,
            Verdict::Problem
        );
        assert_ne!(
            permissions(&[folder(false, false)], None).verdict,
            Verdict::Ok
        );
    }
}
