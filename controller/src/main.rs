//! The program `codedeploy-controller`.

use std::process::ExitCode;

fn main() -> ExitCode {
    codedeploy_controller::main(std::env::args_os())
}
