//! The controller from outside: the real program, real clients, and scripted agents.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod support;

/// The public API, as its clients see it.
mod api {
    mod groups_and_instances;
    mod invalid_input;
    mod own_api;
    mod protocols;
    mod resources;
    mod web_identity;
}

/// The administrator's commands, settings, keys and log.
mod admin {
    mod audit;
    mod commands;
    mod github_tokens;
    mod keys_and_certificates;
    mod logs;
    mod metrics;
    mod monitoring;
    mod operator_commands;
    mod operator_mistakes;
    mod revision_diff;
    mod settings;
    mod trusted_authorities;
}

/// The web console, as a browser without script uses it.
mod console {
    mod access;
    mod comparison;
    mod deploy;
    mod deployment;
    mod fleet;
    mod pages;
    mod provider;
    mod strangers;
}

/// Deployments from their creation to their end.
mod rollout {
    mod agent_updates;
    mod automation;
    mod blue_green_history;
    mod blue_green_traffic;
    mod drained_hosts;
    mod host_commands;
    mod interruptions;
    mod lost_hosts;
    mod many_hosts;
    mod notifications;
    mod retention;
    mod specification;
    mod traces;
    mod verdicts;
}

/// Malicious or broken clients and dependencies.
mod hostile {
    mod limited_keys;
    mod monitors_and_balancers;
    mod script_logs;
    mod signatures_and_roles;
    mod slow_clients;
    mod unauthenticated;
}

/// The data directory and its database.
mod storage {
    mod data_directory;
    mod database;
}
