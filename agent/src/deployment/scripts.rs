//! Every event but DownloadBundle and Install: runs the scripts that the plan has chosen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use codedeploy_hooks::custody::Deployed;
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::variables::TRACE_PARENT;
use codedeploy_hooks::script::{
    self, HookRun, Limits, LogPlaces, Outcome, Report, ScriptLog, Session,
};
use tokio_util::sync::CancellationToken;

use super::plan::Scripts;
use super::reports::{of_earlier, succeeded};
use super::slots::placed;
use super::{CommandError, Host, blocking, environment};
use crate::deployment_root::DeploymentFolder;
use crate::metrics::Metrics;
use crate::path_component::PathComponent;
use crate::revision::manifest;
use crate::spec::DeploymentSpec;

pub(super) async fn perform(
    host: &Host,
    spec: &DeploymentSpec,
    scripts: Scripts,
    stop: CancellationToken,
) -> Result<Report, CommandError> {
    let Scripts { plan, earlier, .. } = scripts;
    let folder = host.folder(spec);
    let mut variables = environment::variables(spec, folder.noted_etag());
    if !plan.is_noop() {
        let of = DeploymentFolder::of_archive(&plan.archive);
        let named = Some(spec.appspec_filename.as_str());
        let group = &spec.deployment_group_id;
        variables.extend(placed::variables(host, group, &of, named).await?);
    }
    let parent = spec.trace_parent.map(|host| host.child(plan.event.name()));
    if let Some(parent) = parent {
        variables.insert(TRACE_PARENT.to_owned(), parent.to_string());
    }
    let mut report = run(host, &plan, &folder, &spec.deployment_id, &variables, stop).await?;
    if parent.is_none() {
        report.scripts.clear();
    }
    Ok(match earlier {
        Some(earlier) if !report.outcome.script_name().is_empty() => {
            of_earlier(report, &plan.event, &earlier)
        }
        _ => report,
    })
}

/// Runs scripts whose output goes to the logs of `deployment`, which is in `folder`.
pub(super) async fn run(
    host: &Host,
    plan: &HookPlan,
    folder: &DeploymentFolder,
    deployment: &PathComponent,
    variables: &BTreeMap<String, String>,
    stop: CancellationToken,
) -> Result<Report, CommandError> {
    if plan.is_noop() {
        return Ok(succeeded(None));
    }
    let deployed = deployed(plan).await?;
    host.store.make_folder(folder.path(), 0o755)?;
    let mut log = script_log(host, folder, deployment);
    let settings = &host.settings;
    let environment = environment::for_hooks(
        &host.environment,
        &settings.hardening,
        &plan.event,
        variables,
    );
    let limits = Limits {
        kill_grace: settings.hook_kill_grace,
        drain_grace: settings.output_drain,
    };
    let session = Session {
        strip_loader_env: settings.hardening.strip_loader_env,
    };
    let run = HookRun {
        plan,
        environment: &environment,
        keeper: &host.keeper,
        session: settings.runas_session.then_some(session),
        limits,
        deployed,
        log: &mut log,
        stop,
    };
    let report = script::run(run).await;
    host.measure(|metrics| count(metrics, plan, &report.outcome));
    Ok(report)
}

/// Counts the scripts that ran: the last of them failed, or none did.
fn count(metrics: &Metrics, plan: &HookPlan, outcome: &Outcome) {
    let failed = plan.scripts.iter().position(|script| {
        let location = script.location.as_path().to_string_lossy();
        !outcome.succeeded() && location == outcome.script_name()
    });
    match failed {
        Some(position) => metrics.scripts_ended(&plan.event, position, 1),
        None if outcome.succeeded() => metrics.scripts_ended(&plan.event, plan.scripts.len(), 0),
        None => {}
    }
    if let Outcome::OutputLeftOpen { holders, .. } = outcome {
        metrics.leaked(holders.len());
    }
}

fn script_log(host: &Host, folder: &DeploymentFolder, deployment: &PathComponent) -> ScriptLog {
    let deployments = host
        .settings
        .enable_deployments_log
        .then_some(host.deployments_log.as_path());
    let readers = &host.settings.log_group;
    let places = LogPlaces {
        scripts: &folder.scripts_log(),
        deployments,
        readers,
    };
    ScriptLog::open(places, deployment.as_str())
}

/// The contents that the plan's scripts had when their revision was unpacked, if this agent did
/// that.
async fn deployed(plan: &HookPlan) -> Result<Option<Arc<Deployed>>, CommandError> {
    let manifest = DeploymentFolder::of_archive(&plan.archive).manifest();
    let (archive, scripts) = (plan.archive.clone(), plan.scripts.clone());
    let deployed = blocking(move || {
        let Ok(root) = archive.canonicalize() else {
            return Ok(None);
        };
        let paths = scripts.iter().filter_map(|script| {
            let path = root.join(script.location.as_path()).canonicalize().ok()?;
            path.strip_prefix(&root).ok().map(Path::to_owned)
        });
        manifest::deployed(&manifest, &paths.collect())
    });
    Ok(deployed.await??.map(Arc::new))
}
