//! The way back from an Install that succeeded: displaced objects are kept, with a record of every
//! change, until the next Install of the group or the end of the deployment's folder.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::access::times;
use super::journal::{self, Action, Begun, Changes, Contents, JournalError};
use super::kept::{KeptFolders, not_removed};
use super::removal::Removal;
use super::step::{Change, Keep};
use super::touched::{Touched, is_put_away};
use crate::fs::{Folder, Handles, is_temporary, split, sync_elsewhere};

/// In the deployment's folder: the objects that its Install displaced on the same file system.
const DISPLACED: &str = "displaced";

/// The undo records that become useless when an Install of `deployment` is committed: that of the
/// last Install, which `pointer` names, and that of an earlier Install of the same deployment.
pub(super) fn superseded(pointer: &Path, deployment: &Path) -> Vec<PathBuf> {
    let last = std::fs::read(pointer).ok().and_then(|text| {
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        std::fs::canonicalize(OsStr::from_bytes(text)).ok()
    });
    let deployment = std::fs::canonicalize(deployment).unwrap_or_default();
    let mut records: Vec<PathBuf> = last
        .iter()
        .chain([&deployment])
        .map(|folder| journal::undo_record(folder))
        .collect();
    records.dedup();
    // A pointer may name any path, and a folder may be a copy.
    records.retain(|record| {
        let begun = journal::read_begun(record).ok().flatten();
        begun.is_some_and(|begun| journal::undo_record(&begun.deployment) == *record)
    });
    records
}

/// Gives up the displaced objects of earlier Installs; returns descriptions of what could not be
/// removed.
pub(super) fn give_up(begun: &Begun) -> Vec<String> {
    begun
        .superseded
        .iter()
        .filter_map(|record| forget_earlier(record, &begun.token))
        .collect()
}

/// Does the work that remains after a commit; can be repeated. Returns descriptions of what could
/// not be done.
pub(super) fn finish(begun: &Begun, changes: &Changes, touched: &Touched) -> Vec<String> {
    let mut left = give_up(begun);
    let (folders, written) = (KeptFolders::of(begun), Vec::new());
    let mut displaced = Displaced {
        begun,
        changes,
        touched,
        folders,
        written,
        own: None,
    };
    for folder in &touched.displaced {
        // Without such a folder, nothing of it is left; any other error returns when the object is
        // put away.
        let _ = displaced.folders.for_folder(folder);
    }
    if let Err(error) = displaced.write_record() {
        left.push(format!(
            "this Install cannot be taken back: {} cannot be written: {error}",
            journal::undo_record(&begun.deployment).display()
        ));
        left.extend(discard(&displaced.begun(), changes));
        return left;
    }
    left.extend(displaced.put_away());
    left.extend(displaced.settle());
    left
}

/// The objects that a transaction displaced, on their way to the folders that keep them.
struct Displaced<'a> {
    begun: &'a Begun,
    changes: &'a Changes,
    touched: &'a Touched,
    folders: KeptFolders,
    /// The folders that the undo record names.
    written: Vec<PathBuf>,
    /// The one in the deployment's folder, once it is needed.
    own: Option<Folder>,
}

impl Displaced<'_> {
    fn begun(&self) -> Begun {
        self.begun.with_kept(self.folders.all.clone())
    }

    fn write_record(&mut self) -> io::Result<()> {
        journal::write_whole(
            &journal::undo_record(&self.begun.deployment),
            &self.begun(),
            self.changes,
        )?;
        self.written.clone_from(&self.folders.all);
        Ok(())
    }

    /// Moves the objects out of the folders that they were in, where others may list or read them.
    /// Returns descriptions of objects that stay.
    fn put_away(&mut self) -> Vec<String> {
        let mut handles = Handles::default();
        let mut left = Vec::new();
        for change in self.changes.iter() {
            match change {
                Ok(Change::Swap(swap)) if is_put_away(self.begun, &swap) => {
                    if let Err(error) = self.put_away_one(&swap.spare, &mut handles) {
                        left.push(format!(
                            "{} stays where it is: {error}",
                            swap.spare.display()
                        ));
                    }
                }
                Ok(_) => {}
                Err(error) => left.push(format!("a displaced object stays where it is: {error}")),
            }
        }
        left
    }

    fn put_away_one(&mut self, spare: &Path, handles: &mut Handles) -> io::Result<()> {
        // It was put away before, and that was interrupted.
        if handles.look(spare)?.is_none() {
            return Ok(());
        }
        let (beside, name) = split(spare)?;
        let (parent, _) = handles.parent(spare)?;
        let moved = match self.folders.for_folder(beside)? {
            Some(kept) => handles
                .parent(&kept.join(name))
                .and_then(|(kept, _)| parent.rename_new(name, &kept, name)),
            None => {
                let own = match &self.own {
                    Some(own) => own,
                    None => self.own.insert(displaced_folder(self.begun)?),
                };
                parent.rename_new(name, own, name)
            }
        };
        match moved {
            // Two mounts of one file system, or two quotas on it.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let kept = self.folders.make_in(beside)?;
                if self.written != self.folders.all {
                    self.write_record()?;
                }
                let (kept, _) = handles.parent(&kept.join(name))?;
                parent.rename_new(name, &kept, name)
            }
            moved => moved,
        }
    }

    /// Writes all that to the disk on every file system except that of the journal, which is
    /// removed next. Also removes the objects of earlier transactions that no record names any
    /// more.
    fn settle(&self) -> Vec<String> {
        let mut left = self
            .folders
            .remove_forgotten(self.begun, &self.touched.paths);
        let mut folders = self.touched.paths.clone();
        folders.retain(|folder| self.folders.keeps(folder));
        folders.extend(self.folders.all.iter().cloned());
        folders.extend(
            self.folders
                .all
                .iter()
                .filter_map(|kept| kept.parent().map(Path::to_path_buf)),
        );
        if let Err((path, error)) = sync_elsewhere(&folders, &self.begun.pointer) {
            left.push(format!(
                "{} could not be written to the disk: {error}",
                path.display()
            ));
        }
        left
    }
}

fn displaced_folder(begun: &Begun) -> io::Result<Folder> {
    let deployment = Folder::open(&begun.deployment)?;
    if deployment.stat(DISPLACED.as_ref())?.is_none() {
        deployment.create_private_folder(DISPLACED.as_ref())?;
    }
    let folder = deployment.folder(DISPLACED.as_ref())?;
    folder.make_private()?;
    Ok(folder)
}

/// Whether a spare lies beside its path, under a name of its own. A spare that lies in a folder for
/// displaced objects stays there.
pub(super) fn is_beside(begun: &Begun, spare: &Path) -> bool {
    let kept = begun.kept.iter().any(|kept| spare.starts_with(kept));
    spare.file_name().is_some_and(is_temporary)
        && !kept
        && !spare.starts_with(begun.deployment.join(DISPLACED))
}

/// All places where the object kept as `spare` may be: put away, or still where it was displaced
/// to.
pub(super) fn places(begun: &Begun, spare: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(name) = spare.file_name().filter(|_| is_beside(begun, spare)) {
        places.push(begun.deployment.join(DISPLACED).join(name));
        places.extend(begun.kept.iter().map(|kept| kept.join(name)));
    }
    places.push(spare.to_path_buf());
    places
}

/// The present place of the object that the last transaction of a deployment kept as `spare`.
pub(super) fn kept_as(deployment: &Path, spare: &Path) -> PathBuf {
    let mut handles = Handles::default();
    let places = match journal::read_begun(&journal::undo_record(deployment)) {
        Ok(Some(begun)) => places(&begun, spare),
        Ok(None) | Err(_) => Vec::new(),
    };
    let found = places
        .into_iter()
        .find(|place| handles.look(place).is_ok_and(|found| found.is_some()));
    found.unwrap_or_else(|| spare.to_path_buf())
}

/// Calls `visit` with every name under which a displaced object may be kept, once each; the folders
/// that keep them, with all their contents, come last.
pub(super) fn each_displaced(
    begun: &Begun,
    changes: &Changes,
    mut visit: impl FnMut(PathBuf),
) -> io::Result<()> {
    let earlier: BTreeSet<&Path> = begun.displaced.iter().map(PathBuf::as_path).collect();
    let mut places = |spare: &Path| {
        if begun.kept.iter().any(|kept| spare.starts_with(kept)) {
            return;
        }
        if let Some(name) = spare.file_name().filter(|_| is_beside(begun, spare)) {
            visit(begun.deployment.join(DISPLACED).join(name));
        }
        visit(spare.to_path_buf());
    };
    for change in changes.iter() {
        if let Change::Swap(swap) = change?
            && swap.takes
            && swap.keep == Keep::ForUndo
            && !earlier.contains(swap.spare.as_path())
        {
            places(&swap.spare);
        }
    }
    earlier.into_iter().for_each(&mut places);
    begun.kept.iter().cloned().for_each(visit);
    Ok(())
}

/// Removes the displaced objects of a transaction, durably on other file systems than that of its
/// record; returns descriptions of what could not be removed.
fn discard(begun: &Begun, changes: &Changes) -> Vec<String> {
    let mut removal = Removal::default();
    let mut touched = BTreeSet::new();
    let visited = each_displaced(begun, changes, |path| {
        if removal.add(path.clone()) {
            touched.extend(path.parent().map(Path::to_path_buf));
        }
    });
    let mut left = removal.end();
    left.extend(sync_elsewhere(&touched, &journal::undo_record(&begun.deployment)).err());
    let mut left: Vec<String> = left
        .into_iter()
        .map(|(path, error)| not_removed(&path, &error))
        .collect();
    left.extend(
        visited
            .err()
            .map(|error| format!("not everything that was displaced is known: {error}")),
    );
    left
}

/// Returns a word that identifies the last completed Install of a deployment, if it was not taken
/// back; another Install of the deployment has another word.
pub fn completed(deployment: &Path) -> Result<Option<String>, JournalError> {
    let begun = journal::read_begun(&journal::undo_record(deployment))?;
    Ok(begun
        .filter(|begun| begun.action == Action::Install)
        .map(|begun| begun.token))
}

/// Gives up the way back from a deployment's Install and removes the objects kept for it. Succeeds
/// if there are none.
pub fn forget(deployment: &Path) -> Result<(), ForgetError> {
    let path = journal::undo_record(deployment);
    match journal::read(&path)? {
        Some(contents) => forget_contents(&path, &contents),
        None => Ok(()),
    }
}

/// The reason why objects that are kept for a way back stay.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error(transparent)]
    Record(#[from] JournalError),
    #[error("cannot remove the files kept for a rollback of an earlier Install:{}", super::listed(.0))]
    Left(Vec<String>),
}

fn forget_earlier(record: &Path, token: &str) -> Option<String> {
    match journal::read(record) {
        Ok(Some(contents)) if contents.begun.token != token => forget_contents(record, &contents)
            .err()
            .map(|error| error.to_string()),
        Ok(_) => None,
        Err(error) => Some(format!("the files kept for a rollback stay: {error}")),
    }
}

fn forget_contents(record: &Path, contents: &Contents) -> Result<(), ForgetError> {
    let mut left = discard(&contents.begun, &contents.changes);
    if left.is_empty() {
        let removed = split(record).and_then(|(parent, name)| {
            let folder = Folder::open(parent)?;
            let stat = rustix::fs::fstat(&folder)?;
            folder.unlink(name)?;
            // It stays if something else is in it.
            let _ = folder.remove_folder(DISPLACED.as_ref());
            // Agents use its time to tell which deployment is older.
            Ok(rustix::fs::futimens(&folder, &times(&stat))?)
        });
        left.extend(
            removed
                .err()
                .map(|error| format!("remove {}: {error}", record.display())),
        );
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(ForgetError::Left(left))
    }
}
