//! Open folders. Some must be the same folders that were examined before.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::Stat;

use super::{Folder, is_nowhere, split};

/// The identity of a folder, independent of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FolderId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The folders that were found at these paths.
pub(crate) type Known = BTreeMap<PathBuf, FolderId>;

/// The folders that were opened last and may soon be needed again.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    open: VecDeque<(PathBuf, Rc<Folder>)>,
    known: Arc<Known>,
}

impl Handles {
    /// The number of folders that stay open: the folder of a path, the one that keeps its old
    /// contents, and the one that its new contents come from.
    const MOST: usize = 4;

    /// Makes handles that open only the known folder at each path in `known`.
    pub(crate) fn to(known: Arc<Known>) -> Self {
        Self {
            open: VecDeque::new(),
            known,
        }
    }

    /// The folder that holds `path`, and its name there.
    pub(crate) fn parent<'a>(&mut self, path: &'a Path) -> io::Result<(Rc<Folder>, &'a OsStr)> {
        let (parent, name) = split(path)?;
        if let Some((_, folder)) = self.open.iter().find(|(open, _)| open == parent) {
            return Ok((Rc::clone(folder), name));
        }
        let folder = Rc::new(Folder::open(parent)?);
        if let Some(known) = self.known.get(parent)
            && *known != folder.id()?
        {
            return Err(io::Error::other(format!(
                "{} is another folder than when the files were planned; stop what replaces it, and deploy again",
                parent.display()
            )));
        }
        self.open.truncate(Self::MOST - 1);
        self.open
            .push_front((parent.to_path_buf(), Rc::clone(&folder)));
        Ok((folder, name))
    }

    /// Returns the status of `path`; `None` if it, or its folder, does not exist.
    pub(crate) fn look(&mut self, path: &Path) -> io::Result<Option<Stat>> {
        match self.parent(path) {
            Ok((folder, name)) => folder.stat(name),
            Err(error) if is_nowhere(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Folder {
    fn id(&self) -> io::Result<FolderId> {
        let stat = rustix::fs::fstat(self)?;
        Ok(FolderId {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}
