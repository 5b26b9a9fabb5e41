//! Places where nothing may be installed: the agent's own folders, and those that the kernel makes.

use std::path::{Path, PathBuf};

use super::conflict::Conflict;
use super::paths::{PathId, Paths};
use super::snapshot::kernel_folder_of;

/// Folders that cannot be destinations, without links in them.
#[derive(Debug)]
pub(super) struct Reserved {
    revision: PathId,
    own: Vec<PathId>,
}

impl Reserved {
    pub(super) fn new(revision: &Path, own: &[PathBuf], paths: &mut Paths) -> Self {
        let revision = paths.add(revision);
        let own = own
            .iter()
            .map(|folder| paths.add(&without_links(folder)))
            .collect();
        Self { revision, own }
    }

    /// The conflict at `path`, which has no links in its parents, if nothing may be installed
    /// there.
    pub(super) fn conflict(&self, paths: &Paths, path: PathId) -> Option<Conflict> {
        match kernel_folder_of(paths, path) {
            None => {}
            Some("/dev") => {
                return Some(Conflict::Devices {
                    path: paths.path(path),
                });
            }
            Some(_) => {
                return Some(Conflict::Kernels {
                    path: paths.path(path),
                });
            }
        }
        paths
            .ancestors(path)
            .find_map(|around| self.conflict_at(paths, path, around))
    }

    /// The same, if installing into its folder is allowed.
    pub(super) fn conflict_in_planned(&self, paths: &Paths, path: PathId) -> Option<Conflict> {
        self.conflict_at(paths, path, path)
    }

    fn conflict_at(&self, paths: &Paths, path: PathId, around: PathId) -> Option<Conflict> {
        if around == self.revision {
            return Some(Conflict::InsideRevision {
                path: paths.path(path),
            });
        }
        let own = self.own.contains(&around);
        own.then(|| Conflict::AgentsOwn {
            path: paths.path(path),
            folder: paths.path(around),
        })
    }
}

/// Resolves the links of a folder, as far as it exists.
fn without_links(folder: &Path) -> PathBuf {
    let existing = folder
        .ancestors()
        .find_map(|around| Some((around, std::fs::canonicalize(around).ok()?)));
    match existing {
        Some((around, real)) => real.join(folder.strip_prefix(around).unwrap_or(Path::new(""))),
        None => folder.to_path_buf(),
    }
}
