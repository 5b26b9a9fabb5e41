//! Carries steps out. The inverse of each is noted before it acts, so that an error leaves a way back.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Timespec, Timestamps};
use rustix::io::Errno;

use super::access::{self, Access};
use super::snapshot::last;
use super::step::{Content, Identity, Inverse, Item, Step, What};
use super::undo;
use crate::fs::{Folder, split};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StepError {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// An Install in progress: it ends with [`Transaction::commit`] or [`Transaction::roll_back`].
#[derive(Debug)]
pub(super) struct Transaction {
    revision: Folder,
    inverses: Vec<Inverse>,
    /// What was set aside and goes when the Install is over, with its known contents.
    aside: Vec<Aside>,
    /// Folders in which names have changed since they were last made durable.
    changed: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Aside {
    path: PathBuf,
    folder: bool,
    contents: Vec<Content>,
}

impl Transaction {
    pub(super) fn begin(revision: &Path) -> Result<Self, StepError> {
        let folder = Folder::open(revision).map_err(failed("open", revision))?;
        Ok(Self { revision: folder, inverses: Vec::new(), aside: Vec::new(), changed: BTreeSet::new() })
    }

    pub(super) fn run(&mut self, steps: &[Step]) -> Result<(), StepError> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), StepError> {
        let path = step.path();
        match step {
            Step::Build { staged, items } => self.build(staged, items),
            Step::Remove { path, aside, folder, contents } => {
                self.remove(path, aside, *folder, contents).map_err(failed("remove", path))
            }
            Step::Replace { path, staged, aside, keep } => {
                self.replace(path, staged, aside, *keep).map_err(failed("replace", path))
            }
            Step::Place { path, staged } => self.place(path, staged).map_err(failed("create", path)),
            Step::Adjust { path, access } => {
                self.adjust(path, access).map_err(failed("change owner, mode or ACL of", path))
            }
            Step::RemoveContext { path, context } => {
                if let Some(context) = context {
                    let (path, context) = (path.clone(), context.clone());
                    self.inverses.push(Inverse::AddContext { path, context });
                }
                access::remove_context(path)
                    .or_else(|error| {
                        // The rule may be gone already: that is what is wanted.
                        tracing::warn!(path = %path.display(), %error, "SELinux rule of the last Install stays");
                        Ok(())
                    })
                    .map_err(failed("remove the SELinux rule of", path))
            }
            Step::AddContext { context, .. } => {
                self.inverses.push(Inverse::RemoveContext { path: path.to_path_buf() });
                access::add_context(path, context).map_err(failed("set the SELinux context of", path))
            }
        }
    }

    fn build(&mut self, staged: &Path, items: &[Item]) -> Result<(), StepError> {
        let (parent, name) = split(staged).map_err(failed("create", staged))?;
        let folder = Folder::open(parent).map_err(failed("open", parent))?;
        self.changed.insert(parent.to_path_buf());
        self.inverses.push(Inverse::Discard { staged: staged.to_path_buf() });
        let mut builder = Builder { revision: &self.revision, top: folder, name, folder: None, source: None };
        for item in items {
            builder.item(item).map_err(failed(item.what.action(), &staged.join(&item.below)))?;
        }
        // Last and from the inside out: a mode may forbid what was still to be done below.
        let folders = items.iter().rev().filter(|item| item.what == What::Folder);
        for item in folders.filter(|item| item.access != Access::default()) {
            builder.folder_access(item).map_err(failed("set access of", &staged.join(&item.below)))?;
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path, aside: &Path, is_folder: bool, contents: &[Content]) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let folder = Folder::open(parent)?;
        let Some(stat) = folder.stat(name)? else {
            return Ok(());
        };
        if FileType::from_raw_mode(stat.st_mode).is_dir() != is_folder {
            return Err(changed_meanwhile());
        }
        self.inverses.push(Inverse::PutBack { path: path.to_path_buf(), aside: aside.to_path_buf() });
        self.changed.insert(parent.to_path_buf());
        folder.rename_new(name, last(aside))?;
        if is_folder && !only_known(&folder.folder(last(aside))?, Path::new(""), &known(contents))? {
            return Err(changed_meanwhile());
        }
        self.aside.push(Aside { path: aside.to_path_buf(), folder: is_folder, contents: contents.to_vec() });
        Ok(())
    }

    fn replace(&mut self, path: &Path, staged: &Path, aside: &Path, keep: bool) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let folder = Folder::open(parent)?;
        let Some(stat) = folder.stat(name)? else {
            return self.place(path, staged);
        };
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(changed_meanwhile());
        }
        self.inverses.push(Inverse::PutBack { path: path.to_path_buf(), aside: aside.to_path_buf() });
        self.changed.insert(parent.to_path_buf());
        match folder.hard_link(name, last(aside)) {
            Ok(()) => {}
            // Not every file system, and not everybody, may: then there is nothing of that name for a moment.
            Err(Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {
                folder.rename_new(name, last(aside))?;
            }
            Err(error) => return Err(error.into()),
        }
        folder.rename(last(staged), name)?;
        if !keep {
            self.aside.push(Aside { path: aside.to_path_buf(), folder: false, contents: Vec::new() });
        }
        Ok(())
    }

    fn place(&mut self, path: &Path, staged: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let folder = Folder::open(parent)?;
        let stat = folder.stat(last(staged))?.ok_or(Errno::NOENT)?;
        let object = Identity { device: stat.st_dev, inode: stat.st_ino };
        self.inverses.push(Inverse::TakeBack {
            path: path.to_path_buf(),
            staged: staged.to_path_buf(),
            object,
        });
        self.changed.insert(parent.to_path_buf());
        folder.rename_new(last(staged), name)
    }

    fn adjust(&mut self, path: &Path, access: &Access) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let file = Folder::open(parent)?.file(name)?;
        self.inverses.push(Inverse::Readjust { path: path.to_path_buf(), access: Access::read(&file)? });
        access.apply(&file)
    }

    /// Makes everything built so far survive a power cut, before names begin to change.
    pub(super) fn sync_file_systems(&mut self) -> Result<(), StepError> {
        let mut done = BTreeSet::new();
        for path in std::mem::take(&mut self.changed) {
            let mut sync = || {
                let folder = Folder::open(&path)?;
                if done.insert(rustix::fs::fstat(&folder)?.st_dev) {
                    folder.sync_file_system()?;
                }
                Ok(())
            };
            sync().map_err(failed("make durable", &path))?;
        }
        Ok(())
    }

    /// Makes the names that changed survive a power cut.
    pub(super) fn sync_names(&mut self) -> Result<(), StepError> {
        for path in std::mem::take(&mut self.changed) {
            Folder::open(&path).and_then(|folder| folder.sync()).map_err(failed("make durable", &path))?;
        }
        Ok(())
    }

    /// Removes what was set aside; gives what could not be removed, in words.
    pub(super) fn commit(self) -> Vec<String> {
        let left = self.aside.iter().filter_map(|aside| {
            // Nothing can be undone here any more; an error that passes should not leave anything.
            let error = aside.discard().or_else(|_| aside.discard()).err()?;
            Some(format!("{} is no longer used but could not be removed: {error}", aside.path.display()))
        });
        left.collect()
    }

    /// Puts everything back; gives what could not be put back, in words.
    pub(super) fn roll_back(self) -> Vec<String> {
        undo::undo(&self.inverses)
    }
}

impl What {
    fn action(&self) -> &'static str {
        match self {
            Self::Folder => "create the folder",
            Self::File { .. } => "copy to",
            Self::Link { .. } => "create the link",
            Self::Text(_) => "write",
        }
    }
}

/// Builds the items of one unit. The folder last built in, and the one last copied from, stay open.
struct Builder<'a> {
    revision: &'a Folder,
    top: Folder,
    name: &'a OsStr,
    folder: Option<(PathBuf, Folder)>,
    source: Option<(PathBuf, Folder)>,
}

impl Builder<'_> {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        let (folder, name) = match item.below.parent() {
            None => (&self.top, self.name),
            Some(parent) => {
                let top = self.top.folder(self.name);
                (reopened(&mut self.folder, parent, || top?.descend(parent))?, last(&item.below))
            }
        };
        match &item.what {
            What::Folder => {
                folder.create_folder(name)?;
                access::freshen(&folder.folder(name)?)
            }
            What::File { source } => {
                let (parent, source_name) = split(source)?;
                let from = reopened(&mut self.source, parent, || self.revision.descend(parent))?;
                let mut from = from.file(source_name)?;
                let stat = rustix::fs::fstat(&from)?;
                let mut file = folder.create_file(name)?;
                // copy_file_range underneath: a reflink where the file system has them.
                io::copy(&mut from, &mut file)?;
                item.access.apply(&file)?;
                Ok(rustix::fs::futimens(&file, &times(&stat))?)
            }
            What::Link { source, target } => {
                let (parent, source_name) = split(source)?;
                let from = reopened(&mut self.source, parent, || self.revision.descend(parent))?;
                let stat = from.stat(source_name)?.ok_or(Errno::NOENT)?;
                folder.create_link(name, target)?;
                item.access.apply_to_link(folder, name)?;
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                Ok(rustix::fs::utimensat(folder, name, &times(&stat), flags)?)
            }
            What::Text(text) => {
                let mut file = folder.create_file(name)?;
                file.write_all(text)?;
                item.access.apply(&file)
            }
        }
    }

    fn folder_access(&self, item: &Item) -> io::Result<()> {
        item.access.apply(self.top.folder(self.name)?.descend(&item.below)?)
    }
}

fn reopened<'a>(
    cache: &'a mut Option<(PathBuf, Folder)>,
    path: &Path,
    open: impl FnOnce() -> io::Result<Folder>,
) -> io::Result<&'a Folder> {
    if cache.as_ref().is_none_or(|(cached, _)| cached != path) {
        *cache = Some((path.to_path_buf(), open()?));
    }
    cache.as_ref().map(|(_, folder)| folder).ok_or_else(|| Errno::NOENT.into())
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

impl Aside {
    fn discard(&self) -> io::Result<()> {
        let (parent, name) = split(&self.path)?;
        let parent = Folder::open(parent)?;
        if !self.folder {
            return parent.unlink(name);
        }
        let top = parent.folder(name)?;
        let mut open = None;
        for content in &self.contents {
            let inside = content.below.parent().unwrap_or(Path::new(""));
            let writable = || {
                let folder = top.descend(inside)?;
                folder.make_writable();
                Ok(folder)
            };
            match reopened(&mut open, inside, writable) {
                Ok(folder) if content.folder => folder.remove_folder(last(&content.below))?,
                Ok(folder) => folder.unlink(last(&content.below))?,
                // Done the first time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        parent.remove_folder(name)
    }
}

fn known(contents: &[Content]) -> BTreeMap<&Path, bool> {
    contents.iter().map(|content| (content.below.as_path(), content.folder)).collect()
}

/// Whether nothing has come into a folder since the plan was made.
fn only_known(folder: &Folder, below: &Path, known: &BTreeMap<&Path, bool>) -> io::Result<bool> {
    for name in folder.names()? {
        let path = below.join(&name);
        match known.get(path.as_path()) {
            Some(false) => {}
            Some(true) if only_known(&folder.folder(&name)?, &path, known)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn changed_meanwhile() -> io::Error {
    io::Error::other("it changed between plan and Install; stop what writes there, and deploy again")
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StepError + 'a {
    move |source| StepError { action, path: path.to_path_buf(), source }
}
