//! Shared parts of end-to-end tests and the quickstart: real programs as child processes, in
//! temporary folders, on loopback.
//!
//! * [`programs`] finds and runs the agent, the controller and others, [`roles`] contains them;
//!   [`wait`] waits for their results;
//! * [`service`] is a running controller and clients for it; [`host`] a registered host with a
//!   running agent;
//! * [`stub`] is a command service that misbehaves on demand, and [`stub::lone`] an agent that
//!   listens to it;
//! * [`cloud`] stands in for AWS where a controller cannot, with the [`metadata`] of an EC2
//!   instance and a [`proxy`];
//! * [`bucket`] is an S3 server, [`s3_stub`] one that fails on purpose; [`bundle`] makes revisions;
//!   [`tree`] compares folders;
//! * [`issuer`] signs identity tokens, as CI systems do;
//! * [`scripts`] are revisions that fail or wait on request; [`balancer`] is a real HAProxy with
//!   clients that count failures, [`site`] the web servers behind it; [`nginx`] is a real nginx, and
//!   [`visitors`] count failures of connections that are kept, too; [`shop`] is an example that is
//!   deployed behind them;
//! * [`fleet`] combines all of it, [`cases`] runs many cases concurrently; [`swarm`] is thousands
//!   of simulated hosts, [`machine`] a Debian system with its own systemd, for packages;
//! * [`chromium`] is a real browser, [`scene`] a fleet for it to look at;
//! * [`strike`] kills a program, or fails it, at one system call; [`blockdev`] is a disk whose
//!   power can be cut, [`mounts`] are file systems of one test; [`old_kernel`] rejects newer system
//!   calls; [`pair`] is the deployment that they disturb, and [`sweep`] tries every point and
//!   counts;
//! * [`figures`] prints the figures of a benchmark.

#![allow(
    clippy::disallowed_methods,
    reason = "this crate is the outside of the system: it starts its programs"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness that cannot set up has nothing else to do"
)]

pub mod balancer;
pub mod blockdev;
pub mod bucket;
pub mod bundle;
pub mod cases;
pub mod chromium;
pub mod cloud;
pub mod figures;
pub mod fleet;
pub mod host;
pub mod issuer;
pub mod machine;
pub mod metadata;
pub mod mounts;
pub mod nginx;
pub mod old_kernel;
pub mod pair;
pub mod programs;
pub mod provider;
pub mod proxy;
pub mod roles;
pub mod s3_stub;
pub mod scene;
pub mod scripts;
pub mod service;
pub mod shop;
pub mod site;
pub mod strike;
pub mod stub;
pub mod swarm;
pub mod sweep;
pub mod tree;
pub mod visitors;
pub mod wait;
