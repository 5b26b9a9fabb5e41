//! The journal of a switch, from the decision until the old revision has stopped: after any
//! interruption, the next start finishes the switch. One line per step; an unfinished last line
//! was not taken.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use codedeploy_hooks::slots::SlotName;
use serde::{Deserialize, Serialize};

use crate::bounded_read;

/// The only version of the file so far.
const VERSION: u32 = 1;

/// A switch to another slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    version: u32,
    /// The folder of the deployment that serves afterwards.
    pub deployment: PathBuf,
    /// The slot that served; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SlotName>,
    pub to: SlotName,
    /// The folder of the deployment that is stopped afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops: Option<PathBuf>,
    /// Whether the old slot is emptied afterwards.
    #[serde(default)]
    pub empties: bool,
}

/// The steps of a switch, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// New requests go to the new slot.
    Moved,
    /// The link leads to it.
    Linked,
    /// The old slot has no more requests, or its time is over.
    Drained,
    /// The old revision's ApplicationStop is about to run.
    Stopping,
    /// Nothing is left to do.
    Finished,
}

#[derive(Serialize, Deserialize)]
struct Line {
    step: Step,
}

/// A switch that nobody else works on while this exists.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    pub switch: Switch,
    done: Option<Step>,
}

impl Switch {
    pub fn new(deployment: &Path, from: Option<SlotName>, to: SlotName) -> Self {
        Self {
            version: VERSION,
            deployment: deployment.to_owned(),
            from,
            to,
            stops: None,
            empties: false,
        }
    }
}

impl Journal {
    /// Begins a switch.
    pub fn begin(path: &Path, switch: Switch) -> io::Result<Self> {
        let file = open(path, true)?;
        file.set_len(0)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            switch,
            done: None,
        };
        let first = serde_json::to_string(&journal.switch)?;
        journal.append(&first)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()?;
        Ok(journal)
    }

    /// Returns the switch that a dead process left; `None` without one, or while another process
    /// works on it.
    pub fn left(path: &Path) -> io::Result<Option<Self>> {
        let file = match open(path, false) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::WouldBlock
                ) =>
            {
                return Ok(None);
            }
            file => file?,
        };
        let Some((switch, done, whole)) = read(path)? else {
            std::fs::remove_file(path)?;
            return Ok(None);
        };
        // A line without a newline is not complete.
        file.set_len(whole)?;
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            switch,
            done,
        }))
    }

    /// The last completed step.
    pub fn done(&self) -> Option<Step> {
        self.done
    }

    pub fn note(&mut self, step: Step) -> io::Result<()> {
        let line = serde_json::to_string(&Line { step })?;
        self.append(&line)?;
        self.done = Some(step);
        Ok(())
    }

    /// Removes the journal: nothing is left to do.
    pub fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the journal of a finished switch");
        }
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.sync_data()
    }
}

/// Reads a switch, its last step, and the length of the complete lines; `None` if it never began.
pub fn read(path: &Path) -> io::Result<Option<(Switch, Option<Step>, u64)>> {
    let text = String::from_utf8(bounded_read::read(path)?).map_err(io::Error::other)?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut lines = whole.lines();
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    let switch: Switch = serde_json::from_str(first)?;
    if switch.version != VERSION {
        return Err(io::Error::other(format!(
            "it has version {}; this agent reads version {VERSION}",
            switch.version
        )));
    }
    let steps: Vec<Line> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let done = steps.last().map(|line| line.step);
    Ok(Some((switch, done, whole.len() as u64 + 1)))
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options = File::options();
    options
        .append(true)
        .create(create)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_and_a_torn_line_was_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g-switch.jsonl");
        assert!(Journal::left(&path).unwrap().is_none());
        let switch = Switch::new(Path::new("/x/d-2"), Some(SlotName::Blue), SlotName::Green);
        let mut journal = Journal::begin(&path, switch.clone()).unwrap();
        assert!(
            Journal::left(&path).unwrap().is_none(),
            "somebody works on it"
        );
        journal.note(Step::Moved).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"step\":\"lin"].concat()).unwrap();
        let mut journal = Journal::left(&path).unwrap().unwrap();
        assert_eq!(
            (&journal.switch, journal.done()),
            (&switch, Some(Step::Moved))
        );
        journal.note(Step::Linked).unwrap();
        drop(journal);
        let journal = Journal::left(&path).unwrap().unwrap();
        assert_eq!(journal.done(), Some(Step::Linked));
        journal.remove();
        assert!(!path.exists());
        std::fs::write(&path, "{\"version\":1").unwrap();
        assert!(Journal::left(&path).unwrap().is_none(), "it had not begun");
        assert!(!path.exists());
    }
}
