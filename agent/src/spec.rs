//! What a command is about: the deployment specification, checked.
//!
//! [`envelope`] opens and verifies, [`parse`] reads, [`binding`] says whether it is about the command at hand; only what was
//! verified can be read.

pub mod binding;
pub mod envelope;
pub mod parse;
mod pkcs7;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::lifecycle::DeploymentKind;

use crate::path_component::PathComponent;
use crate::revision::Revision;
use binding::Binding;
pub use parse::SpecError;

/// What `ReuseArchiveFromDeploymentId` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReuseFrom {
    Deployment(PathComponent),
    /// Neither an id nor an ARN: the text as it was found.
    Malformed(String),
}

/// One deployment as this host is told about it; every member checked.
#[derive(Debug, Clone)]
pub struct DeploymentSpec {
    pub deployment_id: PathComponent,
    pub deployment_group_id: PathComponent,
    pub deployment_group_name: String,
    pub application_name: String,
    pub kind: DeploymentKind,
    /// Relative to the revision's root.
    pub appspec_filename: String,
    pub file_exists_behavior: FileExistsBehavior,
    /// Absent: the standard events, and whatever the AppSpec names beside them is an error.
    pub all_possible_lifecycle_events: Option<Vec<LifecycleEvent>>,
    pub revision: Revision,
    /// The earlier deployment whose unpacked archive may stand in for the revision.
    pub reuse_archive_from: Option<ReuseFrom>,
    /// What the specification was signed for; empty from a service that does not say it.
    pub binding: Binding,
}
