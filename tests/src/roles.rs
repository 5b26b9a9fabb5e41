//! One executable that contains the controller and the agent, and starts itself in these roles, as
//! real processes.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::programs::Programs;

const FLAG: &str = "--as";

/// The programs, as roles of the running executable.
pub fn programs() -> Programs {
    Programs::of_this_executable(FLAG)
}

/// Plays the role in the arguments; `None` if there is none.
pub fn play(arguments: &[OsString]) -> Option<ExitCode> {
    // The agent's role starts this executable as the keeper of scripts.
    let kept = codedeploy_agent::cli::keep_script(arguments.iter().cloned());
    if kept.is_some() {
        return kept;
    }
    let [_, flag, role, ..] = arguments else {
        return None;
    };
    let arguments = arguments.iter().skip(2).cloned();
    match role.to_str() {
        _ if flag != FLAG => None,
        Some("codedeploy-controller") => Some(codedeploy_controller::main(arguments)),
        _ => Some(codedeploy_agent::cli::main(arguments)),
    }
}
