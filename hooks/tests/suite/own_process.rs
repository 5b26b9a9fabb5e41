//! Runs tests that measure or change their whole process in a process of their own.

use std::process::Command;

/// Set in a test's own process.
const OWN: &str = "CODEDEPLOY_TEST_OWN_PROCESS";

/// Whether this is the test's own process. If not, runs the test in such a process, and returns
/// after it has passed.
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts itself, and has no other way to be told"
)]
pub(crate) fn is_here(module: &str, test: &str) -> bool {
    if std::env::var_os(OWN).is_some() {
        return true;
    }
    let (_, module) = module.split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        &format!("{module}::{test}"),
        "--include-ignored",
        "--nocapture",
    ]);
    let output = command.env(OWN, "1").output().unwrap();
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    print!("{said}");
    false
}
