//! Finds and reads a revision's AppSpec, and checks it against the deployment.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{self, AppSpec, Invalid, Parsed, Script, closest_event};
use codedeploy_hooks::script::{ScriptFinding, inspect};

use crate::bounded_read;
use crate::spec::parse::APPSPEC_FILENAMES;

#[derive(Debug, thiserror::Error)]
pub(super) enum AppSpecError {
    #[error("the revision has no AppSpec file: {} does not exist; {elsewhere}", path.display())]
    Missing { path: PathBuf, elsewhere: String },
    #[error("cannot read the AppSpec file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the AppSpec file {} is not valid:\n{problems}", path.display())]
    Invalid { path: PathBuf, problems: Invalid },
    #[error("the AppSpec file names lifecycle events that this deployment does not have: {}", events.join(", "))]
    UnknownEvents { events: Vec<String> },
    #[error(
        "the AppSpec file names scripts that are links out of the revision, which are not run; put the scripts themselves \
         into it: {}",
        scripts.join(", ")
    )]
    LinkedScripts { scripts: Vec<String> },
    #[error(
        "this deployment has custom lifecycle events for which the AppSpec file names no scripts: {}",
        names(events)
    )]
    UndefinedEvents { events: Vec<LifecycleEvent> },
    #[error(
        "AllPossibleLifecycleEvents of this deployment lacks standard events: {}",
        names(events)
    )]
    LackingEvents { events: Vec<LifecycleEvent> },
}

impl AppSpecError {
    /// The same error for a revision that will be at `archive`.
    pub(super) fn in_archive(self, archive: &Path, named: &str) -> Self {
        match self {
            Self::Missing { elsewhere, .. } => Self::Missing {
                path: archive.join(named),
                elsewhere,
            },
            other => other,
        }
    }
}

fn names(events: &[LifecycleEvent]) -> String {
    events
        .iter()
        .map(LifecycleEvent::name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The names of the AppSpec file, in order of search.
pub(super) fn file_names(named: &str) -> Vec<String> {
    let fallbacks = APPSPEC_FILENAMES
        .iter()
        .rev()
        .filter(|name| **name != named);
    std::iter::once(named)
        .chain(fallbacks.copied())
        .map(str::to_owned)
        .collect()
}

/// Returns the AppSpec file of the revision in `archive`: the named one, else one with a usual
/// name.
pub(super) fn find(archive: &Path, named: &str) -> Result<PathBuf, AppSpecError> {
    let exists = |path: &PathBuf| path.symlink_metadata().is_ok();
    file_names(named)
        .iter()
        .map(|name| archive.join(name))
        .find(exists)
        .ok_or_else(|| AppSpecError::Missing {
            path: archive.join(named),
            elsewhere: where_it_belongs(archive, named),
        })
}

/// The number of names of a revision that are searched for a misplaced AppSpec file, and the depth
/// of the search.
const MAX_LOOKED_AT: usize = 10_000;
const MAX_DEPTH: usize = 5;

/// Returns advice if `archive` has no AppSpec file at its root: about one with another name or in a
/// folder below, for example when a folder was bundled instead of its contents together with
/// something else (`__MACOSX`).
pub(crate) fn where_it_belongs(archive: &Path, named: &str) -> String {
    let rule = "it belongs at the root of the bundle";
    let Some(found) = elsewhere(archive, named) else {
        return rule.to_owned();
    };
    match found
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        None => format!("{rule}, and this bundle has {found:?}: rename it to {named}"),
        Some(folder)
            if found.file_name().is_some_and(|name| {
                file_names(named).iter().any(|known| name == known.as_str())
            }) =>
        {
            format!(
                "{rule}, and this bundle has {found:?}: pack what is in {folder:?}, and nothing beside it"
            )
        }
        Some(_) => format!("{rule}, and this bundle has {found:?}: put it there as {named}"),
    }
}

/// Returns the path in `archive` of the likely AppSpec file, the nearest to the root.
fn elsewhere(archive: &Path, named: &str) -> Option<PathBuf> {
    let mut folders = VecDeque::from([PathBuf::new()]);
    let mut looked_at = 0;
    while let Some(folder) = folders.pop_front() {
        let mut entries: Vec<_> = std::fs::read_dir(archive.join(&folder))
            .ok()?
            .filter_map(Result::ok)
            .collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_folder && is_like_appspec(&entry.file_name().to_string_lossy(), named) {
                return Some(path);
            }
            looked_at += 1;
            if looked_at > MAX_LOOKED_AT {
                return None;
            }
            if is_folder && path.components().count() <= MAX_DEPTH {
                folders.push_back(path);
            }
        }
    }
    None
}

/// Whether a file's name resembles that of an AppSpec file, with another spelling or ending.
fn is_like_appspec(name: &str, named: &str) -> bool {
    let plain: String = name
        .to_lowercase()
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .collect();
    let stem = plain.split('.').next().unwrap_or_default();
    name.eq_ignore_ascii_case(named) || (stem == "appspec" && plain != "appspec")
}

/// The AppSpec files whose warnings were logged: every event of a deployment reads the same one.
/// Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Announced(Arc<Mutex<VecDeque<PathBuf>>>);

/// The number of files that are remembered; the oldest is dropped first.
const MAX_ANNOUNCED: usize = 64;

impl Announced {
    /// Logs the warnings about the AppSpec file at `path` once. Without a path, the warnings belong
    /// to this event alone.
    pub(super) fn warn(&self, path: &Path, warnings: &[String]) {
        if path.as_os_str().is_empty() {
            return warnings
                .iter()
                .for_each(|warning| tracing::warn!("{warning}"));
        }
        if warnings.is_empty() || !self.is_first(path) {
            return;
        }
        for warning in warnings {
            tracing::warn!(file = %path.display(), "{warning}");
        }
    }

    fn is_first(&self, path: &Path) -> bool {
        let mut announced = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.iter().any(|known| known == path) {
            return false;
        }
        announced.push_back(path.to_owned());
        if announced.len() > MAX_ANNOUNCED {
            announced.pop_front();
        }
        true
    }
}

/// Returns the scripts of `event` in the AppSpec file of the earlier revision in `archive`, and a
/// warning if the file has mistakes: whatever agent deployed it, this host continues from it.
pub(super) fn scripts_of_earlier(
    archive: &Path,
    named: &str,
    event: &LifecycleEvent,
) -> Result<(Vec<Script>, Option<String>), AppSpecError> {
    let path = find(archive, named)?;
    let text = match read_bounded(archive, &path) {
        Ok(text) => text,
        Err(error) => {
            let nothing = format!(
                "{event} does nothing: the earlier revision's AppSpec file {} cannot be read: {error}",
                path.display()
            );
            return Ok((Vec::new(), Some(nothing)));
        }
    };
    let (scripts, problems) = appspec::scripts_of_earlier(&text, event);
    // Warn only once: every deployment has an ApplicationStop.
    let matters = !scripts.is_empty() || *event == LifecycleEvent::ApplicationStop;
    let warning = problems.first().filter(|_| matters).map(|first| {
        let more = match problems.len() {
            1 => String::new(),
            number => format!(" (and {} more)", number - 1),
        };
        format!(
            "the earlier revision's AppSpec file {} would be refused now; of it only the {} of {event} counts: {first}{more}",
            path.display(),
            counted(scripts.len(), "script")
        )
    });
    Ok((scripts, warning))
}

fn counted(number: usize, word: &str) -> String {
    if number == 1 {
        format!("1 {word}")
    } else {
        format!("{number} {word}s")
    }
}

/// Returns the AppSpec file of the revision in `archive`, with its path and its warnings. `earlier`
/// means that a revision is deployed again.
pub(super) fn parsed(
    archive: &Path,
    named: &str,
    earlier: bool,
) -> Result<(PathBuf, Parsed), AppSpecError> {
    let path = find(archive, named)?;
    let text = read_bounded(archive, &path).map_err(|source| AppSpecError::Read {
        path: path.clone(),
        source,
    })?;
    let parsed = if earlier {
        appspec::parse_earlier(&text)
    } else {
        appspec::parse(&text)
    };
    let parsed = parsed.map_err(|problems| AppSpecError::Invalid {
        path: path.clone(),
        problems,
    })?;
    Ok((path, parsed))
}

/// Reads at most one byte more than an AppSpec may have, from a regular file inside the archive.
pub(crate) fn read_bounded(archive: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let real = path.canonicalize()?;
    if !real.starts_with(archive.canonicalize()?) {
        return Err(io::Error::other(
            "it is a link that leads out of the revision",
        ));
    }
    let mut text = Vec::new();
    bounded_read::open(&real)?
        .take(appspec::MAX_BYTES as u64 + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// Checks the AppSpec's events against the deployment's list of possible events; without a list,
/// any event is allowed (spec: Deployment specification).
pub(super) fn check_events(
    appspec: &AppSpec,
    possible: Option<&[LifecycleEvent]>,
) -> Result<(), AppSpecError> {
    let Some(possible) = possible else {
        return Ok(());
    };
    let defined = |event: &LifecycleEvent| appspec.hooks.iter().any(|(name, _)| name == event);
    let unknown = appspec
        .hooks
        .iter()
        .map(|(event, _)| event)
        .filter(|event| !possible.contains(event));
    let unknown = unknown
        .map(LifecycleEvent::name)
        .chain(appspec.unknown_hooks.iter().map(String::as_str));
    let unknown: Vec<String> = unknown.map(with_meant).collect();
    if !unknown.is_empty() {
        return Err(AppSpecError::UnknownEvents { events: unknown });
    }
    let lacking: Vec<_> = LifecycleEvent::standard()
        .filter(|event| event.is_hook() && !possible.contains(event))
        .collect();
    if !lacking.is_empty() {
        return Err(AppSpecError::LackingEvents { events: lacking });
    }
    let custom = possible
        .iter()
        .filter(|event| matches!(event, LifecycleEvent::Custom(_)));
    let undefined: Vec<_> = custom.filter(|event| !defined(event)).cloned().collect();
    if undefined.is_empty() {
        Ok(())
    } else {
        Err(AppSpecError::UndefinedEvents { events: undefined })
    }
}

/// `name`, with the event that it may misspell.
fn with_meant(name: &str) -> String {
    let name: String = name
        .chars()
        .take(128)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    match closest_event(&name).filter(|meant| meant.name() != name) {
        Some(meant) => format!("{name} (did you mean {meant}?)"),
        None => name,
    }
}

/// Warns about hooks whose scripts never run; without a list of the deployment's events, these are
/// all but the standard ones.
pub(super) fn idle_hooks(appspec: &AppSpec, possible: Option<&[LifecycleEvent]>) -> Option<String> {
    let runs = |event: &LifecycleEvent| {
        event.is_hook() || possible.is_some_and(|possible| possible.contains(event))
    };
    let idle = appspec
        .hooks
        .iter()
        .map(|(event, _)| event)
        .filter(|event| !runs(event));
    let idle = idle
        .map(LifecycleEvent::name)
        .chain(appspec.unknown_hooks.iter().map(String::as_str));
    let idle: Vec<String> = idle.map(with_meant).collect();
    let first: Vec<&str> = idle.iter().take(MAX_NAMED).map(String::as_str).collect();
    let more = if idle.len() > first.len() {
        ", …"
    } else {
        ""
    };
    (!idle.is_empty()).then(|| {
        format!("the scripts of these hooks never run, because a host has no scripts for an event of that name: {}{more}", first.join(", "))
    })
}

/// The number of names in a message.
const MAX_NAMED: usize = 10;

/// Rejects scripts that are links out of the revision, because they would be rejected when they
/// run.
pub(super) fn check_links(archive: &Path, appspec: &AppSpec) -> Result<(), AppSpecError> {
    let leads_out =
        |script: &&Script| inspect(archive, script).contains(&ScriptFinding::OutsideRevision);
    let scripts = appspec.hooks.iter().flat_map(|(event, scripts)| {
        scripts
            .iter()
            .filter(leads_out)
            .map(move |script| format!("{} of {event}", script.location.written()))
    });
    let scripts: Vec<String> = scripts.take(MAX_NAMED).collect();
    if scripts.is_empty() {
        Ok(())
    } else {
        Err(AppSpecError::LinkedScripts { scripts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_hooks(names: &[&str]) -> AppSpec {
        let hooks = names
            .iter()
            .map(|name| (name.parse().unwrap(), Vec::new()))
            .collect();
        AppSpec {
            files: vec![],
            file_exists_behavior: None,
            permissions: vec![],
            hooks,
            unknown_hooks: vec![],
        }
    }

    #[test]
    fn events_outside_the_deployments_list_are_errors_either_way() {
        let mut possible: Vec<LifecycleEvent> = LifecycleEvent::standard().collect();
        let appspec = with_hooks(&["BeforeInstall", "WarmUp"]);
        assert!(check_events(&appspec, None).is_ok());
        let message = check_events(&appspec, Some(&possible))
            .unwrap_err()
            .to_string();
        assert!(message.ends_with(": WarmUp"), "{message}");
        possible.push("WarmUp".parse().unwrap());
        assert!(check_events(&appspec, Some(&possible)).is_ok());
        let message = check_events(&with_hooks(&[]), Some(&possible))
            .unwrap_err()
            .to_string();
        assert!(message.contains("no scripts: WarmUp"), "{message}");
        let message = check_events(&with_hooks(&[]), Some(&possible[1..]))
            .unwrap_err()
            .to_string();
        assert!(message.ends_with(": BeforeBlockTraffic"), "{message}");
    }

    #[test]
    fn the_usual_names_are_tried_when_the_named_file_is_missing() {
        let archive = tempfile::tempdir().unwrap();
        let missing = find(archive.path(), "deploy/app.yml")
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("deploy/app.yml does not exist"),
            "{missing}"
        );
        std::fs::write(archive.path().join("appspec.yml"), "").unwrap();
        assert_eq!(
            find(archive.path(), "deploy/app.yml").unwrap(),
            archive.path().join("appspec.yml")
        );
        std::fs::write(archive.path().join("appspec.yaml"), "").unwrap();
        assert_eq!(
            find(archive.path(), "deploy/app.yml").unwrap(),
            archive.path().join("appspec.yaml")
        );
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
            assert!(
                message.contains(r#"this bundle has "my app/appspec.yml": "#),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_in_a_wrong_place_or_with_a_wrong_name_is_named() {
        for (found, hint) in [
            (
                "AppSpec.yml",
                r#"has "AppSpec.yml": rename it to appspec.yml"#,
            ),
            ("appspec.yml.txt", r#"has "appspec.yml.txt": rename"#),
            ("appspec.json", r#"has "appspec.json": rename"#),
            ("app-spec.yml", r#"has "app-spec.yml": rename"#),
            (
                "deploy/linux/appspec.yml",
                r#"has "deploy/linux/appspec.yml": pack what is in "deploy/linux", and nothing beside"#,
            ),
            (
                "deploy/AppSpec.yaml",
                r#"has "deploy/AppSpec.yaml": put it there as appspec.yml"#,
            ),
        ] {
            let archive = tempfile::tempdir().unwrap();
            let path = archive.path().join(found);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::create_dir(archive.path().join("appspec")).unwrap();
            std::fs::write(path, "").unwrap();
            let message = find(archive.path(), "appspec.yml").unwrap_err().to_string();
            assert!(message.contains(hint), "{message}");
        }
    }

    #[test]
    fn hooks_whose_scripts_never_run_are_named_with_what_may_be_meant() {
        let mut appspec = with_hooks(&["BeforeInstall", "applicationStart", "WarmUp", "Install"]);
        appspec.unknown_hooks.push("After Install".into());
        let told = idle_hooks(&appspec, None).unwrap();
        let expected = ": applicationStart (did you mean ApplicationStart?), WarmUp, Install, After Install (did you mean \
                        AfterInstall?)";
        assert!(told.ends_with(expected), "{told}");
        let possible = ["WarmUp".parse().unwrap()];
        assert_eq!(
            idle_hooks(&with_hooks(&["WarmUp", "BeforeInstall"]), Some(&possible)),
            None
        );
    }

    #[test]
    fn an_appspec_that_leads_out_of_the_revision_is_not_read() {
        let archive = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", archive.path().join("appspec.yml")).unwrap();
        let error = parsed(archive.path(), "appspec.yml", false).unwrap_err();
        assert!(matches!(error, AppSpecError::Read { .. }), "{error}");
    }
}
