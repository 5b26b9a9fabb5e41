//! Runs a program and injects one fault at a system call; see `codedeploy_tests::strike`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match codedeploy_tests::strike::tracer::main(std::env::args_os().skip(1)) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("strike: {error}");
            ExitCode::FAILURE
        }
    }
}
