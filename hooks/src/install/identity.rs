//! Tells an object that an Install brought to a path from one that somebody put there later, even
//! where a file system reuses the inode number of a removed file.

use std::ffi::OsStr;
use std::hash::Hasher as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use fnv::FnvHasher;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::fs::{Folder, Status};

/// One object, and its contents at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub(super) struct Identity {
    inode: u64,
    /// The creation time in nanoseconds, as the file system reports it. No other object has the
    /// same inode and creation time.
    #[serde(skip_serializing_if = "Option::is_none")]
    born: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
}

/// The part of an object's state that a write changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// For a file or link.
    File {
        size: u64,
        /// In nanoseconds.
        modified: i64,
    },
    /// For a folder: the number of objects in it, at any depth, and a checksum of them.
    Folder { objects: u64, sum: u64 },
}

/// The forms in which identities are stored.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    /// Version 1.
    Inode(u64),
    Whole {
        inode: u64,
        #[serde(default)]
        born: Option<i64>,
        #[serde(default)]
        state: Option<State>,
    },
}

impl From<Stored> for Identity {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Inode(inode) => Self {
                inode,
                born: None,
                state: None,
            },
            Stored::Whole { inode, born, state } => Self { inode, born, state },
        }
    }
}

impl Identity {
    /// Returns the identity of `name`, for a folder without its contents. `None` if it does not
    /// exist.
    pub(super) fn look(folder: &Folder, name: &OsStr) -> io::Result<Option<Self>> {
        Ok(status(folder, name)?.map(|status| Self::of(&status)))
    }

    /// Returns the same, including everything in a folder.
    pub(super) fn look_into(folder: &Folder, name: &OsStr) -> io::Result<Option<Self>> {
        let Some(status) = status(folder, name)? else {
            return Ok(None);
        };
        let mut identity = Self::of(&status);
        if status.kind.is_dir() {
            identity.state = Some(inside(&folder.folder(name)?)?);
        }
        Ok(Some(identity))
    }

    /// Returns the identity of an open file, without its contents.
    pub(super) fn of_open(file: &impl std::os::fd::AsFd) -> io::Result<Self> {
        Ok(Self {
            state: None,
            ..Self::of(&Status::of(file)?)
        })
    }

    /// Returns the same without the part that a write changes.
    pub(super) fn without_state(self) -> Self {
        Self {
            state: None,
            ..self
        }
    }

    pub(super) fn of(status: &Status) -> Self {
        let file = State::File {
            size: status.size,
            modified: status.modified,
        };
        Self {
            inode: status.inode,
            born: status.born,
            state: (!status.kind.is_dir()).then_some(file),
        }
    }

    /// Whether `there` is this object, even if it was written to since. Where the file system has
    /// no creation times, another size or time means another file.
    pub(super) fn is(&self, there: &Self) -> bool {
        let same = match (self.born, there.born, &self.state, &there.state) {
            (Some(born), Some(there), ..) => born == there,
            (_, _, Some(before @ State::File { .. }), Some(now)) => before == now,
            _ => true,
        };
        self.inode == there.inode && same
    }

    /// Whether nobody has written to it, or to anything in it, since; `there` must include the
    /// contents.
    pub(super) fn is_untouched(&self, there: &Self) -> bool {
        self.is(there)
            && self
                .state
                .as_ref()
                .is_none_or(|before| there.state.as_ref() == Some(before))
    }
}

fn status(folder: &Folder, name: &OsStr) -> io::Result<Option<Status>> {
    match Status::at(folder, name) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Summarises everything below a folder: names and kinds, and the sizes and times of everything but
/// folders.
fn inside(top: &Folder) -> io::Result<State> {
    let (mut hasher, mut objects) = (FnvHasher::default(), 0);
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let opened;
        let folder = if below.as_os_str().is_empty() {
            top
        } else {
            opened = top.below(&below)?;
            &opened
        };
        for name in folder.names()? {
            let Some(status) = status(folder, &name)? else {
                continue;
            };
            let path = below.join(&name);
            objects += 1;
            hasher.write(path.as_os_str().as_bytes());
            hasher.write(&[0]);
            // Two bytes, as the checksums of earlier versions have it.
            hasher.write(&status.kind.as_raw_mode().to_le_bytes()[..2]);
            if status.kind.is_dir() {
                folders.push(path);
            } else {
                hasher.write(&status.size.to_le_bytes());
                hasher.write(&status.modified.to_le_bytes());
            }
        }
    }
    Ok(State::Folder {
        objects,
        sum: hasher.finish(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn look_into(path: &Path) -> Identity {
        let folder = Folder::open(&std::fs::canonicalize(path.parent().unwrap()).unwrap()).unwrap();
        Identity::look_into(&folder, path.file_name().unwrap())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn what_is_written_to_a_folder_at_any_depth_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("x/a/b")).unwrap();
        std::fs::write(at("x/a/b/f"), "1").unwrap();
        let before = look_into(&at("x"));
        assert!(before.is_untouched(&look_into(&at("x"))));
        std::fs::write(at("x/a/b/f"), "12").unwrap();
        let changed = look_into(&at("x"));
        assert!(before.is(&changed) && !before.is_untouched(&changed));
        std::fs::write(at("x/a/new"), "").unwrap();
        assert!(!changed.is_untouched(&look_into(&at("x"))));
    }

    #[test]
    fn another_file_with_the_same_inode_is_another_file() {
        let file = |born, modified| Identity {
            inode: 7,
            born,
            state: Some(State::File { size: 1, modified }),
        };
        assert!(
            file(Some(1), 1).is(&file(Some(1), 2)),
            "it was only written to"
        );
        assert!(!file(Some(1), 1).is(&file(Some(2), 1)));
        assert!(!file(None, 1).is(&file(None, 2)));
        assert!(file(None, 1).is_untouched(&file(Some(9), 1)));
        let old: Identity = serde_json::from_str("7").unwrap();
        assert!(
            old.is_untouched(&file(Some(1), 1)),
            "version 1 knew the inode alone"
        );
        let stored = serde_json::to_string(&file(Some(1), 2)).unwrap();
        assert_eq!(
            serde_json::from_str::<Identity>(&stored).unwrap(),
            file(Some(1), 2)
        );
    }
}
