//! The unpacked revision, as values.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::Unreadable;
use crate::appspec::MAX_FOLDERS;
use crate::custody::Access;
use crate::fs::Folder;
use crate::install::Stop;
use crate::install::limits::MAX_OBJECTS;
use crate::install::paths::{PathId, Paths};

/// Every object of the revision, by its path relative to the root.
#[derive(Debug)]
pub(in crate::install) struct Revision {
    /// Absolute, without links.
    pub(in crate::install) root: PathBuf,
    paths: Paths,
    /// In the order of the paths; the objects of one folder are consecutive.
    objects: Vec<Object>,
    targets: Vec<PathBuf>,
    /// The limit that the revision exceeds, if any.
    pub(in crate::install) beyond: Option<Beyond>,
}

/// An object is named by its path.
pub(in crate::install) type ObjectId = PathId;

/// The limit that a revision exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::install) enum Beyond {
    Objects,
    Depth(ObjectId),
}

#[derive(Debug, Clone, Copy)]
pub(in crate::install) struct Object {
    pub(in crate::install) kind: ObjectKind,
    pub(in crate::install) mode: u32,
    pub(in crate::install) uid: u32,
    pub(in crate::install) gid: u32,
    /// In bytes.
    pub(in crate::install) size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::install) enum ObjectKind {
    File,
    Folder {
        first: ObjectId,
        count: u32,
    },
    /// A link, with the number of its target.
    Link(u32),
    /// A device, FIFO or socket.
    Special,
}

impl Revision {
    pub(in crate::install) fn read(archive: &Path, stop: Stop<'_>) -> Result<Self, Unreadable> {
        let at = |error| (archive.to_path_buf(), error);
        let root = std::fs::canonicalize(archive).map_err(at)?;
        let folder = Folder::open(&root).map_err(at)?;
        let stat = rustix::fs::fstat(&folder).map_err(|error| at(error.into()))?;
        let mut revision = Self {
            root,
            paths: Paths::relative(),
            objects: Vec::new(),
            targets: Vec::new(),
            beyond: None,
        };
        revision
            .objects
            .push(Object::of(&stat, ObjectKind::Special));
        revision.read_below(folder, stop)?;
        Ok(revision)
    }

    fn read_below(&mut self, root: Folder, stop: Stop<'_>) -> Result<(), Unreadable> {
        // Waiting folders are opened again through their parent, so few are open at once.
        let mut waiting = vec![PathId::ROOT];
        let mut open = vec![(PathId::ROOT, root)];
        while let Some(id) = waiting.pop() {
            let at = |revision: &Self, id| revision.root.join(revision.paths.path(id));
            let way = self.paths.inwards(id);
            open.truncate(
                open.iter()
                    .zip(&way)
                    .take_while(|((open, _), id)| open == *id)
                    .count()
                    .max(1),
            );
            for id in &way[open.len()..] {
                let around = open
                    .last()
                    .map(|(_, folder)| folder.folder(self.paths.name(*id)));
                let folder = around.transpose().map_err(|error| (at(self, *id), error))?;
                open.extend(folder.map(|folder| (*id, folder)));
            }
            let Some((_, folder)) = open.last() else {
                return Ok(());
            };
            let names = folder.names().map_err(|error| (at(self, id), error))?;
            if stop.is_cancelled() {
                return Err((at(self, id), io::ErrorKind::Interrupted.into()));
            }
            let first = id_after(&self.paths);
            for name in &names {
                if self.objects.len() > MAX_OBJECTS {
                    self.beyond = Some(Beyond::Objects);
                    return Ok(());
                }
                let failed = |error| (at(self, id).join(name), error);
                let Some(stat) = folder.stat(name).map_err(failed)? else {
                    continue;
                };
                let kind = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => ObjectKind::File,
                    FileType::Symlink => {
                        let target = folder.read_link(name).map_err(failed)?;
                        self.targets.push(target);
                        ObjectKind::Link(u32::try_from(self.targets.len() - 1).unwrap_or(u32::MAX))
                    }
                    FileType::Directory => ObjectKind::Folder {
                        first: PathId::ROOT,
                        count: 0,
                    },
                    _ => ObjectKind::Special,
                };
                let child = self.paths.child(id, name);
                self.objects.push(Object::of(&stat, kind));
                if matches!(kind, ObjectKind::Folder { .. }) {
                    if self.paths.depth(child) > MAX_FOLDERS {
                        self.beyond = Some(Beyond::Depth(child));
                        return Ok(());
                    }
                    waiting.push(child);
                }
            }
            let count = id_after(&self.paths).index() - first.index();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.objects[id.index()].kind = ObjectKind::Folder { first, count };
        }
        Ok(())
    }

    /// Sets the access that the bundle gave a path, unless a script has changed it since.
    pub(in crate::install) fn give(&mut self, path: &Path, given: Access) {
        let Some(object) = self
            .paths
            .find(path)
            .map(|id| &mut self.objects[id.index()])
        else {
            return;
        };
        if matches!(object.kind, ObjectKind::File | ObjectKind::Folder { .. }) {
            let found = Access {
                uid: object.uid,
                gid: object.gid,
                mode: object.mode,
            };
            let Access { uid, gid, mode } = given.given(found);
            (object.uid, object.gid, object.mode) = (uid, gid, mode);
        }
    }

    pub(in crate::install) fn object(&self, id: ObjectId) -> &Object {
        &self.objects[id.index()]
    }

    pub(in crate::install) fn kind(&self, id: ObjectId) -> ObjectKind {
        self.object(id).kind
    }

    pub(in crate::install) fn is_folder(&self, id: ObjectId) -> bool {
        matches!(self.kind(id), ObjectKind::Folder { .. })
    }

    /// The text of a link; empty for other objects.
    pub(in crate::install) fn target(&self, id: ObjectId) -> &Path {
        match self.kind(id) {
            ObjectKind::Link(number) => &self.targets[number as usize],
            _ => Path::new(""),
        }
    }

    pub(in crate::install) fn find(&self, path: &Path) -> Option<ObjectId> {
        self.paths.find(path)
    }

    pub(in crate::install) fn find_in(&self, folder: ObjectId, name: &OsStr) -> Option<ObjectId> {
        self.paths.find_child(folder, name)
    }

    pub(in crate::install) fn name(&self, id: ObjectId) -> &OsStr {
        self.paths.name(id)
    }

    pub(in crate::install) fn parent(&self, id: ObjectId) -> Option<ObjectId> {
        self.paths.parent(id)
    }

    /// Whether `id` is `folder` or in it.
    pub(in crate::install) fn is_in(&self, id: ObjectId, folder: ObjectId) -> bool {
        self.paths.ancestors(id).any(|around| around == folder)
    }

    /// The path relative to the root.
    pub(in crate::install) fn path(&self, id: ObjectId) -> PathBuf {
        self.paths.path(id)
    }

    /// The path, shortened for a message.
    pub(in crate::install) fn shown(&self, id: ObjectId) -> PathBuf {
        self.paths.shown(id)
    }

    pub(in crate::install) fn absolute(&self, id: ObjectId) -> PathBuf {
        self.paths.path_from(id, PathId::ROOT, &self.root)
    }
}

impl Object {
    fn of(stat: &rustix::fs::Stat, kind: ObjectKind) -> Self {
        let size = if kind == ObjectKind::File {
            u64::try_from(stat.st_size).unwrap_or_default()
        } else {
            0
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
        }
    }
}

/// The number that the next path will get.
fn id_after(paths: &Paths) -> PathId {
    PathId::ROOT.after(u32::try_from(paths.len()).unwrap_or(u32::MAX))
}
