//! `codedeploy-controller`: a self-hosted service that unmodified AWS clients and agents take for AWS CodeDeploy.
//!
//! How a deployment flows:
//!
//! 1. An operator's request arrives at [`http`], is verified, its members are checked by the tables of [`request`], and
//!    it becomes a function of one transaction: in [`registry`] for what operators declare, in [`deployment`] for deployments. What was decided is on disk before it is answered.
//! 2. [`reconcile`] hears of the new deployment, and of everything that happens to it. It asks
//!    [`codedeploy_planner`] – pure – what to do now, and carries that out in one transaction ([`deployment::decide`]).
//! 3. A host's poll, waiting in [`http`], is answered the moment its command is on disk. The host reads the
//!    specification that [`signing`] signed, acknowledges, runs, and completes the command: back to 2.
//!
//! The lifecycle events that move traffic are performed by [`traffic`], and [`alarms`] can stop a deployment.
//!
//! Beside them: [`store`] owns the database, [`privileges`] whose rights are used there, [`fleet`] which hosts a group
//! has, [`credentials`] and [`vault`] who may call, [`keys`] the key files, [`tls`] the certificate, [`events`] tells
//! others what happens, [`objects`] is the folder of revisions and [`pruning`] what deletes old ones, [`config`] the
//! settings, [`logging`] the log, [`cli`] the command line.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic when nobody listens; see cli::console"
)]

pub mod alarms;
pub mod cli;
pub mod config;
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
pub mod new_file;
pub mod objects;
pub mod options;
pub mod outgoing;
pub mod pagination;
pub mod privileges;
pub mod pruning;
pub mod reconcile;
pub mod records;
pub mod registry;
pub mod request;
pub mod revision;
pub mod server;
pub mod service;
pub mod signals;
pub mod signing;
pub mod store;
pub mod tasks;
pub mod tls;
pub mod traffic;
pub mod transaction;
pub mod vault;

pub use cli::main;
