//! Puts back what an Install did so far. Every inverse can be done twice, and does nothing where its step did nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::access;
use super::snapshot::last;
use super::step::{Identity, Inverse};
use crate::fs::{Folder, split};

/// Undoes in reverse order, and goes on after an error; gives what is left to do by hand.
pub(super) fn undo(inverses: &[Inverse]) -> Vec<String> {
    let mut left = Vec::new();
    let mut changed = BTreeSet::new();
    for inverse in inverses.iter().rev() {
        match inverse.act() {
            Ok(()) => changed.extend(inverse.path().parent()),
            Err(error) => left.push(format!("{}: {error}", inverse.in_words())),
        }
    }
    for folder in changed {
        if let Err(error) = Folder::open(folder).and_then(|folder| folder.sync()) {
            left.push(format!("make {} durable: {error}", folder.display()));
        }
    }
    left
}

impl Inverse {
    fn act(&self) -> io::Result<()> {
        match self {
            Self::Discard { staged } => {
                let (parent, name) = split(staged)?;
                Folder::open(parent)?.remove_tree(name)
            }
            Self::PutBack { path, aside } => put_back(path, aside),
            Self::TakeBack { path, staged, object } => take_back(path, staged, *object),
            Self::Readjust { path, access } => {
                let (parent, name) = split(path)?;
                access.apply(Folder::open(parent)?.file(name)?)
            }
            Self::AddContext { path, context } => access::add_context(path, context),
            Self::RemoveContext { path } => access::remove_context(path),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Discard { staged: path }
            | Self::PutBack { path, .. }
            | Self::TakeBack { path, .. }
            | Self::Readjust { path, .. }
            | Self::AddContext { path, .. }
            | Self::RemoveContext { path } => path,
        }
    }

    fn in_words(&self) -> String {
        let path = self.path().display();
        match self {
            Self::Discard { .. } => format!("remove {path}"),
            Self::PutBack { aside, .. } => format!("rename {} to {path}", aside.display()),
            Self::TakeBack { .. } => format!("remove {path}"),
            Self::Readjust { .. } => format!("give {path} its owner, mode and ACL back"),
            Self::AddContext { context, .. } => {
                format!("give {path} its SELinux rule of type {} back", context.kind)
            }
            Self::RemoveContext { .. } => format!("remove the SELinux rule of {path}"),
        }
    }
}

fn put_back(path: &Path, aside: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let folder = Folder::open(parent)?;
    if folder.stat(last(aside))?.is_none() {
        return Ok(());
    }
    folder.rename(last(aside), name)?;
    // Two names of one file: the rename did nothing.
    folder.unlink(last(aside))
}

fn take_back(path: &Path, staged: &Path, object: Identity) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let folder = Folder::open(parent)?;
    match folder.stat(name)? {
        Some(stat) if (Identity { device: stat.st_dev, inode: stat.st_ino }) == object => {
            folder.rename_new(name, last(staged))
        }
        _ => Ok(()),
    }
}
