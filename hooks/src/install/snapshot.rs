//! What is on the host and in the revision, as values: the only module of an Install that looks and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, StatxFlags};

use super::access;
use super::records::{Previous, Records};
use crate::appspec::{AclTag, AppSpec, Principal};
use crate::custody::Access;
use crate::fs::Folder;

/// A path that could not be looked at, and why.
pub(super) type Unreadable = (PathBuf, io::Error);

/// The unpacked revision: every object by its path relative to the root, which is the empty path.
#[derive(Debug, Default)]
pub(super) struct Revision {
    /// Absolute, without links.
    pub(super) root: PathBuf,
    pub(super) objects: BTreeMap<PathBuf, Object>,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: ObjectKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// In bytes.
    pub(super) size: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ObjectKind {
    File,
    Folder {
        names: Vec<OsString>,
    },
    Link {
        target: PathBuf,
    },
    /// A device, FIFO or socket.
    Special,
}

/// What the plan depends on, outside the revision.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// What is at each path that was asked about, and at each of its parents. A path has no links in its parents;
    /// a path that is not here does not exist.
    pub(super) nodes: BTreeMap<PathBuf, Node>,
    pub(super) previous: Previous,
    /// Known names among those that the AppSpec uses.
    pub(super) users: BTreeMap<String, u32>,
    pub(super) groups: BTreeMap<String, u32>,
    pub(super) has_selinux_tools: bool,
    /// Of a fresh folder.
    pub(super) folder_mode: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) mode: u32,
    /// `chattr +i` or `+a`: not even root can rename or remove it.
    pub(super) immutable: bool,
    pub(super) mount_point: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeKind {
    File,
    /// The names in it, where they matter.
    Folder {
        names: Option<Vec<OsString>>,
    },
    /// Where it leads, if there is anything; that path is among the nodes too.
    Link {
        leads_to: Option<PathBuf>,
    },
    Special,
}

impl Revision {
    pub(super) fn read(archive: &Path) -> Result<Self, Unreadable> {
        let at = |error| (archive.to_path_buf(), error);
        let root = std::fs::canonicalize(archive).map_err(at)?;
        let folder = Folder::open(&root).map_err(at)?;
        let stat = rustix::fs::fstat(&folder).map_err(|error| at(error.into()))?;
        let mut revision = Self { root, objects: BTreeMap::new() };
        let names = revision.read_folder(&folder, Path::new(""))?;
        revision.objects.insert(
            PathBuf::new(),
            Object {
                kind: ObjectKind::Folder { names },
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                size: 0,
            },
        );
        Ok(revision)
    }

    fn read_folder(&mut self, folder: &Folder, below: &Path) -> Result<Vec<OsString>, Unreadable> {
        let root = self.root.clone();
        let at = |path: &Path| {
            let path = root.join(path);
            move |error| (path, error)
        };
        let names = folder.names().map_err(at(below))?;
        for name in &names {
            let path = below.join(name);
            let Some(stat) = folder.stat(name).map_err(at(&path))? else {
                continue;
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => ObjectKind::File,
                FileType::Directory => {
                    let child = folder.folder(name).map_err(at(&path))?;
                    ObjectKind::Folder { names: self.read_folder(&child, &path)? }
                }
                FileType::Symlink => ObjectKind::Link { target: folder.read_link(name).map_err(at(&path))? },
                _ => ObjectKind::Special,
            };
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            let object =
                Object { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, size };
            self.objects.insert(path, object);
        }
        Ok(names)
    }

    /// Takes what the bundle gave a path, where no script has changed it since.
    pub(super) fn give(&mut self, path: &Path, given: Access) {
        if let Some(object) = self.objects.get_mut(path)
            && matches!(object.kind, ObjectKind::File | ObjectKind::Folder { .. })
        {
            let found = Access { uid: object.uid, gid: object.gid, mode: object.mode };
            let Access { uid, gid, mode } = given.given(found);
            (object.uid, object.gid, object.mode) = (uid, gid, mode);
        }
    }

    pub(super) fn kind(&self, path: &Path) -> Option<&ObjectKind> {
        self.objects.get(path).map(|object| &object.kind)
    }
}

impl Host {
    /// Looks at `paths`, at what the last Install left, and at the names and tools that the AppSpec needs.
    pub(super) fn read<'a>(
        paths: impl Iterator<Item = &'a Path>,
        appspec: &'a AppSpec,
        records: &Records,
    ) -> Result<Self, Unreadable> {
        let previous = records.read()?;
        let mut observer = Observer::default();
        for path in paths.chain(appspec.permissions.iter().map(|permission| permission.object.as_path())) {
            observer.observe(path)?;
        }
        for path in &previous.created {
            if let Some(real) = observer.observe(path)? {
                observer.list(&real)?;
            }
        }
        let (users, groups) = known_names(appspec);
        Ok(Self {
            nodes: observer.nodes,
            previous,
            users,
            groups,
            has_selinux_tools: access::has_selinux_tools(),
            folder_mode: access::folder_mode(),
        })
    }
}

#[derive(Default)]
struct Observer {
    nodes: BTreeMap<PathBuf, Node>,
    /// The folder that a path as written leads to; `None` when it leads to no folder.
    folders: BTreeMap<PathBuf, Option<PathBuf>>,
}

impl Observer {
    /// Looks at `path` and its parents, through links; gives the path without links in its parents, if they exist.
    fn observe(&mut self, path: &Path) -> Result<Option<PathBuf>, Unreadable> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            self.node(Path::new("/"))?;
            return Ok(Some("/".into()));
        };
        let Some(folder) = self.folder(parent)? else {
            return Ok(None);
        };
        let real = folder.join(name);
        self.node(&real)?;
        Ok(Some(real))
    }

    fn folder(&mut self, path: &Path) -> Result<Option<PathBuf>, Unreadable> {
        if let Some(known) = self.folders.get(path) {
            return Ok(known.clone());
        }
        let folder = match self.observe(path)? {
            None => None,
            Some(real) => match self.nodes.get(&real).map(|node| &node.kind) {
                Some(NodeKind::Folder { .. }) => Some(real),
                Some(NodeKind::Link { leads_to: Some(end) }) => {
                    let end = end.clone();
                    matches!(self.nodes.get(&end), Some(Node { kind: NodeKind::Folder { .. }, .. }))
                        .then_some(end)
                }
                _ => None,
            },
        };
        self.folders.insert(path.to_path_buf(), folder.clone());
        Ok(folder)
    }

    /// Looks at one object; its parents are known to be folders.
    fn node(&mut self, real: &Path) -> Result<(), Unreadable> {
        if self.nodes.contains_key(real) {
            return Ok(());
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = match rustix::fs::statx(rustix::fs::CWD, real, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err((real.to_path_buf(), error.into())),
        };
        let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Folder { names: None },
            FileType::Symlink => NodeKind::Link { leads_to: std::fs::canonicalize(real).ok() },
            _ => NodeKind::Special,
        };
        let leads_to = match &kind {
            NodeKind::Link { leads_to } => leads_to.clone(),
            _ => None,
        };
        let has = |flag: u64| stat.stx_attributes.bits() & flag != 0;
        let immutable = has((libc::STATX_ATTR_IMMUTABLE | libc::STATX_ATTR_APPEND) as u64);
        // Linux 5.8; earlier kernels never set it, and renaming a mount point then fails and is undone.
        let mount_point = has(0x2000);
        let node = Node { kind, mode: u32::from(stat.stx_mode) & 0o7777, immutable, mount_point };
        self.nodes.insert(real.to_path_buf(), node);
        match leads_to {
            Some(end) => self.parents(&end).and_then(|()| self.node(&end)),
            None => Ok(()),
        }
    }

    fn parents(&mut self, real: &Path) -> Result<(), Unreadable> {
        let mut here = PathBuf::new();
        for component in real.parent().into_iter().flat_map(Path::components) {
            here.push(component);
            if component != Component::RootDir {
                self.node(&here)?;
            }
        }
        Ok(())
    }

    fn list(&mut self, real: &Path) -> Result<(), Unreadable> {
        if let Some(Node { kind: NodeKind::Folder { names }, .. }) = self.nodes.get_mut(real) {
            let folder = Folder::open(real).and_then(|folder| folder.names());
            *names = Some(folder.map_err(|error| (real.to_path_buf(), error))?);
        }
        Ok(())
    }
}

type Ids = BTreeMap<String, u32>;

fn known_names(appspec: &AppSpec) -> (Ids, Ids) {
    let mut users = BTreeSet::new();
    let mut groups = BTreeSet::new();
    for permission in &appspec.permissions {
        users.extend(name(permission.owner.as_ref()));
        groups.extend(name(permission.group.as_ref()));
        for entry in permission.acl.iter().flat_map(|acl| &acl.entries) {
            match &entry.tag {
                AclTag::User(principal) => users.extend(name(Some(principal))),
                AclTag::Group(principal) => groups.extend(name(Some(principal))),
                AclTag::Owner | AclTag::OwningGroup | AclTag::Mask | AclTag::Other => {}
            }
        }
    }
    let users = users.into_iter().filter_map(|name| {
        let user = nix::unistd::User::from_name(name).ok()??;
        Some((name.to_owned(), user.uid.as_raw()))
    });
    let groups = groups.into_iter().filter_map(|name| {
        let group = nix::unistd::Group::from_name(name).ok()??;
        Some((name.to_owned(), group.gid.as_raw()))
    });
    (users.collect(), groups.collect())
}

fn name(principal: Option<&Principal>) -> Option<&str> {
    match principal {
        Some(Principal::Name(name)) => Some(name),
        Some(Principal::Id(_)) | None => None,
    }
}

/// The name of a path that has one; planned paths always do.
pub(super) fn last(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}
