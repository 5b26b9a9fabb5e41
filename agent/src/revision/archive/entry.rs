//! Names of entries: the name in an archive, and the checked relative path.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::error::Refusal;

/// The longest path inside a revision, in bytes: PATH_MAX minus its NUL.
const MAX_PATH: usize = 4095;
/// The longest single name, in bytes: NAME_MAX.
const MAX_NAME: usize = 255;
/// The deepest nesting of folders.
const MAX_DEPTH: usize = 256;
/// The number of characters of a name in a message.
const SHOWN: usize = 300;

/// An entry's name in the archive, for messages: quoted, control characters escaped, cut if very
/// long.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryName(String);

impl EntryName {
    pub(super) fn new(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        match text.char_indices().nth(SHOWN) {
            None => Self(text.into_owned()),
            Some((end, _)) => Self(format!("{}…", &text[..end])),
        }
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&EntryPath> for EntryName {
    fn from(path: &EntryPath) -> Self {
        Self::new(&path.0)
    }
}

/// A path that stays inside the revision: relative, without `.`, `..`, empty components and NUL.
/// Empty for the root.
///
/// Its order puts a folder before its contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryPath(Box<[u8]>);

impl EntryPath {
    /// Checks the name of an entry.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, Refusal> {
        if raw.is_empty() {
            return Err(Refusal::EmptyName);
        }
        if raw.contains(&0) {
            return Err(Refusal::NulInName);
        }
        if raw[0] == b'/' {
            return Err(Refusal::Absolute);
        }
        let mut path = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for name in raw.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(Refusal::ParentFolder),
                name if name.len() > MAX_NAME => {
                    return Err(Refusal::NameTooLong { limit: MAX_NAME });
                }
                name => {
                    depth += 1;
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        if path.len() > MAX_PATH {
            return Err(Refusal::NameTooLong { limit: MAX_PATH });
        }
        if depth > MAX_DEPTH {
            return Err(Refusal::TooDeep { limit: MAX_DEPTH });
        }
        Ok(Self(path.into()))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder that holds this entry; the root is its own parent.
    pub(super) fn parent(&self) -> EntryPath {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        EntryPath(self.0[..end].into())
    }

    /// Whether `self` is the parent of `other`; spares the allocation of [`Self::parent`].
    pub(super) fn is_parent_of(&self, other: &EntryPath) -> bool {
        let end = other.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        !other.is_root() && *self.0 == other.0[..end]
    }

    /// The last component; empty for the root.
    pub(super) fn name(&self) -> &OsStr {
        let start = self
            .0
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        OsStr::from_bytes(&self.0[start..])
    }

    /// Every folder between the root and this entry, outermost first, neither included.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = EntryPath> + '_ {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(end, _)| EntryPath(self.0[..end].into()))
    }

    pub(super) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

/// Checks the text of a symbolic link. It is kept verbatim, wherever it points; only a text that no
/// link can hold is rejected.
pub(super) fn link_target(raw: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    if raw.is_empty() || raw.contains(&0) || raw.len() > MAX_PATH {
        return Err(Refusal::LinkTarget { limit: MAX_PATH });
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(raw: &str) -> Result<String, Refusal> {
        EntryPath::parse(raw.as_bytes()).map(|path| String::from_utf8_lossy(&path.0).into_owned())
    }

    #[test]
    fn names_are_made_relative_and_plain() {
        for (raw, path) in [
            ("a", "a"),
            ("./a/b", "a/b"),
            ("a//b/./c/", "a/b/c"),
            ("./", ""),
            ("..a/...", "..a/..."),
            ("a\\..\\b", "a\\..\\b"),
        ] {
            assert_eq!(parsed(raw).unwrap(), path);
        }
    }

    #[test]
    fn names_that_leave_the_revision_are_refused() {
        for (raw, refusal) in [
            ("", Refusal::EmptyName),
            ("/etc/passwd", Refusal::Absolute),
            ("//a", Refusal::Absolute),
            ("..", Refusal::ParentFolder),
            ("a/../b", Refusal::ParentFolder),
            ("a/..", Refusal::ParentFolder),
            ("a\0b", Refusal::NulInName),
        ] {
            assert_eq!(parsed(raw), Err(refusal), "{raw:?}");
        }
        assert_eq!(
            parsed(&"x".repeat(256)),
            Err(Refusal::NameTooLong { limit: 255 })
        );
        assert_eq!(
            parsed(&"x/".repeat(257)),
            Err(Refusal::TooDeep { limit: 256 })
        );
        assert_eq!(
            parsed(&"xxxxxxxxxxxxxxxxxxxx/".repeat(200)),
            Err(Refusal::NameTooLong { limit: 4095 })
        );
    }

    #[test]
    fn parents_and_ancestors() {
        let path = EntryPath::parse(b"a/b/c").unwrap();
        assert_eq!(path.parent(), EntryPath::parse(b"a/b").unwrap());
        assert!(path.parent().is_parent_of(&path));
        assert_eq!(path.name(), "c");
        let ancestors: Vec<_> = path.ancestors().collect();
        assert_eq!(
            ancestors,
            [
                EntryPath::parse(b"a").unwrap(),
                EntryPath::parse(b"a/b").unwrap()
            ]
        );
        assert!(EntryPath::parse(b"a").unwrap().parent().is_root());
    }
}
