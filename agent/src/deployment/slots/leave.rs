//! Takes a deployment out of its slot: the old slot serves again, and the new revision stops.

use std::io;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{AppSpec, Strategy};
use codedeploy_hooks::slots::SlotName;
use tokio_util::sync::CancellationToken;

use super::placed::{Placed, SlotsError, strategy};
use super::{Log, run_event, switch};
use crate::deployment::installed::Installed;
use crate::deployment::rollback::journal::{Came, Journal};
use crate::deployment::rollback::{RollbackError, STARTING, Started};
use crate::deployment::{Host, appspec, blocking};
use crate::deployment_root::DeploymentFolder;
use crate::slots::layout::Live;
use crate::slots::link;
use codedeploy_api::chain::Chain;

/// A deployment that left its slot; its files are still there.
#[derive(Debug, Default)]
pub(in crate::deployment) struct Left {
    pub(in crate::deployment) warnings: Vec<String>,
    /// The deployment that serves again, if the other files of both are the same, so that nothing
    /// has to be restored.
    pub(in crate::deployment) serves_again: Option<DeploymentFolder>,
    /// The slot, if it had no files before.
    pub(in crate::deployment) empty: Option<std::path::PathBuf>,
}

/// How the old files serve again. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// They never stopped to.
    Prepared,
    /// The deployment in the other slot starts, and then serves.
    Switch(DeploymentFolder),
    /// The other slot has files of a revision without a strategy, which starts later.
    Link,
    /// The folder returns to the link's place.
    GiveBack,
    /// Nothing served before.
    Nothing,
    Emptied,
    /// Nobody knows how the deployment in the other slot is started.
    Unreadable,
}

fn way(placed: &Placed, other_is_empty: bool, other_has_strategy: bool) -> Way {
    if !placed.serves() {
        // An interrupted return of the folder is finished.
        let back = placed.layout.live == Live::Folder;
        return if back { Way::GiveBack } else { Way::Prepared };
    }
    let record = placed.record.as_ref();
    let tenant = record.and_then(|record| record.tenant(placed.own.other()));
    match tenant {
        _ if record.is_some_and(|record| record.adopts) => Way::GiveBack,
        Some(_) if other_is_empty => Way::Emptied,
        Some(tenant) if other_has_strategy => Way::Switch(DeploymentFolder::at(tenant.to_owned())),
        Some(_) => Way::Unreadable,
        _ if other_is_empty => Way::Nothing,
        _ => Way::Link,
    }
}

/// Makes the old slot serve again, and stops the deployment of `log`. `None` if it has no slot.
pub(in crate::deployment) async fn leave(
    host: &Host,
    log: Log<'_>,
    journal: &mut Journal,
    stop: &CancellationToken,
) -> Result<Option<Left>, RollbackError> {
    let (store, group, folder) = (host.store.clone(), log.group.clone(), log.folder.clone());
    let found = blocking(move || {
        let placed = Placed::look(&store, &group, &folder, None)?;
        let Some(placed) = placed.filter(|placed| placed.is_filled) else {
            return Ok(None);
        };
        let other = placed.own.other();
        let other_is_empty = link::is_empty(&placed.strategy.folder(other))?;
        let record = placed.record.as_ref();
        let tenant = record.and_then(|record| record.tenant(other));
        let tenant = tenant.map(|path| DeploymentFolder::at(path.to_owned()));
        let other = tenant.and_then(|tenant| strategy(&tenant, None));
        let way = way(&placed, other_is_empty, other.is_some());
        Ok::<_, SlotsError>(Some((placed, way)))
    });
    let Some((placed, way)) = found.await.map_err(SlotsError::from)?? else {
        return Ok(None);
    };
    let other = placed.own.other();
    let mut left = Left::default();
    match way {
        Way::Prepared => {}
        Way::Switch(old) => {
            start_again(host, &old, other, log, journal, stop).await?;
            let strategy = strategy(&old, None).unwrap_or_else(|| placed.strategy.clone());
            let warnings = switch::back(host, log, &old, &strategy, other, stop).await?;
            left.warnings.extend(warnings);
            left.serves_again = Some(old).filter(|_| has_no_other_files(log.folder));
        }
        Way::Link => {
            change(&placed.strategy, move |strategy| {
                link::switch(strategy, other)
            })
            .await?
        }
        Way::GiveBack => change(&placed.strategy, link::give_back).await?,
        Way::Nothing => {
            change(&placed.strategy, |strategy| {
                link::remove(strategy.link.as_path())
            })
            .await?;
        }
        Way::Emptied => return Err(SlotsError::Emptied { slot: other }.into()),
        Way::Unreadable => return Err(SlotsError::Unreadable { slot: other }.into()),
    }
    let event = LifecycleEvent::ApplicationStop;
    let failure = match run_event(host, &event, log.folder, log, stop).await {
        Ok(report) if report.outcome.succeeded() => None,
        Ok(report) => Some(report.outcome.to_string()),
        Err(error) => Some(Chain(&error).to_string()),
    };
    left.warnings.extend(failure.map(|failure| {
        format!(
            "its own ApplicationStop failed, so the slot {} may still run: {failure}",
            placed.own
        )
    }));
    let was_empty = placed
        .record
        .as_ref()
        .is_some_and(|record| record.was_empty);
    left.empty = was_empty.then(|| placed.strategy.folder(placed.own));
    Ok(Some(left))
}

async fn change(
    strategy: &Strategy,
    act: impl FnOnce(&Strategy) -> Result<(), link::SlotError> + Send + 'static,
) -> Result<(), SlotsError> {
    let strategy = strategy.clone();
    Ok(blocking(move || act(&strategy)).await??)
}

/// Starts the deployment in the other slot, before anything leads to it.
async fn start_again(
    host: &Host,
    old: &DeploymentFolder,
    slot: SlotName,
    log: Log<'_>,
    journal: &mut Journal,
    stop: &CancellationToken,
) -> Result<(), RollbackError> {
    for event in STARTING {
        // A start that was interrupted is begun again: nothing leads to this slot yet.
        if let Came::Ended(result) = journal.came(&event)
            && result.succeeded
        {
            continue;
        }
        let noted = |result: io::Result<()>| result.map_err(RollbackError::Journal);
        noted(journal.note_begun(&event))?;
        let result = Started::of(run_event(host, &event, old, log, stop).await);
        noted(journal.note_ended(&event, result.clone()))?;
        if !result.succeeded {
            // It must not run on in a slot that does not serve.
            let stopped = LifecycleEvent::ApplicationStop;
            let _ = run_event(host, &stopped, old, log, stop).await;
            let words = result.words;
            return Err(SlotsError::OldOneFailed { slot, event, words }.into());
        }
    }
    Ok(())
}

/// Whether all files of the revision are below the link.
fn has_no_other_files(folder: &DeploymentFolder) -> bool {
    let named = Installed::read(folder).map(|installed| installed.appspec_filename);
    let parsed = named
        .ok()
        .and_then(|named| appspec::parsed(&folder.archive(), &named, true).ok());
    parsed.is_some_and(|(_, parsed)| all_below(&parsed.appspec))
}

fn all_below(appspec: &AppSpec) -> bool {
    let files = || appspec.files.iter();
    appspec
        .strategy
        .as_ref()
        .is_some_and(|strategy| files().all(|file| strategy.covers(file.destination.as_path())))
}
