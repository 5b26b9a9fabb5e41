//! The deployment specification: the JSON document inside a command's signed envelope.
//!
//! A controller writes it, agents read it. The agent checks every member again (`agent::spec`);
//! this module defines only the shape.

use serde::{Deserialize, Serialize};

use crate::codedeploy::Timestamp;
use crate::lifecycle::LifecycleEvent;

/// The document in its written form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SpecificationDocument {
    pub deployment_id: String,
    pub deployment_group_id: String,
    pub deployment_group_name: String,
    pub application_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_creator: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_spec_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_action_overrides: Option<AgentActionOverrides>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_possible_lifecycle_events: Option<Vec<LifecycleEvent>>,
    pub revision: RevisionDocument,
    /// The token for a private GitHub repository. Absent, never null, if there is none.
    #[serde(rename = "GitHubAccessToken", skip_serializing_if = "Option::is_none")]
    pub github_access_token: Option<String>,
    /// RESTART deployments: the deployment whose unpacked archive is reused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse_archive_from_deployment_id: Option<String>,
    /// The host's span in the deployment's trace, if the controller sends traces. AWS's service does
    /// not send it, and AWS's agents ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    /// The host and command that it was signed for. AWS's service does not send it, and AWS's
    /// agents ignore it.
    #[serde(flatten)]
    pub binding: SpecificationBinding,
}

/// The host, command and time for which a specification was signed; it is not valid for any other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SpecificationBinding {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_identifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_execution_id: Option<String>,
    /// Seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentActionOverrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_overrides: Option<AgentOverrides>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentOverrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_exists_behavior: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RevisionDocument {
    pub revision_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_revision: Option<S3RevisionDocument>,
    #[serde(rename = "GitHubRevision", skip_serializing_if = "Option::is_none")]
    pub github_revision: Option<GitHubRevisionDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_revision: Option<LocalRevisionDocument>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct S3RevisionDocument {
    pub bucket: String,
    pub key: String,
    pub bundle_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(rename = "ETag", skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GitHubRevisionDocument {
    pub account: String,
    pub repository: String,
    pub commit_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_type: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LocalRevisionDocument {
    pub location: String,
    pub bundle_type: String,
}

/// The behaviour of Install when it meets a file that it did not create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FileExistsBehavior {
    /// Install fails.
    #[default]
    Disallow,
    /// The file is replaced, and belongs to the deployment afterwards.
    Overwrite,
    /// The file stays, and the copy is skipped.
    Retain,
}

impl std::str::FromStr for FileExistsBehavior {
    type Err = String;

    /// Reads the name in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Disallow, Self::Overwrite, Self::Retain]
            .into_iter()
            .find(|behavior| behavior.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("{text:?} is not one of DISALLOW, OVERWRITE, RETAIN"))
    }
}

impl FileExistsBehavior {
    pub fn name(self) -> &'static str {
        match self {
            Self::Disallow => "DISALLOW",
            Self::Overwrite => "OVERWRITE",
            Self::Retain => "RETAIN",
        }
    }
}
