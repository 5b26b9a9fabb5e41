//! The steps of an Install: first planned, then, with the objects found on the host, as changes
//! that can be stored and taken back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::access::{Access, Context};
use super::identity::Identity;
use super::paths::PathId;
use super::stayed::{Stay, Stayed};

/// One change that others see, as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Swap(Swap),
    /// Changes the access to a file that is not part of this Install.
    Adjust {
        path: PathBuf,
        access: Access,
    },
    /// Leaves files in place that are as planned.
    Stay(Stay),
    /// Leaves a folder in place that is as planned.
    StayFolder {
        path: PathBuf,
        access: Access,
    },
    /// Changes the SELinux rule of a path from `before`, if known, to `after`.
    Context {
        path: PathBuf,
        before: Option<Context>,
        after: Option<Context>,
    },
}

/// Exchanges the objects named `path` and `spare`; either may be missing. A second exchange undoes
/// the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) path: PathBuf,
    /// A name in the same file system.
    pub(super) spare: PathBuf,
    /// Whether something was built as `spare`.
    pub(super) brings: bool,
    pub(super) takes: Takes,
    pub(super) keep: Keep,
}

/// The object that a swap expects at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// Any object but a folder. It may also be gone.
    File,
    /// A folder whose contents the plan knows completely. It may also be gone.
    Folder(PathId),
    /// Any object.
    Anything,
}

/// The fate of that object when the Install is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Keep {
    /// Kept for taking the Install back, in the deployment's folder if that is on the same file
    /// system.
    #[default]
    ForUndo,
    /// Stays as `spare` for inspection.
    ForGood,
}

/// One visible change, with everything that is needed to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    Swap(Swapped),
    Adjust {
        #[serde(with = "path")]
        path: PathBuf,
        #[serde(rename = "inode")]
        file: Identity,
        before: Access,
        after: Access,
    },
    /// Only times change.
    Stay(Stayed),
    /// Nothing changes; a way back makes the folder again if it is gone.
    StayFolder {
        #[serde(with = "path")]
        path: PathBuf,
        access: Access,
    },
    Context {
        #[serde(with = "path")]
        path: PathBuf,
        before: Option<Context>,
        after: Option<Context>,
    },
}

/// A [`Swap`] with the objects that were found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swapped {
    #[serde(with = "path")]
    pub(super) path: PathBuf,
    #[serde(with = "path")]
    pub(super) spare: PathBuf,
    /// Whether there was something at `path` before.
    pub(super) takes: bool,
    /// The object that comes to `path`.
    pub(super) brings: Option<Identity>,
    #[serde(default)]
    pub(super) keep: Keep,
}

impl Step {
    /// The path of the step.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Swap(Swap { path, .. })
            | Self::Stay(Stay { folder: path, .. })
            | Self::StayFolder { path, .. }
            | Self::Adjust { path, .. }
            | Self::Context { path, .. } => path,
        }
    }
}

impl Change {
    /// The exchange of names, if the change is one.
    pub(super) fn swap(&self) -> Option<&Swapped> {
        match self {
            Self::Swap(swap) => Some(swap),
            Self::Adjust { .. }
            | Self::Stay(_)
            | Self::StayFolder { .. }
            | Self::Context { .. } => None,
        }
    }

    /// The path of the change.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Swap(Swapped { path, .. })
            | Self::Stay(Stayed { folder: path, .. })
            | Self::StayFolder { path, .. }
            | Self::Adjust { path, .. }
            | Self::Context { path, .. } => path,
        }
    }
}

/// Serialises paths: they are bytes, but most are UTF-8 and stay readable.
pub(super) mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::bytes::serialize(path.as_os_str().as_bytes(), serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(super::bytes::deserialize(deserializer)?).into())
    }
}

mod bytes {
    use std::fmt;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serialize as _, Serializer};

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a path, as text or as a list of bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.into())
        }

        fn visit_string<E: Error>(self, text: String) -> Result<Vec<u8>, E> {
            Ok(text.into())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = all.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => bytes.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_any(Bytes)
    }
}

/// Serialises lists of paths in the same form.
pub(super) mod paths {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Owned(#[serde(with = "super::path")] PathBuf);

    #[derive(Serialize)]
    struct Borrowed<'a>(#[serde(with = "super::path")] &'a PathBuf);

    /// A list whose elements are made when it is written.
    pub(in super::super) struct Each<F>(pub(in super::super) F);

    impl<I: Iterator<Item = PathBuf>, F: Fn() -> I> Serialize for Each<F> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((self.0)().map(Owned))
        }
    }

    pub(in super::super) fn serialize<S: Serializer>(
        paths: &[PathBuf],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(Borrowed))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        let paths = Vec::<Owned>::deserialize(deserializer)?;
        Ok(paths.into_iter().map(|path| path.0).collect())
    }
}

/// An object in a folder that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Folder(PathId),
    /// A file, a link or any other object but a folder.
    File,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_change_survives_storage_even_when_its_path_is_not_text() {
        let change = Change::Swap(Swapped {
            path: PathBuf::from(OsStr::from_bytes(b"/srv/\xff")),
            spare: PathBuf::from("/srv/.x"),
            takes: true,
            brings: serde_json::from_str("7").unwrap(),
            keep: Keep::ForUndo,
        });
        let stored = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&stored).unwrap(), change);
        assert!(stored.contains("\"/srv/.x\""), "{stored}");
    }
}
