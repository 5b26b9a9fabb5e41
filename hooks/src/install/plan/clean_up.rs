//! The clean-up of the last Install: everything in its records goes, if it is still the same
//! object, and if it does not belong to the slot that serves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::Planner;
use crate::install::paths::{ByPath, PathId};
use crate::install::snapshot::{Leads, NodeKind};

/// The present places of the last Install's folders.
struct Listed {
    /// Everything that it created, in the form of its records.
    created: ByPath<()>,
    /// The destinations of this Install and the folders around them, as the AppSpec writes them.
    leading: HashSet<PathId>,
    found: HashMap<PathId, Option<PathId>>,
    /// Links that are not followed, each with the number of records behind it.
    closed: BTreeMap<PathId, usize>,
    behind: HashMap<PathId, PathId>,
}

impl Planner<'_> {
    /// Marks the objects of the last Install as gone: last created first, folders only when they
    /// become empty.
    pub(super) fn clean_up(&mut self) {
        let previous = &self.facts.host.previous;
        let mut created = ByPath::default();
        previous
            .created
            .iter()
            .for_each(|path| created.insert(*path, ()));
        let mut leading = HashSet::new();
        for mapping in &self.facts.appspec.files {
            let destination = self.paths.add(mapping.destination.as_path());
            let outwards = self.paths.ancestors(destination);
            outwards
                .take_while(|path| leading.insert(*path))
                .for_each(drop);
        }
        let found = HashMap::from([(PathId::ROOT, Some(PathId::ROOT))]);
        let mut listed = Listed {
            created,
            leading,
            found,
            closed: BTreeMap::new(),
            behind: HashMap::new(),
        };
        for path in previous.created.iter().rev() {
            let Some(around) = self.paths.parent(*path) else {
                continue;
            };
            match self.locate(around, &mut listed) {
                Some(around) => {
                    let real = self.paths.child_like(around, *path);
                    match self.serves(real) {
                        Some(later) => self.decision.carried.push(later),
                        None => self.remove(real),
                    }
                }
                None => {
                    if let Some(link) = listed.behind.get(&around) {
                        *listed.closed.entry(*link).or_default() += 1;
                    }
                }
            }
        }
        for (link, count) in listed.closed {
            self.decision.warnings.push(format!(
                "{} is a symbolic link that clean-up does not follow; {} that the last Install created behind it stay{}",
                self.paths.path(link).display(),
                if count == 1 { "one path".to_owned() } else { format!("{count} paths") },
                if count == 1 { "s" } else { "" },
            ));
        }
        // A removal needs a folder in which names can change.
        for index in 0..self.decision.removed.len() {
            if let Some(folder) = self.paths.parent(self.decision.removed[index]) {
                self.changeable(folder);
            }
        }
    }

    /// The path after the switch of an object in the slot that serves.
    fn serves(&self, real: PathId) -> Option<PathBuf> {
        let serving = self.facts.slot?.serving.as_ref()?;
        let path = self.paths.path(real);
        let below = path.strip_prefix(&serving.folder).ok()?;
        (!below.as_os_str().is_empty()).then(|| serving.later.join(below))
    }

    fn remove(&mut self, real: PathId) {
        let host = self.facts.host;
        let Some(node) = host.node(real) else { return };
        if self.facts.reserved.conflict(self.paths, real).is_some() {
            self.decision.warnings.push(format!(
                "{} was created by the last Install, but is inside the revision or a folder of the agent now; it stays",
                self.paths.path(real).display()
            ));
            return;
        }
        let is_folder = node.kind == NodeKind::Folder;
        let goes = if is_folder {
            let empties =
                |names: &[PathId]| names.iter().all(|name| self.decision.goes.contains(*name));
            !node.mount_point && host.names(real).is_some_and(empties)
        } else {
            true
        };
        if goes && !self.decision.goes.contains(real) {
            self.movable(node, real);
            self.decision.removed.push(real);
            self.decision.goes.insert(real, is_folder);
        }
    }

    /// Locates a folder of the records. Records name paths as an AppSpec wrote them. So a link on
    /// the path is followed if all of these hold: it was a link then, as far as is known; the last
    /// Install did not create the present link; a destination of this Install leads through it as
    /// well.
    fn locate(&mut self, written: PathId, listed: &mut Listed) -> Option<PathId> {
        let unknown: Vec<PathId> = self
            .paths
            .ancestors(written)
            .take_while(|path| !listed.found.contains_key(path))
            .collect();
        let known = unknown
            .last()
            .map_or(Some(written), |outer| self.paths.parent(*outer))?;
        let mut found = listed.found.get(&known).copied().flatten();
        let mut behind = listed.behind.get(&known).copied();
        for path in unknown.into_iter().rev() {
            if let Some(around) = found {
                let real = self.paths.child_like(around, path);
                found = match self.facts.host.node(real).map(|node| node.kind) {
                    Some(NodeKind::Folder) => Some(real),
                    Some(NodeKind::Link) => {
                        let end = self.followed(path, real, listed);
                        if end.is_none() {
                            behind = Some(path);
                        }
                        end
                    }
                    _ => None,
                };
            }
            if found.is_none()
                && let Some(link) = behind
            {
                listed.behind.insert(path, link);
            }
            listed.found.insert(path, found);
        }
        found
    }

    fn followed(&self, written: PathId, real: PathId, listed: &Listed) -> Option<PathId> {
        let was_link = match &self.facts.host.previous.links {
            Some(links) => links.contains_key(&self.paths.path(written)),
            None => true,
        };
        let to_slot = self
            .facts
            .slot
            .is_some_and(|slot| slot.link == self.paths.path(written));
        let leading = to_slot || listed.leading.contains(&written);
        let meant = was_link && !listed.created.contains(written) && leading;
        match self.facts.host.leads(real) {
            Leads::To(end) if meant => Some(end),
            Leads::To(_) | Leads::Nowhere | Leads::Kernel | Leads::Unsafe(_) => None,
        }
    }

    pub(super) fn warn_of_rules(&mut self) {
        let serving = self.facts.slot.and_then(|slot| slot.serving.as_ref());
        let rules = self.facts.host.previous.rules.iter();
        let carried = rules
            .filter(|(path, _)| serving.is_some_and(|serving| path.starts_with(&serving.folder)));
        let carried = carried.map(|(path, _)| path.clone());
        self.decision.carried_rules.extend(carried);
        if !self.facts.host.has_selinux_tools {
            let rules = self.facts.host.previous.rules.iter();
            self.decision.warnings.extend(rules.map(|(path, _)| {
                format!(
                    "the SELinux rule for {} stays: semanage is not installed",
                    path.display()
                )
            }));
        }
    }
}
