//! Deployments: their creation, decisions, execution by hosts, and queries.
//!
//! * [`state`] and [`progress`] have the states of a lifecycle event and of a deployment, [`strategy`] which events there
//!   are, [`target`] what one target does next, [`plan`] what the whole does, [`health`] the arithmetic; all are pure;
//! * [`decide`] carries a decision out on the database, with [`start`] and [`end`] for both ends of a deployment; nothing
//!   else lets a deployment go on; [`resume`] gives hosts the time that the service was away, and [`departure`]
//!   none to those that were deregistered;
//! * [`commands`] is the hosts' side, [`traffic`] the service's own at load balancers, [`alarm`] that of alarms;
//! * [`purge`] removes what belongs to a group;
//! * [`create`], [`intervene`], [`queries`] and [`targets`] are the operators'.

pub mod alarm;
pub mod commands;
pub mod create;
pub mod decide;
pub mod diagnostics;
pub mod effects;
mod end;
pub mod intervene;
pub mod queries;
pub mod removal;
pub mod resume;
mod rollback;
mod start;
pub mod targets;
pub mod traffic;
