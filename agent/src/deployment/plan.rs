//! The plan of a command: its files are read and its scripts are chosen before the service is
//! notified of its start.

use std::path::PathBuf;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{AppSpec, Parsed};
use codedeploy_hooks::lifecycle::{HookPlan, Origin, origin};

use super::CommandError;
use super::appspec::{self, AppSpecError};
use super::slots::placed;
use crate::deployment_root::{Pointer, Store};
use crate::spec::DeploymentSpec;

/// A planned command. Scripts are compared with the manifest of their revision only when they run.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) event: &'a LifecycleEvent,
    pub(super) spec: &'a DeploymentSpec,
    pub(super) work: Result<Work, CommandError>,
}

/// The work of a command.
#[derive(Debug)]
pub(super) enum Work {
    Download,
    Install(Box<Installable>),
    Scripts(Scripts),
}

/// The AppSpec file of the revision that is to be installed.
#[derive(Debug)]
pub(super) struct Installable {
    pub(super) path: PathBuf,
    pub(super) appspec: AppSpec,
    pub(super) warnings: Vec<String>,
    /// For the person or program that started the deployment.
    pub(super) note: Option<String>,
}

/// The scripts of an event, and their origin.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) plan: HookPlan,
    /// The id of the earlier deployment whose revision contains them; `None` for this deployment.
    pub(super) earlier: Option<String>,
    /// The AppSpec file that lists them; empty when there is none.
    pub(super) appspec: PathBuf,
    pub(super) warnings: Vec<String>,
    /// Whether the event changes the deployment's slot after its scripts.
    pub(super) with_slot: bool,
}

impl Plan<'_> {
    /// Whether the command has nothing to do on this host.
    pub fn is_noop(&self) -> bool {
        matches!(&self.work, Ok(Work::Scripts(scripts)) if scripts.plan.is_noop() && !scripts.with_slot)
    }
}

/// Plans the work of `event`. `again` means that a revision is deployed again. Blocks.
pub(super) fn work(
    store: &Store,
    event: &LifecycleEvent,
    spec: &DeploymentSpec,
    again: bool,
) -> Result<Work, CommandError> {
    if store.is_own_name(&spec.deployment_group_id) {
        return Err(CommandError::ReservedGroup(
            spec.deployment_group_id.clone(),
        ));
    }
    match event {
        LifecycleEvent::DownloadBundle => Ok(Work::Download),
        LifecycleEvent::Install => Ok(Work::Install(Box::new(installable(store, spec, again)?))),
        LifecycleEvent::BlockTraffic | LifecycleEvent::AllowTraffic => {
            Err(CommandError::NotForHosts(event.clone()))
        }
        hook => Ok(Work::Scripts(scripts(store, hook, spec, again)?)),
    }
}

fn installable(
    store: &Store,
    spec: &DeploymentSpec,
    again: bool,
) -> Result<Installable, CommandError> {
    let archive = store
        .deployment(&spec.deployment_group_id, &spec.deployment_id)
        .archive();
    let (path, parsed) = appspec::parsed(&archive, &spec.appspec_filename, again)?;
    let warnings = warnings_of(&parsed);
    let appspec = parsed.appspec;
    let possible = spec.all_possible_lifecycle_events.as_deref();
    appspec::check_events(&appspec, possible)?;
    appspec::check_links(&archive, &appspec)?;
    let note = appspec::idle_hooks(&appspec, possible);
    Ok(Installable {
        path,
        appspec,
        warnings,
        note,
    })
}

/// Returns the scripts of `event` from their revision; none if that revision is gone.
fn scripts(
    store: &Store,
    event: &LifecycleEvent,
    spec: &DeploymentSpec,
    again: bool,
) -> Result<Scripts, CommandError> {
    let group = &spec.deployment_group_id;
    let archive = store.deployment(group, &spec.deployment_id).archive();
    let earlier = match origin(event, spec.kind, archive.is_dir()) {
        Origin::ThisDeployment => {
            let (path, parsed) = appspec::parsed(&archive, &spec.appspec_filename, again)?;
            let warnings = warnings_of(&parsed);
            let plan = HookPlan::new(event.clone(), archive, &parsed.appspec);
            return Ok(Scripts {
                plan,
                earlier: None,
                appspec: path,
                warnings,
                with_slot: moves_slot(event, &parsed.appspec),
            });
        }
        Origin::LastSuccessful => store.pointed(group, Pointer::LastSuccessful),
        Origin::MostRecent => store.pointed(group, Pointer::MostRecent),
    };
    let nothing = |warnings| {
        let plan = HookPlan::nothing(event.clone());
        Ok(Scripts {
            plan,
            earlier: None,
            appspec: PathBuf::new(),
            warnings,
            with_slot: false,
        })
    };
    if *event == LifecycleEvent::ApplicationStop && placed::is_deferred(store, group) {
        return nothing(Vec::new());
    }
    let Some(earlier) = earlier else {
        return nothing(Vec::new());
    };
    let archive = earlier.archive();
    match appspec::scripts_of_earlier(&archive, &spec.appspec_filename, event) {
        Ok((scripts, warning)) => {
            let plan = HookPlan {
                event: event.clone(),
                archive,
                scripts,
            };
            let warnings = Vec::from_iter(warning);
            Ok(Scripts {
                plan,
                earlier: Some(earlier.id()),
                appspec: PathBuf::new(),
                warnings,
                with_slot: false,
            })
        }
        Err(AppSpecError::Missing { .. }) => nothing(vec![format!(
            "the earlier revision {} is gone; {event} does nothing",
            archive.display()
        )]),
        Err(error) => Err(error.into()),
    }
}

/// Whether the event starts units, or ends with a switch.
fn moves_slot(event: &LifecycleEvent, appspec: &AppSpec) -> bool {
    let Some(strategy) = &appspec.strategy else {
        return false;
    };
    match event {
        LifecycleEvent::ApplicationStart => !strategy.units.is_empty(),
        LifecycleEvent::ValidateService => true,
        _ => false,
    }
}

fn warnings_of(parsed: &Parsed) -> Vec<String> {
    parsed
        .warnings
        .iter()
        .map(|warning| format!("AppSpec: {warning}"))
        .collect()
}
