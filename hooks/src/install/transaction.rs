//! Runs a plan as a whole or not at all: the order of the writes to the journal, the syncs of the disk and the visible
//! changes of names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::journal::{Begun, Journal, Phase};
use super::paths::PathId;
use super::step::{Change, Known, Step, swaps};
use super::{InstallError, StepError, undo};
use crate::fs::{Handles, is_nowhere, sync_elsewhere, sync_file_systems, sync_names};

/// The work of a transaction.
pub(super) trait Work {
    /// Builds everything new under temporary names, which nobody uses; returns the folders that got names.
    fn build(&self) -> Result<BTreeSet<PathBuf>, StepError>;

    /// The visible changes, in order; the same on each call.
    fn steps(&self) -> impl Iterator<Item = Cow<'_, Step>>;

    /// The plan's knowledge of `name` in a folder that is taken away.
    fn known(&self, folder: PathId, name: &OsStr) -> Option<Known>;
}

/// Steps that need no building, and take away no folder by its contents.
#[derive(Debug)]
pub(super) struct Steps(pub(super) Vec<Step>);

impl Work for Steps {
    fn build(&self) -> Result<BTreeSet<PathBuf>, StepError> {
        Ok(BTreeSet::new())
    }

    fn steps(&self) -> impl Iterator<Item = Cow<'_, Step>> {
        self.0.iter().map(Cow::Borrowed)
    }

    fn known(&self, _: PathId, _: &OsStr) -> Option<Known> {
        None
    }
}

/// Runs `work`; returns warnings for an operator. After an error everything is as before, unless the error states
/// otherwise: then the journal stays, and recovery retries.
pub(super) fn run(journal: &Path, begun: &Begun, work: &impl Work) -> Result<Vec<String>, InstallError> {
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
            let Undone { left, kept } = roll_back(begun, attempt.phase, &attempt.changes, attempt.made);
            kept.iter().for_each(|kept| tracing::warn!("{kept}"));
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
    /// The number of changes made, the last one perhaps in part.
    made: usize,
}

impl Attempt {
    fn run(&mut self, journal: &mut Journal, work: &impl Work) -> Result<(), StepError> {
        tracing::debug!(phase = "building", "transaction begun");
        let folders = work.build()?;
        sync_file_systems(&folders).map_err(not_durable)?;

        let mut handles = Handles::default();
        let mut chosen = Vec::new();
        for (number, step) in work.steps().enumerate() {
            let found = step.look_up(&mut handles).map_err(StepError::at(step.action(), step.path()))?;
            if let Some(change) = found {
                self.changes.push(change);
                chosen.push(number);
            }
        }
        journal.prepare(&self.changes).map_err(journal.failed())?;
        self.phase = Phase::Changing;
        tracing::debug!(phase = "changing", changes = self.changes.len(), "everything new is on the disk");
        let mut chosen = chosen.into_iter().peekable();
        let steps = work.steps().enumerate();
        let steps = steps.filter_map(|(number, step)| chosen.next_if_eq(&number).map(|_| step));
        for (change, step) in self.changes.iter().zip(steps) {
            self.made += 1;
            let made = change.make(step.takes(), work, &mut handles);
            made.map_err(StepError::at(step.action(), step.path()))?;
        }
        sync_names(&folders_of(&self.changes)).map_err(not_durable)?;
        journal.commit().map_err(journal.failed())?;
        tracing::debug!(phase = "finishing", "transaction committed");
        Ok(())
    }
}

/// The result of taking a transaction back.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// The manual steps that remain.
    pub(super) left: Vec<String>,
    /// Changes that somebody else made in the meantime, which stay.
    pub(super) kept: Vec<String>,
}

/// Takes back those `changes` that were made, and removes what was built.
pub(super) fn roll_back(begun: &Begun, phase: Phase, changes: &[Change], made: usize) -> Undone {
    let mut handles = Handles::default();
    let mut undone = Undone::default();
    match phase {
        Phase::Building => undone.remove_staged(begun, changes, &mut handles),
        Phase::Changing | Phase::Finishing => undone.take_back(begun, changes, made, &mut handles),
    }
    if undone.left.is_empty() {
        // The journal is removed next, and nothing else lists these names.
        let spares = begun.staged.iter().filter_map(|path| path.parent().map(Path::to_path_buf)).collect();
        undone.left.extend(sync_elsewhere(&spares, &begun.pointer).err().map(not_written));
    }
    undone
}

impl Undone {
    fn remove_staged(&mut self, begun: &Begun, changes: &[Change], handles: &mut Handles) {
        let known = swaps(changes).filter_map(|swap| Some((swap.spare.as_path(), swap.brings.as_ref()?)));
        let known: BTreeMap<&Path, &Identity> = known.collect();
        for staged in &begun.staged {
            let removed = handles.parent(staged).and_then(|(folder, name)| {
                let waiting = Identity::look(&folder, name)?;
                match (known.get(staged.as_path()), waiting) {
                    // A displaced object, although the journal records none.
                    (Some(new), Some(waiting)) if !new.is(&waiting) => {
                        Err(io::Error::other("it is not what was built there"))
                    }
                    _ => folder.remove_tree(name),
                }
            });
            // Without such a folder, nothing was built.
            let error = removed.err().filter(|error| !is_nowhere(error));
            self.left.extend(error.map(|error| format!("remove {}: {error}", staged.display())));
        }
    }

    fn take_back(&mut self, begun: &Begun, changes: &[Change], made: usize, handles: &mut Handles) {
        for change in changes.iter().take(made).rev() {
            match change.take_back(handles) {
                Ok(kept) => self.kept.extend(kept),
                Err(error) => self.left.push(format!("{}: {error}", change.by_hand())),
            }
        }
        // After a power cut, no name may still refer to an object that is removed now.
        self.left.extend(sync_names(&folders_of(changes)).err().map(not_written));
        if !self.left.is_empty() {
            return;
        }
        // Only these are disposable: an object that a restoration brings back is the only copy.
        let staged: BTreeSet<&Path> = begun.staged.iter().map(PathBuf::as_path).collect();
        for swap in swaps(changes).filter(|swap| staged.contains(swap.spare.as_path())) {
            match swap.discard(handles) {
                Ok(kept) => self.kept.extend(kept),
                Err(error) => self.left.push(format!("remove {}: {error}", swap.spare.display())),
            }
        }
    }
}

fn not_written((path, error): (PathBuf, io::Error)) -> String {
    format!("write {} to the disk: {error}", path.display())
}

/// The folders in which the changes affect names or files.
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
