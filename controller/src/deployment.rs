//! Deployments: their creation, decisions, execution by hosts, and queries.
//!
//! * [`create`], [`intervene`], [`queries`] and [`targets`] are the operators' requests;
//! * [`decide`] alone lets a deployment go on: it asks [`codedeploy_planner`] and carries the answer out on the database, with
//!   [`start`], [`end`] and [`rollback`] for the two ends of a deployment;
//! * [`commands`] is the hosts' side, [`traffic`] the service's own at load balancers, [`alarm`] that of alarms;
//! * [`resume`] gives hosts the time that the service was away, and [`removal`] ends and removes what belongs to a group;
//! * [`effects`] tells those who wait what a transaction did.

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
