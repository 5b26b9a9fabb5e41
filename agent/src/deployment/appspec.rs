//! Finds and reads a revision's AppSpec, and checks it against the deployment.

mod announced;
mod location;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{self, AppSpec, Invalid, Parsed, Script, closest_event};
use codedeploy_hooks::script::{ScriptFinding, inspect};

use crate::bounded_read;
pub(super) use announced::Announced;
pub(crate) use location::where_it_belongs;
pub(super) use location::{file_names, find};

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
            strategy: None,
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
