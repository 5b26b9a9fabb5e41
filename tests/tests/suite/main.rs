//! The programs together, from end to end: real services, agents, buckets and disks.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

mod architecture;
mod documents;
mod exit_codes;
mod gate;
mod help;
mod noted;
mod pages;

/// A controller, its agents and its clients.
mod fleet {
    mod absence;
    mod agent_commands;
    mod agent_updates;
    mod automatic_rollback;
    mod aws_cli;
    mod blue_green;
    mod controller_s3;
    mod deployment;
    mod doctor;
    mod drained_hosts;
    mod identity;
    mod logs;
    mod monitoring;
    mod operator_commands;
    mod pipelines;
    mod private_repository;
    mod public_api;
    mod quickstart;
    mod registration;
    mod rollback_by_hand;
    mod rolling;
    mod script_logs;
    mod traces;
    mod traffic_in_place;
    mod web_identity;
}

/// The web console in a browser.
mod console {
    mod browser;
    mod provider;
}

/// `codedeploy-local` on one machine, without a service.
mod local {
    mod bad_input;
    mod deployment;
    mod earlier;
    mod examples;
    mod machine;
    mod old_kernels;
    mod options;
    mod parity;
    mod plan;
    mod revision_sources;
    mod rollback;
    mod settings;
    mod signals;
    pub(crate) mod slots;
    mod slots_of_root;
    mod state;
    mod surroundings;
    mod terminal;
    mod validate;
}

/// Two slots behind real programs that move traffic between them.
mod traffic {
    mod bed;
    mod haproxy;
    mod machine;
    mod nginx;
    mod shop;

    /// Reads the value of `traffic` as an AppSpec file has it.
    fn traffic(provider: &str) -> codedeploy_hooks::appspec::strategy::Traffic {
        let text = format!(
            "version: 0.0\nos: linux\nfiles:\n  - {{source: /, destination: /srv/app}}\n\
             strategy:\n  type: blue_green\n  link: /srv/app\n  ports: [8001, 8002]\n  traffic:\n    {provider}\n"
        );
        let parsed = codedeploy_hooks::appspec::parse(text.as_bytes()).expect("a valid file");
        parsed.appspec.strategy.expect("it has a strategy").traffic
    }
}

/// Commands between a service and an agent.
mod delivery {
    mod agent_update;
    mod failing_service;
    mod host_files;
    mod host_rollback;
    mod old_kernels;
    mod planning;
    mod random_orders;
    mod readiness;
    mod repeated_commands;
    mod script_logs;
    mod slots;
    mod status;
}

/// Kills, errors and power cuts during a deployment.
mod durability {
    mod changing_host;
    mod clocks;
    mod failing_system_calls;
    mod killed_agent;
    mod killed_deployment;
    mod killed_rollback;
    mod power_cut;
    mod reported_outcomes;
    mod slots;
    mod takeover;
}

/// The packages, on a system of their own.
mod packages {
    mod agent;
    mod archive;
    mod contents;
    mod controller;
    mod manual;
    mod notices;
    mod obstacles;
    mod ready_made;
    mod release;
    mod repository;
    mod rpm;
    mod site;
}
