//! The permissions that an Install grants, in the form of its records.

use super::access::Context;
use super::paths::{PathId, Paths};
use super::records::Instruction;
use crate::appspec::{AclTag, Mode, Permission, Principal};

/// The granted permissions, for the records.
#[derive(Debug, Default)]
pub(super) struct Granted {
    /// The text of each entry of `permissions` that applies to anything.
    pub(super) entries: Vec<Texts>,
    /// The paths, as written, that get permissions, each with the number of its entry.
    pub(super) paths: Vec<(PathId, u32)>,
    /// The SELinux rules, in order: the path without links in its parents, and the number of the
    /// entry.
    pub(super) contexts: Vec<(PathId, u32)>,
}

/// One entry of `permissions`, in the form of the records.
#[derive(Debug)]
pub(super) struct Texts {
    mode: Option<String>,
    acl: Option<Vec<String>>,
    context: Option<Context>,
    owner: Option<String>,
    group: Option<String>,
}

impl Granted {
    /// The commands for permissions, in the order in which the official agents execute them.
    pub(super) fn instructions<'a>(
        &'a self,
        paths: &'a Paths,
    ) -> impl Iterator<Item = Instruction> + 'a {
        self.paths.iter().flat_map(|(path, entry)| {
            let file = paths.path(*path).to_string_lossy().into_owned();
            self.entries[*entry as usize].instructions(file)
        })
    }

    /// SELinux rules, in order.
    pub(super) fn contexts(&self) -> impl Iterator<Item = (PathId, &Context)> {
        let rule = |(path, entry): &(PathId, u32)| {
            Some((*path, self.entries[*entry as usize].context.as_ref()?))
        };
        self.contexts.iter().filter_map(rule)
    }
}

impl Texts {
    pub(super) fn of(permission: &Permission) -> Self {
        let name = |principal: &Option<Principal>| principal.as_ref().map(principal_text);
        Self {
            mode: permission.mode.map(Mode::written),
            acl: permission
                .acl
                .as_ref()
                .map(|acl| acl.entries.iter().map(text).collect()),
            context: permission.context.as_ref().map(|context| Context {
                user: context.user.clone(),
                role: None,
                kind: context.kind.clone(),
                range: context.range.clone(),
            }),
            owner: name(&permission.owner),
            group: name(&permission.group),
        }
    }

    fn instructions(&self, file: String) -> impl Iterator<Item = Instruction> + use<> {
        let Self {
            mode,
            acl,
            context,
            owner,
            group,
        } = self;
        let mode = mode.clone().map(|mode| Instruction::Chmod {
            mode,
            file: file.clone(),
        });
        let acl = acl.clone().map(|acl| Instruction::Setfacl {
            acl,
            file: file.clone(),
        });
        let context = context.clone().map(|context| Instruction::Semanage {
            context,
            file: file.clone(),
        });
        let owned = owner.is_some() || group.is_some();
        let (owner, group) = (owner.clone(), group.clone());
        let owners = owned.then_some(Instruction::Chown { owner, group, file });
        [mode, acl, context, owners].into_iter().flatten()
    }
}

fn principal_text(principal: &Principal) -> String {
    match principal {
        Principal::Id(id) => id.to_string(),
        Principal::Name(name) => name.clone(),
    }
}

/// Formats an entry in the form of setfacl(1).
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
    format!(
        "{default}{tag}:{name}:{}{}{}",
        bit(4, 'r'),
        bit(2, 'w'),
        bit(1, 'x')
    )
}
