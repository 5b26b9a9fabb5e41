//! Checks that need only this host: permissions, disk space, users.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_hooks::appspec::{self, AclTag, AppSpec, Principal};
use rustix::fs::Access as Wanted;

use crate::cli::doctor::Check;
use crate::config::Settings;
use crate::spec::parse::APPSPEC_FILENAMES;

/// The time that the host's user database may take; it can be a directory service.
const NAMES_TIME: Duration = Duration::from_secs(5);

const MIB: u64 = 1024 * 1024;
/// Below this, a deployment fails; below the second one, it may fail.
const TOO_LITTLE: u64 = 100 * MIB;
const LITTLE: u64 = 1024 * MIB;
const TOO_FEW_INODES: u64 = 1000;

pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![
        permissions(&folders(settings), secret(settings)),
        disk(&spaces(settings)),
    ];
    let root = settings.root_dir.clone();
    let users = tokio::task::spawn_blocking(move || users(&Deployed::on(&root)));
    checks.push(match tokio::time::timeout(NAMES_TIME, users).await {
        Ok(Ok(check)) => check,
        Ok(Err(_)) | Err(_) => Check::warning(
            "users",
            format!(
                "the host's user database did not answer within {} s",
                NAMES_TIME.as_secs()
            ),
            "try `getent passwd`; scripts with runas will wait as long",
        ),
    });
    checks
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

/// A user or a group that an AppSpec file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    User(String),
    Group(String),
}

/// The names in the AppSpec files that apply to this host; an unreadable file has none.
#[derive(Debug, Default)]
struct Deployed {
    /// From the last successful deployments: their ApplicationStop runs in the next one.
    successful: BTreeSet<Named>,
    /// From later deployments that did not succeed, with the name of their folder.
    failed: BTreeSet<(String, Named)>,
}

impl Deployed {
    fn on(root: &Path) -> Self {
        let instructions = root.join("deployment-instructions");
        let mut deployed = Self::default();
        for entry in std::fs::read_dir(&instructions)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let Some(group) = name
                .to_str()
                .and_then(|name| name.strip_suffix("_most_recent_install"))
            else {
                continue;
            };
            let recent = pointed_to(&entry.path());
            let successful =
                pointed_to(&instructions.join(format!("{group}_last_successful_install")));
            deployed
                .successful
                .extend(successful.iter().flat_map(|folder| named_in(folder)));
            if let Some(folder) = recent.filter(|recent| Some(recent) != successful.as_ref()) {
                let id = folder
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                deployed.failed.extend(
                    named_in(&folder)
                        .into_iter()
                        .map(|named| (id.clone(), named)),
                );
            }
        }
        deployed
    }
}

fn pointed_to(pointer: &Path) -> Option<PathBuf> {
    let text = String::from_utf8(read_bounded(pointer)?).ok()?;
    Some(PathBuf::from(text.trim_end()))
}

fn named_in(deployment: &Path) -> Vec<Named> {
    let archive = deployment.join("deployment-archive");
    let text = APPSPEC_FILENAMES
        .iter()
        .find_map(|name| read_bounded(&archive.join(name)));
    text.and_then(|text| appspec::parse(&text).ok())
        .map_or_else(Vec::new, |parsed| principals(&parsed.appspec))
}

/// Reads a regular file of bounded size; never blocks on anything else.
fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let metadata = path.symlink_metadata().ok()?;
    (metadata.is_file() && metadata.len() <= appspec::MAX_BYTES as u64)
        .then(|| std::fs::read(path).ok())?
}

fn principals(appspec: &AppSpec) -> Vec<Named> {
    let scripts = appspec.hooks.iter().flat_map(|(_, scripts)| scripts);
    let mut named: Vec<Named> = scripts
        .filter_map(|script| script.runas.clone())
        .map(Named::User)
        .collect();
    for permission in &appspec.permissions {
        if let Some(Principal::Name(owner)) = &permission.owner {
            named.push(Named::User(owner.clone()));
        }
        if let Some(Principal::Name(group)) = &permission.group {
            named.push(Named::Group(group.clone()));
        }
        for entry in permission.acl.iter().flat_map(|acl| &acl.entries) {
            match &entry.tag {
                AclTag::User(Principal::Name(user)) => named.push(Named::User(user.clone())),
                AclTag::Group(Principal::Name(group)) => named.push(Named::Group(group.clone())),
                _ => {}
            }
        }
    }
    named
}

impl Named {
    fn is_known(&self) -> bool {
        match self {
            Self::User(name) => nix::unistd::User::from_name(name).is_ok_and(|user| user.is_some()),
            Self::Group(name) => {
                nix::unistd::Group::from_name(name).is_ok_and(|group| group.is_some())
            }
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(formatter, "user {name:?}"),
            Self::Group(name) => write!(formatter, "group {name:?}"),
        }
    }
}

fn users(deployed: &Deployed) -> Check {
    const NAME: &str = "users";
    let missing: Vec<String> = deployed
        .successful
        .iter()
        .filter(|named| !named.is_known())
        .map(Named::to_string)
        .collect();
    if !missing.is_empty() {
        let text = format!(
            "the installed AppSpec file names {}, missing on this host",
            missing.join(", ")
        );
        return Check::problem(
            NAME,
            text,
            "create it, or deploy an AppSpec file without it",
        );
    }
    if let Some((id, named)) = deployed.failed.iter().find(|(_, named)| !named.is_known()) {
        return Check::warning(
            NAME,
            format!(
                "the AppSpec file of {id}, which did not succeed, names {named}, missing on this host"
            ),
            "create it before you deploy that revision again",
        );
    }
    Check::ok(
        NAME,
        match deployed.successful.len() {
            0 => "the installed AppSpec file names none, or there is none".into(),
            count => format!("all {count} users and groups of the installed AppSpec file exist"),
        },
    )
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

    #[test]
    fn users_and_groups_of_the_installed_appspec_must_exist() {
        let root = tempfile::tempdir().unwrap();
        let deployment = |id: &str| {
            let archive = root
                .path()
                .join("group")
                .join(id)
                .join("deployment-archive");
            std::fs::create_dir_all(&archive).unwrap();
            archive.join("appspec.yml")
        };
        std::fs::create_dir_all(root.path().join("deployment-instructions")).unwrap();
        let pointer = |name: &str| root.path().join("deployment-instructions").join(name);
        let (successful, recent) = (
            pointer("group_last_successful_install"),
            pointer("group_most_recent_install"),
        );
        let (first, second) = (deployment("d-1"), deployment("d-2"));
        let point = |pointer: &Path, appspec: &Path| {
            std::fs::write(
                pointer,
                appspec.ancestors().nth(2).unwrap().to_str().unwrap(),
            )
            .unwrap();
        };
        let appspec = |user: &str| {
            format!(
                "version: 0.0\nos: linux\npermissions:\n  - object: /srv\n    owner: root\n    group: root\n\
                 hooks:\n  ApplicationStart:\n    - location: x.sh\n      runas: {user}\n"
            )
        };
        let judged = || users(&Deployed::on(root.path()));
        std::fs::write(
            &first,
            appspec("no-such-user").replace("group: root", "group: no-such-group"),
        )
        .unwrap();
        std::fs::write(&second, appspec("no-such-user")).unwrap();
        point(&successful, &first);
        point(&recent, &first);
        let check = judged();
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(
            check
                .text
                .contains("user \"no-such-user\", group \"no-such-group\""),
            "{check:?}"
        );

        std::fs::write(&first, appspec("root")).unwrap();
        assert_eq!(judged().verdict, Verdict::Ok);
        point(&recent, &second);
        let check = judged();
        assert_eq!(
            check.verdict,
            Verdict::Warning,
            "a deployment that failed is history: {check:?}"
        );
        assert!(
            check.text.contains("d-2") && check.text.contains("no-such-user"),
            "{check:?}"
        );

        let noise: [&[u8]; 3] = [b"", b"\xff\xfe", &vec![b'x'; 10 << 20]];
        for noise in noise {
            std::fs::write(&first, noise).unwrap();
            std::fs::write(&recent, noise).unwrap();
            assert_eq!(judged().verdict, Verdict::Ok);
            std::fs::write(&successful, noise).unwrap();
            assert_eq!(judged().verdict, Verdict::Ok);
        }
    }
}
