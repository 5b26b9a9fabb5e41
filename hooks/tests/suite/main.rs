//! One host and one revision: real files, real scripts, real users.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod lifecycle;
mod own_process;

/// AppSpec files as users write them, and the messages about them.
mod appspec {
    mod any_input;
    mod hooks;
    mod permissions;
    mod reading;
    mod sections;
    mod strategy;
    mod yaml;
}

/// Files on the host after an Install, after one that failed, and after one that was undone.
mod install {
    mod bed;
    mod failures;
    mod files;
    mod journals;
    mod kill;
    mod killed;
    mod limits;
    mod links;
    mod memory;
    mod model;
    mod mounts;
    mod permissions;
    mod refused;
    mod restore;
    mod scene;
    mod unchanged;
}

/// Hook scripts. Every script is real, and so is every process and user.
mod script {
    mod control_group;
    mod diagnostics;
    mod endings;
    mod host;
    mod inherited;
    mod logs;
    mod started;
}
