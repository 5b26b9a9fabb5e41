//! Recovery after a crash: a committed Install is completed, every other one is taken back.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::journal::{self, Action, Contents, JournalError, Phase};
use super::touched::Touched;
use super::{Summary, transaction, undo};

/// In the folder of the records: locked while an Install examines and changes the host.
const LOCK: &str = "install.lock";

/// The right to change this host. One process holds it at a time, whatever its deployment group,
/// because destinations may overlap.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// The reason why there is no [`Turn`].
#[derive(Debug, thiserror::Error)]
#[error("cannot lock {}, which keeps two Installs from changing this host at once", path.display())]
pub struct TurnError {
    path: PathBuf,
    source: io::Error,
}

impl Turn {
    /// Waits until no other process installs; `folder` holds the records.
    pub fn wait(folder: &Path) -> Result<Self, TurnError> {
        let path = folder.join(LOCK);
        let lock = || {
            let flags = OFlags::RDWR
                | OFlags::CREATE
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::CLOEXEC;
            let file: File = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?.into();
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {
                    tracing::info!(lock = %path.display(), "another process is installing; waiting for it");
                    rustix::io::retry_on_intr(|| {
                        rustix::fs::flock(&file, FlockOperation::LockExclusive)
                    })?;
                }
                result => result?,
            }
            Ok(Self { _lock: file })
        };
        lock().map_err(|source| TurnError {
            path: path.clone(),
            source,
        })
    }

    /// Whether another process is installing, as far as this one may see.
    pub fn is_taken(folder: &Path) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(folder.join(LOCK), flags, Mode::empty());
        let locked =
            file.map(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared));
        matches!(locked, Ok(Err(Errno::WOULDBLOCK)))
    }
}

/// The result of recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// No Install was interrupted.
    Nothing,
    /// Everything is as it was before, except for the objects in `kept`, which belong to somebody
    /// else.
    RolledBack {
        action: Action,
        deployment: PathBuf,
        kept: Vec<String>,
    },
    /// Everything is as planned.
    RolledForward {
        action: Action,
        deployment: PathBuf,
        summary: Summary,
    },
}

/// The reason why an interrupted Install could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("{}: the state of an interrupted Install is unknown; the journal is kept as {}: check the files that it names", source, kept.display())]
    SetAside { kept: PathBuf, source: JournalError },
    #[error(
        "cannot tell whether an Install was interrupted; no Install of this deployment group is begun before that is known"
    )]
    Journal(#[from] JournalError),
    #[error(
        "an Install was interrupted and not everything could be put back; it is tried again at the next start and before \
         the next Install of this deployment group. If it cannot succeed, do this by hand and remove {}:{}",
        journal.display(),
        super::listed(left)
    )]
    Left { journal: PathBuf, left: Vec<String> },
}

/// Ends the Install whose `journal` shows an interruption. Succeeds if there is none; can itself be
/// interrupted and repeated.
pub fn recover(journal: &Path, _turn: &Turn) -> Result<Recovery, RecoverError> {
    let remove = || {
        let removed = journal::remove(journal);
        removed.map_err(|source| JournalError::Remove {
            path: journal.to_path_buf(),
            source,
        })
    };
    let contents = match journal::read(journal) {
        Ok(None) => {
            remove()?;
            return Ok(Recovery::Nothing);
        }
        Ok(Some(contents)) => contents,
        Err(source @ JournalError::Unusable { .. }) => return Err(set_aside(journal, source)),
        Err(error) => return Err(error.into()),
    };
    let Contents {
        begun,
        phase,
        changes,
        ..
    } = &contents;
    let (action, deployment) = (begun.action, begun.deployment.clone());
    tracing::debug!(?phase, changes = changes.len(), deployment = %deployment.display(), "recovering");
    let recovery = match phase {
        Phase::Building | Phase::Changing => {
            let transaction::Undone { left, kept } = transaction::roll_back(contents);
            if !left.is_empty() {
                kept.iter().for_each(|kept| tracing::warn!("{kept}"));
                return Err(RecoverError::Left {
                    journal: journal.to_path_buf(),
                    left,
                });
            }
            Recovery::RolledBack {
                action,
                deployment,
                kept,
            }
        }
        Phase::Finishing => {
            let unreadable = |source| JournalError::Read {
                path: journal.to_path_buf(),
                source,
            };
            let touched = Touched::of(begun, changes).map_err(unreadable)?;
            let warnings = undo::finish(begun, changes, &touched);
            Recovery::RolledForward {
                action,
                deployment,
                summary: begun.counts.summary(warnings),
            }
        }
    };
    remove()?;
    Ok(recovery)
}

/// Renames an unreadable journal, so that somebody can examine it and Installs can continue.
fn set_aside(journal: &Path, source: JournalError) -> RecoverError {
    let mut kept = journal.as_os_str().to_owned();
    kept.push(format!(".unusable-{}", crate::fs::token()));
    let kept = PathBuf::from(kept);
    match std::fs::rename(journal, &kept) {
        Ok(()) => RecoverError::SetAside { kept, source },
        Err(error) => JournalError::Read {
            path: journal.to_path_buf(),
            source: error,
        }
        .into(),
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |deployment: &Path| {
            deployment
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        match self {
            Self::Nothing => write!(f, "no Install was interrupted"),
            Self::RolledBack {
                action,
                deployment,
                kept,
            } => {
                let result = match kept[..] {
                    [] => "every file is as it was before",
                    [..] => {
                        "it was taken back, and changes that somebody else made meanwhile were kept"
                    }
                };
                let deployment = named(deployment);
                write!(
                    f,
                    "{action} of {deployment} was interrupted before it was complete; {result}"
                )
            }
            Self::RolledForward {
                action, deployment, ..
            } => write!(
                f,
                "{action} of {} was interrupted when all files were in place; it has been completed",
                named(deployment)
            ),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Install => "the Install",
            Self::Restore => "the restoration of the files from before the Install",
        })
    }
}
