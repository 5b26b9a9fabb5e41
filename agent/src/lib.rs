//! A deployment agent that speaks AWS CodeDeploy's protocol.
//!
//! A value moves in one direction. [`poll`] takes a host command from the service ([`command`]),
//! fetches its specification and has it verified and read ([`spec`]); [`deployment`] performs it:
//! it fetches a [`revision`], installs its files or runs its scripts; [`report`] reports the
//! outcome to the service. [`daemon`] starts all of this, and [`recovery`] first finishes what a
//! crash interrupted.
//!
//! [`cli`] has the commands for people: `codedeploy-local` does the same work without a service;
//! other commands start, stop, query and examine the agent of this host. The daemon answers them
//! through [`control_socket`]; they print through [`output`].
//!
//! [`metrics`] counts, and [`exporter`] offers the numbers if the settings ask for them.
//!
//! [`slots`] are the two places of a revision on one host, for blue/green deployments.
//! [`deployment_root`] is the folder with all persistent state. [`config`] and [`identity`] define
//! the settings and the host, [`aws`] the access to services.

pub mod acquaintance;
pub mod aws;
pub mod background;
pub mod backoff;
pub mod bounded_read;
pub mod cli;
pub mod command;
pub mod config;
pub mod control_socket;
pub mod daemon;
pub mod deployment;
pub mod deployment_root;
pub mod exporter;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod history;
pub mod identity;
mod memory;
pub mod metrics;
pub mod output;
pub mod path_component;
pub mod pidfile;
pub mod poll;
pub mod recovery;
pub mod report;
pub mod revision;
mod runtime;
pub mod shutdown;
pub mod slots;
pub mod spec;
pub mod systemd;
pub mod telemetry;
pub mod update;
pub mod version;
