//! Runs a plan so that it happens as a whole or not at all: the order in which the journal, the disk and the names that
//! others see take their turns.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::build::build;
use super::journal::{Begun, Journal, Phase};
use super::step::{Build, Change, Step, Swapped};
use super::{InstallError, StepError, undo};
use crate::fs::{Handles, is_nowhere, sync_file_systems, sync_names};

/// All that shall be done, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) revision: &'a Path,
    pub(super) builds: &'a [Build],
    pub(super) steps: &'a [Step],
}

/// Does `work`; gives what an operator may want to know. After an error everything is as before, unless it says
/// otherwise: then the journal stays, and recovery tries again.
pub(super) fn run(journal: &Path, begun: &Begun, work: Work<'_>) -> Result<Vec<String>, InstallError> {
    let started = Journal::begin(journal, begun).map_err(StepError::at("write", journal));
    let mut journal = started.map_err(|source| InstallError::Failed { source })?;
    let mut attempt = Attempt { phase: Phase::Building, changes: Vec::new(), made: 0 };
    match attempt.run(&mut journal, work) {
        Ok(()) => {
            let mut left = undo::finish(begun, &attempt.changes);
            left.extend(close(journal));
            Ok(left)
        }
        Err(source) if journal.is_uncertain() => {
            let journal = journal.path().display();
            let left = vec![format!("everything new is in place; whether it stays is decided by {journal}")];
            Err(InstallError::NotUndone { source, left })
        }
        Err(source) => {
            tracing::debug!(phase = "rolling back", error = %source, "the transaction failed");
            let left = roll_back(begun, attempt.phase, &attempt.changes, attempt.made);
            if left.is_empty() {
                close(journal).into_iter().for_each(|left| tracing::warn!("{left}"));
                return Err(InstallError::Failed { source });
            }
            Err(InstallError::NotUndone { source, left })
        }
    }
}

struct Attempt {
    phase: Phase,
    changes: Vec<Change>,
    /// How many of them were made, the last one perhaps in part.
    made: usize,
}

impl Attempt {
    fn run(&mut self, journal: &mut Journal, work: Work<'_>) -> Result<(), StepError> {
        tracing::debug!(phase = "building", objects = work.builds.len(), "transaction begun");
        let folders = build(work.revision, work.builds)?;
        sync_file_systems(&folders).map_err(not_durable)?;

        let mut handles = Handles::default();
        let mut planned = Vec::new();
        for step in work.steps {
            let found = step.look_up(&mut handles).map_err(StepError::at(step.action(), step.path()))?;
            if let Some(change) = found {
                self.changes.push(change);
                planned.push(step);
            }
        }
        journal.prepare(&self.changes).map_err(journal.failed())?;
        self.phase = Phase::Changing;
        tracing::debug!(phase = "changing", changes = self.changes.len(), "everything new is on the disk");
        for (change, step) in self.changes.iter().zip(planned) {
            self.made += 1;
            let made = change.make(step.takes(), &mut handles);
            made.map_err(StepError::at(step.action(), step.path()))?;
        }
        sync_names(&folders_of(&self.changes)).map_err(not_durable)?;
        journal.commit().map_err(journal.failed())?;
        tracing::debug!(phase = "finishing", "transaction committed");
        Ok(())
    }
}

/// Takes back what was made of `changes`, and removes what was built; gives what is left to do by hand.
pub(super) fn roll_back(begun: &Begun, phase: Phase, changes: &[Change], made: usize) -> Vec<String> {
    let mut handles = Handles::default();
    let mut left = Vec::new();
    if phase == Phase::Building {
        for staged in &begun.staged {
            let removed = handles.parent(staged).and_then(|(folder, name)| folder.remove_tree(name));
            // Where there is no such folder, nothing was built.
            let error = removed.err().filter(|error| !is_nowhere(error));
            left.extend(error.map(|error| format!("remove {}: {error}", staged.display())));
        }
        return left;
    }
    for change in changes.iter().take(made).rev() {
        if let Err(error) = change.take_back(&mut handles) {
            left.push(format!("{}: {error}", change.by_hand()));
        }
    }
    // What goes now must not be what a name still means after a power cut.
    if let Err((path, error)) = sync_names(&folders_of(changes)) {
        left.push(format!("write {} to the disk: {error}", path.display()));
    }
    if !left.is_empty() {
        return left;
    }
    // Nothing else is ours alone: what a restoration brings back is all that there is of it.
    let staged: BTreeSet<&Path> = begun.staged.iter().map(PathBuf::as_path).collect();
    for swap in swaps(changes).filter(|swap| staged.contains(swap.spare.as_path())) {
        if let Err(error) = discard(swap, &mut handles) {
            left.push(format!("remove {}: {error}", swap.spare.display()));
        }
    }
    left
}

/// Removes what was built for a swap, if it waits there; what was displaced may, after all, be there instead.
fn discard(swap: &Swapped, handles: &mut Handles) -> io::Result<()> {
    let Some(new) = swap.brings else { return Ok(()) };
    match handles.look(&swap.spare)? {
        Some(stat) if stat.st_ino == new => {
            let (folder, spare) = handles.parent(&swap.spare)?;
            folder.remove_tree(spare)
        }
        _ => Ok(()),
    }
}

pub(super) fn swaps(changes: &[Change]) -> impl Iterator<Item = &Swapped> {
    changes.iter().filter_map(|change| match change {
        Change::Swap(swap) => Some(swap),
        Change::Adjust { .. } | Change::Context { .. } => None,
    })
}

/// The folders in which changes change names, or files.
fn folders_of(changes: &[Change]) -> BTreeSet<PathBuf> {
    let spares = swaps(changes).map(|swap| swap.spare.as_path());
    let paths = changes.iter().map(Change::path).chain(spares);
    paths.filter_map(|path| path.parent().map(Path::to_path_buf)).collect()
}

fn close(journal: Journal) -> Option<String> {
    let path = journal.path().to_path_buf();
    let error = journal.close().err()?;
    Some(format!("{} is no longer used but could not be removed: {error}", path.display()))
}

fn not_durable((path, source): (PathBuf, io::Error)) -> StepError {
    StepError { action: "write to the disk", path, source }
}
