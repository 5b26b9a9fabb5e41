//! The `permissions` section: the planned objects that each entry applies to, and the access that
//! they get. Pure.

mod meaning;

use std::collections::{BTreeMap, BTreeSet};

use self::meaning::Tree;
use super::access::{Access, AclAttributes, ResolvedEntry, Tag, Wish};
use super::conflict::{Conflict, Conflicts};
use super::decision::{Decision, Facts};
use super::granted::Texts;
use super::layout::WantedKind;
use super::paths::{ByPath, PathId, Paths};
use super::snapshot::{Leads, NodeKind};
use crate::appspec::{Acl, AclTag, Pattern, Permission, Principal};

/// Gives the planned objects, and existing files that are named exactly, the access that the
/// AppSpec asks for.
pub(super) fn grant(
    facts: Facts<'_>,
    paths: &mut Paths,
    decision: &mut Decision,
    conflicts: &mut Conflicts,
) {
    if facts.appspec.permissions.is_empty() {
        return;
    }
    let tree = Tree::of(&decision.planned, paths);
    let mut granter = Granter {
        facts,
        paths,
        decision,
        conflicts,
        tree,
        granted: ByPath::default(),
    };
    granter.check_names();
    for permission in &facts.appspec.permissions {
        if granter.conflicts.is_full() || facts.stop.is_cancelled() {
            break;
        }
        granter.permission(permission);
    }
}

struct Granter<'a> {
    facts: Facts<'a>,
    paths: &'a mut Paths,
    decision: &'a mut Decision,
    conflicts: &'a mut Conflicts,
    tree: Tree,
    /// Paths, as written, that already have a permission.
    granted: ByPath<()>,
}

impl Granter<'_> {
    fn check_names(&mut self) {
        let host = self.facts.host;
        let mut users = BTreeSet::new();
        let mut groups = BTreeSet::new();
        for permission in &self.facts.appspec.permissions {
            users.extend(
                permission
                    .owner
                    .as_ref()
                    .and_then(|owner| unknown(owner, &host.users)),
            );
            groups.extend(
                permission
                    .group
                    .as_ref()
                    .and_then(|group| unknown(group, &host.groups)),
            );
            for entry in permission.acl.iter().flat_map(|acl| &acl.entries) {
                match &entry.tag {
                    AclTag::User(user) => users.extend(unknown(user, &host.users)),
                    AclTag::Group(group) => groups.extend(unknown(group, &host.groups)),
                    AclTag::Owner | AclTag::OwningGroup | AclTag::Mask | AclTag::Other => {}
                }
            }
        }
        self.conflicts
            .extend(users.into_iter().map(|name| Conflict::UnknownUser { name }));
        self.conflicts.extend(
            groups
                .into_iter()
                .map(|name| Conflict::UnknownGroup { name }),
        );
    }

    fn permission(&mut self, permission: &Permission) {
        let object = permission.object.as_path();
        if permission.context.is_some() && !self.facts.host.has_selinux_tools {
            self.conflicts.push(Conflict::NoSelinux {
                object: object.to_path_buf(),
            });
        }
        if let Some(context) = permission
            .context
            .as_ref()
            .filter(|_| self.facts.reject_unconfined)
        {
            let parts = context.user.iter().chain([&context.kind]);
            let unconfined = parts.filter(|part| part.starts_with("unconfined_"));
            self.conflicts
                .extend(unconfined.map(|found| Conflict::Unconfined {
                    object: object.into(),
                    found: found.clone(),
                }));
        }
        let written = self.paths.add(object);
        let granted = &mut self.decision.granted;
        granted.entries.push(Texts::of(permission));
        let entry = u32::try_from(granted.entries.len() - 1).unwrap_or(u32::MAX);
        let exact = self.tree.planned(written);
        let applied = match exact.map(|number| self.decision.planned[number as usize].kind) {
            Some(WantedKind::File) => self.exact_file(permission, |granter| {
                granter.planned(permission, entry, exact)
            }),
            Some(WantedKind::Link) => {
                self.conflicts.push(Conflict::PermissionOnLink {
                    object: object.to_path_buf(),
                });
                true
            }
            Some(WantedKind::Folder) => self.below(permission, entry, written),
            None => self.existing(permission, entry, written),
        };
        if !applied {
            self.decision.warnings.push(format!(
                "permissions: {} applies to nothing that this Install copies or creates",
                object.display()
            ));
        }
    }

    /// Handles an object that is on the host but not part of this Install.
    fn existing(&mut self, permission: &Permission, entry: u32, written: PathId) -> bool {
        let found = self.locate(written);
        let object = || permission.object.as_path().to_path_buf();
        match found {
            Found::File(path) => self.exact_file(permission, |granter| {
                granter.adjust(permission, entry, written, path)
            }),
            Found::Behind(link) => {
                let owner = self.facts.host.node(link).map_or(0, |node| node.uid);
                let link = self.paths.path(link);
                self.exact_file(permission, |granter| {
                    granter.conflicts.push(Conflict::PermissionThroughLink {
                        object: object(),
                        link,
                        owner,
                    });
                })
            }
            Found::Unsafe(leads) => {
                self.conflicts.push(match leads {
                    Leads::Unsafe(stranger) => Conflict::stranger(self.paths, written, stranger),
                    _ => Conflict::Kernels { path: object() },
                });
                true
            }
            Found::Link => {
                self.conflicts
                    .push(Conflict::PermissionOnLink { object: object() });
                true
            }
            Found::Other => self.below(permission, entry, written),
        }
    }

    fn exact_file(&mut self, permission: &Permission, apply: impl FnOnce(&mut Self)) -> bool {
        if !permission.applies_to.files {
            return false;
        }
        if permission.pattern != Pattern::Everything || !permission.except.is_empty() {
            self.conflicts.push(Conflict::PatternOnFile {
                object: permission.object.as_path().to_path_buf(),
            });
        }
        apply(self);
        true
    }

    fn planned(&mut self, permission: &Permission, entry: u32, number: Option<u32>) {
        let Some(index) = number.map(|number| number as usize) else {
            return;
        };
        let planned = self.decision.planned[index];
        let own = self.decision.access(&planned).clone();
        let (mode, is_folder) = match planned.kind {
            // A link has only an owner and a group of its own; its target is not touched.
            WantedKind::Link => {
                self.once(planned.written);
                let (owner, group) = self.owners(permission);
                let access = Access {
                    owner: owner.or(own.owner),
                    group: group.or(own.group),
                    ..own
                };
                self.decision.planned[index].access = self.decision.accesses.number(access);
                return;
            }
            WantedKind::File => (own.mode.map_or(0o644, |mode| mode.value), false),
            WantedKind::Folder => (self.facts.host.folder_mode, true),
        };
        let asked = self.access(
            permission,
            entry,
            planned.written,
            planned.path,
            mode,
            is_folder,
        );
        let access = Access {
            owner: asked.owner.or(own.owner),
            group: asked.group.or(own.group),
            mode: asked.mode.or(own.mode),
            acl: asked.acl,
        };
        self.decision.planned[index].access = self.decision.accesses.number(access);
    }

    fn adjust(&mut self, permission: &Permission, entry: u32, written: PathId, path: PathId) {
        let Some(node) = self.facts.host.node(path).copied() else {
            return;
        };
        if node.immutable {
            self.conflicts.push(Conflict::Immutable {
                path: self.paths.path(path),
            });
        }
        if let Some(conflict) = self.facts.reserved.conflict(self.paths, path) {
            self.conflicts.push(conflict);
        }
        let mut access = self.access(permission, entry, written, path, node.mode, false);
        // Changing the owner or group clears set-id bits; an entry without a mode keeps them.
        access.mode = access.mode.or(Some(Wish::asked(node.mode)));
        self.decision.adjusted.push((path, access));
    }

    /// Applies the permission to everything planned below the object that its pattern matches.
    fn below(&mut self, permission: &Permission, entry: u32, object: PathId) -> bool {
        let Some(meant) = self
            .tree
            .meant(permission, object, self.paths, &self.decision.planned)
        else {
            self.conflicts.push_once(Conflict::TooManyPermissions);
            return true;
        };
        for number in &meant {
            if self.conflicts.is_full() {
                break;
            }
            self.planned(permission, entry, Some(*number));
        }
        !meant.is_empty()
    }

    fn once(&mut self, written: PathId) {
        if self.granted.contains(written) {
            self.conflicts.push(Conflict::PermissionTwice {
                path: self.paths.path(written),
            });
        }
        self.granted.insert(written, ());
    }

    /// Returns the access of an object, and notes it for the records.
    fn access(
        &mut self,
        permission: &Permission,
        entry: u32,
        written: PathId,
        path: PathId,
        mode: u32,
        is_folder: bool,
    ) -> Access {
        self.once(written);
        self.decision.granted.paths.push((written, entry));
        let mode = permission.mode.map_or(mode, |mode| mode.bits());
        let acl = permission.acl.as_ref().and_then(|acl| {
            if !is_folder && acl.entries.iter().any(|entry| entry.default) {
                self.conflicts.push(Conflict::DefaultAclOnFile {
                    path: self.paths.path(written),
                });
            }
            self.acl(permission, acl, mode)
        });
        if permission.context.is_some() {
            self.decision.granted.contexts.push((path, entry));
        }
        let (owner, group) = self.owners(permission);
        Access {
            owner,
            group,
            mode: permission.mode.map(|mode| Wish::asked(mode.bits())),
            acl,
        }
    }

    fn owners(&self, permission: &Permission) -> (Option<Wish>, Option<Wish>) {
        let host = self.facts.host;
        let wish = |principal: &Option<Principal>, known| {
            let id = id(principal.as_ref()?, known)?;
            Some(Wish::asked(id))
        };
        (
            wish(&permission.owner, &host.users),
            wish(&permission.group, &host.groups),
        )
    }

    /// Returns `None` if a name is unknown, which is already a conflict.
    fn acl(&mut self, permission: &Permission, acl: &Acl, mode: u32) -> Option<AclAttributes> {
        let host = self.facts.host;
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in &acl.entries {
            let tag = match &entry.tag {
                AclTag::Owner => Tag::Owner,
                AclTag::User(user) => Tag::User(id(user, &host.users)?),
                AclTag::OwningGroup => Tag::OwningGroup,
                AclTag::Group(group) => Tag::Group(id(group, &host.groups)?),
                AclTag::Mask => Tag::Mask,
                AclTag::Other => Tag::Other,
            };
            if !seen.insert((entry.default, tag)) {
                let conflict = Conflict::AclTwice {
                    object: permission.object.as_path().to_path_buf(),
                };
                self.conflicts.push_once(conflict);
            }
            entries.push(ResolvedEntry {
                default: entry.default,
                tag,
                perms: entry.perms,
            });
        }
        Some(AclAttributes::complete(&entries, mode))
    }

    /// Returns the object at `written` on the host, once the last Install's files are gone.
    fn locate(&mut self, written: PathId) -> Found {
        let way = self.paths.inwards(written);
        let mut here = PathId::ROOT;
        let mut link = None;
        for (index, step) in way.iter().enumerate().skip(1) {
            here = self.paths.child_like(here, *step);
            let node = self
                .facts
                .host
                .node(here)
                .filter(|_| !self.decision.goes.contains(here));
            let Some(node) = node else {
                return Found::Other;
            };
            let is_last = index + 1 == way.len();
            match (node.kind, is_last) {
                (NodeKind::File, true) => return link.map_or(Found::File(here), Found::Behind),
                (NodeKind::Link, true) if self.facts.host.leads_to_folder(here).is_none() => {
                    return match self.facts.host.leads(here) {
                        leads @ (Leads::Unsafe(_) | Leads::Kernel) => Found::Unsafe(leads),
                        Leads::To(_) | Leads::Nowhere => Found::Link,
                    };
                }
                (NodeKind::Link, _) => {
                    link = link.or(Some(here));
                    match self.facts.host.leads(here) {
                        Leads::To(end) => here = end,
                        Leads::Nowhere => return Found::Other,
                        leads @ (Leads::Unsafe(_) | Leads::Kernel) => return Found::Unsafe(leads),
                    }
                }
                (NodeKind::File | NodeKind::Folder | NodeKind::Special, _) => {}
            }
        }
        Found::Other
    }
}

/// The object of a permission that is not part of this Install.
enum Found {
    File(PathId),
    /// A file with this link on its path.
    Behind(PathId),
    /// A link that leads to no folder.
    Link,
    /// A link that is not followed is on its path, or is the object itself.
    Unsafe(Leads),
    /// A folder, a special file, or nothing.
    Other,
}

fn unknown(principal: &Principal, known: &BTreeMap<String, u32>) -> Option<String> {
    match principal {
        Principal::Name(name) if !known.contains_key(name) => Some(name.clone()),
        Principal::Name(_) | Principal::Id(_) => None,
    }
}

fn id(principal: &Principal, known: &BTreeMap<String, u32>) -> Option<u32> {
    match principal {
        Principal::Id(id) => Some(*id),
        Principal::Name(name) => known.get(name).copied(),
    }
}
