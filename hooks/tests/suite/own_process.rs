//! Tests that measure or change their whole process run in one of their own.

use std::process::Command;

/// Set in the process that a test has for itself.
const OWN: &str = "CODEDEPLOY_TEST_OWN_PROCESS";

/// Whether this process is the test's own. Where it is not, the test runs in such a process, and has passed when this
/// returns.
#[allow(clippy::disallowed_methods, reason = "a test starts itself, and has no other way to be told")]
pub(crate) fn is_here(module: &str, test: &str) -> bool {
    if std::env::var_os(OWN).is_some() {
        return true;
    }
    let (_, module) = module.split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}"), "--include-ignored", "--nocapture"]);
    let output = command.env(OWN, "1").output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    print!("{said}");
    false
}
