//! Install: puts the revision's files in place, and records that for the group.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use codedeploy_hooks::install::{self, Conflict, Given, InstallError, Summary, Tell};
use codedeploy_hooks::script::Report;
use tokio_util::sync::CancellationToken;

use super::installed::Installed;
use super::plan::Installable;
use super::reports::{stopped, succeeded};
use super::slots::{self, fill};
use super::{CommandError, Host, blocking};
use crate::config::Settings;
use crate::deployment_root::{Pointer, Store};
use crate::path_component::PathComponent;
use crate::recovery;
use crate::revision::manifest;
use crate::spec::DeploymentSpec;
use crate::telemetry::milliseconds_since;

pub(super) async fn install(
    host: &Host,
    spec: &DeploymentSpec,
    installable: Installable,
    stop: &CancellationToken,
) -> Result<Report, CommandError> {
    let Installable { appspec, note, .. } = installable;
    let folder = host.folder(spec);
    let installed = Installed::of(spec, &folder);
    let behavior = spec.file_exists_behavior;
    let reject_unconfined = host.settings.hardening.reject_unconfined_selinux;
    let (reserved, stop_planning) = (own_folders(&host.settings), stop.clone());
    let (store, group) = (host.store.clone(), spec.deployment_group_id.clone());
    let log = slots::Log {
        group: &group,
        deployment: &spec.deployment_id,
        folder: &folder,
        variables: &installed.variables,
    };
    let has_strategy = appspec.strategy.is_some();
    if let Some(report) = fill::make_way(host, log, has_strategy, stop).await? {
        return Ok(report);
    }
    let turn = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(stopped()),
        turn = Arc::clone(&host.installing).lock_owned() => turn,
    };
    let began = Instant::now();
    let summary = blocking(move || {
        // Released when the work ends, even if nobody waits for it any more.
        let _turn = turn;
        let records = store.records(&group)?;
        installed.write(&folder)?;
        let turn = recovery::before_install(&store, &group)?;
        let filled = fill::fill(&store, &group, &folder, appspec, &reserved)?;
        let manifest = folder.manifest();
        let guarded = rustix::process::geteuid().is_root() && manifest.is_file();
        let given = |tell: Tell<'_>| manifest::given(&manifest, tell).map_err(io::Error::other);
        let request = install::Request {
            deployment: folder.path(),
            archive: &folder.archive(),
            appspec: &filled.appspec,
            behavior,
            records: &records,
            given: guarded.then_some(Given(&given)),
            reject_unconfined,
            reserved: &reserved,
            slot: filled.slot.as_ref(),
            note: filled.note.as_ref(),
            stop: &stop_planning,
        };
        let done = install::plan(&request).and_then(|plan| install::install(plan, &turn));
        if done.is_err() {
            filled.give_up();
        }
        Ok::<_, CommandError>(done.map_err(|error| named(error, &store))?)
    });
    let summary = match summary.await? {
        Err(CommandError::Install(InstallError::Stopped)) => return Ok(stopped()),
        summary => summary?,
    };
    for warning in &summary.warnings {
        tracing::warn!("{warning}");
    }
    host.measure(|metrics| metrics.installed(&summary));
    let Summary {
        created,
        replaced,
        removed,
        kept,
        unchanged,
        ..
    } = summary;
    let duration_ms = milliseconds_since(began);
    tracing::info!(
        duration_ms,
        created,
        replaced,
        removed,
        kept,
        unchanged,
        "files installed"
    );
    Ok(succeeded(note.as_deref()))
}

/// Returns the same error with the names of deployment groups, which only the folders of
/// deployments contain.
fn named(error: InstallError, store: &Store) -> InstallError {
    match error {
        InstallError::Conflicts(mut conflicts) => {
            conflicts
                .iter_mut()
                .for_each(|conflict| name_group(conflict, store));
            InstallError::Conflicts(conflicts)
        }
        other => other,
    }
}

fn name_group(conflict: &mut Conflict, store: &Store) {
    let Conflict::Exists {
        group: Some(group), ..
    } = conflict
    else {
        return;
    };
    let folder =
        PathComponent::new(group).and_then(|id| store.pointed(&id, Pointer::LastSuccessful));
    if let Some(installed) = folder.and_then(|folder| Installed::read(&folder).ok()) {
        let name = &installed.about.deployment_group;
        *group = if name == group {
            name.clone()
        } else {
            format!("{name} (id {group})")
        };
    }
}

/// The agent's own folders, which cannot be a destination. A log or pid folder that programs share
/// is not among them: there the agent has single files, which Install does not replace.
pub(super) fn own_folders(settings: &Settings) -> Vec<PathBuf> {
    const SHARED: [&str; 9] = [
        "/", "/home", "/opt", "/run", "/srv", "/tmp", "/var", "/var/log", "/var/run",
    ];
    let shared = |folder: &PathBuf| SHARED.iter().any(|shared| folder == Path::new(shared));
    let beside = [&settings.log_dir, &settings.pid_dir]
        .into_iter()
        .filter(|folder| !shared(folder));
    beside.chain([&settings.root_dir]).cloned().collect()
}
