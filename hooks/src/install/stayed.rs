//! Files that stay in place because they are as planned already: the check that they still are, and
//! the change of their times, which can be taken back.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::identity::Identity;
use super::step::path;
use super::verified::Verified;
use crate::fs::{Handles, Status, is_nowhere};

/// Files of one folder that stay in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stay {
    pub(super) folder: PathBuf,
    /// The folder of the revision that has the same files.
    pub(super) source: PathBuf,
    pub(super) access: Access,
    /// The names of the files, as they were verified.
    pub(super) files: Vec<(PathBuf, Verified)>,
}

/// A [`Stay`] with the times that were found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stayed {
    #[serde(with = "path")]
    pub(super) folder: PathBuf,
    #[serde(with = "path")]
    pub(super) source: PathBuf,
    pub(super) access: Access,
    pub(super) files: Vec<StayedFile>,
}

/// One file: its name, the checksum of its content, and the change of its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StayedFile(
    #[serde(with = "path")] pub(super) PathBuf,
    pub(super) u32,
    pub(super) Option<Retimed>,
);

/// A change of the time of modification, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retimed {
    #[serde(rename = "inode")]
    file: Identity,
    pub(super) before: i64,
    after: i64,
}

impl Stay {
    /// Checks that nobody changed the files since they were verified.
    pub(super) fn look_up(&self, handles: &mut Handles) -> io::Result<Stayed> {
        let look = |(name, verified): &(PathBuf, Verified)| {
            let path = self.folder.join(name);
            let (folder, _) = handles.parent(&path)?;
            let status = match Status::at(&folder, name) {
                Ok(status) if verified.is(&status) => status,
                Ok(_) | Err(Errno::NOENT) => {
                    return Err(changed(&path));
                }
                Err(error) => return Err(error.into()),
            };
            let retimed = verified.modified().map(|after| Retimed {
                file: Identity::of(&status).without_state(),
                before: status.modified,
                after,
            });
            Ok(StayedFile(name.clone(), verified.sum, retimed))
        };
        let files = self.files.iter().map(look).collect::<io::Result<_>>()?;
        Ok(Stayed {
            folder: self.folder.clone(),
            source: self.source.clone(),
            access: self.access.clone(),
            files,
        })
    }
}

impl Stayed {
    /// Whether the time of any file changes.
    pub(super) fn changes_times(&self) -> bool {
        self.files
            .iter()
            .any(|StayedFile(_, _, retimed)| retimed.is_some())
    }

    /// Gives the files their planned times.
    pub(super) fn make(&self, handles: &mut Handles) -> io::Result<()> {
        let retime = |path: &Path, retimed: &Retimed| match retimed.change(
            path,
            retimed.before,
            retimed.after,
            handles,
        )? {
            true => Ok(()),
            false => Err(changed(path)),
        };
        self.each_retimed(retime)
    }

    /// Gives the files their earlier times back. Returns a text about files that somebody else
    /// changed in the meantime.
    pub(super) fn take_back(&self, handles: &mut Handles) -> io::Result<Option<String>> {
        let mut others = Vec::new();
        self.each_retimed(|path, retimed| {
            if !retimed.change(path, retimed.after, retimed.before, handles)? {
                others.push(path.display().to_string());
            }
            Ok(())
        })?;
        Ok((!others.is_empty()).then(|| {
            format!(
                "{}: changed, replaced or removed meanwhile; it does not get its earlier time back",
                others.join(", ")
            )
        }))
    }

    fn each_retimed(
        &self,
        mut act: impl FnMut(&Path, &Retimed) -> io::Result<()>,
    ) -> io::Result<()> {
        for StayedFile(name, _, retimed) in &self.files {
            if let Some(retimed) = retimed {
                act(&self.folder.join(name), retimed)?;
            }
        }
        Ok(())
    }
}

impl Retimed {
    /// Changes the time of the open file, unless it has the new one; returns false if it is gone,
    /// or another file, or has any other time.
    fn change(&self, path: &Path, from: i64, to: i64, handles: &mut Handles) -> io::Result<bool> {
        let opened = handles
            .parent(path)
            .and_then(|(folder, name)| folder.file(name));
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_nowhere(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let status = Status::of(&file)?;
        if !self.file.is(&Identity::of(&status).without_state())
            || ![from, to].contains(&status.modified)
        {
            return Ok(false);
        }
        if status.modified != to {
            rustix::fs::futimens(&file, &modified_at(to))?;
        }
        Ok(true)
    }
}

/// The time of modification alone.
pub(super) fn modified_at(nanoseconds: i64) -> Timestamps {
    const SECOND: i64 = 1_000_000_000;
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: nanoseconds.div_euclid(SECOND),
            tv_nsec: nanoseconds.rem_euclid(SECOND) as _,
        },
    }
}

fn changed(path: &Path) -> io::Error {
    let path = path.display();
    io::Error::other(format!(
        "{path} changed since it was compared; stop what writes there, and deploy again"
    ))
}
