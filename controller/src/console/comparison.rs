//! The files and hooks in which a revision differs from the one that runs, for the preview of a
//! deployment. Both bundles are read in full, one comparison at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::{RevisionLocation, S3Location};
use serde::Serialize;

use super::Console;
use crate::error::chain;
use crate::objects::Objects;
use crate::revision::changes::{Changes, Line};
use crate::revision::manifest::{Limits, Manifest};
use crate::words;

/// The most that is read of a bundle here: a few seconds of work.
const LIMITS: Limits = Limits {
    files: 20_000,
    bytes: 1024 * 1024 * 1024,
};

/// The time to wait for the comparisons of others.
const TURN: Duration = Duration::from_secs(20);

/// The number of files and of hooks that are listed.
const SHOWN: usize = 100;

/// The longest text of a line, in characters.
const LONGEST: usize = 300;

/// The revisions of a preview.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) application: String,
    pub(super) running: RevisionLocation,
    pub(super) new: RevisionLocation,
}

/// The differences, or the reason why they are unknown.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    #[serde(skip)]
    pub(super) of: Pair,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    changes: Option<Changes>,
    /// The number of files, and of hooks, that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) more_files: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) more_hooks: usize,
    #[serde(rename = "comparisonProblem", skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Comparison {
    /// Compares the bundles of a pair, which are in the controller's own buckets. The prefix is that
    /// of the only objects that the user may see.
    pub(super) async fn make(
        console: &Console,
        (objects, prefix): (Option<Arc<Objects>>, Option<String>),
        pair: Pair,
    ) -> Self {
        let turn = tokio::time::timeout(TURN, Arc::clone(&console.comparing).lock_owned()).await;
        let Ok(turn) = turn else {
            return Self::none(
                pair,
                "other comparisons take long: load the page again".into(),
            );
        };
        let compared = tokio::task::spawn_blocking(move || {
            // The work goes on when the browser does not wait for it.
            let _turn = turn;
            let found = objects.map(|objects| compare(&objects, prefix.as_deref(), &pair));
            match found.unwrap_or_else(|| Err(not_held(&pair.new))) {
                Ok(changes) => Self::of(pair, changes),
                Err(problem) => Self::none(pair, problem),
            }
        });
        let compared = compared.await;
        compared.unwrap_or_else(|error| Self::none(Pair::nothing(), error.to_string()))
    }

    fn of(pair: Pair, mut changes: Changes) -> Self {
        let (files, hooks) = (changes.files.len(), changes.hooks.len());
        // Many new files must not hide what happens to those that run.
        changes
            .files
            .sort_by_key(|file| (file.before.is_none(), file.after.is_none()));
        changes.files.truncate(SHOWN);
        changes.hooks.truncate(SHOWN);
        Comparison {
            of: pair,
            more_files: files - changes.files.len(),
            more_hooks: hooks - changes.hooks.len(),
            changes: Some(changes),
            problem: None,
        }
    }

    fn none(pair: Pair, problem: String) -> Self {
        Comparison {
            of: pair,
            changes: None,
            more_files: 0,
            more_hooks: 0,
            problem: Some(problem),
        }
    }

    pub(super) fn files(&self) -> Vec<Line> {
        let changes = self.changes.iter().flat_map(|changes| &changes.files);
        changes.map(|change| short(change.line())).collect()
    }

    pub(super) fn hooks(&self) -> Vec<Line> {
        let changes = self.changes.iter().flat_map(|changes| &changes.hooks);
        changes.map(|change| short(change.line())).collect()
    }

    pub(super) fn hooks_problem(&self) -> Option<&str> {
        self.changes.as_ref()?.hooks_problem.as_deref()
    }

    /// The number of files that do not differ, in words.
    pub(super) fn equality(&self) -> String {
        let changes = self.changes.as_ref();
        changes.map(Changes::equality).unwrap_or_default()
    }
}

impl Pair {
    fn nothing() -> Self {
        Pair {
            application: String::new(),
            running: RevisionLocation::default(),
            new: RevisionLocation::default(),
        }
    }
}

fn short(line: Line) -> Line {
    let short = |text: String| match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    };
    Line {
        verb: line.verb,
        name: short(line.name),
        details: line.details.into_iter().map(short).collect(),
    }
}

fn not_held(revision: &RevisionLocation) -> String {
    format!(
        "the controller does not hold {}",
        words::revision(Some(revision))
    )
}

/// The prefix is that of the only objects that the user may see.
fn compare(objects: &Objects, prefix: Option<&str>, pair: &Pair) -> Result<Changes, String> {
    let read = |revision: &RevisionLocation| {
        let file = find(objects, prefix, revision).ok_or_else(|| not_held(revision))?;
        Manifest::read(&file, LIMITS).map_err(|error| {
            let name = words::revision(Some(revision));
            format!("{name} cannot be compared here: {}", chain(&error))
        })
    };
    Ok(Changes::between(&read(&pair.running)?, &read(&pair.new)?))
}

/// The file of a revision, if it is still the object that was deployed.
fn find(objects: &Objects, prefix: Option<&str>, revision: &RevisionLocation) -> Option<PathBuf> {
    let S3Location {
        bucket,
        key,
        version,
        e_tag,
        ..
    } = revision.s3_location.as_ref()?;
    let (bucket, key) = (bucket.as_deref()?, key.as_deref()?);
    if prefix.is_some_and(|prefix| !key.starts_with(prefix)) {
        return None;
    }
    let version = version.as_deref().filter(|version| *version != "null");
    let (found, file) = objects.find(bucket, key, version).ok()?;
    let bare = |tag: &str| tag.trim_matches('"').to_owned();
    let is_same = e_tag
        .as_deref()
        .is_none_or(|tag| bare(tag) == bare(&found.etag));
    (is_same && Path::new(&file).is_file()).then_some(file)
}
