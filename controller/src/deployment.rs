//! Deployments: how one is created, decided about, carried out by its hosts, and shown.
//!
//! * [`state`] has the states, [`plan`] the scheduling decision, [`health`] its arithmetic; all three are pure;
//! * [`decide`] carries a decision out on the database, and is the only place where a deployment goes on by itself;
//! * [`commands`] is the hosts' side, [`create`], [`queries`] and [`targets`] are the operators'.

pub mod commands;
pub mod create;
pub mod decide;
pub mod diagnostics;
pub mod health;
pub mod plan;
pub mod queries;
mod records;
pub mod state;
pub mod targets;

use codedeploy_api::lifecycle::LifecycleEvent;

pub use health::MinimumHealthy;
pub(crate) use queries::last_info;

/// The lifecycle events of an in-place deployment without a load balancer, in their order.
pub(crate) fn in_place_events() -> impl Iterator<Item = LifecycleEvent> {
    use LifecycleEvent::*;
    [ApplicationStop, DownloadBundle, BeforeInstall, Install, AfterInstall, ApplicationStart, ValidateService]
        .into_iter()
}
