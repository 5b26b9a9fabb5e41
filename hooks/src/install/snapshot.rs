//! The state of the host and the revision, as values. This module alone examines them, and it
//! changes nothing.

mod links;
mod revision;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;

use rustix::fs::FileType;

pub(super) use self::links::{Leads, Stranger, kernel_folder_of};
pub(super) use self::revision::{Beyond, ObjectId, ObjectKind, Revision};
use super::access;
use super::paths::{ByPath, PathId, Paths};
use super::records::{Previous, Records};
use super::{Request, Stop};
use crate::appspec::{AclTag, AppSpec, Principal};
use crate::fs::{Folder, FolderId, Status};

/// A path that could not be examined, and the error.
pub(super) type Unreadable = (PathBuf, io::Error);

/// The input of the plan from outside the revision.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// The object at each path that was looked up, and at each of its parents. The paths have no
    /// links in their parents; a path that is missing here does not exist.
    nodes: ByPath<Node>,
    /// The contents of the folders of the last Install.
    names: HashMap<PathId, Vec<PathId>>,
    links: HashMap<PathId, Leads>,
    folders: HashMap<PathId, FolderId>,
    pub(super) previous: Previous,
    /// Those names used in the AppSpec that exist.
    pub(super) users: BTreeMap<String, u32>,
    pub(super) groups: BTreeMap<String, u32>,
    pub(super) has_selinux_tools: bool,
    /// The mode of a new folder.
    pub(super) folder_mode: u32,
    /// The user and group of a new folder.
    pub(super) user: (u32, u32),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    /// `chattr +i` or `+a`: even root cannot rename or remove it.
    pub(super) immutable: bool,
    pub(super) mount_point: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    File,
    Folder,
    Link,
    Special,
}

impl Host {
    /// Examines the paths `wanted`, the objects of the last Install, and the names and tools that
    /// the AppSpec needs.
    pub(super) fn read(
        wanted: impl Iterator<Item = PathId>,
        request: &Request<'_>,
        records: &Records,
        paths: &mut Paths,
    ) -> Result<Self, Unreadable> {
        let appspec = request.appspec;
        let mut host = Self {
            previous: records.read(paths)?,
            ..Self::default()
        };
        let mut observer = Observer {
            host: &mut host,
            paths,
            folders: HashMap::new(),
            stop: request.stop,
        };
        for path in wanted {
            observer.observe(path)?;
        }
        for permission in &appspec.permissions {
            let object = observer.paths.add(permission.object.as_path());
            observer.observe(object)?;
        }
        for index in 0..observer.host.previous.created.len() {
            let path = observer.host.previous.created[index];
            if let Some(real) = observer.observe(path)? {
                observer.list(real)?;
            }
        }
        (host.users, host.groups) = known_names(appspec);
        host.has_selinux_tools = access::has_selinux_tools();
        host.folder_mode = access::folder_mode();
        host.user = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Ok(host)
    }

    /// The object at a path without links in its parents.
    pub(super) fn node(&self, path: PathId) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(super) fn is_folder(&self, path: PathId) -> bool {
        self.node(path)
            .is_some_and(|node| node.kind == NodeKind::Folder)
    }

    /// Returns the folder that was found at `path`.
    pub(super) fn folder(&self, path: PathId) -> Option<FolderId> {
        self.folders.get(&path).copied()
    }

    /// The contents of a folder of the last Install; `None` if it was not examined.
    pub(super) fn names(&self, folder: PathId) -> Option<&[PathId]> {
        self.names.get(&folder).map(Vec::as_slice)
    }

    /// The target of the link at `path`.
    pub(super) fn leads(&self, path: PathId) -> Leads {
        self.links.get(&path).copied().unwrap_or(Leads::Nowhere)
    }

    /// The folder that the link at `path` leads to, if the link may be followed.
    pub(super) fn leads_to_folder(&self, path: PathId) -> Option<PathId> {
        match self.leads(path) {
            Leads::To(end) if self.is_folder(end) => Some(end),
            Leads::To(_) | Leads::Nowhere | Leads::Kernel | Leads::Unsafe(_) => None,
        }
    }
}

struct Observer<'a> {
    host: &'a mut Host,
    paths: &'a mut Paths,
    /// The folder that a written path leads to; `None` if it leads to no folder.
    folders: HashMap<PathId, Option<PathId>>,
    stop: Stop<'a>,
}

impl Observer<'_> {
    /// Examines `path` and its parents, through links; returns the path without links in its
    /// parents, if they exist.
    fn observe(&mut self, path: PathId) -> Result<Option<PathId>, Unreadable> {
        let Some(parent) = self.paths.parent(path) else {
            self.node(path)?;
            return Ok(Some(path));
        };
        let Some(folder) = self.folder(parent)? else {
            return Ok(None);
        };
        let real = self.paths.child_like(folder, path);
        self.node(real)?;
        Ok(Some(real))
    }

    fn folder(&mut self, path: PathId) -> Result<Option<PathId>, Unreadable> {
        let unknown: Vec<PathId> = self
            .paths
            .ancestors(path)
            .take_while(|path| !self.folders.contains_key(path))
            .collect();
        let known = unknown
            .last()
            .map_or(Some(path), |outer| self.paths.parent(*outer));
        let mut folder = known.and_then(|known| self.folders.get(&known).copied().flatten());
        for path in unknown.into_iter().rev() {
            if path == PathId::ROOT {
                folder = Some(path);
                self.node(path)?;
            } else if let Some(around) = folder {
                let real = self.paths.child_like(around, path);
                self.node(real)?;
                let is_folder = self.host.is_folder(real);
                folder = if is_folder {
                    Some(real)
                } else {
                    self.host.leads_to_folder(real)
                };
            }
            self.folders.insert(path, folder);
        }
        Ok(folder)
    }

    /// Examines one object, whose parents are known folders.
    fn node(&mut self, real: PathId) -> Result<(), Unreadable> {
        if self.look(real)? == Some(NodeKind::Link) && !self.host.links.contains_key(&real) {
            let leads = self.follow(real)?;
            self.host.links.insert(real, leads);
        }
        Ok(())
    }

    /// Examines a single object.
    fn look(&mut self, real: PathId) -> Result<Option<NodeKind>, Unreadable> {
        if let Some(node) = self.host.nodes.get(real) {
            return Ok(Some(node.kind));
        }
        let path = self.paths.path(real);
        if self.stop.is_cancelled() {
            return Err((path, io::ErrorKind::Interrupted.into()));
        }
        let status = match Status::at(rustix::fs::CWD, &path) {
            Ok(status) => status,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err((path, error.into())),
        };
        let kind = match status.kind {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Folder,
            FileType::Symlink => NodeKind::Link,
            _ => NodeKind::Special,
        };
        self.host.nodes.insert(
            real,
            Node {
                kind,
                mode: status.mode,
                uid: status.uid,
                immutable: status.immutable,
                // If the kernel does not report it, renaming the mount point fails and is undone.
                mount_point: status.mount_point,
            },
        );
        if kind == NodeKind::Folder {
            self.host.folders.insert(
                real,
                FolderId {
                    device: status.device,
                    inode: status.inode,
                },
            );
        }
        Ok(Some(kind))
    }

    fn list(&mut self, real: PathId) -> Result<(), Unreadable> {
        if self.host.is_folder(real) && !self.host.names.contains_key(&real) {
            let path = self.paths.path(real);
            let names = Folder::open(&path).and_then(|folder| folder.names());
            let names = names.map_err(|error| (path, error))?;
            let names = names
                .iter()
                .map(|name| self.paths.child(real, name))
                .collect();
            self.host.names.insert(real, names);
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
