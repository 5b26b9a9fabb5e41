//! What an event means for this host, decided without touching it: from which revision, and which scripts.
//!
//! [`origin`] names the deployment whose revision an event's scripts come from; the caller finds its folder and
//! reads its AppSpec; [`HookPlan`] is what [`crate::script`] then runs.

mod plan;
mod root;

pub use plan::HookPlan;
pub use root::{DeploymentKind, Origin, origin};
