//! What an Install would do, for people: a decision together with everything that stands against it.

use std::path::Path;

use super::conflict::Conflict;
use super::plan::Decision;
use super::records::Instruction;
use super::{Change, InstallError, Request, consider};

/// A look at an Install that nothing will come of. It exists even when the Install would be refused.
#[derive(Debug)]
pub struct Preview {
    decision: Decision,
    conflicts: Vec<Conflict>,
}

/// Who may do what with one path, as the AppSpec asks for it; what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions<'a> {
    pub path: &'a str,
    /// Four octal digits.
    pub mode: Option<&'a str>,
    /// A name or a number.
    pub owner: Option<&'a str>,
    /// A name or a number.
    pub group: Option<&'a str>,
    /// Entries as `setfacl` takes them.
    pub acl: &'a [String],
    /// The type of the SELinux rule.
    pub selinux_type: Option<&'a str>,
}

/// Looks at the revision and the host as [`super::plan`] does; nothing is changed, and conflicts are no error.
pub fn preview(request: &Request<'_>) -> Result<Preview, InstallError> {
    let considered = consider(request)?;
    Ok(Preview { decision: considered.decision, conflicts: considered.room.conflicts })
}

impl Preview {
    /// What the Install would bring in the order of creation, then what it would remove and keep.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.decision.changes()
    }

    /// Why the Install would be refused; empty when it would not.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// What is odd, but no reason to refuse.
    pub fn warnings(&self) -> &[String] {
        &self.decision.warnings
    }

    /// What the `permissions` section comes to, one entry per path, in the order in which it is applied.
    pub fn permissions(&self) -> Vec<Permissions<'_>> {
        let mut all: Vec<Permissions<'_>> = Vec::new();
        for instruction in &self.decision.permission_instructions {
            let path = match instruction {
                Instruction::Chmod { file, .. }
                | Instruction::Chown { file, .. }
                | Instruction::Setfacl { file, .. }
                | Instruction::Semanage { file, .. } => file.as_str(),
                Instruction::Copy { .. } | Instruction::Mkdir { .. } => continue,
            };
            // A path has its instructions in a row, because it has permissions once.
            if all.last().is_none_or(|last| last.path != path) {
                let none =
                    Permissions { path, mode: None, owner: None, group: None, acl: &[], selinux_type: None };
                all.push(none);
            }
            if let Some(entry) = all.last_mut() {
                entry.add(instruction);
            }
        }
        all
    }
}

impl<'a> Permissions<'a> {
    fn add(&mut self, instruction: &'a Instruction) {
        match instruction {
            Instruction::Chmod { mode, .. } => self.mode = Some(mode),
            Instruction::Chown { owner, group, .. } => {
                self.owner = owner.as_deref();
                self.group = group.as_deref();
            }
            Instruction::Setfacl { acl, .. } => self.acl = acl,
            Instruction::Semanage { context, .. } => self.selinux_type = Some(&context.kind),
            Instruction::Copy { .. } | Instruction::Mkdir { .. } => {}
        }
    }
}

impl Change<'_> {
    /// The path that changes, or stays.
    pub fn path(&self) -> &Path {
        match self {
            Self::Created(path) | Self::Replaced(path) | Self::Removed(path) | Self::Kept(path) => path,
        }
    }
}
