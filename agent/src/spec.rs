//! What a command is about: the deployment specification, checked.
//!
//! [`envelope`] opens and verifies, [`parse`] reads, [`binding`] says whether it is about the command at hand; only what was
//! verified can be read.

pub mod binding;
pub mod envelope;
pub mod parse;
mod pkcs7;

use std::fmt;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::lifecycle::DeploymentKind;
use serde::{Deserialize, Serialize};

use crate::revision::{ReuseFrom, Revision};
use binding::Binding;
pub use parse::SpecError;

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

/// An identifier that is safe as the name of a file or folder, and in a line of text: not empty, `.` or `..`, no slash,
/// no control character.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathComponent(String);

impl PathComponent {
    pub fn new(text: &str) -> Option<Self> {
        let unsafe_char = |c: char| c == '/' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let unsafe_text = matches!(text, "" | "." | "..") || text.contains(unsafe_char) || text.len() > 200;
        (!unsafe_text).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PathComponent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or_else(|| format!("{text:?} cannot be the name of a file or folder"))
    }
}

impl From<PathComponent> for String {
    fn from(component: PathComponent) -> Self {
        component.0
    }
}

impl fmt::Display for PathComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
