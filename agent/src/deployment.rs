//! One command of one deployment: an event and a specification in, a report out.
//!
//! The page to read for what the agent does to a host. DownloadBundle fetches and unpacks the revision, Install puts
//! its files in place, every other event runs scripts; what joins the commands of a deployment is the [`Store`].

mod appspec;
mod environment;
pub mod installed;
pub mod ledger;
pub mod preview;
pub mod rollback;
pub mod survivors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::install::{self, InstallError, Summary};
use codedeploy_hooks::lifecycle::{HookPlan, Origin, origin};
use codedeploy_hooks::script::{
    self, HookRun, Limits, LogPlaces, Outcome, Report, ScriptLog, Session, THIS_PROGRAM,
};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::aws::Access;
use crate::config::{Environment, Settings};
use crate::errors::Chain;
use crate::recovery::{self, RecoveryError};
use crate::revision::archive::{self, UnpackError};
use crate::revision::manifest;
use crate::revision::store::{DeploymentFolder, Pointer, Store, StoreError, create_folders};
use crate::revision::{FetchError, FetchedBundle, fetch, reuse};
use crate::spec::{DeploymentSpec, PathComponent};
use crate::telemetry::milliseconds_since;
use appspec::AppSpecError;
use installed::{Installed, InstalledError};
use ledger::About;

/// This host, as deployments see it.
#[derive(Debug)]
pub struct Host {
    pub settings: Settings,
    pub environment: Environment,
    pub store: Store,
    /// How S3 is reached; absent when nothing was configured and nothing needs it.
    pub access: Option<Access>,
    /// Where the output of all scripts goes; a link that leads there was resolved before any script ran.
    deployments_log: PathBuf,
    /// Only one Install looks at the host and changes it at a time, whatever its group: destinations may overlap.
    installing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("{0} is performed by the service; a host has nothing to do for it")]
    NotForHosts(LifecycleEvent),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the bundle cannot be unpacked")]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    AppSpec(#[from] AppSpecError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Installed(#[from] InstalledError),
    #[error("the work was cut short")]
    Interrupted(#[from] JoinError),
}

impl Host {
    pub fn new(settings: Settings, environment: Environment, access: Option<Access>) -> Self {
        let store = Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking)
            .restricted(settings.hardening.restrict_agent_dir);
        let deployments_log = store.deployments_log();
        let resolved = |log: &Path| Some(log.parent()?.canonicalize().ok()?.join(log.file_name()?));
        let deployments_log = resolved(&deployments_log).unwrap_or(deployments_log);
        Self { settings, environment, store, access, deployments_log, installing: Arc::default() }
    }

    /// Performs one command. Whatever goes wrong is in the report; `stop` ends a script or a download early, and keeps
    /// an Install from its beginning. An Install that has begun is finished.
    pub async fn perform(
        &self,
        event: &LifecycleEvent,
        spec: &DeploymentSpec,
        stop: CancellationToken,
    ) -> Report {
        let performed = match event {
            LifecycleEvent::DownloadBundle => tokio::select! {
                downloaded = self.download(spec) => downloaded,
                () = stop.cancelled() => Ok(stopped()),
            },
            LifecycleEvent::Install => self.install(spec, &stop).await,
            LifecycleEvent::BlockTraffic | LifecycleEvent::AllowTraffic => {
                Err(CommandError::NotForHosts(event.clone()))
            }
            hook => self.run_scripts(hook, spec, stop.clone()).await,
        };
        let report = performed.unwrap_or_else(|error| failed(&error));
        match event {
            LifecycleEvent::DownloadBundle | LifecycleEvent::Install => report,
            _ if report.outcome.succeeded() => report,
            _ => self.after_failure(&About::of(spec), report, stop).await,
        }
    }

    /// Whether the command has nothing to do on this host.
    pub fn is_noop(&self, event: &LifecycleEvent, spec: &DeploymentSpec) -> bool {
        self.hook_plan(event, spec).is_ok_and(|plan| plan.is_noop())
    }

    /// Nothing is `deployment-archive` before it is complete: an attempt that ended early is none that other events see.
    async fn download(&self, spec: &DeploymentSpec) -> Result<Report, CommandError> {
        let folder = self.folder(spec);
        let wanted = spec.reuse_archive_from.as_ref().filter(|_| self.settings.enable_archive_reuse);
        let earlier = wanted.and_then(|from| from.folder(&self.store, spec));
        let keep = self.settings.max_revisions;
        self.store.prune(&spec.deployment_group_id, &folder, earlier.as_ref(), keep)?;
        self.store.create(&folder)?;
        let brought = self.bring(spec, &folder).await;
        if brought.is_err() {
            self.store.clear_incoming(&folder)?;
        }
        let source = brought?;
        self.store.point(&spec.deployment_group_id, Pointer::MostRecent, &folder)?;
        Ok(succeeded(Some(&format!("BundleSource={source}"))))
    }

    /// Makes the deployment's archive; says where it came from.
    async fn bring(
        &self,
        spec: &DeploymentSpec,
        folder: &DeploymentFolder,
    ) -> Result<&'static str, CommandError> {
        let source = if self.reuse(spec, folder).await? {
            "archive-reuse"
        } else {
            let bundle = fetch(&spec.revision, folder, self.access.as_ref(), &self.settings).await?;
            if let FetchedBundle::File { file, bundle_type } = bundle {
                self.unpack(spec, folder, file, bundle_type).await?;
            }
            "downloaded"
        };
        let (store, folder) = (self.store.clone(), folder.clone());
        let (appspec, with_manifest) = (spec.appspec_filename.clone(), self.settings.enable_archive_reuse);
        blocking(move || {
            let archive = folder.incoming_archive();
            // Told with the place that the archive will have.
            appspec::find(&archive, &appspec)
                .map_err(|error| error.in_archive(&folder.archive(), &appspec))?;
            if with_manifest && let Err(error) = manifest::write(&archive, &folder.manifest()) {
                tracing::warn!(reason = %Chain(&error), "no restart will be able to use this archive again");
            }
            Ok(store.publish(&folder)?)
        })
        .await?
        .map(|()| source)
    }

    /// Whether an earlier deployment's archive stands in for the revision now.
    async fn reuse(&self, spec: &DeploymentSpec, folder: &DeploymentFolder) -> Result<bool, CommandError> {
        let Some(from) = spec.reuse_archive_from.clone() else { return Ok(false) };
        if !self.settings.enable_archive_reuse {
            tracing::info!("enable_archive_reuse is off; the revision is downloaded");
            return Ok(false);
        }
        let (store, spec, folder) = (self.store.clone(), spec.clone(), folder.clone());
        Ok(blocking(move || reuse(&from, &store, &spec, &folder)).await?)
    }

    async fn unpack(
        &self,
        spec: &DeploymentSpec,
        folder: &DeploymentFolder,
        bundle: std::fs::File,
        kind: archive::BundleType,
    ) -> Result<(), CommandError> {
        let hardening = &self.settings.hardening;
        let limits = archive::Limits {
            max_extracted_bytes: hardening.archive_max_extraction_size,
            reject_symlinks: hardening.reject_symlinks,
            reject_unsafe_permissions: hardening.reject_unsafe_permissions,
            ignore_ownership: hardening.ignore_ownership,
        };
        let (target, names) = (folder.incoming_archive(), appspec::file_names(&spec.appspec_filename));
        create_folders(&target, 0o755)?;
        let began = Instant::now();
        blocking(move || {
            let unpacked = archive::unpack(&bundle, kind, &target, &limits)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            archive::flatten_single_folder(&target, &names)?;
            let duration_ms = milliseconds_since(began);
            tracing::info!(
                duration_ms,
                entries = unpacked.entries,
                bytes = unpacked.bytes,
                "bundle unpacked"
            );
            Ok::<_, UnpackError>(())
        })
        .await??;
        Ok(())
    }

    async fn install(&self, spec: &DeploymentSpec, stop: &CancellationToken) -> Result<Report, CommandError> {
        let folder = self.folder(spec);
        let appspec = appspec::read(&folder.archive(), &spec.appspec_filename)?;
        appspec::check_events(&appspec, spec.all_possible_lifecycle_events.as_deref())?;
        let records = self.store.records(&spec.deployment_group_id)?;
        let behavior = spec.file_exists_behavior;
        let reject_unconfined = self.settings.hardening.reject_unconfined_selinux;
        let (store, deployment, archive) = (self.store.clone(), folder.path().to_owned(), folder.archive());
        let group = spec.deployment_group_id.clone();
        Installed::of(spec, &folder).write(&folder)?;
        let turn = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(stopped()),
            turn = Arc::clone(&self.installing).lock_owned() => turn,
        };
        let began = Instant::now();
        let summary = blocking(move || {
            // Given back when the work ends, even if nobody waits for it any more.
            let _turn = turn;
            let turn = recovery::before_install(&store, &group)?;
            let request = install::Request {
                deployment: &deployment,
                archive: &archive,
                appspec: &appspec,
                behavior,
                records: &records,
                reject_unconfined,
            };
            let plan = install::plan(&request)?;
            Ok::<_, CommandError>(install::install(plan, &turn)?)
        })
        .await??;
        for warning in &summary.warnings {
            tracing::warn!("{warning}");
        }
        let Summary { created, replaced, removed, kept, .. } = summary;
        let duration_ms = milliseconds_since(began);
        tracing::info!(duration_ms, created, replaced, removed, kept, "files installed");
        Ok(succeeded(None))
    }

    async fn run_scripts(
        &self,
        event: &LifecycleEvent,
        spec: &DeploymentSpec,
        stop: CancellationToken,
    ) -> Result<Report, CommandError> {
        let plan = self.hook_plan(event, spec)?;
        let variables = environment::variables(spec, self.folder(spec).noted_etag());
        self.run_plan(&plan, &self.folder(spec), &spec.deployment_id, &variables, stop).await
    }

    /// Runs scripts whose output goes to the logs of `deployment`, which is in `folder`.
    async fn run_plan(
        &self,
        plan: &HookPlan,
        folder: &DeploymentFolder,
        deployment: &PathComponent,
        variables: &BTreeMap<String, String>,
        stop: CancellationToken,
    ) -> Result<Report, CommandError> {
        if plan.is_noop() {
            return Ok(succeeded(None));
        }
        self.store.make_folder(folder.path(), 0o755)?;
        let mut log = self.script_log(folder, deployment);
        let hardening = &self.settings.hardening;
        let environment = environment::for_hooks(&self.environment, hardening, &plan.event, variables);
        let limits =
            Limits { kill_grace: self.settings.hook_kill_grace, drain_grace: self.settings.output_drain };
        let session =
            self.settings.runas_session.then_some(Session { strip_loader_env: hardening.strip_loader_env });
        let run = HookRun {
            plan,
            environment: &environment,
            keeper: Path::new(THIS_PROGRAM),
            session,
            limits,
            log: &mut log,
            stop,
        };
        Ok(script::run(run).await)
    }

    /// The scripts of `event`, from the revision that they come from. Nothing, when that revision is gone.
    fn hook_plan(&self, event: &LifecycleEvent, spec: &DeploymentSpec) -> Result<HookPlan, CommandError> {
        if matches!(event, LifecycleEvent::DownloadBundle | LifecycleEvent::Install) {
            return Ok(HookPlan::nothing(event.clone()));
        }
        let group = &spec.deployment_group_id;
        let own = self.folder(spec).archive();
        let earlier = match origin(event, spec.kind, own.is_dir()) {
            Origin::ThisDeployment => {
                let appspec = appspec::read(&own, &spec.appspec_filename)?;
                return Ok(HookPlan::new(event.clone(), own, &appspec));
            }
            Origin::LastSuccessful => self.store.pointed(group, Pointer::LastSuccessful),
            Origin::MostRecent => self.store.pointed(group, Pointer::MostRecent),
        };
        let Some(earlier) = earlier.as_ref().map(DeploymentFolder::archive) else {
            return Ok(HookPlan::nothing(event.clone()));
        };
        match appspec::read(&earlier, &spec.appspec_filename) {
            Ok(appspec) => Ok(HookPlan::new(event.clone(), earlier, &appspec)),
            Err(AppSpecError::Missing { .. }) => {
                tracing::warn!(archive = %earlier.display(), "the earlier revision is gone; {event} does nothing");
                Ok(HookPlan::nothing(event.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn script_log(&self, folder: &DeploymentFolder, deployment: &PathComponent) -> ScriptLog {
        let deployments = self.settings.enable_deployments_log.then_some(self.deployments_log.as_path());
        let readers = &self.settings.log_group;
        let places = LogPlaces { scripts: &folder.scripts_log(), deployments, readers };
        ScriptLog::open(places, deployment.as_str())
    }

    fn folder(&self, spec: &DeploymentSpec) -> DeploymentFolder {
        self.store.deployment(&spec.deployment_group_id, &spec.deployment_id)
    }
}

/// Runs `work` where it may block; what it logs belongs to the current span.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let span = tracing::Span::current();
    spawn_blocking(move || span.in_scope(work)).await
}

fn succeeded(note: Option<&str>) -> Report {
    Report { outcome: Outcome::Succeeded { note: note.map(str::to_owned) }, log_tail: String::new() }
}

fn stopped() -> Report {
    Report { outcome: Outcome::Stopped { location: None }, log_tail: String::new() }
}

/// The report of a command that an error ended.
pub fn failed(error: &(dyn std::error::Error + 'static)) -> Report {
    Report { outcome: Outcome::Error { message: Chain(error).to_string() }, log_tail: String::new() }
}
