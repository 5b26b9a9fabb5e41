//! The differences between two bundles. Pure.

mod lines;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::manifest::{Entry, Hook, Hooks, Manifest};
pub(crate) use lines::Line;

/// A file that only one of the bundles has, or that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileChange {
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Entry>,
    pub(crate) changes: Vec<Change>,
}

/// The kinds of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Change {
    Added,
    Removed,
    /// The content, or the target of a link.
    Content,
    Mode,
    /// The same hooks run a script with another content.
    Script,
}

/// A lifecycle event with other scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookChange {
    pub(crate) lifecycle_event_name: String,
    pub(crate) before: Vec<Hook>,
    pub(crate) after: Vec<Hook>,
    pub(crate) change: Change,
}

/// All differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Changes {
    pub(crate) files: Vec<FileChange>,
    pub(crate) equal_files: usize,
    pub(crate) hooks: Vec<HookChange>,
    /// The reason why the hooks cannot be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hooks_problem: Option<String>,
}

impl Changes {
    pub(crate) fn between(before: &Manifest, after: &Manifest) -> Self {
        let paths: BTreeSet<&String> = before.files.keys().chain(after.files.keys()).collect();
        let mut files = Vec::new();
        let mut equal_files = 0;
        for path in paths {
            let (old, new) = (before.files.get(path), after.files.get(path));
            let changes = file_changes(old, new);
            if changes.is_empty() {
                equal_files += 1;
                continue;
            }
            files.push(FileChange {
                path: path.clone(),
                before: old.cloned(),
                after: new.cloned(),
                changes,
            });
        }
        let (hooks, hooks_problem) = match (&before.hooks, &after.hooks) {
            (Ok(old), Ok(new)) => (hook_changes(old, new, &files), None),
            (Err(problem), _) => (Vec::new(), Some(format!("the running revision: {problem}"))),
            (_, Err(problem)) => (Vec::new(), Some(format!("the new revision: {problem}"))),
        };
        Self {
            files,
            equal_files,
            hooks,
            hooks_problem,
        }
    }
}

fn file_changes(before: Option<&Entry>, after: Option<&Entry>) -> Vec<Change> {
    let (old, new) = match (before, after) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(_)) => return vec![Change::Added],
        (Some(_), None) => return vec![Change::Removed],
        (None, None) => return Vec::new(),
    };
    let mut changes = Vec::new();
    if (&old.sha256, &old.target) != (&new.sha256, &new.target) {
        changes.push(Change::Content);
    }
    // Some bundles have no modes.
    if let (Some(old), Some(new)) = (&old.mode, &new.mode)
        && old != new
    {
        changes.push(Change::Mode);
    }
    changes
}

fn hook_changes(before: &Hooks, after: &Hooks, files: &[FileChange]) -> Vec<HookChange> {
    let changed: BTreeMap<&str, &FileChange> = files
        .iter()
        .map(|file| (file.path.as_str(), file))
        .collect();
    let events: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut hooks = Vec::new();
    for event in events {
        let scripts = |hooks: &Hooks| hooks.get(event).cloned().unwrap_or_default();
        let (old, new) = (scripts(before), scripts(after));
        let has_new_script = || {
            let mut scripts = new.iter();
            scripts.any(|hook| {
                let location = hook.location.trim_start_matches("./");
                changed.contains_key(location.trim_start_matches('/'))
            })
        };
        let change = match (old.is_empty(), new.is_empty()) {
            (true, _) => Change::Added,
            (_, true) => Change::Removed,
            _ if old != new => Change::Content,
            _ if has_new_script() => Change::Script,
            _ => continue,
        };
        hooks.push(HookChange {
            lifecycle_event_name: event.clone(),
            before: old,
            after: new,
            change,
        });
    }
    hooks
}
