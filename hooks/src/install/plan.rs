//! Decides the actions of an Install from values alone: this module does not touch the file system.

mod clean_up;
mod stay;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;

use codedeploy_api::specification::FileExistsBehavior;

pub(super) use self::stay::stay;
use super::access::{Access, Wish};
use super::conflict::{Conflict, Conflicts};
use super::decision::{Decision, Facts, Planned};
use super::grant;
use super::layout::{Wanted, WantedKind};
use super::paths::{PathId, Paths};
use super::snapshot::{Host, Leads, Node, NodeKind, ObjectId};
use crate::appspec::{MAX_FOLDERS, MAX_PATH_BYTES};

/// Decides as far as possible, and reports every conflict.
pub(super) fn decide(
    facts: Facts<'_>,
    wanted: Vec<Wanted>,
    paths: &mut Paths,
    conflicts: &mut Conflicts,
) -> Decision {
    let warnings = facts.host.previous.warnings.clone();
    let mut planner = Planner {
        facts,
        paths,
        decision: Decision {
            warnings,
            ..Decision::default()
        },
        folders: HashMap::from([(PathId::ROOT, Some(PathId::ROOT))]),
        conflicts,
    };
    planner.clean_up();
    planner.warn_of_rules();
    for wanted in wanted {
        if planner.conflicts.is_full() || facts.stop.is_cancelled() {
            break;
        }
        planner.want(wanted);
    }
    let Planner { mut decision, .. } = planner;
    grant::grant(facts, paths, &mut decision, conflicts);
    decision
}

struct Planner<'a> {
    facts: Facts<'a>,
    paths: &'a mut Paths,
    decision: Decision,
    /// The folder, existing or planned, that a written path leads to; `None` after a conflict.
    folders: HashMap<PathId, Option<PathId>>,
    conflicts: &'a mut Conflicts,
}

impl<'a> Planner<'a> {
    fn want(&mut self, wanted: Wanted) {
        let Wanted {
            path: written,
            source,
            kind,
        } = wanted;
        if kind == WantedKind::Folder {
            self.folder(written, source);
            return;
        }
        let around = self
            .paths
            .parent(written)
            .and_then(|parent| self.folder(parent, ObjectId::ROOT));
        let Some(path) = around.map(|around| self.paths.child_like(around, written)) else {
            return;
        };
        if !self.allowed(path, written) {
            return;
        }
        if let Some(first) = self.decision.places.get(path) {
            let first = self.decision.planned[*first as usize].source;
            let named = |source| self.facts.revision.path(source).display().to_string();
            let (first, second) = (named(first), named(source));
            self.conflicts.push(Conflict::Twice {
                path: self.paths.path(written),
                first,
                second,
            });
            return;
        }
        let mut overwrites = false;
        if let Some(node) = self.existing(path) {
            let is_folder =
                node.kind == NodeKind::Folder || self.leads_to_folder(path, node).is_some();
            match self.behavior(path) {
                // Whatever kind of object it is.
                FileExistsBehavior::Retain => {
                    self.decision.kept.push(path);
                    return;
                }
                _ if is_folder => {
                    self.conflicts.push(Conflict::FolderInTheWay {
                        path: self.paths.path(written),
                    });
                    return;
                }
                FileExistsBehavior::Disallow => {
                    self.conflicts.push(Conflict::Exists {
                        path: self.paths.path(written),
                        group: None,
                    });
                    return;
                }
                FileExistsBehavior::Overwrite => {
                    if !self.movable(node, path) {
                        return;
                    }
                    overwrites = true;
                }
            }
        }
        let object = self.facts.revision.object(source);
        let access = Access {
            owner: Some(Wish::kept(object.uid)),
            group: Some(Wish::kept(object.gid)),
            mode: (kind == WantedKind::File).then_some(Wish::kept(object.mode)),
            acl: None,
        };
        let access = self.decision.accesses.number(access);
        self.plan(Planned {
            written,
            path,
            source,
            kind,
            overwrites,
            access,
            stays: false,
        });
    }

    /// The meaning of an existing file. A slot belongs to deployments alone.
    fn behavior(&self, path: PathId) -> FileExistsBehavior {
        match self.facts.slot {
            Some(slot) if self.paths.path(path).starts_with(&slot.folder) => {
                FileExistsBehavior::Overwrite
            }
            _ => self.facts.behavior,
        }
    }

    /// Makes sure that there is, or will be, a folder at `written`; returns its path without links.
    fn folder(&mut self, written: PathId, source: ObjectId) -> Option<PathId> {
        if let Some(known) = self.folders.get(&written) {
            return *known;
        }
        let unknown: Vec<PathId> = self
            .paths
            .ancestors(written)
            .take_while(|path| !self.folders.contains_key(path))
            .collect();
        let known = unknown.last().and_then(|outer| self.paths.parent(*outer));
        let mut folder = known.and_then(|known| self.folders.get(&known).copied().flatten());
        for path in unknown.into_iter().rev() {
            let source = if path == written {
                source
            } else {
                ObjectId::ROOT
            };
            folder = folder.and_then(|around| self.find_or_plan_folder(around, path, source));
            self.folders.insert(path, folder);
        }
        folder
    }

    fn find_or_plan_folder(
        &mut self,
        around: PathId,
        written: PathId,
        source: ObjectId,
    ) -> Option<PathId> {
        let path = self.paths.child_like(around, written);
        if let Some(planned) = self.decision.places.get(path) {
            if self.decision.planned[*planned as usize].kind == WantedKind::Folder {
                return Some(path);
            }
            self.conflicts.push(Conflict::NotAFolder {
                path: self.paths.path(written),
            });
            return None;
        }
        if let Some(node) = self.existing(path) {
            if node.kind == NodeKind::Folder {
                return Some(path);
            }
            let folder = self.leads_to_folder(path, node);
            match folder {
                Some(folder) => {
                    self.decision
                        .links
                        .insert(self.paths.path(written), self.paths.path(folder));
                }
                None => {
                    let conflict = self.not_a_folder(written, path);
                    self.conflicts.push(conflict);
                }
            }
            return folder;
        }
        if !self.allowed(path, written) {
            return None;
        }
        let kind = WantedKind::Folder;
        let access = self.decision.accesses.number(Access::default());
        self.plan(Planned {
            written,
            path,
            source,
            kind,
            overwrites: false,
            access,
            stays: false,
        });
        Some(path)
    }

    fn not_a_folder(&self, written: PathId, path: PathId) -> Conflict {
        match self.facts.host.leads(path) {
            Leads::Unsafe(stranger) => Conflict::stranger(self.paths, written, stranger),
            Leads::Kernel => Conflict::Kernels {
                path: self.paths.path(written),
            },
            Leads::To(_) | Leads::Nowhere => Conflict::NotAFolder {
                path: self.paths.path(written),
            },
        }
    }

    fn plan(&mut self, planned: Planned) {
        // An existing folder must accept new names.
        if let Some(parent) = self.paths.parent(planned.path) {
            self.changeable(parent);
        }
        let number = u32::try_from(self.decision.planned.len()).unwrap_or(u32::MAX);
        self.decision.places.insert(planned.path, number);
        self.decision.planned.push(planned);
    }

    /// Checks that names in an existing folder can change; adds a conflict if not.
    fn changeable(&mut self, folder: PathId) {
        if self.existing(folder).is_some_and(|node| node.immutable) {
            self.conflicts.push_once(Conflict::Immutable {
                path: self.paths.path(folder),
            });
        }
    }

    fn allowed(&mut self, path: PathId, written: PathId) -> bool {
        let around = self.paths.parent(path);
        let in_planned = around.is_some_and(|around| self.decision.places.contains(around));
        let reserved = if in_planned {
            self.facts.reserved.conflict_in_planned(self.paths, path)
        } else {
            self.facts.reserved.conflict(self.paths, path)
        };
        let longest = self.paths.length(path).max(self.paths.length(written));
        let conflict = if longest > MAX_PATH_BYTES || self.paths.depth(path) > MAX_FOLDERS {
            let (depth, shown) = (self.paths.depth(path), self.paths.shown(written));
            Conflict::TooLong {
                path: shown,
                length: longest,
                depth,
            }
        } else if self.paths.name(path).as_bytes().contains(&b'\n') {
            Conflict::LineBreak {
                path: self.paths.path(path),
            }
        } else if let Some(conflict) = reserved {
            conflict
        } else {
            return true;
        };
        self.conflicts.push(conflict);
        false
    }

    /// The object at `path` once the last Install's files are gone.
    fn existing(&self, path: PathId) -> Option<&'a Node> {
        let host: &'a Host = self.facts.host;
        host.node(path)
            .filter(|_| !self.decision.goes.contains(path))
    }

    fn leads_to_folder(&self, path: PathId, node: &Node) -> Option<PathId> {
        let end = self
            .facts
            .host
            .leads_to_folder(path)
            .filter(|_| node.kind == NodeKind::Link)?;
        (!self.decision.goes.contains(end)).then_some(end)
    }

    /// Whether an object can be renamed away; adds a conflict if not.
    fn movable(&mut self, node: &Node, path: PathId) -> bool {
        if node.immutable {
            self.conflicts.push_once(Conflict::Immutable {
                path: self.paths.path(path),
            });
        } else if node.mount_point {
            self.conflicts.push_once(Conflict::MountPoint {
                path: self.paths.path(path),
            });
        } else {
            return true;
        }
        false
    }
}
