//! Which objects of the revision go where, by the `files` section alone. The host does not matter here.

use std::path::{Component, Path, PathBuf};

use super::conflict::Conflict;
use super::snapshot::{ObjectKind, Revision, last};
use crate::appspec::{AppSpec, missing_source};

/// More folders than this behind links is a bundle of links that multiply, not a program.
const MAX_EXPANSIONS: usize = 10_000;

/// One object that shall be on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Where, as the AppSpec writes it.
    pub(super) path: PathBuf,
    /// Relative to the revision's root.
    pub(super) source: PathBuf,
    pub(super) kind: WantedKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WantedKind {
    Folder,
    File,
    Link { target: PathBuf },
}

/// What the mappings of `appspec` ask for, a folder before what is in it.
pub(super) fn layout(revision: &Revision, appspec: &AppSpec) -> (Vec<Wanted>, Vec<Conflict>) {
    let mut layout = Layout { revision, wanted: Vec::new(), conflicts: Vec::new(), expansions: 0 };
    for mapping in &appspec.files {
        layout.map(mapping.source.as_path(), mapping.destination.as_path());
    }
    (layout.wanted, layout.conflicts)
}

struct Layout<'a> {
    revision: &'a Revision,
    wanted: Vec<Wanted>,
    conflicts: Vec<Conflict>,
    expansions: usize,
}

impl Layout<'_> {
    fn map(&mut self, source: &Path, destination: &Path) {
        match self.revision.kind(source) {
            Some(ObjectKind::Folder { .. }) => {
                self.folder(source, destination, &mut vec![source.to_path_buf()]);
            }
            Some(_) => {
                let mut roots = vec![source.to_path_buf()];
                match self.expanded(source, &roots) {
                    Some(folder) => {
                        roots.push(folder.clone());
                        self.folder(&folder, destination, &mut roots);
                    }
                    None => self.object(source, destination.join(last(source)), &mut roots),
                }
            }
            None => {
                let link = source
                    .ancestors()
                    .skip(1)
                    .find(|parent| matches!(self.revision.kind(parent), Some(ObjectKind::Link { .. })));
                let (object, link) = (source.to_path_buf(), link.map(Path::to_path_buf));
                let hint = match &link {
                    Some(_) => String::new(),
                    None => missing_source(&self.revision.root, source),
                };
                self.conflicts.push(Conflict::MissingSource { object, link, hint });
            }
        }
    }

    /// `roots` are the folders being copied: the mapping's, then the target of each link expanded on the way here.
    fn folder(&mut self, source: &Path, path: &Path, roots: &mut Vec<PathBuf>) {
        self.want(source, path.to_path_buf(), WantedKind::Folder);
        let Some(ObjectKind::Folder { names }) = self.revision.kind(source) else {
            return;
        };
        for name in names {
            self.object(&source.join(name), path.join(name), roots);
        }
    }

    fn object(&mut self, source: &Path, path: PathBuf, roots: &mut Vec<PathBuf>) {
        match self.revision.kind(source) {
            Some(ObjectKind::Folder { .. }) => self.folder(source, &path, roots),
            Some(ObjectKind::File) => self.want(source, path, WantedKind::File),
            Some(ObjectKind::Link { target }) => match self.expanded(source, roots) {
                Some(folder) => {
                    self.expansions += 1;
                    if self.expansions == MAX_EXPANSIONS {
                        self.conflicts.push(Conflict::TooManyExpansions { link: source.to_path_buf() });
                    }
                    if self.expansions < MAX_EXPANSIONS {
                        roots.push(folder.clone());
                        self.folder(&folder, &path, roots);
                        roots.pop();
                    }
                }
                None => self.want(source, path, WantedKind::Link { target: target.clone() }),
            },
            Some(ObjectKind::Special) => {
                self.conflicts.push(Conflict::SpecialSource { object: source.to_path_buf() });
            }
            // It vanished while the revision was read.
            None => {
                let object = source.to_path_buf();
                self.conflicts.push(Conflict::MissingSource { object, link: None, hint: String::new() });
            }
        }
    }

    fn want(&mut self, source: &Path, path: PathBuf, kind: WantedKind) {
        self.wanted.push(Wanted { path, source: source.to_path_buf(), kind });
    }

    /// The folder of the revision whose contents stand in for `link`: when the link would dangle at its destination.
    /// A link that leads back to a folder being copied is a loop, and stays a link.
    fn expanded(&self, link: &Path, roots: &[PathBuf]) -> Option<PathBuf> {
        let Some(ObjectKind::Link { target }) = self.revision.kind(link) else {
            return None;
        };
        let folder = self.resolve(link.parent()?, target, &mut 40)?;
        if !matches!(self.revision.kind(&folder), Some(ObjectKind::Folder { .. })) {
            return None;
        }
        let root = roots.last()?;
        let copied_too = |path: &Path| path.starts_with(root) && path != link;
        let named = lexical(link.parent()?, target).filter(|path| self.revision.objects.contains_key(path));
        if copied_too(&folder) || named.is_some_and(|path| copied_too(&path)) {
            return None;
        }
        let is_loop = roots.iter().any(|root| root.starts_with(&folder));
        (!is_loop).then_some(folder)
    }

    /// What `target` means, seen from the folder `from`; `None` outside the revision, and for what is not there.
    fn resolve(&self, from: &Path, target: &Path, links: &mut u32) -> Option<PathBuf> {
        let mut here = from.to_path_buf();
        for component in target.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    here.pop().then_some(())?;
                }
                Component::Normal(name) => {
                    let next = here.join(name);
                    here = match self.revision.kind(&next)? {
                        ObjectKind::Link { target } => {
                            *links = links.checked_sub(1)?;
                            self.resolve(&here, target, links)?
                        }
                        _ => next,
                    };
                }
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(here)
    }
}

/// `target` seen from `from`, by its text alone.
fn lexical(from: &Path, target: &Path) -> Option<PathBuf> {
    let mut path = from.to_path_buf();
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => path.pop().then_some(())?,
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}
