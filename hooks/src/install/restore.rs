//! Takes back an Install that succeeded: everything that it displaced returns to its place, in a
//! transaction of its own. Nothing that somebody changed or added since is lost: it stays, or is
//! set aside and reported.

mod stayed;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use self::stayed::Restoration;
use super::access::Access;
use super::journal::{self, Action, Begun, Contents, JournalError};
use super::paths::Paths;
use super::records::Records;
use super::recover::Turn;
use super::step::{Change, Keep, Step, Swap, Swapped, Takes};
use super::transaction;
use super::{Counts, InstallError, Summary, undo};
use crate::fs::{Handles, temporary_name};

/// The result of taking an Install back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// `created` counts objects that returned to an empty place, `removed` counts objects of the
    /// Install whose place is empty again. The warnings list everything that was changed since the
    /// Install, and where it is kept.
    pub summary: Summary,
}

/// The reason why an Install was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{}: no files are kept for a rollback; the Install is not complete, has been taken back, or another one followed it", deployment.display())]
    NothingKept { deployment: PathBuf },
    #[error(transparent)]
    Record(#[from] JournalError),
    #[error(
        "{}: not the deployment that is installed; {} names another one, so its files are left as they are",
        deployment.display(),
        pointer.display()
    )]
    NotInstalled {
        deployment: PathBuf,
        pointer: PathBuf,
    },
    #[error("the files kept for a rollback are gone, so nothing was changed:{}", super::listed(.0))]
    Lost(Vec<String>),
    #[error("cannot read {} to take the Install back; nothing was changed", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the Install was not taken back")]
    Failed(#[from] InstallError),
}

/// Whether [`restore`] has everything that it needs to take back the Install of this deployment.
pub fn can_restore(deployment: &Path) -> Result<bool, JournalError> {
    let contents = journal::read(&journal::undo_record(deployment))?;
    Ok(contents.is_some_and(|contents| contents.begun.action == Action::Install))
}

/// Takes back the Install of `deployment`, which must be the last of its group. Files, links,
/// folders, access, and the group's records and pointer are then as they were before it. After an
/// error nothing has changed, unless the error states otherwise.
pub fn restore(
    deployment: &Path,
    records: &Records,
    _turn: &Turn,
) -> Result<Restored, RestoreError> {
    let unreadable = |(path, source)| RestoreError::Unreadable { path, source };
    let nothing = || RestoreError::NothingKept {
        deployment: deployment.to_path_buf(),
    };
    let records = records.resolve().map_err(unreadable)?;
    let Contents { begun, changes, .. } =
        journal::read(&journal::undo_record(deployment))?.ok_or_else(nothing)?;
    if begun.action != Action::Install {
        return Err(nothing());
    }
    let pointed = std::fs::read(&records.pointer).unwrap_or_default();
    let pointed = OsStr::from_bytes(pointed.strip_suffix(b"\n").unwrap_or(&pointed));
    if std::fs::canonicalize(pointed).ok() != Some(begun.deployment.clone()) {
        let (deployment, pointer) = (deployment.to_path_buf(), records.pointer);
        return Err(RestoreError::NotInstalled {
            deployment,
            pointer,
        });
    }
    let mut paths = Paths::absolute();
    let installed = records.read(&mut paths).map_err(unreadable)?;
    let (created, sources) = (installed.created(&paths), records.sources(&installed));
    let mut restorer = Restorer::new(&begun, &created, &sources);
    for change in changes.iter().rev() {
        let change =
            change.map_err(|source| unreadable((journal::undo_record(deployment), source)))?;
        restorer
            .change(&change)
            .map_err(|source| unreadable((change.path().to_path_buf(), source)))?;
    }
    if !restorer.lost.is_empty() {
        return Err(RestoreError::Lost(restorer.lost));
    }
    let Restorer {
        restoration,
        counts,
        warnings,
        token,
        roots,
        ..
    } = restorer;
    let mut restored = Begun::new(Action::Restore, begun.deployment, begun.pointer, token);
    restored.counts = counts;
    restored.displaced = roots;
    restored.kept = begun.kept;
    let left = transaction::run(&records.journal, &restored, &restoration)?;
    let mut warnings: Vec<String> = warnings
        .into_iter()
        .map(|warning| warning.in_words(&restored.deployment))
        .collect();
    warnings.extend(left);
    Ok(Restored {
        summary: counts.summary(warnings),
    })
}

/// A fact that a person must know.
enum Warning {
    Text(String),
    /// A file at `below` in the tree that will be kept as `spare` is not the one that was installed
    /// as `path`.
    Changed {
        path: PathBuf,
        spare: PathBuf,
        below: PathBuf,
    },
}

impl Warning {
    /// The warning's text, once everything is in its final place.
    fn in_words(self, deployment: &Path) -> String {
        match self {
            Self::Text(text) => text,
            Self::Changed { path, spare, below } => {
                let kept = undo::kept_as(deployment, &spare);
                let kept = if below.as_os_str().is_empty() {
                    kept
                } else {
                    kept.join(below)
                };
                format!(
                    "{} was changed since the Install; the changed one is kept as {}",
                    path.display(),
                    kept.display()
                )
            }
        }
    }
}

/// A decision that is still to be made.
enum Task {
    /// `may_be_new` says that the object at `path` may have come after the Install.
    BringBack {
        path: PathBuf,
        old: Option<PathBuf>,
        may_be_new: bool,
    },
    /// A folder stays, and gets its earlier access back.
    Adjust { path: PathBuf, access: Access },
}

/// Looks at the host and decides how each object comes back.
struct Restorer<'a> {
    begun: &'a Begun,
    /// The objects that the Install created, and the sources of its copies.
    created: &'a BTreeSet<PathBuf>,
    sources: &'a BTreeMap<PathBuf, PathBuf>,
    token: String,
    used: usize,
    handles: Handles,
    restoration: Restoration,
    counts: Counts,
    warnings: Vec<Warning>,
    lost: Vec<String>,
    /// Everything that was kept; after this some of it may be missing.
    roots: Vec<PathBuf>,
}

impl<'a> Restorer<'a> {
    fn new(
        begun: &'a Begun,
        created: &'a BTreeSet<PathBuf>,
        sources: &'a BTreeMap<PathBuf, PathBuf>,
    ) -> Self {
        Self {
            begun,
            created,
            sources,
            token: crate::fs::token(),
            used: 0,
            handles: Handles::default(),
            restoration: Restoration::default(),
            counts: Counts::default(),
            warnings: Vec::new(),
            lost: Vec::new(),
            roots: Vec::new(),
        }
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Swap(swap) => self.swap(swap),
            Change::Adjust { path, before, .. } => {
                match self.stat(path)?.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                    Some(FileType::RegularFile) => self.adjust(path, before.clone()),
                    _ => self.warn(format!(
                        "{}: the file is gone, so it does not get its owner, mode and ACL of before back",
                        path.display()
                    )),
                }
                Ok(())
            }
            Change::Stay(stayed) => self.stayed(stayed),
            Change::StayFolder { path, access } => self.stayed_folder(path, access),
            Change::Context {
                path,
                before,
                after,
            } => {
                let (before, after) = (after.clone(), before.clone());
                self.restoration.steps.push(Step::Context {
                    path: path.clone(),
                    before,
                    after,
                });
                Ok(())
            }
        }
    }

    fn swap(&mut self, swap: &Swapped) -> io::Result<()> {
        let places = match (swap.takes, swap.keep) {
            (false, _) => Vec::new(),
            (true, Keep::ForUndo) => undo::places(self.begun, &swap.spare),
            (true, Keep::ForGood) => vec![swap.spare.clone()],
        };
        // The last place, if it is nowhere.
        let mut old = places.last().cloned();
        for place in places {
            if self.stat(&place)?.is_some() {
                old = Some(place);
                break;
            }
        }
        if let Some(old) = &old {
            if self.stat(old)?.is_none() {
                self.lost.push(format!(
                    "{}, kept as {}",
                    swap.path.display(),
                    old.display()
                ));
            }
            if swap.keep == Keep::ForUndo {
                self.roots.push(old.clone());
            }
        }
        self.bring_back(&swap.path, old)
    }

    /// Restores `old` at `path`, or removes the object there if there was none before.
    fn bring_back(&mut self, path: &Path, old: Option<PathBuf>) -> io::Result<()> {
        let mut waiting = vec![Task::BringBack {
            path: path.to_path_buf(),
            old,
            may_be_new: false,
        }];
        while let Some(task) = waiting.pop() {
            match task {
                Task::Adjust { path, access } => self.adjust(&path, access),
                Task::BringBack {
                    path,
                    old,
                    may_be_new,
                } => {
                    if may_be_new {
                        self.tell_of_new(&path, old.as_deref())?;
                    }
                    let there = self.stat(&path)?;
                    let merged = self.bring_one_back(&path, there, old.as_deref())?;
                    waiting.extend(merged.into_iter().rev());
                }
            }
        }
        Ok(())
    }

    /// Does the same for one object. A folder that stays in its place returns tasks for its
    /// contents, to be done next in this order.
    fn bring_one_back(
        &mut self,
        path: &Path,
        there: Option<Stat>,
        old: Option<&Path>,
    ) -> io::Result<Vec<Task>> {
        let is_folder = |stat: &Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
        if there.as_ref().is_some_and(is_folder) {
            let others = self.others_below(path)?;
            let old_is_folder = match old {
                Some(old) => self.stat(old)?.as_ref().is_none_or(is_folder),
                None => true,
            };
            if !others.is_empty() && old_is_folder {
                return self.merge(path, old);
            }
            if let Some(old) = old {
                self.set_aside(path, old, &others);
            }
        }
        let counted = match (there.is_some(), old) {
            (true, Some(_)) => &mut self.counts.replaced,
            (false, Some(_)) => &mut self.counts.created,
            (true, None) => &mut self.counts.removed,
            (false, None) => return Ok(Vec::new()),
        };
        *counted += 1;
        let spare = old.map_or_else(|| self.beside(path), Path::to_path_buf);
        self.tell_of_changes(path, &spare)?;
        let takes = if there.is_some() {
            Takes::Anything
        } else {
            Takes::Nothing
        };
        let (path, brings) = (path.to_path_buf(), old.is_some());
        self.restoration.steps.push(Step::Swap(Swap {
            path,
            spare,
            brings,
            takes,
            keep: Keep::ForUndo,
        }));
        Ok(Vec::new())
    }

    /// Handles a folder that has more content than the Install brought: that content stays in its
    /// place.
    fn merge(&mut self, path: &Path, old: Option<&Path>) -> io::Result<Vec<Task>> {
        let mut names: BTreeSet<_> = self.names(path)?.into_iter().collect();
        names.retain(|name| self.created.contains(path.join(name).as_path()));
        let old_names = match old {
            Some(old) => self.names(old)?,
            None => Vec::new(),
        };
        names.extend(old_names.iter().cloned());
        let old_names: BTreeSet<_> = old_names.into_iter().collect();
        let mut tasks = Vec::with_capacity(names.len() + 1);
        for name in names {
            let old = old
                .filter(|_| old_names.contains(&name))
                .map(|old| old.join(&name));
            tasks.push(Task::BringBack {
                path: path.join(&name),
                old,
                may_be_new: true,
            });
        }
        if let Some(old) = old {
            let (folder, name) = self.handles.parent(old)?;
            let access = Access::read(folder.folder(name)?)?;
            tasks.push(Task::Adjust {
                path: path.to_path_buf(),
                access,
            });
        }
        Ok(tasks)
    }

    /// Warns if the object at `path` came after the Install; `old` replaces it.
    fn tell_of_new(&mut self, path: &Path, old: Option<&Path>) -> io::Result<()> {
        if !self.created.contains(path) && self.stat(path)?.is_some() {
            self.warn(format!(
                "{} came after the Install, where something was before it; it is kept as {}",
                path.display(),
                old.unwrap_or(Path::new("")).display()
            ));
        }
        Ok(())
    }

    fn adjust(&mut self, path: &Path, access: Access) {
        self.restoration.steps.push(Step::Adjust {
            path: path.to_path_buf(),
            access,
        });
    }

    fn set_aside(&mut self, path: &Path, kept: &Path, others: &[PathBuf]) {
        for other in others {
            let below = other.strip_prefix(path).unwrap_or(other);
            self.warn(format!(
                "{} came after the Install; it is kept as {}, because {} is no folder any more",
                other.display(),
                kept.join(below).display(),
                path.display()
            ));
        }
    }

    /// Everything below a folder that the Install did not create.
    fn others_below(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut others = Vec::new();
        let mut open = vec![(folder.to_path_buf(), self.names(folder)?.into_iter())];
        while let Some((folder, names)) = open.last_mut() {
            let Some(path) = names.next().map(|name| folder.join(name)) else {
                open.pop();
                continue;
            };
            if !self.created.contains(path.as_path()) {
                others.push(path);
            } else if self.is_folder(&path)? {
                let names = self.names(&path)?.into_iter();
                open.push((path, names));
            }
        }
        Ok(others)
    }

    /// Warns of every file at or below `path` that is no longer the one that the Install copied
    /// there.
    fn tell_of_changes(&mut self, path: &Path, spare: &Path) -> io::Result<()> {
        let copied = self
            .sources
            .range(path.to_path_buf()..)
            .take_while(|(copy, _)| copy.starts_with(path));
        for (copy, source) in copied {
            let (Some(source), Some(copied)) =
                (self.handles.look(source)?, self.handles.look(copy)?)
            else {
                continue;
            };
            let content = |stat: &Stat| {
                (
                    stat.st_mode & 0o170_000,
                    stat.st_size,
                    stat.st_mtime,
                    stat.st_mtime_nsec,
                )
            };
            if content(&source) != content(&copied) {
                let below = copy.strip_prefix(path).unwrap_or(copy);
                let below = below.to_path_buf();
                self.warnings.push(Warning::Changed {
                    path: copy.clone(),
                    spare: spare.to_path_buf(),
                    below,
                });
            }
        }
        Ok(())
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(Warning::Text(text));
    }

    fn beside(&mut self, path: &Path) -> PathBuf {
        self.used += 1;
        path.with_file_name(temporary_name(&self.token, self.used))
    }

    fn stat(&mut self, path: &Path) -> io::Result<Option<Stat>> {
        self.handles.look(path)
    }

    fn is_folder(&mut self, path: &Path) -> io::Result<bool> {
        Ok(self
            .stat(path)?
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()))
    }

    fn names(&mut self, path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        let (folder, name) = self.handles.parent(path)?;
        folder.folder(name)?.names()
    }
}
