//! `codedeploy-controller`: a self-hosted service that unmodified AWS clients and agents can use in
//! place of AWS CodeDeploy.
//!
//! The flow of a deployment:
//!
//! 1. An operator's request arrives at [`http`] and is verified. The tables of [`request`] check
//!    its members, and it becomes a function of one transaction: in [`registry`] for operators'
//!    objects, in [`deployment`] for deployments. The decision is on disk before the response.
//! 2. [`reconcile`] is notified of the new deployment, and of every change of it. It asks
//!    [`codedeploy_planner`], which is pure, for the next move, and carries that out in one
//!    transaction ([`deployment::decide`]).
//! 3. A host's poll, waiting in [`http`], is answered when its command is on disk. The host reads
//!    the specification that [`signing`] signed, acknowledges, runs, and completes the command:
//!    back to 2.
//!
//! [`traffic`] performs the lifecycle events that move traffic, and [`alarms`] can stop a
//! deployment.
//!
//! Beside them: [`store`] owns the database, [`privileges`] whose rights are used there, [`fleet`]
//! which hosts a group has, [`credentials`] and [`vault`] who may call, [`web_identity`] verifies the
//! tokens of CI systems, [`keys`] the key files,
//! [`tls`] the certificate, [`events`] tells others what happens, [`objects`] is the folder of
//! revisions and [`pruning`] what deletes old ones, [`config`] the settings, [`logging`] the log,
//! [`metrics`] the numbers, [`traces`] sends traces, `console` the pages for browsers, [`cli`] the command line. [`client`] calls the API of a running service
//! for the commands of operators; [`signature`] signs for both sides.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic when nobody listens; see cli::output"
)]

pub mod alarms;
pub mod cli;
pub mod client;
pub mod config;
mod console;
pub mod credentials;
pub mod deployment;
pub mod error;
pub mod events;
pub mod fleet;
pub mod http;
pub mod identity;
mod ids;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod new_file;
pub mod objects;
pub mod options;
pub mod outgoing;
pub mod pagination;
pub mod privileges;
pub mod pruning;
mod recent;
pub mod reconcile;
pub mod records;
pub mod registry;
pub mod request;
pub mod revision;
mod s3_document;
pub mod server;
pub mod service;
pub mod signals;
pub mod signature;
pub mod signing;
pub mod store;
pub mod tasks;
pub mod tls;
pub mod traces;
pub mod traffic;
pub mod transaction;
pub mod vault;
pub mod web_identity;
mod words;

pub use cli::main;
