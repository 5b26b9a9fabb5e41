//! `codedeploy-local` as a program of its own.

use std::process::ExitCode;

use codedeploy_agent::cli;

fn main() -> ExitCode {
    cli::local(std::env::args_os())
}
