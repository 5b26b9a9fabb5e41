//! The folders in which a transaction changes names.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::journal::{Begun, Changes};
use super::step::{Change, Keep, Swapped};
use super::undo::is_beside;
use crate::fs::{NotDurable, sync_file_systems, sync_names};

/// Few folders, for many changes.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Those of the paths that change.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Those in which temporary names stand.
    pub(super) spares: BTreeSet<PathBuf>,
    /// Those in which something displaced stands that is to be put away.
    pub(super) displaced: BTreeSet<PathBuf>,
    /// Whether the access or times of existing files change, beside names.
    in_place: bool,
}

impl Touched {
    pub(super) fn of(begun: &Begun, changes: &Changes) -> io::Result<Self> {
        let mut touched = Self::default();
        changes
            .iter()
            .try_for_each(|change| {
                touched.add(begun, &change?);
                Ok(())
            })
            .map(|()| touched)
    }

    pub(super) fn add(&mut self, begun: &Begun, change: &Change) {
        match change {
            Change::StayFolder { .. } => return,
            Change::Stay(stayed) if !stayed.changes_times() => return,
            Change::Stay(stayed) => drop(self.paths.insert(stayed.folder.clone())),
            Change::Swap(_) | Change::Adjust { .. } | Change::Context { .. } => {
                add(&mut self.paths, change.path());
            }
        }
        self.in_place |= matches!(change, Change::Stay(_) | Change::Adjust { .. });
        if let Some(swap) = change.swap() {
            add(&mut self.spares, &swap.spare);
            if is_put_away(begun, swap) {
                add(&mut self.displaced, &swap.spare);
            }
        }
    }

    /// Makes everything survive a power cut that changes in these folders.
    pub(super) fn sync(&self) -> Result<(), NotDurable> {
        let all = self.paths.union(&self.spares).cloned().collect();
        if self.in_place {
            sync_file_systems(&all)
        } else {
            sync_names(&all)
        }
    }
}

/// Whether a swap displaces something that is kept elsewhere, for a way back.
pub(super) fn is_put_away(begun: &Begun, swap: &Swapped) -> bool {
    swap.takes && swap.keep == Keep::ForUndo && is_beside(begun, &swap.spare)
}

fn add(folders: &mut BTreeSet<PathBuf>, path: &Path) {
    if let Some(folder) = path.parent()
        && !folders.contains(folder)
    {
        folders.insert(folder.to_path_buf());
    }
}
