//! Runs a plan so that it happens as a whole or not at all: the order in which the journal, the disk and the names that
//! others see take their turns.

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

/// All that shall be done.
pub(super) trait Work {
    /// Builds everything that is new under temporary names, which nobody uses; gives the folders in which names came to
    /// be.
    fn build(&self) -> Result<BTreeSet<PathBuf>, StepError>;

    /// What changes for others, in order; the same each time.
    fn steps(&self) -> impl Iterator<Item = Cow<'_, Step>>;

    /// What the plan knows of `name` in a folder that is taken away.
    fn known(&self, folder: PathId, name: &OsStr) -> Option<Known>;
}

/// Steps for which nothing is built, and that take away no folder by its contents.
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

/// Does `work`; gives what an operator may want to know. After an error everything is as before, unless it says
/// otherwise: then the journal stays, and recovery tries again.
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
    /// How many of them were made, the last one perhaps in part.
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

/// What taking a transaction back came to.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// What is left to do by hand.
    pub(super) left: Vec<String>,
    /// What somebody else did meanwhile, which stays.
    pub(super) kept: Vec<String>,
}

/// Takes back what was made of `changes`, and removes what was built.
pub(super) fn roll_back(begun: &Begun, phase: Phase, changes: &[Change], made: usize) -> Undone {
    let mut handles = Handles::default();
    let mut undone = Undone::default();
    match phase {
        Phase::Building => undone.remove_staged(begun, changes, &mut handles),
        Phase::Changing | Phase::Finishing => undone.take_back(begun, changes, made, &mut handles),
    }
    if undone.left.is_empty() {
        // The journal goes next, and nothing else knows of what it names.
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
                    // What was displaced, although the journal says that nothing was.
                    (Some(new), Some(waiting)) if !new.is(&waiting) => {
                        Err(io::Error::other("it is not what was built there"))
                    }
                    _ => folder.remove_tree(name),
                }
            });
            // Where there is no such folder, nothing was built.
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
        // What goes now must not be what a name still means after a power cut.
        self.left.extend(sync_names(&folders_of(changes)).err().map(not_written));
        if !self.left.is_empty() {
            return;
        }
        // Nothing else is ours alone: what a restoration brings back is all that there is of it.
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
