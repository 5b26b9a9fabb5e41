//! The keeper of the scripts in this crate's tests. The agent's own programs act as keepers
//! themselves.

use std::process::ExitCode;

use codedeploy_hooks::script::keep_script;

fn main() -> ExitCode {
    keep_script(std::env::args_os()).unwrap_or(ExitCode::FAILURE)
}
