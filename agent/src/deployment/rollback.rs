//! Takes a deployment back on this host: restores the files from before its Install, and starts the
//! previous revision again (spec: Durability). Automatically after a failure if
//! `rollback_on_failure` is set; otherwise by hand.

pub mod journal;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::install::{self, RestoreError, Summary};
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::Report;
use codedeploy_hooks::slots::SlotName;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::installed::{Installed, InstalledError};
use super::ledger::DeploymentNames;
use super::slots::placed::{Placed, SlotsError};
use super::slots::{self, placed};
use super::{CommandError, Host, appspec, blocking, scripts, survivors};
use crate::deployment_root::{DeploymentFolder, Pointer, StoreError};
use crate::path_component::PathComponent;
use crate::recovery::{self, RecoveryError};
use crate::slots::link;
use codedeploy_api::chain::Chain;
use journal::{Came, Cause, Journal};

/// The events that start the restored revision, in order.
pub(super) const STARTING: [LifecycleEvent; 2] = [
    LifecycleEvent::ApplicationStart,
    LifecycleEvent::ValidateService,
];

/// The number of times that an event's scripts begin, if the agent ends before they do each time.
const MOST_STARTS: usize = 2;

/// The interval between checks of a script that an interrupted rollback left running.
const LOOK: Duration = Duration::from_millis(250);

/// A host that was rolled back. Its `Display` is one line for people.
#[derive(Debug)]
pub struct RolledBack {
    /// Facts about the files that a person must know.
    pub warnings: Vec<String>,
    /// The deployment that is installed again; `None` if there was none.
    pub previous: Option<String>,
    /// The results of that deployment's scripts, up to the first failure.
    pub started: Vec<(LifecycleEvent, Started)>,
    /// Another deployment was installed since, so nothing was started.
    pub superseded: bool,
    /// The slot that serves again, if that was enough.
    pub slot: Option<SlotName>,
}

/// The result of the scripts of one event of the previous revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub succeeded: bool,
    /// `succeeded`, or a description of the failure.
    pub words: String,
    /// The last output of the scripts, for the person at the terminal.
    #[serde(skip)]
    pub log_tail: String,
}

/// The reason why a deployment was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error(transparent)]
    Installed(#[from] InstalledError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Slots(#[from] SlotsError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("the rollback was interrupted")]
    Interrupted(#[from] JoinError),
    #[error("cannot write the journal of the rollback")]
    Journal(#[source] io::Error),
}

/// Whether the files on this host belong to the deployment and can be taken back.
pub fn is_installed(host: &Host, group: &PathComponent, deployment: &PathComponent) -> bool {
    let folder = host.store.deployment(group, deployment);
    host.store.pointed(group, Pointer::LastSuccessful).as_ref() == Some(&folder)
        && (install::can_restore(folder.path()).unwrap_or(false)
            || placed::serves(&host.store, group, &folder))
}

/// Returns the report for a failed event: the same one, plus a note about the rollback if the
/// settings ask for one. The journal of a rollback that follows a `command` stays until its outcome
/// is recorded.
pub async fn after_failure(
    host: &Host,
    about: &DeploymentNames,
    command: Option<&str>,
    mut report: Report,
    stop: CancellationToken,
) -> Report {
    let (group, deployment) = (&about.deployment_group_id, &about.deployment_id);
    // A slot that does not serve yet is left in any case: nobody notices.
    let (store, in_slot) = (host.store.clone(), (group.clone(), deployment.clone()));
    let prepared = blocking(move || {
        let (group, deployment) = in_slot;
        placed::is_prepared(&store, &group, &store.deployment(&group, &deployment))
    });
    let prepared = prepared.await.unwrap_or_default();
    let wanted = (host.settings.rollback_on_failure || prepared) && !stop.is_cancelled();
    if !wanted || !is_installed(host, group, deployment) {
        return report;
    }
    tracing::warn!("the deployment failed after its Install; this host is rolled back");
    let failure = report.outcome.diagnostics(&report.log_tail);
    let cause = Cause::new(about.clone(), command.map(str::to_owned), Some(failure));
    let line = match roll_back(host, cause, stop).await {
        Ok((rolled_back, journal)) => {
            if command.is_none() {
                journal.remove();
            }
            rolled_back.log();
            let started = rolled_back
                .started
                .iter()
                .all(|(_, result)| result.succeeded);
            let outcome = if started { "succeeded" } else { "not_started" };
            host.measure(|metrics| metrics.rolled_back(outcome));
            rolled_back.to_string()
        }
        Err(error) => {
            host.measure(|metrics| metrics.rolled_back("failed"));
            not_rolled_back(&error)
        }
    };
    if !report.log_tail.is_empty() && !report.log_tail.ends_with('\n') {
        report.log_tail.push('\n');
    }
    report.log_tail.push_str(&line);
    report.log_tail.push('\n');
    report
}

/// Takes back the deployment of `cause`, the last one installed in its group. Remove the journal
/// when everybody who has to know about the rollback does.
pub async fn roll_back(
    host: &Host,
    cause: Cause,
    stop: CancellationToken,
) -> Result<(RolledBack, Journal), RollbackError> {
    Installed::read(&folder_of(host, &cause.about))?;
    host.store.make_records_folder(&host.store.instructions())?;
    let mut journal = Journal::begin(&host.store, cause).map_err(RollbackError::Journal)?;
    match go_back(host, &mut journal, stop).await {
        Ok(rolled_back) => Ok((rolled_back, journal)),
        // After the files are restored, the next start does the rest.
        Err(error) if journal.restored().is_some() => Err(error),
        Err(error) => {
            journal.remove();
            Err(error)
        }
    }
}

/// Finishes an interrupted rollback; returns a description of the result.
pub async fn finish(host: &Host, journal: &mut Journal, stop: CancellationToken) -> String {
    if let Some(words) = journal.done() {
        return words.to_owned();
    }
    let about = &journal.cause.about;
    tracing::warn!(deployment_id = %about.deployment_id, "a rollback of this host was interrupted; it is finished now");
    match go_back(host, journal, stop).await {
        Ok(rolled_back) => {
            rolled_back.log();
            rolled_back.to_string()
        }
        Err(error) => not_rolled_back(&error),
    }
}

/// Finishes the rollbacks that followed a failure of a local deployment and were interrupted.
/// Those of commands, and those by hand, are reported to the service: the agent finishes them.
pub async fn finish_local(host: &Host, stop: CancellationToken) {
    let store = host.store.clone();
    let left = blocking(move || Journal::left(&store)).await;
    for mut journal in left.into_iter().flatten().flatten() {
        if journal.cause.command.is_none() && journal.cause.failure.is_some() {
            finish(host, &mut journal, stop.clone()).await;
            journal.remove();
        }
    }
}

/// The folder of the deployment, as the group's pointer names it.
fn folder_of(host: &Host, about: &DeploymentNames) -> DeploymentFolder {
    let (group, id) = (&about.deployment_group_id, &about.deployment_id);
    let pointed = host.store.pointed(group, Pointer::LastSuccessful);
    pointed
        .filter(|folder| folder.id() == id.as_str())
        .unwrap_or_else(|| host.store.deployment(group, id))
}

/// Does the steps that the journal does not record as done.
async fn go_back(
    host: &Host,
    journal: &mut Journal,
    stop: CancellationToken,
) -> Result<RolledBack, RollbackError> {
    let about = journal.cause.about.clone();
    let (group, folder) = (&about.deployment_group_id, folder_of(host, &about));
    let installed = Installed::read(&folder)?;
    let pointed = || host.store.pointed(group, Pointer::LastSuccessful);
    if journal.restored().is_none() {
        // The files may be restored already, without a record of that.
        let warnings = match pointed() {
            Some(pointed) if pointed == folder => {
                take_away(host, &folder, group, &installed, journal, &stop).await?
            }
            _ => Vec::new(),
        };
        let previous = pointed().map(|previous| previous.path().to_owned());
        journal
            .note_restored(previous, warnings)
            .map_err(RollbackError::Journal)?;
    }
    let (previous, warnings) = journal.restored().unwrap_or_default();
    let (previous, warnings) = (
        previous.map(|path| DeploymentFolder::at(path.to_owned())),
        warnings.to_vec(),
    );
    let superseded = pointed() != previous;
    let slot = match &previous {
        Some(previous) => slot_of(host, group, &folder, previous).await?,
        None => None,
    };
    let started = match &previous {
        Some(previous) if !superseded && slot.is_none() => {
            start(host, previous, &folder, &installed, journal, stop)
                .await
                .map_err(RollbackError::Journal)?
        }
        _ => Vec::new(),
    };
    let previous = previous.map(|previous| previous.id());
    let rolled_back = RolledBack {
        warnings,
        previous,
        started,
        superseded,
        slot,
    };
    journal
        .note_done(rolled_back.to_string())
        .map_err(RollbackError::Journal)?;
    Ok(rolled_back)
}

/// Takes the files of a deployment away: out of service if they are in a slot, and then from the
/// host. Returns warnings.
async fn take_away(
    host: &Host,
    folder: &DeploymentFolder,
    group: &PathComponent,
    installed: &Installed,
    journal: &mut Journal,
    stop: &CancellationToken,
) -> Result<Vec<String>, RollbackError> {
    let log = slots::Log {
        group,
        deployment: &installed.about.deployment_id,
        folder,
        variables: &installed.variables,
    };
    let left = slots::leave::leave(host, log, journal, stop).await?;
    let Some(left) = left else {
        return Ok(restore(host, folder, group).await?.warnings);
    };
    let mut warnings = left.warnings;
    if let Some(old) = left.serves_again {
        host.store.point(group, Pointer::LastSuccessful, &old)?;
        return Ok(warnings);
    }
    warnings.extend(restore(host, folder, group).await?.warnings);
    if let Some(slot) = left.empty {
        let emptied = blocking(move || link::empty(&slot)).await?;
        emptied.map_err(SlotsError::from)?;
    }
    Ok(warnings)
}

/// The slot in which the previous deployment serves, if the one that is taken back was in a slot
/// as well.
async fn slot_of(
    host: &Host,
    group: &PathComponent,
    taken_back: &DeploymentFolder,
    previous: &DeploymentFolder,
) -> Result<Option<SlotName>, RollbackError> {
    let (store, group) = (host.store.clone(), group.clone());
    let (taken_back, previous) = (taken_back.clone(), previous.clone());
    let found = blocking(move || {
        placed::strategy(&taken_back, None)?;
        let placed = Placed::look(&store, &group, &previous, None).ok()??;
        placed.is_filled.then_some(placed.own)
    });
    Ok(found.await?)
}

async fn restore(
    host: &Host,
    folder: &DeploymentFolder,
    group: &PathComponent,
) -> Result<Summary, RollbackError> {
    let records = host.store.records(group)?;
    let turn = host.installing.clone().lock_owned().await;
    let (store, folder, group) = (host.store.clone(), folder.path().to_owned(), group.clone());
    let restored = blocking(move || {
        let _turn = turn;
        let turn = recovery::before_install(&store, &group)?;
        Ok::<_, RollbackError>(install::restore(&folder, &records, &turn)?)
    });
    Ok(restored.await??.summary)
}

/// Runs the start events of `previous`, except those that the journal records as done; their output
/// goes to the log of the deployment that is taken back.
async fn start(
    host: &Host,
    previous: &DeploymentFolder,
    taken_back: &DeploymentFolder,
    installed: &Installed,
    journal: &mut Journal,
    stop: CancellationToken,
) -> io::Result<Vec<(LifecycleEvent, Started)>> {
    let mut started = Vec::new();
    for event in STARTING {
        let known = match journal.came(&event) {
            Came::NotBegun => None,
            Came::Ended(result) => Some(result),
            Came::Interrupted(times) => {
                let id = &installed.about.deployment_id;
                let ran_on = ran_on(id, &event, &previous.archive(), &stop).await;
                interrupted(times, ran_on)
            }
        };
        let result = match known {
            Some(result) => result,
            None => {
                journal.note_begun(&event)?;
                let run = start_with(host, &event, previous, taken_back, installed, stop.clone());
                let result = Started::of(run.await);
                journal.note_ended(&event, result.clone())?;
                result
            }
        };
        let ended = !result.succeeded;
        started.push((event, result));
        if ended {
            break;
        }
    }
    Ok(started)
}

/// Returns whether a script of the event outlived its agent; waits for its end.
async fn ran_on(
    deployment: &PathComponent,
    event: &LifecycleEvent,
    archive: &Path,
    stop: &CancellationToken,
) -> bool {
    let mut ran_on = false;
    while survivors::of(deployment, event)
        .iter()
        .any(|survivor| survivor.runs_from(archive))
    {
        ran_on = true;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => break,
        }
    }
    ran_on
}

async fn start_with(
    host: &Host,
    event: &LifecycleEvent,
    previous: &DeploymentFolder,
    taken_back: &DeploymentFolder,
    installed: &Installed,
    stop: CancellationToken,
) -> Result<Report, CommandError> {
    let archive = previous.archive();
    let (for_event, named) = (event.clone(), installed.appspec_filename.clone());
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
    let id = &installed.about.deployment_id;
    let mut variables = installed.variables.clone();
    let group = &installed.about.deployment_group_id;
    variables.extend(placed::variables(host, group, previous, None).await?);
    let report = scripts::run(host, &plan, taken_back, id, &variables, stop).await?;
    if report.outcome.succeeded() {
        slots::move_units(host, event, group, previous).await?;
    }
    Ok(report)
}

/// The result for an event whose scripts were interrupted; `None` if they run again.
fn interrupted(times: usize, ran_on: bool) -> Option<Started> {
    let result = |succeeded, words: &str| {
        Some(Started {
            succeeded,
            words: words.into(),
            log_tail: String::new(),
        })
    };
    if ran_on {
        result(
            true,
            "went on while the agent was restarted, and its outcome is unknown",
        )
    } else if times >= MOST_STARTS {
        result(
            false,
            "was interrupted each time that it was begun, and is not begun again",
        )
    } else {
        None
    }
}

fn not_rolled_back(error: &RollbackError) -> String {
    let reason = Chain(error).to_string();
    tracing::error!(reason, "this host was not rolled back");
    format!("this host was not rolled back: {}", one_line(&reason))
}

impl Started {
    pub(super) fn of(run: Result<Report, CommandError>) -> Self {
        match run {
            Ok(report) if report.outcome.succeeded() => Self {
                succeeded: true,
                words: "succeeded".into(),
                log_tail: report.log_tail,
            },
            Ok(report) => {
                let words = format!("failed: {}", one_line(&report.outcome.to_string()));
                Self {
                    succeeded: false,
                    words,
                    log_tail: report.log_tail,
                }
            }
            Err(error) => {
                let words = format!("could not run: {}", one_line(&Chain(&error).to_string()));
                Self {
                    succeeded: false,
                    words,
                    log_tail: String::new(),
                }
            }
        }
    }
}

impl RolledBack {
    /// Whether the restored revision runs, as far as its scripts can tell.
    pub fn succeeded(&self) -> bool {
        self.started.iter().all(|(_, result)| result.succeeded)
    }

    fn log(&self) {
        self.warnings
            .iter()
            .for_each(|warning| tracing::warn!("{warning}"));
        tracing::warn!("{self}");
    }
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(previous) = &self.previous else {
            return f.write_str(
                "this host was rolled back: the files of the deployment are removed, and no deployment was installed before",
            );
        };
        if let Some(slot) = self.slot {
            return write!(
                f,
                "this host was rolled back: {previous} serves, in the slot {slot}"
            );
        }
        write!(
            f,
            "this host was rolled back: the files of {previous} are installed again"
        )?;
        if self.superseded {
            return f.write_str(", and another deployment was installed since");
        }
        for (event, result) in &self.started {
            let but = if result.succeeded { "" } else { "but " };
            write!(f, ", {but}its {event} {}", result.words)?;
        }
        Ok(())
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', "; ")
}
