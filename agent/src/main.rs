//! `codedeploy-agent`; under the name `codedeploy-local`, as a link to it, the local command.

use std::process::ExitCode;

use codedeploy_agent::cli;

fn main() -> ExitCode {
    cli::keep_script(std::env::args_os())
        .or_else(|| cli::run_update(std::env::args_os()))
        .unwrap_or_else(|| cli::main(std::env::args_os()))
}
