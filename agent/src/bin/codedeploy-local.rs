//! `codedeploy-local` as a separate program.

use std::process::ExitCode;

use codedeploy_agent::cli;

fn main() -> ExitCode {
    cli::keep_script(std::env::args_os()).unwrap_or_else(|| cli::local(std::env::args_os()))
}
