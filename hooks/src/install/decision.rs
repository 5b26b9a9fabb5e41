//! The decision of an Install: the objects that it brings, removes and keeps. Data only;
//! [`plan`](super::plan) makes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use codedeploy_api::specification::FileExistsBehavior;

use super::access::{Access, Accesses};
use super::granted::Granted;
use super::layout::WantedKind;
use super::paths::{ByPath, PathId, Paths};
use super::reserved::Reserved;
use super::snapshot::{Host, ObjectId, Revision};
use super::verified::Verified;
use super::{PathChange, Slot, Stop};
use crate::appspec::AppSpec;

/// One object that the Install brings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    /// The path as the AppSpec writes it; permissions and records use this form.
    pub(super) written: PathId,
    /// The same path, without links in its parents.
    pub(super) path: PathId,
    pub(super) source: ObjectId,
    pub(super) kind: WantedKind,
    /// Whether OVERWRITE replaces a file of somebody else here.
    pub(super) overwrites: bool,
    /// The number of its access.
    pub(super) access: u32,
    /// Whether it is on the host already, as planned, and stays in place.
    pub(super) stays: bool,
}

/// The actions of an Install, by path.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// In the order in which the official agents create: a folder before its contents.
    pub(super) planned: Vec<Planned>,
    pub(super) accesses: Accesses,
    /// Objects of the last Install that do not stay in place, whether or not something new takes
    /// their place; the newest stands first.
    pub(super) removed: Vec<PathId>,
    /// The same objects, each with whether it is a folder.
    pub(super) goes: ByPath<bool>,
    /// The paths of new objects.
    pub(super) places: ByPath<u32>,
    /// The numbers of the planned files that stay in place, in order, as they were verified.
    pub(super) stays: Vec<(u32, Verified)>,
    /// Existing files that RETAIN keeps.
    pub(super) kept: Vec<PathId>,
    /// Files that exist already and get the access that the AppSpec asks for by their exact path.
    pub(super) adjusted: Vec<(PathId, Access)>,
    /// The folders that are links in the AppSpec's paths, and their targets.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    /// Objects of earlier Installs in the slot that serves, with their paths after the switch; the
    /// newest stands first.
    pub(super) carried: Vec<PathBuf>,
    /// SELinux rules of these objects.
    pub(super) carried_rules: Vec<PathBuf>,
    pub(super) granted: Granted,
    pub(super) warnings: Vec<String>,
}

/// The input of the decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) appspec: &'a AppSpec,
    pub(super) behavior: FileExistsBehavior,
    pub(super) reject_unconfined: bool,
    pub(super) slot: Option<&'a Slot>,
    pub(super) revision: &'a Revision,
    pub(super) host: &'a Host,
    pub(super) reserved: &'a Reserved,
    pub(super) stop: Stop<'a>,
}

impl Decision {
    /// The changes: first the new objects in the order of creation, then the removed and the kept
    /// ones.
    pub(super) fn changes<'a>(&'a self, paths: &'a Paths) -> impl Iterator<Item = PathChange> + 'a {
        let brought = self.planned.iter().map(|planned| match planned.path {
            path if planned.stays => PathChange::Unchanged(paths.path(path)),
            path if self.replaces(planned) => PathChange::Replaced(paths.path(path)),
            path => PathChange::Created(paths.path(path)),
        });
        let removed = self
            .removed
            .iter()
            .filter(|path| !self.places.contains(**path));
        let removed = removed.map(|path| PathChange::Removed(paths.path(*path)));
        brought.chain(removed).chain(
            self.kept
                .iter()
                .map(|path| PathChange::Kept(paths.path(*path))),
        )
    }

    /// Whether a planned object takes the place of another one.
    pub(super) fn replaces(&self, planned: &Planned) -> bool {
        !planned.stays && (planned.overwrites || self.goes.contains(planned.path))
    }

    pub(super) fn access(&self, planned: &Planned) -> &Access {
        self.accesses.get(planned.access)
    }
}
