//! The effect of an event on this host, decided without touching it: the revision and the scripts.
//!
//! [`origin`] names the deployment whose revision holds an event's scripts; the caller finds its
//! folder and reads its AppSpec; [`crate::script`] then runs the resulting [`HookPlan`].

mod plan;
mod root;

pub use plan::HookPlan;
pub use root::{DeploymentKind, Origin, origin};
