//! One command of one deployment: an event and a specification in, a report out.
//!
//! The page to read for what the agent does to a host. DownloadBundle fetches and unpacks the revision, Install puts
//! its files in place, every other event runs scripts; what joins the commands of a deployment is the [`Store`].

pub(crate) mod appspec;
mod environment;
mod error;
pub mod installed;
pub mod ledger;
pub mod preview;
mod reports;
mod reuse;
pub mod rollback;
pub mod survivors;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::custody::Deployed;
use codedeploy_hooks::install::{self, Conflict, Given, InstallError, Summary, Tell};
use codedeploy_hooks::lifecycle::{HookPlan, Origin, origin};
use codedeploy_hooks::script::{self, HookRun, Limits, LogPlaces, Report, ScriptLog, Session, THIS_PROGRAM};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::aws::Access;
use crate::config::{Environment, Settings};
use crate::deployment_root::{DeploymentFolder, INCOMING, Pointer, Store, create_folders};
use crate::errors::Chain;
use crate::path_component::PathComponent;
use crate::recovery;
use crate::revision::archive::{self, UnpackError};
use crate::revision::manifest;
use crate::revision::{FetchedBundle, fetch};
use crate::spec::DeploymentSpec;
use crate::telemetry::milliseconds_since;
use appspec::AppSpecError;
use error::CommandError;
use installed::Installed;
use ledger::About;
pub use reports::failed;
use reports::{of_earlier, stopped, succeeded};

/// This host, as deployments see it.
#[derive(Debug)]
pub struct Host {
    pub settings: Settings,
    pub environment: Environment,
    pub store: Store,
    /// How S3 is reached; absent when nothing was configured and nothing needs it.
    pub access: Option<Access>,
    /// The program that watches over scripts.
    pub keeper: PathBuf,
    /// Where the output of all scripts goes; a link that leads there was resolved before any script ran.
    deployments_log: PathBuf,
    /// Only one Install looks at the host and changes it at a time, whatever its group: destinations may overlap.
    installing: Arc<tokio::sync::Mutex<()>>,
}

/// The scripts of an event, and whose they are.
struct HookSource {
    plan: HookPlan,
    /// The id of the earlier deployment whose revision holds them, when it is not this one's.
    earlier: Option<String>,
    /// What is odd about that revision.
    warning: Option<String>,
}

impl Host {
    pub fn new(settings: Settings, environment: Environment, access: Option<Access>) -> Self {
        let store = Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking)
            .restricted(settings.hardening.restrict_agent_dir);
        let keeper = THIS_PROGRAM.into();
        let deployments_log = store.deployments_log();
        let resolved = |log: &Path| Some(log.parent()?.canonicalize().ok()?.join(log.file_name()?));
        let deployments_log = resolved(&deployments_log).unwrap_or(deployments_log);
        Self { settings, environment, store, access, keeper, deployments_log, installing: Arc::default() }
    }

    /// Performs one command, which has an identifier when it is a service's. Whatever goes wrong is in the report; `stop` ends a script or a download early, and keeps
    /// an Install from its beginning. An Install that has begun is finished.
    pub async fn perform(
        &self,
        event: &LifecycleEvent,
        spec: &DeploymentSpec,
        command: Option<&str>,
        stop: CancellationToken,
    ) -> Report {
        let performed = match event {
            _ if self.store.is_own_name(&spec.deployment_group_id) => {
                return failed(&CommandError::ReservedGroup(spec.deployment_group_id.clone()));
            }
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
            _ => self.after_failure(&About::of(spec), command, report, stop).await,
        }
    }

    /// Whether the command has nothing to do on this host.
    pub fn is_noop(&self, event: &LifecycleEvent, spec: &DeploymentSpec) -> bool {
        self.hook_source(event, spec).is_ok_and(|source| source.plan.is_noop())
    }

    /// Nothing is `deployment-archive` before it is complete: an attempt that ended early is none that other events see.
    async fn download(&self, spec: &DeploymentSpec) -> Result<Report, CommandError> {
        let folder = self.folder(spec);
        let wanted = spec.reuse_archive_from.as_ref().filter(|_| self.settings.enable_archive_reuse);
        let earlier = wanted.and_then(|from| reuse::folder(from, &self.store, spec));
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
        let reused = self.reuse(spec, folder).await?;
        let source = if reused {
            "archive-reuse"
        } else {
            let bundle = fetch(&spec.revision, folder, self.access.as_ref(), &self.settings).await?;
            if let FetchedBundle::File { file, bundle_type } = bundle {
                self.unpack(spec, folder, file, bundle_type).await?;
            }
            "downloaded"
        };
        let (store, folder) = (self.store.clone(), folder.clone());
        let appspec = spec.appspec_filename.clone();
        blocking(move || {
            let archive = folder.incoming_archive();
            // Told with the place that the archive will have.
            appspec::find(&archive, &appspec)
                .map_err(|error| error.in_archive(&folder.archive(), &appspec))?;
            let written = match reused {
                true => Ok(()),
                false => manifest::write(&archive, &folder.manifest()),
            };
            match written {
                // Who is not root can be unable to read what the bundle gave him, and has nothing to guard.
                Err(error) if !rustix::process::geteuid().is_root() => {
                    tracing::warn!(reason = %Chain(&error), "no restart will be able to use this archive again");
                }
                written => written.and_then(|()| manifest::hold(&archive, &folder.manifest()))?,
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
        Ok(blocking(move || reuse::reuse(&from, &store, &spec, &folder)).await?)
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
        create_folders(&target, INCOMING)?;
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
        let appspec = appspec::read(&folder.archive(), &spec.appspec_filename, self.is_deployed_again(spec))?;
        let possible = spec.all_possible_lifecycle_events.as_deref();
        appspec::check_events(&appspec, possible)?;
        appspec::check_links(&folder.archive(), &appspec)?;
        let note = appspec::idle_hooks(&appspec, possible);
        let records = self.store.records(&spec.deployment_group_id)?;
        let behavior = spec.file_exists_behavior;
        let reject_unconfined = self.settings.hardening.reject_unconfined_selinux;
        let (reserved, stop_planning) = (own_folders(&self.settings), stop.clone());
        let (store, deployment, archive) = (self.store.clone(), folder.path().to_owned(), folder.archive());
        let group = spec.deployment_group_id.clone();
        let manifest = folder.manifest();
        let guarded = rustix::process::geteuid().is_root() && manifest.is_file();
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
            let given = |tell: Tell<'_>| manifest::given(&manifest, tell).map_err(io::Error::other);
            let request = install::Request {
                deployment: &deployment,
                archive: &archive,
                appspec: &appspec,
                behavior,
                records: &records,
                given: guarded.then_some(Given(&given)),
                reject_unconfined,
                reserved: &reserved,
                stop: &stop_planning,
            };
            let plan = install::plan(&request)?;
            Ok::<_, CommandError>(install::install(plan, &turn)?)
        });
        let summary = match summary.await? {
            Err(CommandError::Install(InstallError::Stopped)) => return Ok(stopped()),
            summary => summary.map_err(|error| self.named(error))?,
        };
        for warning in &summary.warnings {
            tracing::warn!("{warning}");
        }
        let Summary { created, replaced, removed, kept, .. } = summary;
        let duration_ms = milliseconds_since(began);
        tracing::info!(duration_ms, created, replaced, removed, kept, "files installed");
        Ok(succeeded(note.as_deref()))
    }

    /// The same, with deployment groups called by their names, which only their deployments' folders tell.
    fn named(&self, error: CommandError) -> CommandError {
        match error {
            CommandError::Install(InstallError::Conflicts(mut conflicts)) => {
                conflicts.iter_mut().for_each(|conflict| self.name_group(conflict));
                CommandError::Install(InstallError::Conflicts(conflicts))
            }
            other => other,
        }
    }

    fn name_group(&self, conflict: &mut Conflict) {
        let Conflict::Exists { group: Some(group), .. } = conflict else { return };
        let folder =
            PathComponent::new(group).and_then(|id| self.store.pointed(&id, Pointer::LastSuccessful));
        if let Some(installed) = folder.and_then(|folder| Installed::read(&folder).ok()) {
            let name = &installed.about.deployment_group;
            *group = if name == group { name.clone() } else { format!("{name} (id {group})") };
        }
    }

    async fn run_scripts(
        &self,
        event: &LifecycleEvent,
        spec: &DeploymentSpec,
        stop: CancellationToken,
    ) -> Result<Report, CommandError> {
        let HookSource { plan, earlier, warning } = self.hook_source(event, spec)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let variables = environment::variables(spec, self.folder(spec).noted_etag());
        let report = self.run_plan(&plan, &self.folder(spec), &spec.deployment_id, &variables, stop).await?;
        Ok(match earlier {
            Some(earlier) if !report.outcome.script_name().is_empty() => of_earlier(report, event, &earlier),
            _ => report,
        })
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
        let deployed = deployed(plan).await?;
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
            keeper: &self.keeper,
            session,
            limits,
            deployed,
            log: &mut log,
            stop,
        };
        Ok(script::run(run).await)
    }

    /// The scripts of `event`, from the revision that they come from. Nothing, when that revision is gone.
    fn hook_source(&self, event: &LifecycleEvent, spec: &DeploymentSpec) -> Result<HookSource, CommandError> {
        let own = |plan| Ok(HookSource { plan, earlier: None, warning: None });
        if matches!(event, LifecycleEvent::DownloadBundle | LifecycleEvent::Install) {
            return own(HookPlan::nothing(event.clone()));
        }
        let group = &spec.deployment_group_id;
        let archive = self.folder(spec).archive();
        let earlier = match origin(event, spec.kind, archive.is_dir()) {
            Origin::ThisDeployment => {
                let again = self.is_deployed_again(spec);
                let appspec = appspec::read(&archive, &spec.appspec_filename, again)?;
                return own(HookPlan::new(event.clone(), archive, &appspec));
            }
            Origin::LastSuccessful => self.store.pointed(group, Pointer::LastSuccessful),
            Origin::MostRecent => self.store.pointed(group, Pointer::MostRecent),
        };
        let Some(earlier) = earlier else {
            return own(HookPlan::nothing(event.clone()));
        };
        let archive = earlier.archive();
        match appspec::scripts_of_earlier(&archive, &spec.appspec_filename, event) {
            Ok((scripts, warning)) => {
                let plan = HookPlan { event: event.clone(), archive, scripts };
                Ok(HookSource { plan, earlier: Some(earlier.id()), warning })
            }
            Err(AppSpecError::Missing { .. }) => {
                let warning =
                    format!("the earlier revision {} is gone; {event} does nothing", archive.display());
                let plan = HookPlan::nothing(event.clone());
                Ok(HookSource { plan, earlier: None, warning: Some(warning) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the deployment takes a revision that this host has deployed before, and whatever was accepted then.
    fn is_deployed_again(&self, spec: &DeploymentSpec) -> bool {
        self.settings.enable_archive_reuse && spec.reuse_archive_from.is_some()
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

/// What the plan's scripts held when their revision was unpacked, if this agent did that.
async fn deployed(plan: &HookPlan) -> Result<Option<Arc<Deployed>>, CommandError> {
    let manifest = DeploymentFolder::of_archive(&plan.archive).manifest();
    let (archive, scripts) = (plan.archive.clone(), plan.scripts.clone());
    let deployed = blocking(move || {
        let Ok(root) = archive.canonicalize() else { return Ok(None) };
        let paths = scripts.iter().filter_map(|script| {
            let path = root.join(script.location.as_path()).canonicalize().ok()?;
            path.strip_prefix(&root).ok().map(Path::to_owned)
        });
        manifest::deployed(&manifest, &paths.collect())
    });
    Ok(deployed.await??.map(Arc::new))
}

/// Runs `work` where it may block; what it logs belongs to the current span.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let span = tracing::Span::current();
    spawn_blocking(move || span.in_scope(work)).await
}

/// Folders that are nobody's destination: what is in them is the agent's. A log or pid folder that programs share is not
/// among them; there the agent has single files, which Install does not replace.
fn own_folders(settings: &Settings) -> Vec<PathBuf> {
    const SHARED: [&str; 9] = ["/", "/home", "/opt", "/run", "/srv", "/tmp", "/var", "/var/log", "/var/run"];
    let shared = |folder: &PathBuf| SHARED.iter().any(|shared| folder == std::path::Path::new(shared));
    let beside = [&settings.log_dir, &settings.pid_dir].into_iter().filter(|folder| !shared(folder));
    beside.chain([&settings.root_dir]).cloned().collect()
}
