//! What end-to-end tests and the quickstart share: real programs as child processes, in temporary folders, on loopback.
//!
//! * [`programs`] finds and runs the agent, the controller and others; [`wait`] waits for what they do;
//! * [`service`] is a running controller and clients for it; [`host`] a registered host with a running agent;
//! * [`bucket`] is an S3 server; [`bundle`] makes revisions; [`tree`] compares folders;
//! * [`fleet`] is all of it together; [`machine`] is a Debian system with a systemd of its own, for packages.

#![allow(
    clippy::disallowed_methods,
    reason = "this crate is the outside of the system: it starts its programs"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness that cannot set up has nothing else to do"
)]

pub mod bucket;
pub mod bundle;
pub mod fleet;
pub mod host;
pub mod machine;
pub mod programs;
pub mod service;
pub mod tree;
pub mod wait;
