//! Finding and reading a revision's AppSpec, and what the deployment allows it to say.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{self, AppSpec, Invalid, Parsed};

use crate::regular;
use crate::spec::parse::APPSPEC_FILENAMES;

#[derive(Debug, thiserror::Error)]
pub(super) enum AppSpecError {
    #[error(
        "the revision has no AppSpec file: {} does not exist; {}",
        path.display(),
        where_it_belongs(elsewhere.as_deref())
    )]
    Missing { path: PathBuf, elsewhere: Option<OsString> },
    #[error("cannot read the AppSpec file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the AppSpec file {} is not valid:\n{problems}", path.display())]
    Invalid { path: PathBuf, problems: Invalid },
    #[error("the AppSpec file names lifecycle events that this deployment does not have: {}", names(events))]
    UnknownEvents { events: Vec<LifecycleEvent> },
    #[error(
        "this deployment has custom lifecycle events for which the AppSpec file names no scripts: {}",
        names(events)
    )]
    UndefinedEvents { events: Vec<LifecycleEvent> },
    #[error("AllPossibleLifecycleEvents of this deployment lacks standard events: {}", names(events))]
    LackingEvents { events: Vec<LifecycleEvent> },
}

impl AppSpecError {
    /// The same, for a revision that is on its way to `archive`.
    pub(super) fn in_archive(self, archive: &Path, named: &str) -> Self {
        match self {
            Self::Missing { elsewhere, .. } => Self::Missing { path: archive.join(named), elsewhere },
            other => other,
        }
    }
}

fn names(events: &[LifecycleEvent]) -> String {
    events.iter().map(LifecycleEvent::name).collect::<Vec<_>>().join(", ")
}

/// The names under which the AppSpec is looked for, in order.
pub(super) fn file_names(named: &str) -> Vec<String> {
    let fallbacks = APPSPEC_FILENAMES.iter().rev().filter(|name| **name != named);
    std::iter::once(named).chain(fallbacks.copied()).map(str::to_owned).collect()
}

/// The AppSpec file of the revision in `archive`: the one that is named, else one with a usual name.
pub(super) fn find(archive: &Path, named: &str) -> Result<PathBuf, AppSpecError> {
    let exists = |path: &PathBuf| path.symlink_metadata().is_ok();
    file_names(named).iter().map(|name| archive.join(name)).find(exists).ok_or_else(|| {
        AppSpecError::Missing { path: archive.join(named), elsewhere: elsewhere(archive, named) }
    })
}

/// The folder of the revision that has the AppSpec file, as when a bundle is made of a folder instead of its contents,
/// and something else comes along (`__MACOSX`).
fn elsewhere(archive: &Path, named: &str) -> Option<OsString> {
    let holds_it = |folder: &Path| {
        let exists = |name: &String| folder.join(name).symlink_metadata().is_ok();
        !folder.is_symlink() && file_names(named).iter().any(exists)
    };
    let mut folders = std::fs::read_dir(archive).ok()?.filter_map(Result::ok);
    folders.find(|entry| holds_it(&entry.path())).map(|entry| entry.file_name())
}

fn where_it_belongs(elsewhere: Option<&OsStr>) -> String {
    let rule = "it belongs at the root of the bundle";
    elsewhere.map_or(rule.to_owned(), |folder| {
        format!(
            "{rule}, and this bundle has it in {folder:?}: pack what is in that folder, and nothing beside it"
        )
    })
}

pub(super) fn read(archive: &Path, named: &str) -> Result<AppSpec, AppSpecError> {
    let (path, parsed) = parsed(archive, named)?;
    for warning in parsed.warnings {
        tracing::warn!(file = %path.display(), "AppSpec: {warning}");
    }
    Ok(parsed.appspec)
}

/// The AppSpec file of the revision in `archive`, where it is, and what is odd about it.
pub(super) fn parsed(archive: &Path, named: &str) -> Result<(PathBuf, Parsed), AppSpecError> {
    let path = find(archive, named)?;
    let text =
        read_bounded(archive, &path).map_err(|source| AppSpecError::Read { path: path.clone(), source })?;
    let parsed =
        appspec::parse(&text).map_err(|problems| AppSpecError::Invalid { path: path.clone(), problems })?;
    Ok((path, parsed))
}

/// Reads at most one byte more than an AppSpec may have, from a regular file inside the archive.
fn read_bounded(archive: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let real = path.canonicalize()?;
    if !real.starts_with(archive.canonicalize()?) {
        return Err(io::Error::other("it is a link that leads out of the revision"));
    }
    let mut text = Vec::new();
    regular::open(&real)?.take(appspec::MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Checks the AppSpec's events against those that the deployment says it can have; without such a list, any may be
/// named (spec: Deployment specification).
pub(super) fn check_events(
    appspec: &AppSpec,
    possible: Option<&[LifecycleEvent]>,
) -> Result<(), AppSpecError> {
    let Some(possible) = possible else { return Ok(()) };
    let defined = |event: &LifecycleEvent| appspec.hooks.iter().any(|(name, _)| name == event);
    let unknown: Vec<_> = appspec
        .hooks
        .iter()
        .map(|(event, _)| event)
        .filter(|event| !possible.contains(event))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Err(AppSpecError::UnknownEvents { events: unknown });
    }
    let lacking: Vec<_> =
        LifecycleEvent::standard().filter(|event| event.is_hook() && !possible.contains(event)).collect();
    if !lacking.is_empty() {
        return Err(AppSpecError::LackingEvents { events: lacking });
    }
    let custom = possible.iter().filter(|event| matches!(event, LifecycleEvent::Custom(_)));
    let undefined: Vec<_> = custom.filter(|event| !defined(event)).cloned().collect();
    if undefined.is_empty() { Ok(()) } else { Err(AppSpecError::UndefinedEvents { events: undefined }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_hooks(names: &[&str]) -> AppSpec {
        let hooks = names.iter().map(|name| (name.parse().unwrap(), Vec::new())).collect();
        AppSpec { files: vec![], file_exists_behavior: None, permissions: vec![], hooks }
    }

    #[test]
    fn events_outside_the_deployments_list_are_errors_either_way() {
        let mut possible: Vec<LifecycleEvent> = LifecycleEvent::standard().collect();
        let appspec = with_hooks(&["BeforeInstall", "WarmUp"]);
        assert!(check_events(&appspec, None).is_ok());
        let message = check_events(&appspec, Some(&possible)).unwrap_err().to_string();
        assert!(message.ends_with(": WarmUp"), "{message}");
        possible.push("WarmUp".parse().unwrap());
        assert!(check_events(&appspec, Some(&possible)).is_ok());
        let message = check_events(&with_hooks(&[]), Some(&possible)).unwrap_err().to_string();
        assert!(message.contains("no scripts: WarmUp"), "{message}");
        let message = check_events(&with_hooks(&[]), Some(&possible[1..])).unwrap_err().to_string();
        assert!(message.ends_with(": BeforeBlockTraffic"), "{message}");
    }

    #[test]
    fn the_usual_names_are_tried_when_the_named_file_is_missing() {
        let archive = tempfile::tempdir().unwrap();
        let missing = find(archive.path(), "deploy/app.yml").unwrap_err().to_string();
        assert!(missing.contains("deploy/app.yml does not exist"), "{missing}");
        std::fs::write(archive.path().join("appspec.yml"), "").unwrap();
        assert_eq!(find(archive.path(), "deploy/app.yml").unwrap(), archive.path().join("appspec.yml"));
        std::fs::write(archive.path().join("appspec.yaml"), "").unwrap();
        assert_eq!(find(archive.path(), "deploy/app.yml").unwrap(), archive.path().join("appspec.yaml"));
    }

    #[test]
    fn a_missing_file_is_looked_for_one_folder_deeper() {
        let archive = tempfile::tempdir().unwrap();
        let message = |named| find(archive.path(), named).unwrap_err().to_string();
        std::fs::create_dir(archive.path().join("__MACOSX")).unwrap();
        std::fs::create_dir(archive.path().join("my app")).unwrap();
        assert!(message("appspec.yml").ends_with("it belongs at the root of the bundle"));
        std::fs::write(archive.path().join("my app/appspec.yml"), "").unwrap();
        for named in ["appspec.yml", "deploy.yml"] {
            let message = message(named);
            assert!(message.contains(r#"this bundle has it in "my app": pack what is in"#), "{message}");
        }
    }

    #[test]
    fn an_appspec_that_leads_out_of_the_revision_is_not_read() {
        let archive = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", archive.path().join("appspec.yml")).unwrap();
        let error = read(archive.path(), "appspec.yml").unwrap_err();
        assert!(matches!(error, AppSpecError::Read { .. }), "{error}");
    }
}
