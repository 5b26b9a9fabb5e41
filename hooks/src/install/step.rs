//! The steps of an Install and their inverses, as values that can be stored.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::access::{Access, Context};

/// One change of the host. Temporary names stand in the folder of the path that they are for, so that every change
/// of a name is one rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Builds what is new under the temporary name `staged`: nothing that anybody uses changes.
    Build {
        #[serde(with = "path")]
        staged: PathBuf,
        items: Vec<Item>,
    },
    /// Takes away `path`, with the `contents` that it is known to have, to the name `aside`.
    Remove {
        #[serde(with = "path")]
        path: PathBuf,
        #[serde(with = "path")]
        aside: PathBuf,
        folder: bool,
        contents: Vec<Content>,
    },
    /// Puts `staged` in the place of the file or link `path`, which is kept as `aside`.
    Replace {
        #[serde(with = "path")]
        path: PathBuf,
        #[serde(with = "path")]
        staged: PathBuf,
        #[serde(with = "path")]
        aside: PathBuf,
        /// Whether `aside` stays when the Install is over.
        keep: bool,
    },
    /// Gives `staged` its name, which nothing has.
    Place {
        #[serde(with = "path")]
        path: PathBuf,
        #[serde(with = "path")]
        staged: PathBuf,
    },
    /// Changes who may do what with a file that this Install did not bring.
    Adjust {
        #[serde(with = "path")]
        path: PathBuf,
        access: Access,
    },
    /// Removes the SELinux rule of an earlier Install; `context` is what it said, if that is known.
    RemoveContext {
        #[serde(with = "path")]
        path: PathBuf,
        context: Option<Context>,
    },
    AddContext {
        #[serde(with = "path")]
        path: PathBuf,
        context: Context,
    },
}

/// One object of a [`Step::Build`]; a folder stands before what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    /// Relative to the staged name; empty for the staged object itself.
    #[serde(with = "path")]
    pub(super) below: PathBuf,
    pub(super) what: What,
    pub(super) access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Folder,
    /// A copy of a file, with its times; `source` is relative to the revision.
    File {
        #[serde(with = "path")]
        source: PathBuf,
    },
    Link {
        #[serde(with = "path")]
        source: PathBuf,
        #[serde(with = "path")]
        target: PathBuf,
    },
    Text(#[serde(with = "bytes")] Vec<u8>),
}

/// Something known to be in a folder that is taken away; what is in a folder stands before the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    #[serde(with = "path")]
    pub(super) below: PathBuf,
    pub(super) folder: bool,
}

/// What puts things back, recorded before a step acts. Each can be done again, and does nothing where its step did
/// not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Inverse {
    Discard {
        #[serde(with = "path")]
        staged: PathBuf,
    },
    PutBack {
        #[serde(with = "path")]
        path: PathBuf,
        #[serde(with = "path")]
        aside: PathBuf,
    },
    /// Takes `path` back to where it was staged, if it is still that object.
    TakeBack {
        #[serde(with = "path")]
        path: PathBuf,
        #[serde(with = "path")]
        staged: PathBuf,
        object: Identity,
    },
    Readjust {
        #[serde(with = "path")]
        path: PathBuf,
        access: Access,
    },
    AddContext {
        #[serde(with = "path")]
        path: PathBuf,
        context: Context,
    },
    RemoveContext {
        #[serde(with = "path")]
        path: PathBuf,
    },
}

/// Which object a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Step {
    /// The path that the step is about.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Build { staged: path, .. }
            | Self::Remove { path, .. }
            | Self::Replace { path, .. }
            | Self::Place { path, .. }
            | Self::Adjust { path, .. }
            | Self::RemoveContext { path, .. }
            | Self::AddContext { path, .. } => path,
        }
    }
}

/// Paths are bytes; most are UTF-8 and stay readable.
mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        super::bytes::serialize(path.as_os_str().as_bytes(), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(super::bytes::deserialize(deserializer)?).into())
    }
}

mod bytes {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Bytes {
        Text(String),
        Raw(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => bytes.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Bytes::deserialize(deserializer)? {
            Bytes::Text(text) => text.into_bytes(),
            Bytes::Raw(bytes) => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_step_survives_storage_even_when_its_path_is_not_text() {
        let step = Step::Place {
            path: PathBuf::from(OsStr::from_bytes(b"/srv/\xff")),
            staged: PathBuf::from("/srv/.x"),
        };
        let stored = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<Step>(&stored).unwrap(), step);
        assert!(stored.contains("\"/srv/.x\""), "{stored}");
    }
}
