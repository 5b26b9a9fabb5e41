//! One command of one deployment: an event and a specification in, a report out.
//!
//! The page to read for what the agent does to a host: [`Host::plan`] looks and decides,
//! [`Host::perform`] acts. DownloadBundle fetches and unpacks the revision, Install puts its files
//! in place, every other event runs scripts; the [`Store`] joins the commands of a deployment.
//! With a strategy, the files go to a slot, and ValidateService ends with a switch ([`slots`]).

pub(crate) mod appspec;
mod download;
mod environment;
mod error;
mod install;
pub mod installed;
pub mod ledger;
mod plan;
pub mod preview;
mod reports;
mod reuse;
pub mod rollback;
mod scripts;
pub mod slots;
pub mod survivors;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::{Outcome, Report, THIS_PROGRAM};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::aws::Access;
use crate::config::{Environment, Settings};
use crate::deployment_root::{DeploymentFolder, Store};
use crate::metrics::Metrics;
use crate::spec::DeploymentSpec;
use appspec::Announced;
use error::CommandError;
use ledger::DeploymentNames;
pub use plan::Plan;
use plan::Work;
pub use reports::{failed, stopped};

/// This host, as deployments use it.
#[derive(Debug)]
pub struct Host {
    settings: Settings,
    environment: Environment,
    store: Store,
    /// Absent if S3 is not needed.
    access: Option<Access>,
    /// The keeper of scripts.
    keeper: PathBuf,
    /// The log of all scripts' output; a link that leads there was resolved before any script ran.
    deployments_log: PathBuf,
    /// Only one Install at a time examines and changes the host, whatever its group, because
    /// destinations may overlap.
    installing: Arc<tokio::sync::Mutex<()>>,
    announced: Announced,
    /// Absent if nobody asks for them.
    metrics: Option<Arc<Metrics>>,
}

impl Host {
    pub fn new(settings: Settings, environment: Environment, access: Option<Access>) -> Self {
        let store = Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking)
            .restricted(settings.hardening.restrict_agent_dir);
        let deployments_log = store.deployments_log();
        let resolved = |log: &Path| Some(log.parent()?.canonicalize().ok()?.join(log.file_name()?));
        let deployments_log = resolved(&deployments_log).unwrap_or(deployments_log);
        Self {
            settings,
            environment,
            store,
            access,
            keeper: THIS_PROGRAM.into(),
            deployments_log,
            installing: Arc::default(),
            announced: Announced::default(),
            metrics: None,
        }
    }

    /// Returns the same host with the metrics that count its work.
    pub fn measured(self, metrics: Option<Arc<Metrics>>) -> Self {
        Self { metrics, ..self }
    }

    /// Counts something, if anyone wants to know.
    pub(crate) fn measure(&self, measure: impl FnOnce(&Metrics)) {
        if let Some(metrics) = &self.metrics {
            measure(metrics);
        }
    }

    /// Returns the same host with another program as the keeper of its scripts.
    pub fn with_keeper(self, keeper: impl Into<PathBuf>) -> Self {
        Self {
            keeper: keeper.into(),
            ..self
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Plans a command on this host, and changes nothing. An error that it finds is part of the
    /// plan, because the service accepts errors only for an acknowledged command.
    pub async fn plan<'a>(&self, event: &'a LifecycleEvent, spec: &'a DeploymentSpec) -> Plan<'a> {
        let (store, again) = (self.store.clone(), self.is_deployed_again(spec));
        let (for_event, for_spec) = (event.clone(), spec.clone());
        let work = blocking(move || plan::work(&store, &for_event, &for_spec, again)).await;
        Plan {
            event,
            spec,
            work: work.unwrap_or_else(|error| Err(error.into())),
        }
    }

    /// Performs a command; a command from a service has an identifier. The report names every
    /// error. `stop` ends a script or a download early and prevents an Install that has not begun;
    /// an Install that has begun is finished.
    pub async fn perform(
        &self,
        plan: Plan<'_>,
        command: Option<&str>,
        stop: CancellationToken,
    ) -> Report {
        let Plan { event, spec, work } = plan;
        let performed = match work {
            Err(error) => Err(error),
            Ok(Work::Download) => tokio::select! {
                downloaded = download::download(self, spec) => downloaded,
                () = stop.cancelled() => Ok(stopped()),
            },
            Ok(Work::Install(appspec)) => {
                self.announced.warn(&appspec.path, &appspec.warnings);
                install::install(self, spec, *appspec, &stop).await
            }
            Ok(Work::Scripts(scripts)) => {
                self.announced.warn(&scripts.appspec, &scripts.warnings);
                let with_slot = scripts.with_slot;
                let report = scripts::perform(self, spec, scripts, stop.clone()).await;
                match report {
                    Ok(report) if with_slot && report.outcome.succeeded() => {
                        self.move_slot(event, spec, report, &stop).await
                    }
                    report => report,
                }
            }
        };
        let report = performed.unwrap_or_else(|error| failed(&error));
        match event {
            LifecycleEvent::DownloadBundle | LifecycleEvent::Install => report,
            _ if report.outcome.succeeded() => report,
            _ => {
                rollback::after_failure(self, &DeploymentNames::of(spec), command, report, stop)
                    .await
            }
        }
    }

    /// Does the part of an event that concerns the deployment's slot, after its scripts.
    async fn move_slot(
        &self,
        event: &LifecycleEvent,
        spec: &DeploymentSpec,
        mut report: Report,
        stop: &CancellationToken,
    ) -> Result<Report, CommandError> {
        let folder = self.folder(spec);
        slots::move_units(self, event, &spec.deployment_group_id, &folder).await?;
        if *event != LifecycleEvent::ValidateService {
            return Ok(report);
        }
        let variables = environment::variables(spec, folder.noted_etag());
        let log = slots::Log {
            group: &spec.deployment_group_id,
            deployment: &spec.deployment_id,
            folder: &folder,
            variables: &variables,
        };
        let warnings = slots::switch::switch(self, log, stop).await?;
        if !warnings.is_empty() {
            report.outcome = Outcome::Succeeded {
                note: Some(warnings.join("; ")),
            };
        }
        Ok(report)
    }

    /// Whether the deployment uses a revision that this host has deployed before, with the rules of
    /// that time.
    fn is_deployed_again(&self, spec: &DeploymentSpec) -> bool {
        self.settings.enable_archive_reuse && spec.reuse_archive_from.is_some()
    }

    fn folder(&self, spec: &DeploymentSpec) -> DeploymentFolder {
        self.store
            .deployment(&spec.deployment_group_id, &spec.deployment_id)
    }
}

/// Runs `work` on a thread that may block; its log lines belong to the current span.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let span = tracing::Span::current();
    spawn_blocking(move || span.in_scope(work)).await
}
