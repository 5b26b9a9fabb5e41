//! The journal of a rollback, from its beginning until everybody knows about it: after any
//! interruption, the next start finishes the rollback. One file per deployment group, one line per
//! step; an unfinished last line was not taken.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use codedeploy_api::diagnostics::CompletionPayload;
use codedeploy_api::lifecycle::LifecycleEvent;
use serde::{Deserialize, Serialize};

use super::super::ledger::DeploymentNames;
use super::Started;
use crate::bounded_read;
use crate::deployment_root::{Store, StoreError};
use codedeploy_api::chain::Chain;

/// The only version of the file so far.
const VERSION: u32 = 1;

/// The deployment to take back, and the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    version: u32,
    #[serde(flatten)]
    pub about: DeploymentNames,
    /// The command whose failure caused the rollback, and whose report mentions it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The failure; absent if a person requested the rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<CompletionPayload>,
}

/// The completed steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Step {
    /// The previous files are restored.
    Restored {
        previous: Option<PathBuf>,
        warnings: Vec<String>,
    },
    /// The scripts of an event of the previous revision are about to run.
    Begun {
        event: String,
    },
    Ended {
        event: String,
        result: Started,
    },
    /// Only the report remains.
    Done {
        words: String,
    },
}

/// The progress of an event.
#[derive(Debug, PartialEq)]
pub(in crate::deployment) enum Came {
    NotBegun,
    /// The number of times that the agent ended before the event's scripts did.
    Interrupted(usize),
    Ended(Started),
}

/// A rollback that nobody else works on while this exists.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    pub cause: Cause,
    steps: Vec<Step>,
}

impl Cause {
    pub fn new(
        about: DeploymentNames,
        command: Option<String>,
        failure: Option<CompletionPayload>,
    ) -> Self {
        Self {
            version: VERSION,
            about,
            command,
            failure,
        }
    }
}

impl Journal {
    /// Begins to take back a deployment; replaces the journal of an earlier rollback of the group.
    pub(super) fn begin(store: &Store, cause: Cause) -> io::Result<Self> {
        let path = store.rollback_journal(&cause.about.deployment_group_id);
        let mut options = File::options();
        options
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&path)?;
        lock(&file)?;
        file.set_len(0)?;
        let mut journal = Self {
            path,
            file,
            cause,
            steps: Vec::new(),
        };
        let first = serde_json::to_string(&journal.cause)?;
        journal.append(&first)?;
        let folder = journal.path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()?;
        Ok(journal)
    }

    /// Returns the rollbacks of earlier processes; unusable journals are set aside with a warning.
    pub fn left(store: &Store) -> Result<Vec<Self>, StoreError> {
        let mut left = Vec::new();
        for path in store.rollback_journals()? {
            match Self::open(&path) {
                Ok(journal) => left.extend(journal),
                Err(error) => {
                    let aside = path.with_extension("unusable");
                    let moved = std::fs::rename(&path, &aside).is_ok();
                    tracing::warn!(path = %path.display(), kept_as = moved.then(|| aside.display().to_string()), reason = %Chain(&error), "a rollback was interrupted, and its journal is unusable; check the host's files");
                }
            }
        }
        Ok(left)
    }

    /// `None` while another process works on it, or if its first line is missing.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut options = File::options();
        options
            .append(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(path)?;
        if lock(&file).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return Ok(None);
        }
        let text = String::from_utf8(bounded_read::read(path)?).map_err(io::Error::other)?;
        // A line without a newline is not complete.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut lines = whole.lines();
        let Some(first) = lines.next() else {
            std::fs::remove_file(path)?;
            return Ok(None);
        };
        let cause: Cause = serde_json::from_str(first)?;
        if cause.version != VERSION {
            return Err(io::Error::other(format!(
                "it has version {}, not {VERSION}",
                cause.version
            )));
        }
        let steps = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        if whole.len() + 1 < text.len() {
            file.set_len(whole.len() as u64 + 1)?;
        }
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            cause,
            steps,
        }))
    }

    /// Removes the journal of the rollback that followed `command`, once its outcome is recorded;
    /// returns the rollback's result.
    pub fn close(store: &Store, about: &DeploymentNames, command: &str) -> Option<String> {
        let path = store.rollback_journal(&about.deployment_group_id);
        if !path.exists() {
            return None;
        }
        let journal = Self::open(&path).ok().flatten()?;
        let words = journal.done().map(str::to_owned);
        (journal.cause.command.as_deref() == Some(command)).then(|| journal.remove())?;
        words
    }

    /// Removes the journal: everybody knows about the rollback.
    pub fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the journal of a finished rollback");
        }
    }

    /// Returns the restored deployment, once its files are restored, and the facts that a person
    /// must know about them.
    pub(super) fn restored(&self) -> Option<(Option<&Path>, &[String])> {
        self.steps.iter().find_map(|step| match step {
            Step::Restored { previous, warnings } => {
                Some((previous.as_deref(), warnings.as_slice()))
            }
            _ => None,
        })
    }

    /// The restored deployment.
    pub fn previous(&self) -> Option<String> {
        let (previous, _) = self.restored()?;
        previous?
            .file_name()
            .map(|id| id.to_string_lossy().into_owned())
    }

    pub(in crate::deployment) fn came(&self, event: &LifecycleEvent) -> Came {
        let mut begun = 0;
        for step in &self.steps {
            match step {
                Step::Ended {
                    event: ended,
                    result,
                } if ended == event.name() => {
                    return Came::Ended(result.clone());
                }
                Step::Begun { event: of } if of == event.name() => begun += 1,
                _ => {}
            }
        }
        if begun == 0 {
            Came::NotBegun
        } else {
            Came::Interrupted(begun)
        }
    }

    /// The result, once only the report remains.
    pub fn done(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match step {
            Step::Done { words } => Some(words.as_str()),
            _ => None,
        })
    }

    pub(super) fn note_restored(
        &mut self,
        previous: Option<PathBuf>,
        warnings: Vec<String>,
    ) -> io::Result<()> {
        self.note(Step::Restored { previous, warnings })
    }

    pub(in crate::deployment) fn note_begun(&mut self, event: &LifecycleEvent) -> io::Result<()> {
        self.note(Step::Begun {
            event: event.name().to_owned(),
        })
    }

    pub(in crate::deployment) fn note_ended(
        &mut self,
        event: &LifecycleEvent,
        result: Started,
    ) -> io::Result<()> {
        self.note(Step::Ended {
            event: event.name().to_owned(),
            result,
        })
    }

    pub(super) fn note_done(&mut self, words: String) -> io::Result<()> {
        self.note(Step::Done { words })
    }

    fn note(&mut self, step: Step) -> io::Result<()> {
        let line = serde_json::to_string(&step)?;
        self.steps.push(step);
        self.append(&line)
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.sync_data()
    }
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path_component::PathComponent;

    fn cause(command: Option<&str>) -> Cause {
        let id = |text| PathComponent::new(text).unwrap();
        let about = DeploymentNames {
            deployment_id: id("d-2"),
            deployment_group_id: id("g"),
            deployment_group: "web".into(),
            application: "shop".into(),
        };
        Cause::new(about, command.map(str::to_owned), None)
    }

    #[test]
    fn every_step_survives_and_a_torn_line_was_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        std::fs::create_dir_all(store.instructions()).unwrap();
        let mut journal = Journal::begin(&store, cause(Some("c"))).unwrap();
        assert!(
            Journal::left(&store).unwrap().is_empty(),
            "somebody works on it"
        );
        journal
            .note_restored(Some("/x/d-1".into()), vec!["kept".into()])
            .unwrap();
        journal
            .note_begun(&LifecycleEvent::ApplicationStart)
            .unwrap();
        let path = journal.path.clone();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"step\":\"ended\",\"ev"].concat()).unwrap();

        let [mut journal] = <[Journal; 1]>::try_from(Journal::left(&store).unwrap()).unwrap();
        assert_eq!(journal.cause, cause(Some("c")));
        assert_eq!(journal.restored().unwrap().0, Some(Path::new("/x/d-1")));
        assert_eq!(
            journal.came(&LifecycleEvent::ApplicationStart),
            Came::Interrupted(1)
        );
        assert_eq!(
            journal.came(&LifecycleEvent::ValidateService),
            Came::NotBegun
        );
        let result = Started {
            succeeded: true,
            words: "succeeded".into(),
            log_tail: String::new(),
        };
        journal
            .note_ended(&LifecycleEvent::ApplicationStart, result.clone())
            .unwrap();
        journal.note_done("rolled back".into()).unwrap();
        drop(journal);
        let [journal] = <[Journal; 1]>::try_from(Journal::left(&store).unwrap()).unwrap();
        assert_eq!(
            journal.came(&LifecycleEvent::ApplicationStart),
            Came::Ended(result)
        );
        drop(journal);
        let about = cause(None).about;
        assert_eq!(Journal::close(&store, &about, "another"), None);
        assert_eq!(
            Journal::close(&store, &about, "c").as_deref(),
            Some("rolled back")
        );
        assert!(!path.exists());
    }

    #[test]
    fn a_journal_of_no_use_is_set_aside_and_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        std::fs::create_dir_all(store.instructions()).unwrap();
        drop(Journal::begin(&store, cause(None)).unwrap());
        let other = store.rollback_journal(&PathComponent::new("a").unwrap());
        for content in ["{\n", "\u{1}\n", "{\"version\":2}\n"] {
            std::fs::write(&other, content).unwrap();
            assert_eq!(Journal::left(&store).unwrap().len(), 1, "{content:?}");
            assert!(!other.exists());
        }
        std::fs::write(&other, "").unwrap();
        assert_eq!(Journal::left(&store).unwrap().len(), 1);
        assert!(!other.exists(), "it had not begun");
    }
}
