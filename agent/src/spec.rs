//! The deployment specification of a command, checked.
//!
//! [`envelope`] opens and verifies, [`parse`] reads, [`binding`] checks that it belongs to the
//! command at hand; only a verified specification can be read.

pub mod binding;
pub mod envelope;
pub mod parse;
mod pkcs7;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_api::trace::TraceParent;
use codedeploy_hooks::lifecycle::DeploymentKind;

use crate::path_component::PathComponent;
use crate::revision::Revision;
use binding::Binding;
pub use parse::SpecError;

/// The value of `ReuseArchiveFromDeploymentId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReuseFrom {
    Deployment(PathComponent),
    /// Neither an id nor an ARN: the original text.
    Malformed(String),
}

/// One deployment as the service describes it to this host; every member is checked.
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
    /// Absent: only the standard events are allowed, and any other event in the AppSpec is an
    /// error.
    pub all_possible_lifecycle_events: Option<Vec<LifecycleEvent>>,
    pub revision: Revision,
    /// The earlier deployment whose unpacked archive may replace the download.
    pub reuse_archive_from: Option<ReuseFrom>,
    /// The host's span in the deployment's trace, if the service sends traces.
    pub trace_parent: Option<TraceParent>,
    /// The binding; empty from a service that does not send it.
    pub binding: Binding,
}
