//! Blue/green on one host: puts [`crate::slots`] and the scripts of lifecycle events together.
//!
//! [`fill`] makes an Install fill the idle slot; [`switch`] makes that slot serve once
//! ValidateService has succeeded; [`leave`] takes a deployment out of service again. ApplicationStop
//! of a revision in a slot is deferred until its successor serves.

pub(super) mod fill;
pub(super) mod leave;
pub(crate) mod placed;
pub mod status;
pub mod switch;

use std::collections::BTreeMap;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::Report;
use tokio_util::sync::CancellationToken;

use super::installed::Installed;
use super::{CommandError, Host, appspec, blocking, scripts};
use crate::deployment_root::DeploymentFolder;
use crate::path_component::PathComponent;
use crate::slots::units;
use crate::spec::parse::APPSPEC_FILENAMES;
use placed::{Placed, SlotsError};

/// The deployment in whose logs scripts write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log<'a> {
    pub(super) group: &'a PathComponent,
    pub(super) deployment: &'a PathComponent,
    pub(super) folder: &'a DeploymentFolder,
    /// The variables that describe it to scripts.
    pub(super) variables: &'a BTreeMap<String, String>,
}

/// Runs the scripts of an event of the deployment in `tenant` with the variables of its own slot,
/// and then starts or stops its units.
pub(super) async fn run_event(
    host: &Host,
    event: &LifecycleEvent,
    tenant: &DeploymentFolder,
    log: Log<'_>,
    stop: &CancellationToken,
) -> Result<Report, CommandError> {
    let (for_event, archive) = (event.clone(), tenant.archive());
    let named = Installed::read(tenant)
        .map(|installed| installed.appspec_filename)
        .unwrap_or_else(|_| APPSPEC_FILENAMES[0].to_owned());
    let plan = blocking(move || {
        let (scripts, warning) = appspec::scripts_of_earlier(&archive, &named, &for_event)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        Ok::<_, CommandError>(HookPlan {
            event: for_event,
            archive,
            scripts,
        })
    });
    let plan = plan.await??;
    let mut variables = log.variables.clone();
    variables.extend(placed::variables(host, log.group, tenant, None).await?);
    let report = scripts::run(
        host,
        &plan,
        log.folder,
        log.deployment,
        &variables,
        stop.clone(),
    )
    .await?;
    if report.outcome.succeeded() {
        move_units(host, event, log.group, tenant).await?;
    }
    Ok(report)
}

/// Starts the units of the deployment's slot with ApplicationStart, and stops them with
/// ApplicationStop.
pub(super) async fn move_units(
    host: &Host,
    event: &LifecycleEvent,
    group: &PathComponent,
    folder: &DeploymentFolder,
) -> Result<(), SlotsError> {
    if !matches!(
        event,
        LifecycleEvent::ApplicationStart | LifecycleEvent::ApplicationStop
    ) {
        return Ok(());
    }
    let (store, group, folder) = (host.store.clone(), group.clone(), folder.clone());
    let placed = blocking(move || Placed::look(&store, &group, &folder, None)).await??;
    let Some(Placed { strategy, own, .. }) = placed else {
        return Ok(());
    };
    let moved = match event {
        LifecycleEvent::ApplicationStart => units::start(&strategy.units, own).await,
        _ => units::stop(&strategy.units, own).await,
    };
    moved.map_err(|source| SlotsError::Units { slot: own, source })
}
