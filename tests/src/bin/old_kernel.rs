//! Runs a program without the system calls of newer kernels; see `codedeploy_tests::old_kernel`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let error = codedeploy_tests::old_kernel::main(std::env::args_os().skip(1));
    eprintln!("old_kernel: {error}");
    ExitCode::FAILURE
}
