//! Runs a plan as a whole or not at all: the order of the writes to the journal, the syncs of the
//! disk and the visible changes of names.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::journal::{Action, Begun, Changes, Contents, Journal, Phase};
use super::paths::PathId;
use super::step::{Change, Known, Step, Swapped};
use super::touched::Touched;
use super::{InstallError, StepError, undo};
use crate::fs::{Handles, is_nowhere, sync_elsewhere, sync_file_systems};

/// The work of a transaction.
pub(super) trait Work {
    /// Builds everything new under temporary names, which nobody uses; returns the folders whose
    /// file systems must be on the disk before anything changes.
    fn build(&self) -> Result<BTreeSet<PathBuf>, StepError>;

    /// Returns handles that open only the folders that the plan found at their paths.
    fn handles(&self) -> Handles;

    /// The temporary names of the objects to build.
    fn staged(&self) -> impl Iterator<Item = PathBuf>;

    /// The visible changes, in order; the same on each call.
    fn steps(&self) -> impl Iterator<Item = Cow<'_, Step>>;

    /// The plan's knowledge of `name` in a folder that is taken away.
    fn known(&self, folder: PathId, name: &OsStr) -> Option<Known>;
}

/// Runs `work`; returns warnings for an operator. After an error everything is as before, unless
/// the error states otherwise: then the journal stays, and recovery retries.
pub(super) fn run(
    journal: &Path,
    begun: &Begun,
    work: &impl Work,
) -> Result<Vec<String>, InstallError> {
    let started =
        Journal::begin(journal, begun, || work.staged()).map_err(StepError::at("write", journal));
    let mut journal = started.map_err(|source| InstallError::Failed { source })?;
    let mut attempt = Attempt {
        begun,
        touched: Touched::default(),
        changes: None,
        made: 0,
    };
    match (attempt.run(&mut journal, work), &attempt.changes) {
        (Ok(()), changes) => {
            let mut left = Vec::new();
            left.extend(
                changes
                    .iter()
                    .flat_map(|changes| undo::finish(begun, changes, &attempt.touched)),
            );
            left.extend(close(journal));
            Ok(left)
        }
        (Err(source), _) if journal.is_uncertain() => {
            let journal = journal.path().display();
            let left = vec![format!(
                "everything new is in place; {journal} decides whether it stays"
            )];
            Err(InstallError::NotUndone { source, left })
        }
        (Err(source), changes) => {
            tracing::debug!(phase = "rolling back", error = %source, "the transaction failed");
            let Undone { left, kept } = match changes {
                Some(changes) => {
                    let built = built(begun, work.staged());
                    take_back(begun, changes, attempt.made, &attempt.touched, &built)
                }
                None => remove_staged(begun, work.staged(), std::iter::empty()),
            };
            kept.iter().for_each(|kept| tracing::warn!("{kept}"));
            if left.is_empty() {
                close(journal)
                    .into_iter()
                    .for_each(|left| tracing::warn!("{left}"));
                return Err(InstallError::Failed { source });
            }
            Err(InstallError::NotUndone { source, left })
        }
    }
}

struct Attempt<'a> {
    begun: &'a Begun,
    touched: Touched,
    /// All of them, once they are written to the journal.
    changes: Option<Changes>,
    /// The number of changes made, the last one perhaps in part.
    made: usize,
}

impl Attempt<'_> {
    fn run(&mut self, journal: &mut Journal, work: &impl Work) -> Result<(), StepError> {
        tracing::debug!(phase = "building", "transaction begun");
        let folders = work.build()?;
        sync_file_systems(&folders).map_err(not_durable)?;

        let mut handles = work.handles();
        let mut skipped = Vec::new();
        let found = work.steps().enumerate().filter_map(|(number, step)| {
            let found = step
                .look_up(&mut handles)
                .map_err(StepError::at(step.action(), step.path()));
            match &found {
                Ok(Some(change)) => self.touched.add(self.begun, change),
                Ok(None) => skipped.push(number),
                Err(_) => {}
            }
            found.transpose()
        });
        let changes = journal.prepare(found)?;
        let changes = self.changes.insert(changes);
        tracing::debug!(
            phase = "changing",
            changes = changes.len(),
            "everything new is on the disk"
        );
        let mut skipped = skipped.into_iter().peekable();
        let steps = work.steps().enumerate();
        let steps = steps
            .filter(|(number, _)| skipped.next_if_eq(number).is_none())
            .map(|(_, step)| step);
        for (change, step) in changes.iter().zip(steps) {
            let change = change.map_err(StepError::at("read", journal.path()))?;
            self.made += 1;
            let made = change.make(step.takes(), work, &mut handles);
            made.map_err(StepError::at(step.action(), step.path()))?;
        }
        self.touched.sync().map_err(not_durable)?;
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

/// Takes back a transaction whose process ended early.
pub(super) fn roll_back(contents: Contents) -> Undone {
    let Contents {
        begun,
        phase,
        staged,
        changes,
    } = contents;
    if phase == Phase::Building {
        return remove_staged(&begun, staged.into_iter(), changes.iter());
    }
    match Touched::of(&begun, &changes) {
        Ok(touched) => {
            let built = built(&begun, staged.into_iter());
            take_back(&begun, &changes, changes.len(), &touched, &built)
        }
        Err(error) => Undone {
            left: vec![unreadable(&error)],
            ..Undone::default()
        },
    }
}

/// Removes the new objects of a transaction that changed nothing yet. `changes` are the planned
/// ones, as far as they are known.
fn remove_staged(
    begun: &Begun,
    staged: impl Iterator<Item = PathBuf>,
    changes: impl Iterator<Item = io::Result<Change>>,
) -> Undone {
    let mut handles = Handles::default();
    let mut left = Vec::new();
    // Displaced objects, although the journal records none.
    let mut displaced = BTreeSet::new();
    for change in changes {
        match change {
            Ok(Change::Swap(Swapped {
                spare,
                brings: Some(new),
                ..
            })) => {
                let waiting = handles
                    .parent(&spare)
                    .and_then(|(folder, name)| Identity::look(&folder, name));
                if waiting.is_ok_and(|waiting| waiting.is_some_and(|waiting| !new.is(&waiting))) {
                    left.push(format!(
                        "remove {}: it is not the object that was built there",
                        spare.display()
                    ));
                    displaced.insert(spare);
                }
            }
            Ok(_) => {}
            Err(error) => {
                return Undone {
                    left: vec![unreadable(&error)],
                    ..Undone::default()
                };
            }
        }
    }
    let mut folders = BTreeSet::new();
    for staged in staged.filter(|staged| !displaced.contains(staged)) {
        let removed = handles
            .parent(&staged)
            .and_then(|(folder, name)| folder.remove_tree(name));
        // Without such a folder, nothing was built.
        let error = removed.err().filter(|error| !is_nowhere(error));
        left.extend(error.map(|error| format!("remove {}: {error}", staged.display())));
        if let Some(folder) = staged.parent().filter(|folder| !folders.contains(*folder)) {
            folders.insert(folder.to_path_buf());
        }
    }
    let mut undone = Undone {
        left,
        kept: Vec::new(),
    };
    undone.make_durable(begun, &folders);
    undone
}

/// The new objects that are disposable.
enum Built {
    All,
    These(BTreeSet<PathBuf>),
}

/// An Install builds all that it brings; most objects that a restoration brings back are the only
/// copy.
fn built(begun: &Begun, staged: impl Iterator<Item = PathBuf>) -> Built {
    match begun.action {
        Action::Install => Built::All,
        Action::Restore => Built::These(staged.collect()),
    }
}

impl Built {
    fn contains(&self, spare: &Path) -> bool {
        match self {
            Self::All => true,
            Self::These(spares) => spares.contains(spare),
        }
    }
}

/// Takes back the first `made` of `changes`, and removes the new objects.
fn take_back(
    begun: &Begun,
    changes: &Changes,
    made: usize,
    touched: &Touched,
    built: &Built,
) -> Undone {
    let mut handles = Handles::default();
    let mut undone = Undone::default();
    for change in changes.iter().take(made).rev() {
        match change {
            Ok(change) => match change.take_back(&mut handles) {
                Ok(kept) => undone.kept.extend(kept),
                Err(error) => undone.left.push(format!("{}: {error}", change.by_hand())),
            },
            Err(error) => undone.left.push(unreadable(&error)),
        }
    }
    // After a power cut, no name may still refer to an object that is removed now.
    undone.left.extend(touched.sync().err().map(not_written));
    if !undone.left.is_empty() {
        return undone;
    }
    for change in changes.iter() {
        undone.discard(change, built, &mut handles);
    }
    undone.make_durable(begun, &touched.spares);
    undone
}

impl Undone {
    /// Removes the new object of a change, if it was built.
    fn discard(&mut self, change: io::Result<Change>, built: &Built, handles: &mut Handles) {
        match change {
            Ok(Change::Swap(swap)) if built.contains(&swap.spare) => match swap.discard(handles) {
                Ok(kept) => self.kept.extend(kept),
                Err(error) => self
                    .left
                    .push(format!("remove {}: {error}", swap.spare.display())),
            },
            Ok(_) => {}
            Err(error) => self.left.push(unreadable(&error)),
        }
    }

    /// Makes the removals in these folders durable: the journal is removed next, and nothing else
    /// lists these names.
    fn make_durable(&mut self, begun: &Begun, spares: &BTreeSet<PathBuf>) {
        if self.left.is_empty() {
            self.left.extend(
                sync_elsewhere(spares, &begun.pointer)
                    .err()
                    .map(not_written),
            );
        }
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("read the journal: {error}")
}

fn not_written((path, error): (PathBuf, io::Error)) -> String {
    format!("write {} to the disk: {error}", path.display())
}

fn close(journal: Journal) -> Option<String> {
    let path = journal.path().to_path_buf();
    let error = journal.close().err()?;
    Some(format!(
        "{} is no longer used but could not be removed: {error}",
        path.display()
    ))
}

fn not_durable((path, source): (PathBuf, io::Error)) -> StepError {
    StepError {
        action: "write to the disk",
        path,
        source,
    }
}
