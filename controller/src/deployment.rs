//! Deployments: their creation, decisions, execution by hosts, and queries.
//!
//! * [`create`], [`intervene`], [`queries`] and [`targets`] handle the operators' requests;
//! * [`decide`] alone advances a deployment: it asks [`codedeploy_planner`] and carries out the
//!   answer in the database, with [`start`], [`end`] and [`rollback`] for the two ends of a
//!   deployment;
//! * [`commands`] is the hosts' side, with [`script_logs`]; [`traffic`] is the service's own at load
//!   balancers, [`alarm`] that of alarms;
//! * [`resume`] extends the hosts' timeouts after a downtime of the service, and [`removal`] ends
//!   and removes the deployments of a group;
//! * [`retention`] deletes old ones;
//! * [`status`] answers the questions of operators with the controller's own API, whose rollback by
//!   hand is [`reversal`];
//! * [`drain`] takes a host out of deployments and of traffic, and back;
//! * [`agent_updates`] updates the agents of hosts, stage by stage;
//! * [`effects`] notifies the waiting tasks of the changes that a transaction made.

pub mod agent_updates;
pub mod alarm;
pub mod commands;
pub mod create;
pub mod decide;
pub mod diagnostics;
pub mod drain;
pub mod effects;
mod end;
pub mod intervene;
pub mod preview;
pub mod queries;
pub mod removal;
pub mod resume;
pub mod retention;
pub mod reversal;
mod rollback;
pub mod script_logs;
mod start;
pub mod status;
pub mod targets;
pub mod trace;
pub mod traffic;
