//! The last ten deployments of this host and their outcomes, kept across restarts in one small
//! file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::fs::replace_file;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::deployment::ledger::DeploymentNames;

/// The number of deployments that are remembered.
pub const KEPT: usize = 10;

/// The only version of the file so far.
const VERSION: u32 = 1;

/// The largest file that is read, in bytes; the agent writes a few thousand.
const MAX_BYTES: u64 = 1024 * 1024;

/// The longest message that is kept, in characters.
const MAX_MESSAGE: usize = 500;

/// The record of one deployment on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    pub deployment_id: String,
    pub application: String,
    pub deployment_group: String,
    /// The beginning of its first command.
    #[serde(with = "time::serde::rfc3339")]
    pub began_at: OffsetDateTime,
    /// The time from the beginning of its first command to the end of its latest.
    pub seconds: f64,
    pub last_lifecycle_event: String,
    /// The outcome of that event. A deployment has succeeded on this host if its last event has.
    pub outcome: DeploymentOutcome,
    pub message: String,
    /// Set if it was taken back on this host; names the restored deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentOutcome {
    InProgress,
    Succeeded,
    Failed,
}

impl DeploymentOutcome {
    /// The outcome as a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// The last deployments, newest first.
#[derive(Debug, Default)]
pub struct History {
    path: PathBuf,
    deployments: VecDeque<Deployment>,
    /// Whether the latest change is not on the disk yet.
    unsaved: bool,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    deployments: VecDeque<Deployment>,
}

/// The reason why the file is unusable.
#[derive(Debug, thiserror::Error)]
enum UnusableError {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is not a regular file of at most {MAX_BYTES} bytes")]
    NotAFile,
    #[error("it is not what an agent writes")]
    Json(#[from] serde_json::Error),
    #[error("it has version {0}; this agent writes and reads version {VERSION}")]
    Version(u32),
}

impl History {
    /// Reads the history in `path`. An unusable file is set aside with a warning, and the history
    /// is empty.
    pub fn open(path: &Path) -> Self {
        let deployments = load(path).unwrap_or_else(|error| {
            let aside = path.with_extension("json.damaged");
            let reason = codedeploy_api::chain::Chain(&error).to_string();
            match std::fs::rename(path, &aside) {
                Ok(()) => {
                    tracing::warn!(path = %path.display(), kept_as = %aside.display(), reason, "the history of deployments is not usable; it begins anew")
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), reason, %error, "the history of deployments is not usable, and cannot be set aside; remove it")
                }
            }
            VecDeque::new()
        });
        Self {
            path: path.into(),
            deployments,
            unsaved: false,
        }
    }

    /// Reads the history in `path` without changing anything; empty if the file is unusable.
    pub fn peek(path: &Path) -> Vec<Deployment> {
        load(path).unwrap_or_default().into()
    }

    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.deployments.iter()
    }

    /// Reads changes of another process: a rollback by hand runs in its own process.
    pub fn refresh(&mut self) {
        if let Some(found) = load(&self.path)
            .ok()
            .filter(|found| !found.is_empty() && !self.unsaved)
        {
            self.deployments = found;
        }
    }

    /// Records that a deployment was taken back, and the restored one.
    pub fn rolled_back(&mut self, about: &DeploymentNames, words: &str) {
        self.refresh();
        let id = about.deployment_id.as_str();
        let known = self
            .deployments
            .iter()
            .position(|known| known.deployment_id == id);
        let known = known.and_then(|position| self.deployments.remove(position));
        let deployment = known.unwrap_or_else(|| Deployment {
            deployment_id: id.to_owned(),
            application: about.application.clone(),
            deployment_group: about.deployment_group.clone(),
            began_at: OffsetDateTime::now_utc(),
            seconds: 0.0,
            last_lifecycle_event: LifecycleEvent::Install.name().to_owned(),
            outcome: DeploymentOutcome::Succeeded,
            message: String::new(),
            rolled_back: None,
        });
        let rolled_back = Some(words.chars().take(MAX_MESSAGE).collect());
        self.push(Deployment {
            rolled_back,
            ..deployment
        });
    }

    /// Records the end of one command of a deployment, here and on disk; a full disk causes a
    /// warning.
    pub fn record(&mut self, mut latest: Deployment) {
        self.refresh();
        latest.message = latest.message.chars().take(MAX_MESSAGE).collect();
        let known = self
            .deployments
            .iter()
            .position(|known| known.deployment_id == latest.deployment_id);
        if let Some(known) = known.and_then(|position| self.deployments.remove(position)) {
            latest.seconds += (latest.began_at - known.began_at).as_seconds_f64();
            latest.began_at = known.began_at;
            latest.rolled_back = latest.rolled_back.or(known.rolled_back);
        }
        latest.seconds = (latest.seconds.max(0.0) * 1000.0).round() / 1000.0;
        self.push(latest);
    }

    fn push(&mut self, latest: Deployment) {
        self.deployments.push_front(latest);
        self.deployments.truncate(KEPT);
        let saved = self.save();
        self.unsaved = saved.is_err();
        if let Err(error) = saved {
            tracing::warn!(path = %self.path.display(), %error, "the history of deployments cannot be kept");
        }
    }

    fn save(&self) -> io::Result<()> {
        let document = Document {
            version: VERSION,
            deployments: self.deployments.clone(),
        };
        replace_file(&self.path, &serde_json::to_vec_pretty(&document)?, 0o600)
    }
}

fn load(path: &Path) -> Result<VecDeque<Deployment>, UnusableError> {
    // A FIFO in its place must not block.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(UnusableError::NotAFile);
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    // Check the version first: a newer agent may write another format.
    let version: serde_json::Value = serde_json::from_slice(&text)?;
    match version["version"]
        .as_u64()
        .and_then(|version| u32::try_from(version).ok())
    {
        Some(VERSION) | None => {}
        Some(other) => return Err(UnusableError::Version(other)),
    }
    let mut deployments = serde_json::from_value::<Document>(version)?.deployments;
    deployments.truncate(KEPT);
    Ok(deployments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(id: usize, at: i64, event: &str, outcome: DeploymentOutcome) -> Deployment {
        Deployment {
            deployment_id: format!("d-{id}"),
            application: "shop".into(),
            deployment_group: "web".into(),
            began_at: OffsetDateTime::from_unix_timestamp(1_800_000_000 + at).unwrap(),
            seconds: 2.0,
            last_lifecycle_event: event.into(),
            outcome,
            message: "m".repeat(1000),
            rolled_back: None,
        }
    }

    #[test]
    fn the_last_ten_deployments_survive_a_restart_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.json");
        let mut history = History::open(&path);
        for id in 0..12 {
            let at = i64::try_from(id).unwrap() * 100;
            history.record(command(id, at, "Install", DeploymentOutcome::Succeeded));
        }
        history.record(command(
            5,
            560,
            "ValidateService",
            DeploymentOutcome::Failed,
        ));
        let again = History::open(&path);
        let ids: Vec<_> = again
            .deployments()
            .map(|kept| kept.deployment_id.as_str())
            .collect();
        assert_eq!(
            ids,
            [
                "d-5", "d-11", "d-10", "d-9", "d-8", "d-7", "d-6", "d-4", "d-3", "d-2"
            ]
        );
        let latest = again.deployments().next().unwrap();
        assert_eq!(
            (latest.seconds, latest.outcome),
            (62.0, DeploymentOutcome::Failed)
        );
        assert_eq!(latest.last_lifecycle_event, "ValidateService");
        assert_eq!(latest.message.len(), MAX_MESSAGE);
    }

    #[test]
    fn a_file_of_no_use_is_set_aside_and_a_new_history_begins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.json");
        let noise = vec![0x80; 10 << 20];
        let contents: [&[u8]; 7] = [
            b"",
            b"{\"version\":1,\"deploy",
            b"[]",
            b"{\"version\":2,\"deployments\":[]}",
            b"{\"version\":1,\"deployments\":\"none\"}",
            b"\xff\xfe",
            &noise,
        ];
        for content in contents {
            std::fs::write(&path, content).unwrap();
            let mut history = History::open(&path);
            assert_eq!(history.deployments().count(), 0);
            assert_eq!(
                std::fs::read(path.with_extension("json.damaged")).unwrap(),
                content
            );
            history.record(command(1, 0, "Install", DeploymentOutcome::Succeeded));
            assert_eq!(History::peek(&path).len(), 1);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(path.with_extension("json.damaged")).unwrap();
        let obstacles: [fn(&Path); 2] = [
            |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            |path| std::fs::create_dir(path).unwrap(),
        ];
        for put in obstacles {
            put(&path);
            assert_eq!(History::open(&path).deployments().count(), 0);
            // The set-aside file may itself block the next one.
            let _ = std::fs::remove_file(path.with_extension("json.damaged"));
            let _ = std::fs::remove_dir(path.with_extension("json.damaged"));
        }
    }
}
