//! The agent on one host: its commands, the revisions that it fetches, the archives that it
//! unpacks.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

/// Unpacked bundles: the resulting files, and the rejected bundles.
mod archive {
    mod bundle;
    mod damaged;
    mod faithful;
    mod flatten;
    mod foreign;
    mod hostile;
    mod limits;
    mod readers;
}

/// The commands for people, each run on a host of its own.
mod commands {
    mod control;
    mod doctor;
    mod host;
    mod journal;
    mod logs;
}

/// The folder of a deployment, whichever agent ran on the host before.
mod revision {
    mod host;
    mod local;
    mod origin;
    mod ownership;
    mod reuse;
    mod takeover;
}
