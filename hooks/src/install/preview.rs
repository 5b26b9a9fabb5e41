//! The preview of an Install, for people: a decision together with all its conflicts.

use std::path::Path;

use super::conflict::Conflict;
use super::decision::Decision;
use super::paths::Paths;
use super::records::Instruction;
use super::{Considered, InstallError, PathChange, Request, consider};

/// A look at an Install that is not carried out. It exists even if the Install would be rejected.
#[derive(Debug)]
pub struct Preview {
    decision: Decision,
    conflicts: Vec<Conflict>,
    paths: Paths,
}

/// The access to one path that the AppSpec asks for; an absent attribute stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    pub path: String,
    /// Four octal digits.
    pub mode: Option<String>,
    /// A name or a number.
    pub owner: Option<String>,
    /// A name or a number.
    pub group: Option<String>,
    /// Entries as `setfacl` takes them.
    pub acl: Vec<String>,
    /// The type of the SELinux rule.
    pub selinux_type: Option<String>,
}

/// Examines the revision and the host as [`super::plan`] does; nothing is changed, and conflicts
/// are no error.
pub fn preview(request: &Request<'_>) -> Result<Preview, InstallError> {
    let Considered {
        decision,
        conflicts,
        paths,
        ..
    } = consider(request)?;
    Ok(Preview {
        decision,
        conflicts,
        paths,
    })
}

impl Preview {
    /// Lists the paths that the Install would create, in order of creation, then those that it
    /// would remove and keep.
    pub fn changes(&self) -> impl Iterator<Item = PathChange> {
        self.decision.changes(&self.paths)
    }

    /// The reasons why the Install would be rejected; empty if it would not be.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// Warnings that are no reason to reject the Install.
    pub fn warnings(&self) -> &[String] {
        &self.decision.warnings
    }

    /// The effect of the `permissions` section, one entry per path, in the order of application.
    pub fn permissions(&self) -> Vec<Permissions> {
        let mut all: Vec<Permissions> = Vec::new();
        for instruction in self.decision.granted.instructions(&self.paths) {
            let path = match &instruction {
                Instruction::Chmod { file, .. }
                | Instruction::Chown { file, .. }
                | Instruction::Setfacl { file, .. }
                | Instruction::Semanage { file, .. } => file,
                Instruction::Copy { .. } | Instruction::Mkdir { .. } => continue,
            };
            // The instructions of one path are consecutive, because a path has only one permission.
            if all.last().is_none_or(|last| last.path != *path) {
                all.push(Permissions {
                    path: path.clone(),
                    ..Permissions::default()
                });
            }
            if let Some(entry) = all.last_mut() {
                entry.add(instruction);
            }
        }
        all
    }
}

impl Permissions {
    fn add(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::Chmod { mode, .. } => self.mode = Some(mode),
            Instruction::Chown { owner, group, .. } => (self.owner, self.group) = (owner, group),
            Instruction::Setfacl { acl, .. } => self.acl = acl,
            Instruction::Semanage { context, .. } => self.selinux_type = Some(context.kind),
            Instruction::Copy { .. } | Instruction::Mkdir { .. } => {}
        }
    }
}

impl PathChange {
    /// The path that changes, or stays.
    pub fn path(&self) -> &Path {
        match self {
            Self::Created(path)
            | Self::Replaced(path)
            | Self::Removed(path)
            | Self::Kept(path)
            | Self::Unchanged(path) => path,
        }
    }
}
