//! Finds the planned objects that an entry of `permissions` applies to.

use std::cell::Cell;

use crate::appspec::{Pattern, Permission};
use crate::install::decision::Planned;
use crate::install::layout::WantedKind;
use crate::install::limits::MAX_COMPARISONS;
use crate::install::paths::{ByPath, PathId, Paths};

/// The planned objects as a tree of the paths that the AppSpec writes.
pub(super) struct Tree {
    planned: ByPath<u32>,
    /// Every folder with its contents, by folder, in the order in which they were planned.
    children: Vec<(PathId, PathId)>,
    /// The number of comparisons made.
    comparisons: Cell<usize>,
}

impl Tree {
    pub(super) fn of(planned: &[Planned], paths: &Paths) -> Self {
        let mut tree = Self {
            planned: ByPath::default(),
            children: Vec::new(),
            comparisons: Cell::new(0),
        };
        let mut known = ByPath::default();
        for (number, object) in planned.iter().enumerate() {
            tree.planned
                .insert(object.written, u32::try_from(number).unwrap_or(u32::MAX));
            for path in paths.ancestors(object.written) {
                let Some(parent) = paths.parent(path).filter(|_| !known.contains(path)) else {
                    break;
                };
                known.insert(path, ());
                tree.children.push((parent, path));
            }
        }
        tree.children.sort_by_key(|(parent, _)| *parent);
        tree
    }

    /// Returns the number of the object planned at `written`.
    pub(super) fn planned(&self, written: PathId) -> Option<u32> {
        self.planned.get(written).copied()
    }

    /// Returns the numbers of everything below `object` that `permission` applies to, in planned
    /// order; `None` if there is too much to compare.
    pub(super) fn meant(
        &self,
        permission: &Permission,
        object: PathId,
        paths: &Paths,
        planned: &[Planned],
    ) -> Option<Vec<u32>> {
        let mut meant = Vec::new();
        let applies = permission.applies_to;
        let add = |path: PathId, meant: &mut Vec<u32>| {
            let Some(number) = self.planned.get(path) else {
                return;
            };
            let is_folder = planned[*number as usize].kind == WantedKind::Folder;
            if if is_folder {
                applies.directories
            } else {
                applies.files
            } {
                meant.push(*number);
            }
        };
        let excepted = |path| {
            permission
                .except
                .iter()
                .any(|except| except.matches(paths.name(path)))
        };
        let costs = |path| {
            permission
                .except
                .iter()
                .map(|except| except.cost(paths.name(path)))
                .sum::<usize>()
        };
        let literal = match &permission.pattern {
            Pattern::Name(pattern) => pattern.literal(),
            Pattern::Everything => None,
        };
        if let Some(name) = literal {
            self.count(1)?;
            let child = paths
                .find_child(object, name.as_ref())
                .filter(|path| !excepted(*path));
            child.into_iter().for_each(|path| add(path, &mut meant));
            return Some(meant);
        }
        let mut waiting = Vec::new();
        for (_, path) in self.children(object) {
            let (matches, cost) = match &permission.pattern {
                Pattern::Name(pattern) => (
                    pattern.matches(paths.name(*path)),
                    pattern.cost(paths.name(*path)),
                ),
                Pattern::Everything => (true, 0),
            };
            self.count(1 + cost + costs(*path))?;
            if matches && !excepted(*path) {
                add(*path, &mut meant);
            }
            if permission.pattern == Pattern::Everything {
                waiting.push(*path);
            }
        }
        while let Some(folder) = waiting.pop() {
            for (_, path) in self.children(folder) {
                self.count(1)?;
                add(*path, &mut meant);
                waiting.push(*path);
            }
        }
        meant.sort_unstable();
        Some(meant)
    }

    /// Returns `None` if there were too many comparisons.
    fn count(&self, comparisons: usize) -> Option<()> {
        let all = self.comparisons.get().saturating_add(comparisons);
        self.comparisons.set(all);
        (all <= MAX_COMPARISONS).then_some(())
    }

    fn children(&self, folder: PathId) -> &[(PathId, PathId)] {
        let start = self
            .children
            .partition_point(|(parent, _)| *parent < folder);
        let rest = &self.children[start..];
        &rest[..rest.partition_point(|(parent, _)| *parent == folder)]
    }
}
