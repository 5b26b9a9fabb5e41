//! Stores many paths without repetition: each is a name in a folder, and has a number.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use hashbrown::HashTable;

/// The number of a path, in the order of addition: a folder comes before its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PathId(u32);

/// A tree of names. Its root is `/`, or the empty path of a tree whose paths are relative.
#[derive(Debug)]
pub(super) struct Paths {
    root: &'static str,
    /// All names, concatenated.
    names: Vec<u8>,
    nodes: Vec<Node>,
    /// Looks paths up by folder and name.
    index: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// The start of its name, which ends where the next one begins.
    start: usize,
    parent: u32,
    /// The length of the whole path in bytes, which saturates.
    length: u16,
    depth: u16,
}

/// A value for some of the paths.
#[derive(Debug)]
pub(super) struct ByPath<T>(Vec<Option<T>>);

impl<T> Default for ByPath<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByPath<T> {
    pub(super) fn get(&self, path: PathId) -> Option<&T> {
        self.0.get(path.index())?.as_ref()
    }

    pub(super) fn contains(&self, path: PathId) -> bool {
        self.get(path).is_some()
    }

    pub(super) fn insert(&mut self, path: PathId, value: T) {
        if self.0.len() <= path.index() {
            self.0.resize_with(path.index() + 1, || None);
        }
        self.0[path.index()] = Some(value);
    }

    pub(super) fn remove(&mut self, path: PathId) {
        if let Some(value) = self.0.get_mut(path.index()) {
            *value = None;
        }
    }
}

impl PathId {
    pub(super) const ROOT: Self = Self(0);

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// The number `further` after this one.
    pub(super) fn after(self, further: u32) -> Self {
        Self(self.0.saturating_add(further))
    }
}

impl Paths {
    pub(super) fn absolute() -> Self {
        Self::below("/")
    }

    pub(super) fn relative() -> Self {
        Self::below("")
    }

    fn below(root: &'static str) -> Self {
        let node = Node {
            start: 0,
            parent: 0,
            length: 0,
            depth: 0,
        };
        Self {
            root,
            names: Vec::new(),
            nodes: vec![node],
            index: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// The number of paths; every path number is smaller.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds the path of `name` in `folder`.
    pub(super) fn child(&mut self, folder: PathId, name: &OsStr) -> PathId {
        let hash = self.hasher.hash_one((folder.0, name.as_bytes()));
        if let Some(known) = self.known(hash, folder, name) {
            return known;
        }
        let Node { length, depth, .. } = self.nodes[folder.index()];
        let added = u16::try_from(name.len() + 1).unwrap_or(u16::MAX);
        let id = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node {
            start: self.names.len(),
            parent: folder.0,
            length: length.saturating_add(added),
            depth: depth.saturating_add(1),
        });
        self.names.extend(name.as_bytes());
        let Self {
            names,
            nodes,
            index,
            hasher,
            ..
        } = self;
        index.insert_unique(hash, id, |id| {
            let id = Self::name_in(names, nodes, *id as usize);
            hasher.hash_one((id.0, id.1))
        });
        PathId(id)
    }

    /// Adds the path in `folder` with the name of `other`.
    pub(super) fn child_like(&mut self, folder: PathId, other: PathId) -> PathId {
        if self.parent(other) == Some(folder) {
            return other;
        }
        let name = self.name(other).to_owned();
        self.child(folder, &name)
    }

    /// Finds the path of [`Self::child`], if it was added before.
    pub(super) fn find_child(&self, folder: PathId, name: &OsStr) -> Option<PathId> {
        self.known(
            self.hasher.hash_one((folder.0, name.as_bytes())),
            folder,
            name,
        )
    }

    fn known(&self, hash: u64, folder: PathId, name: &OsStr) -> Option<PathId> {
        let same = |id: &u32| {
            Self::name_in(&self.names, &self.nodes, *id as usize) == (folder.0, name.as_bytes())
        };
        self.index.find(hash, same).map(|id| PathId(*id))
    }

    /// The folder and the name of a path.
    fn name_in<'a>(names: &'a [u8], nodes: &[Node], index: usize) -> (u32, &'a [u8]) {
        let Node { start, parent, .. } = nodes[index];
        let end = nodes.get(index + 1).map_or(names.len(), |next| next.start);
        (parent, &names[start..end])
    }

    /// Adds `path`, which has no `..`.
    pub(super) fn add(&mut self, path: &Path) -> PathId {
        normal(path).fold(PathId::ROOT, |folder, name| self.child(folder, name))
    }

    /// Finds the number of `path`, if it was added.
    pub(super) fn find(&self, path: &Path) -> Option<PathId> {
        normal(path).try_fold(PathId::ROOT, |folder, name| self.find_child(folder, name))
    }

    /// The folder of a path; the root has none.
    pub(super) fn parent(&self, id: PathId) -> Option<PathId> {
        (id != PathId::ROOT).then(|| PathId(self.nodes[id.index()].parent))
    }

    /// Empty for the root.
    pub(super) fn name(&self, id: PathId) -> &OsStr {
        OsStr::from_bytes(Self::name_in(&self.names, &self.nodes, id.index()).1)
    }

    /// The number of names in the path.
    pub(super) fn depth(&self, id: PathId) -> usize {
        self.nodes[id.index()].depth.into()
    }

    /// The length in bytes, which saturates.
    pub(super) fn length(&self, id: PathId) -> usize {
        self.nodes[id.index()].length.into()
    }

    /// `id` and every folder around it, from the inside out.
    pub(super) fn ancestors(&self, id: PathId) -> impl Iterator<Item = PathId> {
        std::iter::successors(Some(id), |id| self.parent(*id))
    }

    /// The same, from the outside in.
    pub(super) fn inwards(&self, id: PathId) -> Vec<PathId> {
        let mut way: Vec<PathId> = self.ancestors(id).collect();
        way.reverse();
        way
    }

    pub(super) fn path(&self, id: PathId) -> PathBuf {
        self.path_from(id, PathId::ROOT, self.root)
    }

    /// The path, shortened for a message.
    pub(super) fn shown(&self, id: PathId) -> PathBuf {
        const SHOWN: usize = 200;
        let way = self.inwards(id);
        let end = way
            .iter()
            .take_while(|id| self.length(**id) <= SHOWN)
            .last()
            .copied()
            .unwrap_or(PathId::ROOT);
        if end == id {
            self.path(id)
        } else {
            self.path(end).join("…")
        }
    }

    /// Replaces the folder `top`, which is `id` or contains it, by `base`.
    pub(super) fn path_from(&self, id: PathId, top: PathId, base: impl AsRef<OsStr>) -> PathBuf {
        let base = base.as_ref().as_bytes();
        let below: Vec<PathId> = self.ancestors(id).take_while(|id| *id != top).collect();
        let mut path = Vec::with_capacity(base.len() + self.length(id) + 1);
        path.extend(base);
        for id in below.into_iter().rev() {
            if !path.is_empty() && !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend(self.name(id).as_bytes());
        }
        OsString::from_vec(path).into()
    }
}

fn normal(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_number_and_comes_back_as_it_was() {
        let mut paths = Paths::absolute();
        for path in ["/", "/srv/app", "/srv", "/srv/app/b", "/srv/ap", "/srv/app"] {
            let id = paths.add(Path::new(path));
            assert_eq!(paths.path(id), Path::new(path));
            assert_eq!(paths.find(Path::new(path)), Some(id));
            assert_eq!(paths.depth(id), Path::new(path).components().count() - 1);
        }
        assert_eq!(paths.len(), 5);
        assert_eq!(paths.find(Path::new("/srv/app/c")), None);
        let (top, inner) = (
            paths.find(Path::new("/srv")).unwrap(),
            paths.find(Path::new("/srv/app/b")).unwrap(),
        );
        assert_eq!(paths.path_from(inner, top, "/new"), Path::new("/new/app/b"));
        assert_eq!(paths.path_from(top, top, "/new"), Path::new("/new"));
        let mut paths = Paths::relative();
        assert_eq!(paths.path(PathId::ROOT), Path::new(""));
        let id = paths.add(Path::new("a/b"));
        assert_eq!(paths.path(id), Path::new("a/b"));
    }
}
