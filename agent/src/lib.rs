//! A deployment agent that speaks AWS CodeDeploy's protocol.
//!
//! One value moves forward. [`poll`] takes a host command from the service ([`command`]), fetches its specification
//! and has it verified and read ([`spec`]); [`deployment`] performs it, fetching a [`revision`], installing its files
//! or running its scripts; [`report`] tells the service how it ended. [`daemon`] starts all that, and [`recovery`] first
//! ends what a crash interrupted.
//!
//! [`cli`] has the commands for people: `codedeploy-local` does the same work without a service, others start, stop, ask
//! and examine the agent of this host. [`control_socket`] is how the daemon answers them, [`console`] how they speak.
//!
//! [`deployment_root`] is the folder with everything that is remembered. [`config`] and [`identity`] say who and where,
//! [`aws`] how services are reached.

pub mod acquaintance;
pub mod aws;
pub mod background;
pub mod backoff;
pub mod cli;
pub mod command;
pub mod config;
pub mod console;
pub mod control_socket;
pub mod daemon;
pub mod deployment;
pub mod deployment_root;
pub mod history;
pub mod identity;
mod memory;
pub mod path_component;
pub mod pidfile;
pub mod poll;
pub mod recovery;
pub mod regular;
pub mod report;
pub mod revision;
mod runtime;
pub mod shutdown;
pub mod spec;
pub mod systemd;
pub mod telemetry;
pub mod version;
