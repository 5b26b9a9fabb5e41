//! The check of users and groups that the installed AppSpec file names.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_hooks::appspec::{self, AclTag, AppSpec, Principal};

use crate::cli::doctor::Check;
use crate::config::Settings;
use crate::spec::parse::APPSPEC_FILENAMES;

/// The time that the host's user database may take; it can be a directory service.
const NAMES_TIME: Duration = Duration::from_secs(5);

pub(super) async fn check(settings: &Settings) -> Check {
    let root = settings.root_dir.clone();
    let users = tokio::task::spawn_blocking(move || users(&Deployed::on(&root)));
    match tokio::time::timeout(NAMES_TIME, users).await {
        Ok(Ok(check)) => check,
        Ok(Err(_)) | Err(_) => Check::warning(
            "users",
            format!(
                "the host's user database did not answer within {} s",
                NAMES_TIME.as_secs()
            ),
            "try `getent passwd`; scripts with runas will wait as long",
        ),
    }
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
