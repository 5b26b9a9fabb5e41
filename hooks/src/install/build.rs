//! Builds what is new under temporary names, on several threads: nothing that anybody uses changes.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::access::Access;
use super::step::{Build, Item, What};
use super::{StepError, parallel};
use crate::fs::Handles;

/// One object with its temporary path.
struct Piece<'a> {
    path: PathBuf,
    item: &'a Item,
}

/// Builds everything; `revision` has no links in it. Gives the folders in which names came to be.
pub(super) fn build(revision: &Path, builds: &[Build]) -> Result<BTreeSet<PathBuf>, StepError> {
    let pieces = builds.iter().flat_map(|build| {
        build.items.iter().map(|item| Piece { path: below(&build.staged, &item.below), item })
    });
    let (folders, files): (Vec<_>, Vec<_>) = pieces.partition(|piece| piece.item.what == What::Folder);
    let mut handles = Handles::default();
    folders.iter().try_for_each(|piece| piece.build(revision, &mut handles))?;
    parallel::each(&files, |piece, handles| piece.build(revision, handles))?;
    // Last and from the inside out: a mode may forbid what was still to be done below.
    let granted = folders.iter().rev().filter(|piece| piece.item.access != Access::default());
    for Piece { path, item } in granted {
        let granted = handles.parent(path).and_then(|(parent, name)| item.access.apply(parent.folder(name)?));
        granted.map_err(StepError::at("set access of", path))?;
    }
    Ok(builds.iter().filter_map(|build| Some(build.staged.parent()?.to_path_buf())).collect())
}

fn below(staged: &Path, below: &Path) -> PathBuf {
    // Joining the empty path would leave a slash at the end.
    if below.as_os_str().is_empty() { staged.to_path_buf() } else { staged.join(below) }
}

impl Piece<'_> {
    fn build(&self, revision: &Path, handles: &mut Handles) -> Result<(), StepError> {
        let action = match self.item.what {
            What::Folder => "create the folder",
            What::File { .. } => "copy to",
            What::Link { .. } => "create the link",
            What::Text(_) => "write",
        };
        self.act(revision, handles).map_err(StepError::at(action, &self.path))
    }

    fn act(&self, revision: &Path, handles: &mut Handles) -> io::Result<()> {
        let (folder, name) = handles.parent(&self.path)?;
        let access = &self.item.access;
        match &self.item.what {
            What::Folder => folder.create_folder(name),
            What::File { source } => {
                let source = revision.join(source);
                let (from, source) = handles.parent(&source)?;
                let mut from = from.file(source)?;
                let stat = rustix::fs::fstat(&from)?;
                let mut file = folder.create_file(name)?;
                // copy_file_range underneath: a reflink where the file system has them.
                io::copy(&mut from, &mut file)?;
                access.apply(&file)?;
                Ok(rustix::fs::futimens(&file, &times(&stat))?)
            }
            What::Link { source, target } => {
                let source = revision.join(source);
                let (from, source) = handles.parent(&source)?;
                let stat = from.stat(source)?.ok_or(Errno::NOENT)?;
                folder.create_link(name, target)?;
                access.apply_to_link(&folder, name)?;
                Ok(rustix::fs::utimensat(&folder, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            What::Text(text) => {
                let mut file = folder.create_file(name)?;
                file.write_all(text)?;
                access.apply(&file)
            }
        }
    }
}

/// The times that something has.
pub(super) fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
