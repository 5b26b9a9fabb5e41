//! Decides how a deployment continues. Pure: no store, no clock, no task; the caller passes the
//! time.
//!
//! [`rules`] are the decisions made when the deployment was created; [`strategy`] assigns lifecycle
//! events to stages. [`event_state`], [`target_state`] and [`deployment_state`] are the states of a
//! lifecycle event, a target and a deployment, each with one transition function. [`plan`] reads
//! them all and decides the deployment's next move; [`health`] does the arithmetic of minimum
//! healthy hosts; [`rollback`] decides whether one that was stopped is undone.

pub mod deployment_state;
pub mod event_state;
pub mod health;
pub mod plan;
pub mod rollback;
pub mod rules;
pub mod strategy;
pub mod target_state;
mod timers;

pub use timers::Timers;
