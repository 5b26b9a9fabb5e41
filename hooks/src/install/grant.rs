//! The `permissions` section: which planned objects each entry means, and what they get. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::access::{Access, AclAttributes, Context, Entry, Tag, Wish};
use super::conflict::Conflict;
use super::layout::WantedKind;
use super::plan::{Decision, Facts};
use super::records::Instruction;
use super::snapshot::{Node, NodeKind, last};
use crate::appspec::{Acl, AclTag, Pattern, Permission, Principal};

/// Gives the planned objects, and existing files that are named exactly, the access that the AppSpec asks for.
pub(super) fn grant(facts: Facts<'_>, decision: &mut Decision, conflicts: &mut Vec<Conflict>) {
    let mut granter = Granter { facts, decision, conflicts, granted: BTreeSet::new() };
    granter.check_names();
    for permission in &facts.appspec.permissions {
        granter.permission(permission);
    }
}

struct Granter<'a> {
    facts: Facts<'a>,
    decision: &'a mut Decision,
    conflicts: &'a mut Vec<Conflict>,
    /// Paths, as written, that have had a permission.
    granted: BTreeSet<PathBuf>,
}

impl Granter<'_> {
    fn check_names(&mut self) {
        let host = self.facts.host;
        let mut users = BTreeSet::new();
        let mut groups = BTreeSet::new();
        for permission in &self.facts.appspec.permissions {
            users.extend(permission.owner.as_ref().and_then(|owner| unknown(owner, &host.users)));
            groups.extend(permission.group.as_ref().and_then(|group| unknown(group, &host.groups)));
            for entry in permission.acl.iter().flat_map(|acl| &acl.entries) {
                match &entry.tag {
                    AclTag::User(user) => users.extend(unknown(user, &host.users)),
                    AclTag::Group(group) => groups.extend(unknown(group, &host.groups)),
                    AclTag::Owner | AclTag::OwningGroup | AclTag::Mask | AclTag::Other => {}
                }
            }
        }
        self.conflicts.extend(users.into_iter().map(|name| Conflict::UnknownUser { name }));
        self.conflicts.extend(groups.into_iter().map(|name| Conflict::UnknownGroup { name }));
    }

    fn permission(&mut self, permission: &Permission) {
        let object = permission.object.as_path();
        if permission.context.is_some() && !self.facts.host.has_selinux_tools {
            self.conflicts.push(Conflict::NoSelinux { object: object.to_path_buf() });
        }
        if let Some(context) = permission.context.as_ref().filter(|_| self.facts.reject_unconfined) {
            let parts = context.user.iter().chain([&context.kind]);
            let unconfined = parts.filter(|part| part.starts_with("unconfined_"));
            self.conflicts.extend(
                unconfined.map(|found| Conflict::Unconfined { object: object.into(), found: found.clone() }),
            );
        }
        let exact = self.decision.planned.iter().position(|planned| planned.written == object);
        let applied = match exact.map(|index| &self.decision.planned[index].kind) {
            Some(WantedKind::File) => {
                self.exact_file(permission, |granter| granter.planned(permission, exact))
            }
            Some(WantedKind::Link { .. }) => {
                self.conflicts.push(Conflict::PermissionOnLink { object: object.to_path_buf() });
                true
            }
            Some(WantedKind::Folder) => self.below(permission),
            None => self.existing(permission),
        };
        if !applied {
            self.decision.warnings.push(format!(
                "permissions: {} applies to nothing that this Install copies or creates",
                object.display()
            ));
        }
    }

    /// What is on the host at the object, and is not this Install's.
    fn existing(&mut self, permission: &Permission) -> bool {
        let Some((path, node)) = self.locate(permission.object.as_path()) else {
            return self.below(permission);
        };
        match node.kind {
            NodeKind::File => self.exact_file(permission, |granter| granter.adjust(permission, &path, &node)),
            NodeKind::Link { .. } if !self.is_folder(&node) => {
                self.conflicts
                    .push(Conflict::PermissionOnLink { object: permission.object.as_path().to_path_buf() });
                true
            }
            _ => self.below(permission),
        }
    }

    fn exact_file(&mut self, permission: &Permission, apply: impl FnOnce(&mut Self)) -> bool {
        if !permission.applies_to.files {
            return false;
        }
        if permission.pattern != Pattern::Everything || !permission.except.is_empty() {
            self.conflicts
                .push(Conflict::PatternOnFile { object: permission.object.as_path().to_path_buf() });
        }
        apply(self);
        true
    }

    fn planned(&mut self, permission: &Permission, index: Option<usize>) {
        let Some(index) = index else {
            return;
        };
        let planned = &self.decision.planned[index];
        let (written, path) = (planned.written.clone(), planned.path.clone());
        let (mode, is_folder) = match planned.kind {
            // Links have an owner and a group of their own, and nothing else; what they lead to is not touched.
            WantedKind::Link { .. } => {
                self.once(&written);
                let (owner, group) = self.owners(permission);
                let access = &mut self.decision.planned[index].access;
                access.owner = owner.or(access.owner);
                access.group = group.or(access.group);
                return;
            }
            WantedKind::File => (planned.access.mode.map_or(0o644, |mode| mode.value), false),
            WantedKind::Folder => (self.facts.host.folder_mode, true),
        };
        let asked = self.access(permission, &written, &path, mode, is_folder);
        let access = &mut self.decision.planned[index].access;
        access.owner = asked.owner.or(access.owner);
        access.group = asked.group.or(access.group);
        access.mode = asked.mode.or(access.mode);
        access.acl = asked.acl;
    }

    fn adjust(&mut self, permission: &Permission, path: &Path, node: &Node) {
        if node.immutable {
            self.conflicts.push(Conflict::Immutable { path: path.to_path_buf() });
        }
        let mut access = self.access(permission, permission.object.as_path(), path, node.mode, false);
        // Changing owner or group takes set-id bits away; who did not ask for that keeps them.
        access.mode = access.mode.or(Some(Wish::asked(node.mode)));
        self.decision.adjusted.push((path.to_path_buf(), access));
    }

    /// Everything planned below the object that the pattern means.
    fn below(&mut self, permission: &Permission) -> bool {
        let object = permission.object.as_path();
        let means = |path: &Path, is_folder: bool| {
            let applies = permission.applies_to;
            if path == object || !path.starts_with(object) {
                return false;
            }
            let direct = path.parent() == Some(object);
            let pattern = match &permission.pattern {
                Pattern::Everything => true,
                Pattern::Name(pattern) => direct && pattern.matches(last(path)),
            };
            let excepted = direct && permission.except.iter().any(|except| except.matches(last(path)));
            (if is_folder { applies.directories } else { applies.files }) && pattern && !excepted
        };
        let meant: Vec<usize> = (self.decision.planned.iter().enumerate())
            .filter(|(_, planned)| means(&planned.written, planned.kind == WantedKind::Folder))
            .map(|(index, _)| index)
            .collect();
        for index in &meant {
            self.planned(permission, Some(*index));
        }
        !meant.is_empty()
    }

    fn once(&mut self, written: &Path) {
        if !self.granted.insert(written.to_path_buf()) {
            self.conflicts.push(Conflict::PermissionTwice { path: written.to_path_buf() });
        }
    }

    /// What an object gets, noted for the records in the official order.
    fn access(
        &mut self,
        permission: &Permission,
        written: &Path,
        path: &Path,
        mode: u32,
        is_folder: bool,
    ) -> Access {
        self.once(written);
        let file = path.to_string_lossy().into_owned();
        if let Some(mode) = permission.mode {
            self.note(Instruction::Chmod { mode: mode.written(), file: file.clone() });
        }
        let mode = permission.mode.map_or(mode, |mode| mode.bits());
        let acl = permission.acl.as_ref().and_then(|acl| {
            self.note(Instruction::Setfacl {
                acl: acl.entries.iter().map(text).collect(),
                file: file.clone(),
            });
            if !is_folder && acl.entries.iter().any(|entry| entry.default) {
                self.conflicts.push(Conflict::DefaultAclOnFile { path: written.to_path_buf() });
            }
            self.acl(permission, acl, mode)
        });
        if let Some(context) = &permission.context {
            let context = Context {
                user: context.user.clone(),
                role: None,
                kind: context.kind.clone(),
                range: context.range.clone(),
            };
            self.note(Instruction::Semanage { context: context.clone(), file: file.clone() });
            self.decision.contexts.push((path.to_path_buf(), context));
        }
        let (owner, group) = self.owners(permission);
        if owner.is_some() || group.is_some() {
            let name = |principal: &Option<Principal>| principal.as_ref().map(principal_text);
            self.note(Instruction::Chown {
                owner: name(&permission.owner),
                group: name(&permission.group),
                file,
            });
        }
        Access { owner, group, mode: permission.mode.map(|mode| Wish::asked(mode.bits())), acl }
    }

    fn note(&mut self, instruction: Instruction) {
        self.decision.permission_instructions.push(instruction);
    }

    fn owners(&self, permission: &Permission) -> (Option<Wish>, Option<Wish>) {
        let host = self.facts.host;
        let wish = |principal: &Option<Principal>, known| {
            let id = id(principal.as_ref()?, known)?;
            Some(Wish::asked(id))
        };
        (wish(&permission.owner, &host.users), wish(&permission.group, &host.groups))
    }

    /// `None` when a name is unknown, which is a conflict already.
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
                let conflict = Conflict::AclTwice { object: permission.object.as_path().to_path_buf() };
                if !self.conflicts.contains(&conflict) {
                    self.conflicts.push(conflict);
                }
            }
            entries.push(Entry { default: entry.default, tag, perms: entry.perms });
        }
        Some(AclAttributes::complete(&entries, mode))
    }

    /// Where `written` is on the host, and what is there once the last Install's files are gone.
    fn locate(&self, written: &Path) -> Option<(PathBuf, Node)> {
        let nodes = &self.facts.host.nodes;
        let exists = |path: &Path| nodes.get(path).filter(|_| !self.decision.removed.contains(path));
        let mut folder = PathBuf::from("/");
        let mut ancestors: Vec<&Path> = written.ancestors().skip(1).collect();
        ancestors.reverse();
        for parent in ancestors.into_iter().skip(1) {
            folder.push(last(parent));
            if let NodeKind::Link { leads_to } = &exists(&folder)?.kind {
                folder = leads_to.clone()?;
            }
        }
        folder.push(last(written));
        let node = exists(&folder)?.clone();
        Some((folder, node))
    }

    fn is_folder(&self, link: &Node) -> bool {
        let NodeKind::Link { leads_to: Some(end) } = &link.kind else {
            return false;
        };
        matches!(self.facts.host.nodes.get(end), Some(Node { kind: NodeKind::Folder { .. }, .. }))
    }
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

fn principal_text(principal: &Principal) -> String {
    match principal {
        Principal::Id(id) => id.to_string(),
        Principal::Name(name) => name.clone(),
    }
}

/// An entry in the form of setfacl(1).
fn text(entry: &crate::appspec::AclEntry) -> String {
    let (tag, name) = match &entry.tag {
        AclTag::Owner => ("user", String::new()),
        AclTag::User(user) => ("user", principal_text(user)),
        AclTag::OwningGroup => ("group", String::new()),
        AclTag::Group(group) => ("group", principal_text(group)),
        AclTag::Mask => ("mask", String::new()),
        AclTag::Other => ("other", String::new()),
    };
    let bit = |mask, letter| if entry.perms & mask == 0 { '-' } else { letter };
    let default = if entry.default { "default:" } else { "" };
    format!("{default}{tag}:{name}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x'))
}
