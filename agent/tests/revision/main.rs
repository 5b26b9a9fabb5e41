//! What DownloadBundle and the events around it leave in the deployment's folder, whoever ran the host before.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod custody;
mod host;
mod local;
mod origin;
mod reuse;
mod takeover;
