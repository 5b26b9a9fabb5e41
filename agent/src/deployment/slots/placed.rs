//! Looks where the deployments of a group are: in which slot, and whether it serves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::Strategy;
use codedeploy_hooks::slots::SlotName;
use tokio::task::JoinError;

use crate::deployment::installed::Installed;
use crate::deployment::{Host, appspec, blocking};
use crate::deployment_root::{DeploymentFolder, Pointer, Store, StoreError};
use crate::path_component::PathComponent;
use crate::slots::layout::{self, Layout};
use crate::slots::link::{self, SlotError};
use crate::slots::record::Record;
use crate::slots::traffic::TrafficError;
use crate::slots::units::UnitError;
use crate::spec::parse::APPSPEC_FILENAMES;

/// The reason why slots were not filled or switched.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read {}, the record of the slots; move it away to begin with new ones", path.display())]
    Record { path: PathBuf, source: io::Error },
    #[error(
        "the slots of this deployment group are in {} with the link {}; a revision cannot move them. Deploy a revision without \
         \"strategy\" first",
        slots.display(), link.display()
    )]
    Moved { slots: PathBuf, link: PathBuf },
    #[error(
        "the port {port} of the slot {slot} is in use before the new revision starts; stop the process that listens there \
         (ss -ltnp 'sport = :{port}'), or give the slot another port"
    )]
    PortInUse { port: u16, slot: SlotName },
    #[error(
        "{} is one of the agent's own folders, or contains one; choose another path in \"strategy\"",
        path.display()
    )]
    Reserved { path: PathBuf },
    #[error(
        "the deployment group {group} has its link {} and its slots in {}; choose other paths in \"strategy\"",
        link.display(), slots.display()
    )]
    Shared {
        group: PathComponent,
        link: PathBuf,
        slots: PathBuf,
    },
    #[error(
        "the revision in the slot {slot} cannot be read, so it cannot be started again; deploy an earlier revision instead"
    )]
    Unreadable { slot: SlotName },
    #[error("traffic was not moved to the slot {to}; the slot that served goes on")]
    Traffic { to: SlotName, source: TrafficError },
    #[error("the units of the slot {slot} did not start")]
    Units { slot: SlotName, source: UnitError },
    #[error("cannot write the journal of the switch")]
    Journal(#[source] io::Error),
    #[error(
        "the slot {slot} was emptied after the switch (keep: 1); deploy the earlier revision instead"
    )]
    Emptied { slot: SlotName },
    #[error(
        "the revision in the slot {slot} does not run again, so the present one goes on: its {event} {words}"
    )]
    OldOneFailed {
        slot: SlotName,
        event: LifecycleEvent,
        words: String,
    },
    #[error("the work was interrupted")]
    Interrupted(#[from] JoinError),
}

/// A deployment whose revision has a strategy, and its slot.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) strategy: Strategy,
    pub(crate) layout: Layout,
    pub(crate) record: Option<Record>,
    /// The slot that has its files, or gets them.
    pub(crate) own: SlotName,
    /// Whether its files are in the slot, as the record names them.
    pub(crate) is_filled: bool,
}

impl Placed {
    /// Looks where the deployment in `folder` is; `None` if its revision has no strategy. Blocks.
    pub(crate) fn look(
        store: &Store,
        group: &PathComponent,
        folder: &DeploymentFolder,
        named: Option<&str>,
    ) -> Result<Option<Self>, SlotsError> {
        let Some(strategy) = strategy(folder, named) else {
            return Ok(None);
        };
        let layout = link::layout(strategy.link.as_path(), strategy.slots.as_path())?;
        let record = record(store, group)?.filter(|record| fits(record, &strategy));
        let filled = record
            .as_ref()
            .and_then(|record| record.slot_of(folder.path()));
        Ok(Some(Self {
            strategy,
            layout,
            own: filled.unwrap_or(layout.idle),
            is_filled: filled.is_some(),
            record,
        }))
    }

    /// Whether the link leads to the deployment's files.
    pub(crate) fn serves(&self) -> bool {
        self.is_filled && self.layout.serving() == Some(self.own)
    }

    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        layout::variables(&self.strategy, self.own, self.layout.live)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// Whether the record is one of the strategy's slots.
pub(super) fn fits(record: &Record, strategy: &Strategy) -> bool {
    record.link == strategy.link.as_path() && record.slots == strategy.slots.as_path()
}

/// The record of the group's slots.
pub(crate) fn record(store: &Store, group: &PathComponent) -> Result<Option<Record>, SlotsError> {
    let path = store.slots_record(group);
    Record::read(&path).map_err(|source| SlotsError::Record { path, source })
}

/// The strategy of the revision in `folder`, if it has one and can be read. `named` is the name of
/// its AppSpec file, if the folder does not describe the deployment yet.
pub(crate) fn strategy(folder: &DeploymentFolder, named: Option<&str>) -> Option<Strategy> {
    let installed = Installed::read(folder).ok();
    let described = installed
        .as_ref()
        .map(|installed| installed.appspec_filename.as_str());
    let named = named.or(described).unwrap_or(APPSPEC_FILENAMES[0]);
    let (_, parsed) = appspec::parsed(&folder.archive(), named, true).ok()?;
    parsed.appspec.strategy
}

/// The variables that describe the slots to the scripts of the deployment in `folder`; none if its
/// revision has no strategy.
pub(in crate::deployment) async fn variables(
    host: &Host,
    group: &PathComponent,
    folder: &DeploymentFolder,
    named: Option<&str>,
) -> Result<BTreeMap<String, String>, SlotsError> {
    let (store, group, folder) = (host.store.clone(), group.clone(), folder.clone());
    let named = named.map(str::to_owned);
    let placed = blocking(move || Placed::look(&store, &group, &folder, named.as_deref()));
    let placed = placed.await??;
    Ok(placed.map(|placed| placed.variables()).unwrap_or_default())
}

/// Whether ApplicationStop of the group's last deployment waits until its successor serves. Blocks.
pub(in crate::deployment) fn is_deferred(store: &Store, group: &PathComponent) -> bool {
    let Some(last) = store.pointed(group, Pointer::LastSuccessful) else {
        return false;
    };
    matches!(Placed::look(store, group, &last, None), Ok(Some(placed)) if placed.is_filled)
}

/// Whether the deployment fills a slot that does not serve yet. Blocks.
pub(in crate::deployment) fn is_prepared(
    store: &Store,
    group: &PathComponent,
    folder: &DeploymentFolder,
) -> bool {
    store.pointed(group, Pointer::LastSuccessful).as_ref() == Some(folder)
        && matches!(
            Placed::look(store, group, folder, None),
            Ok(Some(placed)) if placed.is_filled && !placed.serves()
        )
}

/// Whether the deployment serves from its slot. Blocks.
pub(crate) fn serves(store: &Store, group: &PathComponent, folder: &DeploymentFolder) -> bool {
    store.pointed(group, Pointer::LastSuccessful).as_ref() == Some(folder)
        && matches!(Placed::look(store, group, folder, None), Ok(Some(placed)) if placed.serves())
}

/// The deployments that a prune must not delete: those in slots. Blocks.
pub(in crate::deployment) fn tenants(
    store: &Store,
    group: &PathComponent,
) -> Vec<DeploymentFolder> {
    let record = record(store, group).ok().flatten();
    let tenants = record.iter().flat_map(|record| {
        SlotName::BOTH
            .into_iter()
            .filter_map(|slot| record.tenant(slot))
    });
    tenants
        .map(|path| DeploymentFolder::at(path.to_owned()))
        .collect()
}

/// Returns the same path without links in its parents.
pub(super) fn without_links(path: &Path) -> PathBuf {
    let real = path
        .parent()
        .and_then(|parent| Some(parent.canonicalize().ok()?.join(path.file_name()?)));
    real.unwrap_or_else(|| path.to_owned())
}
