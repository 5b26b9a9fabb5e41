//! The formats of the ledger's files: a command in progress, and the outcome of a command. Each has
//! a version.

use std::io;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use codedeploy_api::command::{Envelope, HostCommand, PutHostCommandCompleteInput};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::bounded_read;
use crate::path_component::PathComponent;
use crate::spec::DeploymentSpec;

/// The only version of the files so far.
const VERSION: u32 = 1;

/// The largest file that is read, in bytes; a specification has at most one million.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// A command that was received and has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InProgress {
    version: u32,
    pub command: HostCommand,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// The number of times that an agent has begun it, including the first.
    pub starts: u32,
    /// Absent: no work for it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
}

/// The deployment of a command that has begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    #[serde(with = "time::serde::rfc3339")]
    pub began_at: OffsetDateTime,
    #[serde(flatten)]
    pub about: DeploymentNames,
    /// For an Install: the last completed Install of the same deployment before this one. If
    /// another one is completed now, it is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_before: Option<String>,
    /// Absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<Noted>,
    /// The size of the deployment's script log when the command began. Absent in records of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_began: Option<u64>,
    /// As the service sent it: it is verified again before any work is repeated.
    pub specification: Envelope,
}

/// The output of a command's scripts: a part of the script log of its deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    pub deployment_group_id: PathComponent,
    pub deployment_id: PathComponent,
    /// The first byte, and the one after the last.
    pub begin: u64,
    pub end: u64,
}

/// The note about a command, as it was written for an official agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The name of its folder in the root folder; the name is a setting.
    pub(super) folder: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) at: OffsetDateTime,
}

/// A deployment, in terms for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentNames {
    pub deployment_id: PathComponent,
    pub deployment_group_id: PathComponent,
    pub deployment_group: String,
    pub application: String,
}

/// The outcome of a command, exactly as it is reported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    version: u32,
    pub lifecycle_event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<PathComponent>,
    #[serde(with = "time::serde::rfc3339")]
    pub ended_at: OffsetDateTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<Noted>,
    /// Absent if no script wrote anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged: Option<Logged>,
    pub completion: PutHostCommandCompleteInput,
}

/// A kind of file in the ledger.
pub(super) trait Record: Serialize + DeserializeOwned {
    fn host_command_identifier(&self) -> &str;
}

/// The reason why a file is unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum Useless {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is not what an agent writes")]
    Json(#[from] serde_json::Error),
    #[error("it has version {0}; this agent reads version {VERSION}")]
    Version(u64),
    #[error("it is about a command that belongs into another file")]
    Misplaced,
}

impl InProgress {
    pub(super) fn new(command: HostCommand) -> Self {
        let received_at = OffsetDateTime::now_utc();
        Self {
            version: VERSION,
            command,
            received_at,
            starts: 1,
            begun: None,
        }
    }
}

impl Ended {
    pub(super) fn new(
        lifecycle_event: &str,
        deployment_id: Option<PathComponent>,
        completion: PutHostCommandCompleteInput,
    ) -> Self {
        let lifecycle_event = lifecycle_event.chars().take(128).collect();
        let ended_at = OffsetDateTime::now_utc();
        Self {
            version: VERSION,
            lifecycle_event,
            deployment_id,
            ended_at,
            noted: None,
            logged: None,
            completion,
        }
    }
}

impl DeploymentNames {
    pub fn of(spec: &DeploymentSpec) -> Self {
        Self {
            deployment_id: spec.deployment_id.clone(),
            deployment_group_id: spec.deployment_group_id.clone(),
            deployment_group: spec.deployment_group_name.clone(),
            application: spec.application_name.clone(),
        }
    }
}

impl Record for InProgress {
    fn host_command_identifier(&self) -> &str {
        &self.command.host_command_identifier
    }
}

impl Record for Ended {
    fn host_command_identifier(&self) -> &str {
        &self.completion.host_command_identifier
    }
}

/// Returns the file name for a command. Identifiers are opaque, and may be longer than a file name
/// can be.
pub(crate) fn file_name(host_command_identifier: &str) -> String {
    let digest = digest(&SHA256, host_command_identifier.as_bytes());
    let (half, _) = digest.as_ref().split_at(16);
    format!("{}.json", hex::encode(half))
}

/// Reads the file at `path`, if it is a record of the command that its name stands for.
pub(super) fn read<R: Record>(path: &Path) -> Result<R, Useless> {
    let bytes = bounded_read::read_up_to(path, MAX_BYTES)?;
    // Check the version first: a newer agent may write another format.
    let value: serde_json::Value = serde_json::from_slice(&bytes)?;
    match value["version"].as_u64() {
        Some(other) if other != u64::from(VERSION) => return Err(Useless::Version(other)),
        _ => {}
    }
    let record: R = serde_json::from_value(value)?;
    let named = path
        .file_name()
        .is_some_and(|name| *name == *file_name(record.host_command_identifier()));
    if named {
        Ok(record)
    } else {
        Err(Useless::Misplaced)
    }
}
