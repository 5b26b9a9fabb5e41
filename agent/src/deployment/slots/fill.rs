//! The part of an Install that concerns slots: the idle slot gets the files that the AppSpec sends
//! below the link.

use std::fs;
use std::path::{Path, PathBuf};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::strategy::Traffic;
use codedeploy_hooks::appspec::{AppSpec, Strategy};
use codedeploy_hooks::install::{Note, Serving, Slot};
use codedeploy_hooks::script::Report;
use codedeploy_hooks::slots::SlotName;
use tokio_util::sync::CancellationToken;

use super::placed::{Placed, SlotsError, fits, record, without_links};
use super::{Log, run_event};
use crate::deployment::reports::of_earlier;
use crate::deployment::{CommandError, Host, blocking};
use crate::deployment_root::{DeploymentFolder, Pointer, Store};
use crate::path_component::PathComponent;
use crate::slots::layout::{Layout, Live};
use crate::slots::link;
use crate::slots::record::Record;
use crate::slots::traffic::connections::is_listened_on;
use codedeploy_api::chain::Chain;

/// An Install with its paths in the right slot.
#[derive(Debug)]
pub(in crate::deployment) struct Fill {
    pub(in crate::deployment) appspec: AppSpec,
    pub(in crate::deployment) slot: Option<Slot>,
    pub(in crate::deployment) note: Option<Note>,
    /// The slots as they were found; `None` if the Install is in place.
    pub(in crate::deployment) layout: Option<Layout>,
    /// Present if the slot had no files.
    made: Option<Strategy>,
}

/// Prepares the Install of the deployment in `folder`. Blocks.
pub(in crate::deployment) fn fill(
    store: &Store,
    group: &PathComponent,
    folder: &DeploymentFolder,
    appspec: AppSpec,
    reserved: &[PathBuf],
) -> Result<Fill, SlotsError> {
    let Some(strategy) = appspec.strategy.clone() else {
        return in_place(store, group, appspec);
    };
    let (layout, earlier) = examine(store, group, &strategy, reserved)?;
    check_port(&strategy, layout)?;
    let prepared = link::prepare(&strategy, layout)?;
    let mut next = next(&strategy, layout, earlier, folder);
    next.was_empty = prepared.was_empty;
    Ok(Fill {
        appspec: appspec.in_slot(&strategy, &prepared.folder),
        slot: Some(slot(&strategy, layout, prepared.folder)),
        note: Some(note(store, group, &next)),
        layout: Some(layout),
        made: prepared.was_empty.then_some(strategy),
    })
}

/// Returns the same without making any folder, for a preview. Blocks.
pub(in crate::deployment) fn preview(
    store: &Store,
    group: &PathComponent,
    appspec: AppSpec,
    reserved: &[PathBuf],
) -> Result<Fill, SlotsError> {
    let Some(strategy) = appspec.strategy.clone() else {
        return Ok(Fill {
            note: None,
            ..in_place(store, group, appspec)?
        });
    };
    let (layout, _) = examine(store, group, &strategy, reserved)?;
    let folder = without_links(&strategy.folder(layout.idle));
    Ok(Fill {
        appspec: appspec.in_slot(&strategy, &folder),
        slot: Some(slot(&strategy, layout, folder)),
        note: None,
        layout: Some(layout),
        made: None,
    })
}

/// Looks at the slots, and rejects paths that cannot have any.
fn examine(
    store: &Store,
    group: &PathComponent,
    strategy: &Strategy,
    reserved: &[PathBuf],
) -> Result<(Layout, Option<Record>), SlotsError> {
    let paths = [strategy.link.as_path(), strategy.slots.as_path()].map(without_links);
    check_reserved(&paths, reserved)?;
    check_other_groups(store, group, &paths)?;
    let earlier = record(store, group)?;
    let moved = |record: &&Record| !fits(record, strategy) && !record.is_vacant();
    if let Some(Record { slots, link, .. }) = earlier.as_ref().filter(moved) {
        let (slots, link) = (slots.clone(), link.clone());
        return Err(SlotsError::Moved { slots, link });
    }
    link::check(strategy)?;
    let layout = link::layout(strategy.link.as_path(), strategy.slots.as_path())?;
    Ok((layout, earlier.filter(|record| fits(record, strategy))))
}

/// Rejects paths that are in one of the agent's own folders, or around it.
fn check_reserved(paths: &[PathBuf], reserved: &[PathBuf]) -> Result<(), SlotsError> {
    let own: Vec<PathBuf> = reserved
        .iter()
        .map(|folder| without_links(folder))
        .collect();
    match paths.iter().find(|path| overlaps(path, &own)) {
        Some(path) => Err(SlotsError::Reserved { path: path.clone() }),
        None => Ok(()),
    }
}

/// Rejects paths that overlap with the link or the slots of another deployment group.
fn check_other_groups(
    store: &Store,
    group: &PathComponent,
    paths: &[PathBuf],
) -> Result<(), SlotsError> {
    let recorded = store.slot_groups()?.recorded.into_iter();
    for other in recorded.filter(|other| other != group) {
        let Some(theirs) = record(store, &other)?.filter(|record| !record.is_vacant()) else {
            continue;
        };
        let taken = [&theirs.link, &theirs.slots].map(|path| without_links(path));
        if paths.iter().any(|path| overlaps(path, &taken)) {
            return Err(SlotsError::Shared {
                group: other,
                link: theirs.link,
                slots: theirs.slots,
            });
        }
    }
    Ok(())
}

/// Whether one of the folders is `path`, contains it, or is below it.
fn overlaps(path: &Path, folders: &[PathBuf]) -> bool {
    folders
        .iter()
        .any(|folder| path.starts_with(folder) || folder.starts_with(path))
}

/// Rejects a slot whose port is in use: the new revision could not start, and ValidateService would
/// ask somebody else. systemd may listen there for units and for its sockets.
fn check_port(strategy: &Strategy, layout: Layout) -> Result<(), SlotsError> {
    let slot = layout.idle;
    let by_systemd =
        !strategy.units.is_empty() || matches!(strategy.traffic, Traffic::SystemdSocket(_));
    let Some(port) = strategy.side(slot).port.filter(|_| !by_systemd) else {
        return Ok(());
    };
    if is_listened_on(port) {
        return Err(SlotsError::PortInUse { port, slot });
    }
    Ok(())
}

/// An Install without slots: those of earlier revisions are no longer anybody's.
fn in_place(store: &Store, group: &PathComponent, appspec: AppSpec) -> Result<Fill, SlotsError> {
    let earlier = record(store, group)?.filter(|record| !record.is_vacant());
    let vacant = earlier.map(|record| Record::new(&record.link, &record.slots));
    Ok(Fill {
        appspec,
        slot: None,
        note: vacant.map(|vacant| note(store, group, &vacant)),
        layout: None,
        made: None,
    })
}

/// The record after the Install. Pure.
fn next(
    strategy: &Strategy,
    layout: Layout,
    earlier: Option<Record>,
    folder: &DeploymentFolder,
) -> Record {
    let (link, slots) = (strategy.link.as_path(), strategy.slots.as_path());
    let mut record = earlier.unwrap_or_else(|| Record::new(link, slots));
    record.adopts = layout.live == Live::Folder;
    if record.adopts {
        record = record.with(SlotName::Blue, None);
    }
    record.with(layout.idle, Some(folder.path().to_owned()))
}

fn slot(strategy: &Strategy, layout: Layout, folder: PathBuf) -> Slot {
    let real = |slot: SlotName| folder.with_file_name(slot.name());
    let serving = match layout.live {
        Live::Nothing => None,
        Live::Folder => Some(Serving {
            folder: without_links(strategy.link.as_path()),
            later: real(SlotName::Blue),
        }),
        Live::Slot(slot) => Some(Serving {
            folder: real(slot),
            later: real(slot),
        }),
    };
    Slot {
        link: strategy.link.as_path().to_owned(),
        serving,
        folder,
    }
}

fn note(store: &Store, group: &PathComponent, record: &Record) -> Note {
    Note {
        path: store.slots_record(group),
        text: record.text(),
    }
}

impl Fill {
    /// Removes the folders that were made for an Install that then did not happen.
    pub(in crate::deployment) fn give_up(&self) {
        if let (Some(strategy), Some(slot)) = (&self.made, &self.slot) {
            // A folder with files stays.
            let _ = fs::remove_dir(&slot.folder);
            let _ = fs::remove_dir(strategy.slots.as_path());
        }
    }
}

/// Stops the deployments in slots that must not run while this one is installed: one that was
/// prepared and never served; and if this one has no strategy, the one that serves. Returns the
/// report of a failure that ends the Install.
pub(in crate::deployment) async fn make_way(
    host: &Host,
    log: Log<'_>,
    has_strategy: bool,
    stop: &CancellationToken,
) -> Result<Option<Report>, CommandError> {
    let event = LifecycleEvent::ApplicationStop;
    for (tenant, serves) in running(host, log, has_strategy).await? {
        let id = tenant.id();
        if serves {
            tracing::info!(
                deployment = id,
                "this revision has no strategy, so the one in the slot is stopped now"
            );
        } else {
            tracing::warn!(
                deployment = id,
                "an earlier deployment was prepared in a slot and never served; it is stopped now"
            );
        }
        match run_event(host, &event, &tenant, log, stop).await {
            Ok(report) if report.outcome.succeeded() => {}
            Ok(report) if serves => return Ok(Some(of_earlier(report, &event, &id))),
            Ok(report) => tracing::warn!(deployment = id, "its {event} failed: {}", report.outcome),
            Err(error) if serves => return Err(error),
            Err(error) => tracing::warn!(deployment = id, "its {event} failed: {}", Chain(&error)),
        }
    }
    Ok(None)
}

/// The deployments to stop, each with whether it serves.
async fn running(
    host: &Host,
    log: Log<'_>,
    has_strategy: bool,
) -> Result<Vec<(DeploymentFolder, bool)>, CommandError> {
    let (store, group, this) = (host.store.clone(), log.group.clone(), log.folder.clone());
    let found = blocking(move || {
        let Some(last) = store.pointed(&group, Pointer::LastSuccessful) else {
            return Ok(Vec::new());
        };
        let Some(placed) = Placed::look(&store, &group, &last, None)? else {
            return Ok(Vec::new());
        };
        let mut running = Vec::new();
        if placed.is_filled && !placed.serves() && last != this {
            running.push((last.clone(), false));
        }
        let serving = placed.layout.serving();
        let live = placed.record.as_ref().zip(serving);
        let live = live.and_then(|(record, slot)| record.tenant(slot));
        if let Some(live) = live.filter(|_| !has_strategy) {
            running.push((DeploymentFolder::at(live.to_owned()), true));
        }
        Ok::<_, SlotsError>(running)
    });
    Ok(found.await??)
}
