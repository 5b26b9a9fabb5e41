//! A deployment agent that speaks AWS CodeDeploy's protocol.
//!
//! One value moves forward. [`poll`] takes a host command from the service ([`command`]), fetches its specification
//! and has it verified and read ([`spec`]); [`deployment`] performs it, fetching a [`revision`], installing its files
//! or running its scripts; [`report`] tells the service how it ended. [`local`] does the same without a service.
//!
//! [`recovery`] ends what a crash interrupted, before anything else happens.
//!
//! [`control`] starts, stops and asks the agent of this host; [`doctor`] says what is wrong with it, [`logs`] what it
//! did; [`register`] makes the host known to a service.
//!
//! [`config`] and [`identity`] say who and where, [`aws`] how services are reached; [`cli`] is the command line,
//! [`console`] how it speaks.

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
pub mod errors;
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
