//! The decisions about a deployment, without a database and without a clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod plans;
mod states;
