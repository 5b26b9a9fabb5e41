//! The way back from an Install that succeeded: what it displaced is kept, with a record of every change, until the
//! next Install of the group or the end of the deployment's folder.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FileType;

use super::journal::{self, Begun, Contents, JournalError};
use super::parallel;
use super::step::{Change, Keep, Swapped};
use super::transaction::swaps;
use crate::fs::{Folder, Handles, is_temporary, split};

/// In the deployment's folder: how to take its Install back.
const RECORD: &str = "undo.json";

/// In the deployment's folder: what its Install displaced, as far as it is on the same file system.
const DISPLACED: &str = "displaced";

/// Where a deployment's folder has the record of its Install.
pub(super) fn record(deployment: &Path) -> PathBuf {
    deployment.join(RECORD)
}

/// The records that are of no use once an Install of `deployment` is committed: that of the last one, which `pointer`
/// names, and that of an earlier Install of the same deployment.
pub(super) fn superseded(pointer: &Path, deployment: &Path) -> Vec<PathBuf> {
    let last = std::fs::read(pointer).ok().and_then(|text| {
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        std::fs::canonicalize(OsStr::from_bytes(text)).ok()
    });
    let deployment = std::fs::canonicalize(deployment).unwrap_or_default();
    let mut records: Vec<PathBuf> = last.iter().chain([&deployment]).map(|folder| record(folder)).collect();
    records.dedup();
    // A pointer may say anything, and a folder may be a copy.
    let own = |record: &PathBuf| {
        journal::read(record)
            .ok()
            .flatten()
            .is_some_and(|found| self::record(&found.begun.deployment) == *record)
    };
    records.retain(own);
    records
}

/// Gives up what earlier Installs displaced; gives what could not be removed, in words.
pub(super) fn give_up(begun: &Begun) -> Vec<String> {
    begun.superseded.iter().filter_map(|record| forget_earlier(record, &begun.token)).collect()
}

/// What remains to do once a transaction is committed. Can be done again. Gives what could not be done, in words.
pub(super) fn finish(begun: &Begun, changes: &[Change]) -> Vec<String> {
    let mut left = give_up(begun);
    let record = record(&begun.deployment);
    if let Err(error) = journal::write_whole(&record, begun, changes) {
        left.push(format!(
            "this Install cannot be taken back: {} cannot be written: {error}",
            record.display()
        ));
        left.extend(discard(begun, changes));
        return left;
    }
    if let Err((path, error)) = put_away(begun, changes) {
        left.push(format!("{} stays where it is: {error}", path.display()));
    }
    left
}

/// Moves what was displaced to the deployment's folder, out of the way of whoever lists the folders it was in.
fn put_away(begun: &Begun, changes: &[Change]) -> Result<(), (PathBuf, io::Error)> {
    let mut handles = Handles::default();
    let mut folder = None;
    for swap in kept(changes) {
        let at = |error| (swap.spare.clone(), error);
        let target = put_away_as(begun, swap);
        if target == swap.spare {
            continue;
        }
        let displaced = match &folder {
            Some(displaced) => displaced,
            None => folder.insert(displaced_folder(begun).map_err(at)?),
        };
        let (parent, name) = handles.parent(&swap.spare).map_err(at)?;
        match parent.rename_new(name, displaced, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // On another file system it stays beside its place.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            Err(error) => return Err(at(error)),
        }
    }
    Ok(())
}

fn displaced_folder(begun: &Begun) -> io::Result<Folder> {
    let deployment = Folder::open(&begun.deployment)?;
    if deployment.stat(DISPLACED.as_ref())?.is_none() {
        deployment.create_folder(DISPLACED.as_ref())?;
    }
    let folder = deployment.folder(DISPLACED.as_ref())?;
    folder.make_private()?;
    Ok(folder)
}

/// Where what a swap displaced is once it was put away.
pub(super) fn put_away_as(begun: &Begun, swap: &Swapped) -> PathBuf {
    put_away_name(begun, &swap.spare)
}

/// Where what is kept as `spare` is once it was put away. What lies in something displaced stays in it.
pub(super) fn put_away_name(begun: &Begun, spare: &Path) -> PathBuf {
    match spare.file_name() {
        Some(name) if is_temporary(name) => begun.deployment.join(DISPLACED).join(name),
        _ => spare.to_path_buf(),
    }
}

/// The swaps that displaced something which is kept for a way back.
fn kept(changes: &[Change]) -> impl Iterator<Item = &Swapped> {
    swaps(changes).filter(|swap| swap.takes && swap.keep == Keep::ForUndo)
}

/// Every name under which something displaced may be kept.
pub(super) fn displaced(begun: &Begun, changes: &[Change]) -> Vec<PathBuf> {
    let kept = kept(changes).flat_map(|swap| [put_away_as(begun, swap), swap.spare.clone()]);
    kept.chain(begun.displaced.iter().cloned()).collect()
}

/// Removes what a transaction displaced; gives what could not be removed, in words.
fn discard(begun: &Begun, changes: &[Change]) -> Vec<String> {
    let mut handles = Handles::default();
    let mut trees = Trees::default();
    for path in displaced(begun, changes) {
        trees.gather(path, &mut handles);
    }
    let left = Mutex::new(Vec::new());
    let unlink = |path: &PathBuf, handles: &mut Handles| {
        if let Err(error) = handles.parent(path).and_then(|(folder, name)| folder.unlink(name)) {
            left.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), error));
        }
        Ok::<_, Infallible>(())
    };
    let Ok(()) = parallel::each(&trees.files, unlink);
    let mut left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
    for path in trees.folders.iter().rev() {
        if let Err(error) = handles.parent(path).and_then(|(folder, name)| folder.remove_folder(name)) {
            left.push((path.clone(), error));
        }
    }
    left.extend(trees.unseen);
    let in_words = |(path, error): (PathBuf, io::Error)| {
        format!("{} is no longer used but could not be removed: {error}", path.display())
    };
    left.into_iter().map(in_words).collect()
}

/// Everything in some trees, a folder before what is in it.
#[derive(Default)]
struct Trees {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    unseen: Vec<(PathBuf, io::Error)>,
}

impl Trees {
    fn gather(&mut self, path: PathBuf, handles: &mut Handles) {
        let names = match handles.look(&path) {
            Ok(None) => return,
            Ok(Some(stat)) if !FileType::from_raw_mode(stat.st_mode).is_dir() => {
                return self.files.push(path);
            }
            Ok(Some(_)) => handles.parent(&path).and_then(|(parent, name)| {
                let folder = parent.folder(name)?;
                folder.make_writable();
                folder.names()
            }),
            Err(error) => Err(error),
        };
        match names {
            Ok(names) => {
                self.folders.push(path.clone());
                names.iter().for_each(|name| self.gather(path.join(name), handles));
            }
            Err(error) => self.unseen.push((path, error)),
        }
    }
}

/// Gives up the way back from a deployment's Install: removes what is kept for it. Fine when there is none.
pub fn forget(deployment: &Path) -> Result<(), ForgetError> {
    let path = record(deployment);
    match journal::read(&path)? {
        Some(contents) => forget_contents(&path, &contents),
        None => Ok(()),
    }
}

/// Why what is kept for a way back stays.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error(transparent)]
    Record(#[from] JournalError),
    #[error("cannot give up the way back from an earlier Install:{}", super::listed(.0))]
    Left(Vec<String>),
}

fn forget_earlier(record: &Path, token: &str) -> Option<String> {
    match journal::read(record) {
        Ok(Some(contents)) if contents.begun.token != token => {
            forget_contents(record, &contents).err().map(|error| error.to_string())
        }
        Ok(_) => None,
        Err(error) => Some(format!("what was kept for a way back stays: {error}")),
    }
}

fn forget_contents(record: &Path, contents: &Contents) -> Result<(), ForgetError> {
    let mut left = discard(&contents.begun, &contents.changes);
    if left.is_empty() {
        let removed = split(record).and_then(|(parent, name)| {
            let folder = Folder::open(parent)?;
            folder.unlink(name)?;
            // It stays when something else is in it.
            let _ = folder.remove_folder(DISPLACED.as_ref());
            Ok(())
        });
        left.extend(removed.err().map(|error| format!("remove {}: {error}", record.display())));
    }
    if left.is_empty() { Ok(()) } else { Err(ForgetError::Left(left)) }
}
