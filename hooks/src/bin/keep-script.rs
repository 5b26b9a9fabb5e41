//! Watches over the scripts of this crate's tests. The agent's programs do so by themselves.

use std::process::ExitCode;

use codedeploy_hooks::script::keep_script;

fn main() -> ExitCode {
    keep_script(std::env::args_os()).unwrap_or(ExitCode::FAILURE)
}
