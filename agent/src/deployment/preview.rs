//! The preview of a deployment's effect on this host, without changing it.
//!
//! The real deployment code fetches and unpacks the revision, into a temporary store; the host's
//! own store is only read.

use std::path::{Path, PathBuf};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{AppSpec, Parsed, Script};
use codedeploy_hooks::install::{self, Conflict};
use codedeploy_hooks::lifecycle::{Origin, origin};
use codedeploy_hooks::script::{ScriptFinding, inspect};
use tokio_util::sync::CancellationToken;

use super::install::own_folders;
use super::slots::{fill, placed};
use super::{CommandError, Host, appspec, blocking, download};
use crate::config::Settings;
use crate::deployment::appspec::AppSpecError;
use crate::deployment_root::{DeploymentFolder, Pointer};
use crate::revision::{LocalRevision, Revision};
use crate::slots::layout::{Layout, Live};
use crate::spec::DeploymentSpec;
use codedeploy_api::chain::Chain;

/// The preview of a deployment.
#[derive(Debug)]
pub struct Preview {
    /// In the order of execution.
    pub events: Vec<EventPreview>,
    pub install: install::Preview,
    /// The conflicts of Install, except those that an earlier script may remove.
    pub conflicts: Vec<String>,
    pub warnings: Vec<String>,
}

/// One event and its scripts.
#[derive(Debug)]
pub struct EventPreview {
    pub event: LifecycleEvent,
    /// The origin of the scripts; `None` for an event that the agent performs itself.
    pub origin: Option<Origin>,
    /// The unpacked earlier revision of the scripts; `None` for this deployment's own.
    pub archive: Option<PathBuf>,
    pub scripts: Vec<ScriptPreview>,
    /// The event's part in a deployment with slots.
    pub note: Option<String>,
}

/// One script, with its findings.
#[derive(Debug)]
pub struct ScriptPreview {
    pub script: Script,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
}

/// The reason why there is no preview: the deployment would fail before its Install.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PreviewError(String);

impl Preview {
    /// Whether the deployment could start, as far as can be seen.
    pub fn can_start(&self) -> bool {
        self.conflicts.is_empty() && self.problems() == 0
    }

    /// The number of script problems that would make the deployment fail.
    pub fn problems(&self) -> usize {
        self.events
            .iter()
            .flat_map(|event| &event.scripts)
            .map(|script| script.problems.len())
            .sum()
    }
}

/// Previews `spec`, event by event in `order`; `scratch` is an empty folder for the unpacked
/// revision. Nothing outside `scratch` is changed.
pub async fn preview(
    host: &Host,
    spec: &DeploymentSpec,
    order: &[LifecycleEvent],
    scratch: &Path,
) -> Result<Preview, PreviewError> {
    if host.store.is_own_name(&spec.deployment_group_id) {
        let error = CommandError::ReservedGroup(spec.deployment_group_id.clone());
        return Err(PreviewError(error.to_string()));
    }
    let settings = Settings {
        root_dir: scratch.to_owned(),
        ..host.settings.clone()
    };
    let elsewhere = Host::new(settings, host.environment.clone(), host.access.clone());
    let archive = elsewhere.folder(spec).archive();
    let named = |error: CommandError| {
        // The scratch folder is gone when this is read.
        let text = Chain(&error).to_string();
        PreviewError(text.replace(&format!("{}/", archive.display()), ""))
    };
    download::download(&elsewhere, spec).await.map_err(named)?;
    look(host, spec, order, &elsewhere, &archive)
        .await
        .map_err(named)
}

/// Returns the lifecycle events with scripts in the AppSpec file of the revision; `scratch` is an
/// empty folder for a bundle that must be unpacked first.
pub async fn defined_events(
    host: &Host,
    spec: &DeploymentSpec,
    scratch: &Path,
) -> Result<Vec<LifecycleEvent>, PreviewError> {
    let named = |error: &dyn std::error::Error| PreviewError(error.to_string());
    let archive = match &spec.revision {
        Revision::Local(LocalRevision::Directory { location }) => location.clone(),
        _ => {
            let settings = Settings {
                root_dir: scratch.to_owned(),
                ..host.settings.clone()
            };
            let elsewhere = Host::new(settings, host.environment.clone(), host.access.clone());
            download::download(&elsewhere, spec)
                .await
                .map_err(|error| named(&error))?;
            elsewhere.folder(spec).archive()
        }
    };
    let (_, parsed) = appspec::parsed(
        &archive,
        &spec.appspec_filename,
        host.is_deployed_again(spec),
    )
    .map_err(|error| named(&error))?;
    Ok(parsed
        .appspec
        .hooks
        .into_iter()
        .map(|(event, _)| event)
        .collect())
}

async fn look(
    host: &Host,
    spec: &DeploymentSpec,
    order: &[LifecycleEvent],
    elsewhere: &Host,
    archive: &Path,
) -> Result<Preview, CommandError> {
    let again = host.is_deployed_again(spec);
    let (_, parsed) = appspec::parsed(archive, &spec.appspec_filename, again)?;
    let odd = parsed.lint(archive);
    let Parsed {
        appspec, warnings, ..
    } = parsed;
    appspec::check_events(&appspec, spec.all_possible_lifecycle_events.as_deref())?;
    let mut warnings: Vec<String> = warnings
        .iter()
        .chain(&odd)
        .map(ToString::to_string)
        .collect();

    let records = match host.store.recorded(&spec.deployment_group_id) {
        Some(records) => records,
        None => elsewhere.store.records(&spec.deployment_group_id)?,
    };
    let behavior = spec.file_exists_behavior;
    let reject_unconfined = host.settings.hardening.reject_unconfined_selinux;
    let deployment = elsewhere.folder(spec);
    let (install, layout) = {
        let (archive, appspec, reserved) = (
            archive.to_owned(),
            appspec.clone(),
            own_folders(&host.settings),
        );
        let (store, group) = (host.store.clone(), spec.deployment_group_id.clone());
        let stop = CancellationToken::new();
        // Nobody waits any more when this future is dropped.
        let _stopped = stop.clone().drop_guard();
        let planned = blocking(move || {
            let filled = fill::preview(&store, &group, appspec, &reserved)?;
            let preview = install::preview(&install::Request {
                deployment: deployment.path(),
                archive: &archive,
                appspec: &filled.appspec,
                behavior,
                records: &records,
                given: None,
                reject_unconfined,
                reserved: &reserved,
                slot: filled.slot.as_ref(),
                note: None,
                stop: &stop,
            })?;
            Ok::<_, CommandError>((preview, filled.layout))
        });
        planned.await??
    };

    let mut events = Vec::new();
    let mut downloaded = false;
    let mut scripts_ran = false;
    let mut conflicts = Vec::new();
    for event in order {
        if *event == LifecycleEvent::Install {
            conflicts.extend(judge(install.conflicts(), scripts_ran, &mut warnings));
        }
        downloaded |= *event == LifecycleEvent::DownloadBundle;
        let own = downloaded.then_some((archive, &appspec));
        let mut preview = event_preview(host, event, spec, own, scripts_ran, &mut warnings)?;
        preview.note = slot_note(event, layout).or(preview.note);
        scripts_ran |= !preview.scripts.is_empty();
        events.push(preview);
    }
    warnings.extend(install.warnings().iter().cloned());
    Ok(Preview {
        events,
        install,
        conflicts,
        warnings,
    })
}

/// The part of an event in a deployment with slots.
fn slot_note(event: &LifecycleEvent, layout: Option<Layout>) -> Option<String> {
    let Layout { live, idle } = layout?;
    match event {
        LifecycleEvent::Install => Some(format!("by the agent, into the slot {idle}")),
        LifecycleEvent::ValidateService => Some(match live {
            Live::Nothing => format!("then the slot {idle} serves"),
            Live::Folder => {
                format!("then the slot {idle} serves, and the folder becomes the slot blue")
            }
            Live::Slot(live) => format!("then the slot {idle} serves instead of {live}"),
        }),
        _ => None,
    }
}

/// `own` is this deployment's revision, from DownloadBundle on.
fn event_preview(
    host: &Host,
    event: &LifecycleEvent,
    spec: &DeploymentSpec,
    own: Option<(&Path, &AppSpec)>,
    scripts_ran: bool,
    warnings: &mut Vec<String>,
) -> Result<EventPreview, CommandError> {
    let nothing = |origin| EventPreview {
        event: event.clone(),
        origin,
        archive: None,
        scripts: Vec::new(),
        note: None,
    };
    if matches!(
        event,
        LifecycleEvent::DownloadBundle | LifecycleEvent::Install
    ) {
        return Ok(nothing(None));
    }
    let origin = origin(event, spec.kind, own.is_some());
    let judge = |archive: &Path, scripts: &[Script]| {
        scripts
            .iter()
            .map(|script| judged(archive, script, scripts_ran))
            .collect()
    };
    if *event == LifecycleEvent::ApplicationStop
        && own.is_none()
        && placed::is_deferred(&host.store, &spec.deployment_group_id)
    {
        let note = "after the switch to the new revision".to_owned();
        return Ok(EventPreview {
            note: Some(note),
            ..nothing(Some(origin))
        });
    }
    let pointer = match (origin, own) {
        (Origin::ThisDeployment, Some((archive, appspec))) => {
            let scripts = judge(archive, appspec.scripts(event));
            return Ok(EventPreview {
                scripts,
                ..nothing(Some(origin))
            });
        }
        (Origin::ThisDeployment, None) => return Ok(nothing(Some(origin))),
        (Origin::LastSuccessful, _) => Pointer::LastSuccessful,
        (Origin::MostRecent, _) => Pointer::MostRecent,
    };
    let earlier = host.store.pointed(&spec.deployment_group_id, pointer);
    let Some(archive) = earlier.as_ref().map(DeploymentFolder::archive) else {
        return Ok(nothing(Some(origin)));
    };
    match appspec::scripts_of_earlier(&archive, &spec.appspec_filename, event) {
        Ok((scripts, warning)) => {
            warnings.extend(warning);
            let scripts = judge(&archive, &scripts);
            Ok(EventPreview {
                scripts,
                archive: Some(archive),
                ..nothing(Some(origin))
            })
        }
        Err(AppSpecError::Missing { .. }) => {
            warnings.push(format!(
                "{event} does nothing: the earlier revision {} is gone",
                archive.display()
            ));
            Ok(nothing(Some(origin)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the conflicts that remain. An account that does not exist yet is only a warning if
/// scripts run before Install, because BeforeInstall may create it.
fn judge(conflicts: &[Conflict], scripts_ran: bool, warnings: &mut Vec<String>) -> Vec<String> {
    let may_be_made = |conflict: &&Conflict| {
        matches!(
            conflict,
            Conflict::UnknownUser { .. } | Conflict::UnknownGroup { .. }
        )
    };
    let (accounts, others): (Vec<_>, Vec<_>) = conflicts.iter().partition(may_be_made);
    let accounts = accounts.into_iter().map(ToString::to_string);
    let others = others.into_iter().map(ToString::to_string);
    if scripts_ran {
        warnings.extend(
            accounts.map(|text| format!("{text}; an earlier script of this deployment may do so")),
        );
        others.collect()
    } else {
        accounts.chain(others).collect()
    }
}

fn judged(archive: &Path, script: &Script, scripts_ran: bool) -> ScriptPreview {
    let mut preview = ScriptPreview {
        script: script.clone(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    for finding in inspect(archive, script) {
        match finding {
            ScriptFinding::NotExecutable | ScriptFinding::Disguised(_) => {
                preview.warnings.push(finding.to_string());
            }
            ScriptFinding::User(_) | ScriptFinding::NoInterpreter(_) if scripts_ran => {
                preview.warnings.push(format!(
                    "{finding}; an earlier script of this deployment may bring it"
                ));
            }
            _ => preview.problems.push(finding.to_string()),
        }
    }
    preview
}
