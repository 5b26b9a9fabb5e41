//! Decides how a deployment goes on. Pure: no store, no clock, no task; whoever calls passes the time.
//!
//! [`rules`] is what was decided when the deployment was created, [`strategy`] which lifecycle events there are in which
//! stage. [`event_state`], [`target_state`] and [`deployment_state`] are the states of a lifecycle event, a target and a
//! deployment, each with one transition function. [`plan`] reads them all and says what the deployment does now, with
//! the arithmetic of minimum healthy hosts in [`health`].

pub mod deployment_state;
pub mod event_state;
pub mod health;
pub mod plan;
pub mod rules;
pub mod strategy;
pub mod target_state;
mod timers;

pub use timers::Timers;
