//! Maps objects of the revision to destinations, by the `files` section alone; the host does not
//! matter here.

use std::path::{Component, Path};

use super::Stop;
use super::conflict::{Conflict, Conflicts};
use super::limits::{MAX_LOOKUPS, MAX_OBJECTS};
use super::paths::{PathId, Paths};
use super::snapshot::{Beyond, ObjectId, ObjectKind, Revision};
use crate::appspec::{AppSpec, MAX_FOLDERS, MAX_PATH_BYTES, missing_source};

/// The largest number of folders behind links; a revision with more has links that multiply.
const MAX_EXPANSIONS: usize = 10_000;

/// The number of links that the kernel follows on one path.
const MOST_LINKS: usize = 40;

/// One object that is wanted on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The destination, as the AppSpec writes it.
    pub(super) path: PathId,
    pub(super) source: ObjectId,
    pub(super) kind: WantedKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedKind {
    Folder,
    File,
    Link,
}

/// Returns the objects that the mappings of `appspec` ask for, a folder before its contents.
pub(super) fn layout(
    revision: &Revision,
    appspec: &AppSpec,
    paths: &mut Paths,
    conflicts: &mut Conflicts,
    stop: Stop<'_>,
) -> Result<Vec<Wanted>, Stopped> {
    match revision.beyond {
        Some(Beyond::Objects) => conflicts.push(Conflict::TooManyInRevision { most: MAX_OBJECTS }),
        Some(Beyond::Depth(object)) => conflicts.push(Conflict::TooDeepInRevision {
            object: revision.shown(object),
            most: MAX_FOLDERS,
        }),
        None => {}
    }
    let (wanted, level, roots) = (Vec::new(), Vec::new(), Vec::new());
    let mut layout = Layout {
        revision,
        paths,
        wanted,
        conflicts,
        level,
        roots,
        stop,
        expansions: 0,
        lookups: 0,
    };
    for mapping in appspec.files.iter().filter(|_| revision.beyond.is_none()) {
        let destination = layout.paths.add(mapping.destination.as_path());
        layout.map(mapping.source.as_path(), destination);
        if layout.is_over() {
            break;
        }
    }
    let Layout { mut wanted, .. } = layout;
    if wanted.len() > MAX_OBJECTS {
        conflicts.push(Conflict::TooManyObjects { most: MAX_OBJECTS });
        // The destinations of the rest are of no use.
        wanted = Vec::new();
    }
    if stop.is_cancelled() {
        Err(Stopped)
    } else {
        Ok(wanted)
    }
}

/// The planning was stopped: nobody waits for the result.
#[derive(Debug)]
pub(super) struct Stopped;

struct Layout<'a> {
    revision: &'a Revision,
    paths: &'a mut Paths,
    wanted: Vec<Wanted>,
    conflicts: &'a mut Conflicts,
    /// The folders that are being copied, each in the one before it.
    level: Vec<Level>,
    /// The mapping's source, then the target of each link expanded on the way here.
    roots: Vec<ObjectId>,
    stop: Stop<'a>,
    expansions: usize,
    lookups: usize,
}

/// The part of a folder that is still to be copied, and its destination.
#[derive(Debug, Clone, Copy)]
struct Level {
    next: ObjectId,
    left: u32,
    to: PathId,
    /// Whether it stands in for a link.
    is_expanded: bool,
}

impl Layout<'_> {
    fn map(&mut self, source: &Path, destination: PathId) {
        let Some(object) = self.revision.find(source) else {
            let mut around = source.ancestors().skip(1);
            let is_link = |parent: &&Path| {
                let object = self.revision.find(parent);
                object
                    .is_some_and(|object| matches!(self.revision.kind(object), ObjectKind::Link(_)))
            };
            let (object, link) = (
                source.to_path_buf(),
                around.find(is_link).map(Path::to_path_buf),
            );
            let hint = match &link {
                Some(_) => String::new(),
                None => missing_source(&self.revision.root, source),
            };
            self.conflicts
                .push(Conflict::MissingSource { object, link, hint });
            return;
        };
        self.roots = vec![object];
        if self.revision.is_folder(object) {
            self.folder(object, destination, false);
        } else if let Some(folder) = self.expanded(object) {
            self.roots.push(folder);
            self.folder(folder, destination, true);
        } else {
            let to = self.paths.child(destination, self.revision.name(object));
            self.object(object, to);
        }
        while let Some(level) = self.level.last_mut() {
            if level.left == 0 {
                if level.is_expanded {
                    self.roots.pop();
                }
                self.level.pop();
                continue;
            }
            let (object, folder) = (level.next, level.to);
            (level.next, level.left) = (object.after(1), level.left - 1);
            let to = self.paths.child(folder, self.revision.name(object));
            self.object(object, to);
            if self.is_over() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.wanted.len() > MAX_OBJECTS || self.conflicts.is_full() || self.stop.is_cancelled()
    }

    fn object(&mut self, object: ObjectId, to: PathId) {
        match self.revision.kind(object) {
            ObjectKind::Folder { .. } => self.folder(object, to, false),
            ObjectKind::File => self.want(object, to, WantedKind::File),
            ObjectKind::Link(_) => match self.expanded(object) {
                Some(folder) => {
                    self.expansions += 1;
                    if self.expansions >= MAX_EXPANSIONS {
                        self.conflicts.push_once(Conflict::TooManyExpansions);
                    } else {
                        self.roots.push(folder);
                        self.folder(folder, to, true);
                    }
                }
                None => self.want(object, to, WantedKind::Link),
            },
            ObjectKind::Special => {
                self.conflicts.push(Conflict::SpecialSource {
                    object: self.revision.path(object),
                });
            }
        }
    }

    fn folder(&mut self, object: ObjectId, to: PathId, is_expanded: bool) {
        self.want(object, to, WantedKind::Folder);
        let ObjectKind::Folder { first, count } = self.revision.kind(object) else {
            return;
        };
        // Planning rejects it; the objects in it add nothing.
        let is_possible =
            self.paths.depth(to) <= MAX_FOLDERS && self.paths.length(to) <= MAX_PATH_BYTES;
        let left = if is_possible { count } else { 0 };
        self.level.push(Level {
            next: first,
            left,
            to,
            is_expanded,
        });
    }

    fn want(&mut self, source: ObjectId, path: PathId, kind: WantedKind) {
        self.wanted.push(Wanted { path, source, kind });
    }

    /// Returns the folder of the revision whose contents replace `link`, if the link would dangle
    /// at its destination. A link back to a folder that is being copied is a loop, and stays a
    /// link.
    fn expanded(&mut self, link: ObjectId) -> Option<ObjectId> {
        let revision = self.revision;
        let ObjectKind::Link(_) = revision.kind(link) else {
            return None;
        };
        let around = revision.parent(link)?;
        let folder = self
            .resolve(around, revision.target(link))
            .filter(|folder| revision.is_folder(*folder))?;
        let root = *self.roots.last()?;
        let copied_too = |object: ObjectId| revision.is_in(object, root) && object != link;
        if copied_too(folder)
            || self
                .named(around, revision.target(link))
                .is_some_and(copied_too)
        {
            return None;
        }
        let is_loop = self.roots.iter().any(|root| revision.is_in(*root, folder));
        (!is_loop).then_some(folder)
    }

    /// Resolves `target` from the folder `from`; `None` if it is outside the revision or does not
    /// exist.
    fn resolve(&mut self, from: ObjectId, target: &Path) -> Option<ObjectId> {
        let revision = self.revision;
        let mut here = from;
        let mut rest = vec![target.components()];
        let mut links = 0;
        while let Some(components) = rest.last_mut() {
            let Some(component) = components.next() else {
                rest.pop();
                continue;
            };
            self.lookups += 1;
            if self.lookups > MAX_LOOKUPS {
                self.conflicts.push_once(Conflict::TooManyExpansions);
                return None;
            }
            match component {
                Component::CurDir => {}
                Component::ParentDir => here = revision.parent(here)?,
                Component::Normal(name) => {
                    let next = revision.find_in(here, name)?;
                    if let ObjectKind::Link(_) = revision.kind(next) {
                        links += 1;
                        if links > MOST_LINKS {
                            return None;
                        }
                        rest.push(revision.target(next).components());
                    } else {
                        here = next;
                    }
                }
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(here)
    }

    /// Finds `target` from `from` by its text alone.
    fn named(&self, from: ObjectId, target: &Path) -> Option<ObjectId> {
        // A name without an object may be left again by `..`.
        let mut missing = 0_usize;
        let mut here = from;
        for component in target.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir if missing > 0 => missing -= 1,
                Component::ParentDir => here = self.revision.parent(here)?,
                Component::Normal(name) => match self.revision.find_in(here, name) {
                    Some(next) if missing == 0 => here = next,
                    _ => missing += 1,
                },
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        (missing == 0).then_some(here)
    }
}
