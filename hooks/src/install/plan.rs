//! Decides what an Install does, from values alone: no file system in here.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use codedeploy_api::specification::FileExistsBehavior;

use super::Change;
use super::access::{Access, Context, Wish};
use super::conflict::Conflict;
use super::grant;
use super::layout::{Wanted, WantedKind};
use super::snapshot::{Host, Node, NodeKind, Revision, last};
use crate::appspec::AppSpec;

/// One object that the Install brings.
#[derive(Debug)]
pub(super) struct Planned {
    /// As the AppSpec writes it; permissions go by this.
    pub(super) written: PathBuf,
    /// The same place, without links in its parents.
    pub(super) path: PathBuf,
    pub(super) source: PathBuf,
    pub(super) kind: WantedKind,
    /// Whether a file of someone else is there, which OVERWRITE replaces.
    pub(super) overwrites: bool,
    pub(super) access: Access,
}

/// What an Install will do, in terms of paths.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// In the order in which the official agents create: a folder before what is in it.
    pub(super) planned: Vec<Planned>,
    /// What the last Install left and this one removes, whether or not something new comes there.
    pub(super) removed: BTreeSet<PathBuf>,
    /// Existing files that RETAIN keeps.
    pub(super) kept: Vec<PathBuf>,
    /// Files that are there already and get the access that the AppSpec names for exactly them.
    pub(super) adjusted: Vec<(PathBuf, Access)>,
    /// SELinux rules, in order.
    pub(super) contexts: Vec<(PathBuf, Context)>,
    /// The commands on permissions, for the record.
    pub(super) permission_instructions: Vec<super::records::Instruction>,
    pub(super) warnings: Vec<String>,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) appspec: &'a AppSpec,
    pub(super) behavior: FileExistsBehavior,
    pub(super) reject_unconfined: bool,
    pub(super) revision: &'a Revision,
    pub(super) host: &'a Host,
}

/// Decides as far as possible, and gives every reason why it cannot be done.
pub(super) fn decide(facts: Facts<'_>, wanted: Vec<Wanted>) -> (Decision, Vec<Conflict>) {
    let mut planner = Planner {
        facts,
        decision: Decision { warnings: facts.host.previous.warnings.clone(), ..Decision::default() },
        places: BTreeMap::new(),
        folders: BTreeMap::new(),
        conflicts: Vec::new(),
    };
    planner.clean_up();
    planner.check_removed();
    planner.warn_of_rules();
    for wanted in wanted {
        planner.want(wanted);
    }
    let Planner { mut decision, mut conflicts, .. } = planner;
    grant::grant(facts, &mut decision, &mut conflicts);
    (decision, conflicts)
}

impl Decision {
    /// What it brings in the order of creation, then what it removes and keeps.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let Decision { planned, removed, kept, .. } = self;
        let brought = planned.iter().map(|planned| match &planned.path {
            path if planned.overwrites || removed.contains(path) => Change::Replaced(path),
            path => Change::Created(path),
        });
        let places: BTreeSet<&Path> = planned.iter().map(|planned| planned.path.as_path()).collect();
        let removed = removed.iter().filter(move |path| !places.contains(path.as_path()));
        let removed = removed.rev().map(|path| Change::Removed(path));
        brought.chain(removed).chain(kept.iter().map(|path| Change::Kept(path)))
    }
}

struct Planner<'a> {
    facts: Facts<'a>,
    decision: Decision,
    /// The planned object at each path.
    places: BTreeMap<PathBuf, usize>,
    /// The folder that a path as written leads to, existing or planned; `None` after a conflict.
    folders: BTreeMap<PathBuf, Option<PathBuf>>,
    conflicts: Vec<Conflict>,
}

impl<'a> Planner<'a> {
    /// Marks what the last Install created as gone: last created first, folders only when they become empty.
    fn clean_up(&mut self) {
        let previous = &self.facts.host.previous;
        let listed: BTreeSet<&Path> = previous.created.iter().map(PathBuf::as_path).collect();
        for path in previous.created.iter().rev() {
            let Some(real) = self.locate_listed(path, &listed) else {
                continue;
            };
            let Some(node) = self.facts.host.nodes.get(&real) else {
                continue;
            };
            if real.starts_with(&self.facts.revision.root) {
                self.decision.warnings.push(format!(
                    "{} was created by the last Install, but is inside the revision now; it stays",
                    path.display()
                ));
                continue;
            }
            let removed = &mut self.decision.removed;
            let goes = match &node.kind {
                NodeKind::Folder { names: Some(names) } => {
                    !node.mount_point && names.iter().all(|name| removed.contains(&real.join(name)))
                }
                NodeKind::Folder { names: None } => false,
                NodeKind::File | NodeKind::Link { .. } | NodeKind::Special => true,
            };
            if goes {
                movable(node, &real, &mut self.conflicts);
                removed.insert(real);
            }
        }
    }

    /// What goes leaves a folder in which names can change.
    fn check_removed(&mut self) {
        let removed = self.decision.removed.iter();
        let folders: BTreeSet<PathBuf> =
            removed.filter_map(|path| Some(path.parent()?.to_path_buf())).collect();
        folders.iter().for_each(|folder| self.changeable(folder));
    }

    fn warn_of_rules(&mut self) {
        if !self.facts.host.has_selinux_tools {
            let rules = self.facts.host.previous.rules.iter();
            self.decision.warnings.extend(rules.map(|(path, _)| {
                format!("the SELinux rule for {} stays: semanage is not installed", path.display())
            }));
        }
    }

    /// Where a path of the cleanup file is. A link on the way is followed in one case only: the record was written by
    /// an official agent, which notes paths as the AppSpec has them, the last Install did not make what is now the
    /// link, and a destination of this Install leads through it as well.
    fn locate_listed(&mut self, path: &Path, listed: &BTreeSet<&Path>) -> Option<PathBuf> {
        let previous = &self.facts.host.previous;
        let mut real = PathBuf::from("/");
        let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        for written in ancestors.into_iter().skip(1) {
            real.push(last(written));
            match self.facts.host.nodes.get(&real).map(|node| &node.kind) {
                Some(NodeKind::Folder { .. }) => {}
                Some(NodeKind::Link { leads_to: Some(end) })
                    if !previous.resolved
                        && !listed.contains(written)
                        && self
                            .facts
                            .appspec
                            .files
                            .iter()
                            .any(|mapping| mapping.destination.as_path().starts_with(written)) =>
                {
                    real.clone_from(end);
                }
                Some(NodeKind::Link { .. }) => {
                    self.decision.warnings.push(format!(
                        "{} was created by the last Install, but {} is a symbolic link now, which clean-up does not \
                         follow; it stays",
                        path.display(),
                        written.display()
                    ));
                    return None;
                }
                _ => return None,
            }
        }
        real.push(last(path));
        Some(real)
    }

    fn want(&mut self, wanted: Wanted) {
        if wanted.kind == WantedKind::Folder {
            self.folder(&wanted.path, Some(&wanted.source));
            return;
        }
        let Some(parent) = wanted.path.parent().and_then(|parent| self.folder(parent, None)) else {
            return;
        };
        let path = parent.join(last(&wanted.path));
        if !self.allowed(&path) {
            return;
        }
        if let Some(first) = self.places.get(&path) {
            let first = &self.decision.planned[*first];
            self.conflicts.push(Conflict::Twice {
                path: wanted.path,
                first: first.source.display().to_string(),
                second: wanted.source.display().to_string(),
            });
            return;
        }
        let mut overwrites = false;
        if let Some(node) = self.existing(&path) {
            if self.leads_to_folder(node).is_some() || matches!(node.kind, NodeKind::Folder { .. }) {
                self.conflicts.push(Conflict::FolderInTheWay { path: wanted.path });
                return;
            }
            match self.facts.behavior {
                FileExistsBehavior::Disallow => {
                    self.conflicts.push(Conflict::Exists { path: wanted.path });
                    return;
                }
                FileExistsBehavior::Retain => {
                    self.decision.kept.push(path);
                    return;
                }
                FileExistsBehavior::Overwrite if movable(node, &path, &mut self.conflicts) => {
                    overwrites = true;
                }
                FileExistsBehavior::Overwrite => return,
            }
        }
        let object = &self.facts.revision.objects[&wanted.source];
        let access = Access {
            owner: Some(Wish::kept(object.uid)),
            group: Some(Wish::kept(object.gid)),
            mode: (wanted.kind == WantedKind::File).then_some(Wish::kept(object.mode)),
            acl: None,
        };
        self.plan(Planned {
            written: wanted.path,
            path,
            source: wanted.source,
            kind: wanted.kind,
            overwrites,
            access,
        });
    }

    /// Makes sure that there is, or will be, a folder at `written`; gives its path without links.
    fn folder(&mut self, written: &Path, source: Option<&Path>) -> Option<PathBuf> {
        if let Some(known) = self.folders.get(written) {
            return known.clone();
        }
        let folder = self.find_or_plan_folder(written, source);
        self.folders.insert(written.to_path_buf(), folder.clone());
        folder
    }

    fn find_or_plan_folder(&mut self, written: &Path, source: Option<&Path>) -> Option<PathBuf> {
        let (Some(parent), Some(name)) = (written.parent(), written.file_name()) else {
            return Some("/".into());
        };
        let path = self.folder(parent, None)?.join(name);
        if let Some(planned) = self.places.get(&path) {
            if self.decision.planned[*planned].kind == WantedKind::Folder {
                return Some(path);
            }
            self.conflicts.push(Conflict::NotAFolder { path: written.to_path_buf() });
            return None;
        }
        if let Some(node) = self.existing(&path) {
            let folder = match node.kind {
                NodeKind::Folder { .. } => Some(path),
                _ => self.leads_to_folder(node),
            };
            if folder.is_none() {
                self.conflicts.push(Conflict::NotAFolder { path: written.to_path_buf() });
            }
            return folder;
        }
        if !self.allowed(&path) {
            return None;
        }
        self.plan(Planned {
            written: written.to_path_buf(),
            path: path.clone(),
            source: source.unwrap_or(Path::new("")).to_path_buf(),
            kind: WantedKind::Folder,
            overwrites: false,
            access: Access::default(),
        });
        Some(path)
    }

    fn plan(&mut self, planned: Planned) {
        // What goes into an existing folder needs that folder to take new names.
        if let Some(parent) = planned.path.parent() {
            self.changeable(parent);
        }
        self.places.insert(planned.path.clone(), self.decision.planned.len());
        self.decision.planned.push(planned);
    }

    /// Whether names in an existing folder can change; a conflict when not.
    fn changeable(&mut self, folder: &Path) {
        let conflict = Conflict::Immutable { path: folder.to_path_buf() };
        if self.existing(folder).is_some_and(|node| node.immutable) && !self.conflicts.contains(&conflict) {
            self.conflicts.push(conflict);
        }
    }

    fn allowed(&mut self, path: &Path) -> bool {
        if path.starts_with(&self.facts.revision.root) {
            self.conflicts.push(Conflict::InsideRevision { path: path.to_path_buf() });
            return false;
        }
        if path.as_os_str().as_bytes().contains(&b'\n') {
            self.conflicts.push(Conflict::LineBreak { path: path.to_path_buf() });
            return false;
        }
        true
    }

    /// What is at `path` once the last Install's files are gone.
    fn existing(&self, path: &Path) -> Option<&'a Node> {
        let host: &'a Host = self.facts.host;
        host.nodes.get(path).filter(|_| !self.decision.removed.contains(path))
    }

    fn leads_to_folder(&self, node: &Node) -> Option<PathBuf> {
        let NodeKind::Link { leads_to: Some(end) } = &node.kind else {
            return None;
        };
        let end_node = self.facts.host.nodes.get(end)?;
        let stays = !self.decision.removed.contains(end);
        (stays && matches!(end_node.kind, NodeKind::Folder { .. })).then(|| end.clone())
    }
}

/// Whether an object can be renamed away; a conflict when not.
fn movable(node: &Node, path: &Path, conflicts: &mut Vec<Conflict>) -> bool {
    if node.immutable {
        conflicts.push(Conflict::Immutable { path: path.to_path_buf() });
    } else if node.mount_point {
        conflicts.push(Conflict::MountPoint { path: path.to_path_buf() });
    } else {
        return true;
    }
    false
}
