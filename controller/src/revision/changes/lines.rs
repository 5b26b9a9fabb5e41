//! Differences in words.

use super::{Change, Changes, FileChange, HookChange};
use crate::revision::manifest::{Entry, Hook};
use crate::words::plain;

/// A difference, for a line of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) verb: &'static str,
    /// The path of a file, or a lifecycle event.
    pub(crate) name: String,
    pub(crate) details: Vec<String>,
}

impl Changes {
    /// The number of files that do not differ, in words.
    pub(crate) fn equality(&self) -> String {
        match (self.files.len(), self.equal_files) {
            (0, _) => "All files are equal.".to_owned(),
            (_, 0) => "No file is equal.".to_owned(),
            (_, 1) => "1 file is equal.".to_owned(),
            (_, equal) => format!("{equal} files are equal."),
        }
    }
}

impl FileChange {
    pub(crate) fn line(&self) -> Line {
        let verb = match self.changes.as_slice() {
            [Change::Added] => "added",
            [Change::Removed] => "removed",
            [Change::Mode] => "mode",
            _ => "changed",
        };
        let mut details = Vec::new();
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            if self.changes.contains(&Change::Content) {
                let (before, after) = (content(before), content(after));
                details.push(format!("{before} before, now {after}"));
            }
            if let (true, Some(old), Some(new)) = (
                self.changes.contains(&Change::Mode),
                &before.mode,
                &after.mode,
            ) {
                details.push(format!("mode {old} before, now {new}"));
            }
        }
        Line {
            verb,
            name: plain(&self.path),
            details,
        }
    }
}

impl HookChange {
    pub(crate) fn line(&self) -> Line {
        let (old, new) = (scripts(&self.before), scripts(&self.after));
        let (verb, detail) = match self.change {
            Change::Added => ("added", new),
            Change::Removed => ("removed", old),
            Change::Script => ("script", format!("{new}, with another content")),
            Change::Content | Change::Mode => ("changed", format!("{old} before, now {new}")),
        };
        Line {
            verb,
            name: plain(&self.lifecycle_event_name),
            details: vec![detail],
        }
    }
}

fn content(entry: &Entry) -> String {
    match (&entry.target, entry.size) {
        (Some(target), _) => format!("a link to {}", plain(target)),
        (None, Some(1)) => "1 byte".into(),
        (None, size) => format!("{} bytes", size.unwrap_or_default()),
    }
}

fn scripts(hooks: &[Hook]) -> String {
    let script = |hook: &Hook| {
        let timeout = hook
            .timeout
            .as_ref()
            .map(|timeout| format!("timeout {timeout}"));
        let runas = hook.runas.as_ref().map(|user| format!("runas {user}"));
        let more: Vec<String> = timeout.into_iter().chain(runas).collect();
        let location = plain(&hook.location);
        if more.is_empty() {
            location
        } else {
            format!("{location} ({})", plain(&more.join(", ")))
        }
    };
    hooks.iter().map(script).collect::<Vec<_>>().join(", ")
}
