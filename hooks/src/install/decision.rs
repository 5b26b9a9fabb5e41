//! The decision of an Install: what it brings, removes and keeps. Data alone; [`plan`](super::plan) makes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use codedeploy_api::specification::FileExistsBehavior;

use super::access::{Access, Accesses};
use super::granted::Granted;
use super::layout::WantedKind;
use super::paths::{ByPath, PathId, Paths};
use super::place::Reserved;
use super::snapshot::{Host, ObjectId, Revision};
use super::{Change, Stop};
use crate::appspec::AppSpec;

/// One object that the Install brings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    /// As the AppSpec writes it; permissions and records go by this.
    pub(super) written: PathId,
    /// The same place, without links in its parents.
    pub(super) path: PathId,
    pub(super) source: ObjectId,
    pub(super) kind: WantedKind,
    /// Whether a file of someone else is there, which OVERWRITE replaces.
    pub(super) overwrites: bool,
    /// Its number among the accesses.
    pub(super) access: u32,
}

/// What an Install will do, in terms of paths.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// In the order in which the official agents create: a folder before what is in it.
    pub(super) planned: Vec<Planned>,
    pub(super) accesses: Accesses,
    /// What the last Install left and this one removes, whether or not something new comes there; what it created last
    /// stands first.
    pub(super) removed: Vec<PathId>,
    /// The same, and whether each is a folder.
    pub(super) goes: ByPath<bool>,
    /// Where something new comes.
    pub(super) places: ByPath<u32>,
    /// Existing files that RETAIN keeps.
    pub(super) kept: Vec<PathId>,
    /// Files that are there already and get the access that the AppSpec names for exactly them.
    pub(super) adjusted: Vec<(PathId, Access)>,
    /// The folders that are links as the AppSpec writes them, and where they lead.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    pub(super) granted: Granted,
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
    pub(super) reserved: &'a Reserved,
    pub(super) stop: Stop<'a>,
}

impl Decision {
    /// What it brings in the order of creation, then what it removes and keeps.
    pub(super) fn changes<'a>(&'a self, paths: &'a Paths) -> impl Iterator<Item = Change> + 'a {
        let brought = self.planned.iter().map(|planned| match planned.path {
            path if planned.overwrites || self.goes.contains(path) => Change::Replaced(paths.path(path)),
            path => Change::Created(paths.path(path)),
        });
        let removed = self.removed.iter().filter(|path| !self.places.contains(**path));
        let removed = removed.map(|path| Change::Removed(paths.path(*path)));
        brought.chain(removed).chain(self.kept.iter().map(|path| Change::Kept(paths.path(*path))))
    }

    pub(super) fn access(&self, planned: &Planned) -> &Access {
        self.accesses.get(planned.access)
    }
}
