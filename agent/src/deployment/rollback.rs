//! Taking a deployment back on this host: what was there before its Install returns, and the revision before it starts
//! again (spec: Durability). After a failure by itself, when `rollback_on_failure` says so; else by hand.

use std::fmt;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::install::{self, RestoreError, Summary};
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::Report;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::installed::{Installed, InstalledError};
use super::ledger::About;
use super::{CommandError, Host, appspec, blocking};
use crate::errors::Chain;
use crate::recovery::{self, RecoveryError};
use crate::revision::store::{DeploymentFolder, Pointer, StoreError};
use crate::spec::PathComponent;

/// What starts the revision that is back, in order.
const STARTING: [LifecycleEvent; 2] = [LifecycleEvent::ApplicationStart, LifecycleEvent::ValidateService];

/// A host that was rolled back. Its `Display` is one line for people.
#[derive(Debug)]
pub struct RolledBack {
    /// What happened to files, with what a person must know of it.
    pub summary: Summary,
    /// The deployment that is installed again; there may have been none.
    pub previous: Option<String>,
    /// How the scripts of that deployment ended, up to the first that failed.
    pub started: Vec<(LifecycleEvent, Result<Report, String>)>,
}

/// Why a deployment was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error(transparent)]
    Installed(#[from] InstalledError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("the work was cut short")]
    Interrupted(#[from] JoinError),
}

impl Host {
    /// Whether the files on this host are those of the deployment, and can be taken back.
    pub fn is_installed(&self, group: &PathComponent, deployment: &PathComponent) -> bool {
        let folder = self.store.deployment(group, deployment);
        self.store.pointed(group, Pointer::LastSuccessful).as_ref() == Some(&folder)
            && install::can_restore(folder.path()).unwrap_or(false)
    }

    /// What is reported of an event that failed: the same, and, where the settings want that, that the host was rolled
    /// back.
    pub async fn after_failure(&self, about: &About, mut report: Report, stop: CancellationToken) -> Report {
        let (group, deployment) = (&about.deployment_group_id, &about.deployment_id);
        let wanted = self.settings.rollback_on_failure && !stop.is_cancelled();
        if !wanted || !self.is_installed(group, deployment) {
            return report;
        }
        tracing::warn!("the deployment failed after its Install; this host is rolled back");
        let line = match self.roll_back(&self.store.deployment(group, deployment), stop).await {
            Ok(rolled_back) => {
                rolled_back.summary.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::warn!("{rolled_back}");
                rolled_back.to_string()
            }
            Err(error) => {
                let reason = Chain(&error).to_string();
                tracing::error!(reason, "this host was not rolled back");
                format!("this host was not rolled back: {}", reason.replace('\n', "; "))
            }
        };
        if !report.log_tail.is_empty() && !report.log_tail.ends_with('\n') {
            report.log_tail.push('\n');
        }
        report.log_tail.push_str(&line);
        report.log_tail.push('\n');
        report
    }

    /// Takes back the deployment in `folder`, the last that was installed of its group.
    pub async fn roll_back(
        &self,
        folder: &DeploymentFolder,
        stop: CancellationToken,
    ) -> Result<RolledBack, RollbackError> {
        let installed = Installed::read(folder)?;
        let group = installed.about.deployment_group_id.clone();
        let summary = self.restore(folder, &group).await?;
        let previous = self.store.pointed(&group, Pointer::LastSuccessful);
        let started = match &previous {
            Some(previous) => self.start(previous, folder, &installed, stop).await,
            None => Vec::new(),
        };
        let previous = previous.map(|previous| previous.id());
        Ok(RolledBack { summary, previous, started })
    }

    async fn restore(
        &self,
        folder: &DeploymentFolder,
        group: &PathComponent,
    ) -> Result<Summary, RollbackError> {
        let records = self.store.records(group)?;
        let turn = self.installing.clone().lock_owned().await;
        let (store, folder, group) = (self.store.clone(), folder.path().to_owned(), group.clone());
        let restored = blocking(move || {
            let _turn = turn;
            let turn = recovery::before_install(&store, &group)?;
            Ok::<_, RollbackError>(install::restore(&folder, &records, &turn)?)
        });
        Ok(restored.await??.summary)
    }

    /// Runs what starts the revision of `previous`; its output goes to the log of the deployment that is taken back.
    async fn start(
        &self,
        previous: &DeploymentFolder,
        taken_back: &DeploymentFolder,
        installed: &Installed,
        stop: CancellationToken,
    ) -> Vec<(LifecycleEvent, Result<Report, String>)> {
        let mut started = Vec::new();
        for event in STARTING {
            let run = self.start_with(&event, previous, taken_back, installed, stop.clone());
            let result = run.await.map_err(|error| Chain(&error).to_string());
            let ended = !result.as_ref().is_ok_and(|report| report.outcome.succeeded());
            started.push((event, result));
            if ended {
                break;
            }
        }
        started
    }

    async fn start_with(
        &self,
        event: &LifecycleEvent,
        previous: &DeploymentFolder,
        taken_back: &DeploymentFolder,
        installed: &Installed,
        stop: CancellationToken,
    ) -> Result<Report, CommandError> {
        let archive = previous.archive();
        let appspec = appspec::read(&archive, &installed.appspec_filename)?;
        let plan = HookPlan::new(event.clone(), archive, &appspec);
        let id = &installed.about.deployment_id;
        self.run_plan(&plan, taken_back, id, &installed.variables, stop).await
    }
}

impl RolledBack {
    /// Whether the revision that is back runs, as far as its scripts can say.
    pub fn succeeded(&self) -> bool {
        self.started.iter().all(|(_, result)| result.as_ref().is_ok_and(|report| report.outcome.succeeded()))
    }
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(previous) = &self.previous else {
            return f.write_str(
                "this host was rolled back: what the deployment installed is gone, and no deployment was installed before",
            );
        };
        write!(f, "this host was rolled back: the files of {previous} are installed again")?;
        for (event, result) in &self.started {
            match result {
                Ok(report) if report.outcome.succeeded() => write!(f, ", its {event} succeeded")?,
                Ok(report) => {
                    write!(f, ", but its {event} failed: {}", one_line(&report.outcome.to_string()))?
                }
                Err(error) => write!(f, ", but its {event} could not run: {}", one_line(error))?,
            }
        }
        Ok(())
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', "; ")
}
