//! Removes trees, their files on several threads. However large they are, little of them is in
//! memory at once.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::FileType;

use super::parallel;
use crate::fs::Handles;

/// Files that are removed together.
const TOGETHER: usize = 1024;

/// A path that could not be removed, and why.
type Left = (PathBuf, io::Error);

/// A list of files and folders to remove.
#[derive(Default)]
pub(super) struct Removal {
    handles: Handles,
    files: Vec<PathBuf>,
    /// Empty once the files are gone; a folder stands behind what is in it.
    folders: Vec<PathBuf>,
    left: Vec<Left>,
}

impl Removal {
    /// Removes `path` and all below it, not before [`Self::end`]; says whether there is anything.
    pub(super) fn add(&mut self, path: PathBuf) -> bool {
        let mut open: Vec<(PathBuf, std::vec::IntoIter<OsString>)> = Vec::new();
        let mut next = Some(path);
        let mut found = false;
        loop {
            if let Some(path) = next.take() {
                found |= self.look(path, &mut open);
            }
            if self.files.len() >= TOGETHER {
                self.remove();
            }
            let Some((folder, names)) = open.last_mut() else {
                return found;
            };
            next = names.next().map(|name| folder.join(name));
            if next.is_none() {
                self.folders.extend(open.pop().map(|(folder, _)| folder));
            }
        }
    }

    fn look(
        &mut self,
        path: PathBuf,
        open: &mut Vec<(PathBuf, std::vec::IntoIter<OsString>)>,
    ) -> bool {
        let names = match self.handles.look(&path) {
            Ok(None) => return false,
            Ok(Some(stat)) if !FileType::from_raw_mode(stat.st_mode).is_dir() => {
                self.files.push(path);
                return true;
            }
            Ok(Some(_)) => self.handles.parent(&path).and_then(|(parent, name)| {
                let folder = parent.folder(name)?;
                folder.make_writable();
                folder.names()
            }),
            Err(error) => Err(error),
        };
        match names {
            Ok(names) => open.push((path, names.into_iter())),
            Err(error) => self.left.push((path, error)),
        }
        true
    }

    fn remove(&mut self) {
        let left = Mutex::new(Vec::new());
        let unlink = |path: &PathBuf, handles: &mut Handles| {
            if let Err(error) = handles
                .parent(path)
                .and_then(|(folder, name)| folder.unlink(name))
            {
                left.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((path.clone(), error));
            }
            Ok::<_, Infallible>(())
        };
        let Ok(()) = parallel::each(&self.files, Handles::default, unlink);
        self.files.clear();
        self.left
            .extend(left.into_inner().unwrap_or_else(PoisonError::into_inner));
        for path in self.folders.drain(..) {
            let removed = self
                .handles
                .parent(&path)
                .and_then(|(folder, name)| folder.remove_folder(name));
            self.left.extend(removed.err().map(|error| (path, error)));
        }
    }

    /// Removes what was not removed yet; returns what stays.
    pub(super) fn end(mut self) -> Vec<Left> {
        self.remove();
        self.left
    }
}
