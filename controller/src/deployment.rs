//! Deployments: how one is created, decided about, carried out by its hosts, and shown.
//!
//! * [`state`] and [`progress`] have the states of a lifecycle event and of a deployment, [`course`] which events there
//!   are, [`target`] what one target does next, [`plan`] what the whole does, [`health`] the arithmetic; all are pure;
//! * [`decide`] carries a decision out on the database, with [`start`] and [`end`] for both ends of a deployment; nothing
//!   else lets a deployment go on; [`resume`] gives hosts the time that the service was away, and [`departure`]
//!   none to those that were deregistered;
//! * [`commands`] is the hosts' side, [`traffic`] the service's own at load balancers, [`alarm`] that of alarms;
//! * [`purge`] removes what belongs to a group;
//! * [`create`], [`intervene`], [`queries`] and [`targets`] are the operators'.

pub mod alarm;
pub mod commands;
pub mod course;
pub mod create;
pub mod decide;
pub mod departure;
pub mod diagnostics;
mod end;
pub mod health;
pub mod intervene;
pub mod log;
pub mod plan;
pub mod progress;
pub mod purge;
pub mod queries;
mod records;
pub mod resume;
mod start;
pub mod state;
pub mod target;
pub mod targets;
pub mod traffic;

pub use health::MinimumHealthy;
pub(crate) use queries::last_info;
