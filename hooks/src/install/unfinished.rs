//! The remaining work of an interrupted Install, for people: a look that changes nothing.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::journal::{self, Action, JournalError, Phase};
use super::step::{Change, Swapped};
use crate::fs::Handles;

/// An Install that has not ended.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    pub action: Action,
    /// The deployment's folder.
    pub deployment: PathBuf,
    pub phase: Phase,
    /// Every visible change, in order; empty while new files were being built.
    pub changes: Vec<Progress>,
    /// The temporary names under which new objects may still exist.
    pub temporary: Vec<PathBuf>,
}

/// One change, and whether it is made.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub path: PathBuf,
    pub kind: Kind,
    /// `None` if that cannot be seen.
    pub made: Option<bool>,
}

/// The effect of a change on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Create,
    Replace,
    Remove,
    /// Owner, mode or access control list.
    Adjust,
    /// Times of files that stay in place.
    Retime,
    /// SELinux context.
    Label,
}

/// Describes the unfinished Install of `journal`; `None` if there is no such file.
pub fn unfinished(journal: &Path) -> Result<Option<Unfinished>, JournalError> {
    let Some(contents) = journal::read(journal)? else {
        return Ok(None);
    };
    let mut handles = Handles::default();
    let mut progress = |change: Change| Progress {
        path: change.path().to_path_buf(),
        kind: change.kind(),
        made: change.is_made(&mut handles).ok().flatten(),
    };
    let unreadable = |source| JournalError::Read {
        path: journal.to_path_buf(),
        source,
    };
    let begun = contents
        .changes
        .iter()
        .filter(|_| contents.phase != Phase::Building);
    let begun = begun.filter(|change| change.as_ref().map_or(true, Change::is_visible));
    let changes: Result<_, _> = begun.map(|change| change.map(&mut progress)).collect();
    let changes = changes.map_err(unreadable)?;
    let mut handles = Handles::default();
    let mut temporary = contents.staged;
    temporary.retain(|path| {
        let there = handles
            .parent(path)
            .and_then(|(folder, name)| folder.stat(name));
        there.is_ok_and(|there| there.is_some())
    });
    let (action, deployment) = (contents.begun.action, contents.begun.deployment);
    Ok(Some(Unfinished {
        action,
        deployment,
        phase: contents.phase,
        changes,
        temporary,
    }))
}

impl Change {
    fn kind(&self) -> Kind {
        match self {
            Self::Swap(Swapped { brings: None, .. }) => Kind::Remove,
            Self::Swap(Swapped { takes: true, .. }) => Kind::Replace,
            Self::Swap(_) => Kind::Create,
            Self::Adjust { .. } => Kind::Adjust,
            Self::Stay(_) | Self::StayFolder { .. } => Kind::Retime,
            Self::Context { .. } => Kind::Label,
        }
    }

    fn is_made(&self, handles: &mut Handles) -> io::Result<Option<bool>> {
        match self {
            Self::Swap(swap) => swap.is_made(handles).map(Some),
            Self::Adjust { .. }
            | Self::Stay(_)
            | Self::StayFolder { .. }
            | Self::Context { .. } => Ok(None),
        }
    }

    /// Whether anybody can see the change.
    fn is_visible(&self) -> bool {
        match self {
            Self::Stay(stayed) => stayed.changes_times(),
            Self::StayFolder { .. } => false,
            Self::Swap(_) | Self::Adjust { .. } | Self::Context { .. } => true,
        }
    }
}

impl Kind {
    /// The past tense, for a sentence.
    pub fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Replace => "replaced",
            Self::Remove => "removed",
            Self::Adjust => "given another owner, mode or ACL",
            Self::Retime => "given other times for its files",
            Self::Label => "given another SELinux context",
        }
    }
}
