//! What an operator sees of hook scripts. Every script here is real, and so is every process and user.

#![allow(clippy::unwrap_used, reason = "a test fails where it must not go on")]

mod endings;
mod host;
mod inherited;
mod logs;
mod started;

use codedeploy_api::diagnostics::ErrorCode;
use codedeploy_hooks::script::Report;

/// Code, script and message of a report, which must be of the given code.
fn message(report: &Report, code: ErrorCode, script: &str) -> String {
    let payload = report.outcome.diagnostics(&report.log_tail);
    assert_eq!((payload.error_code, payload.script_name.as_str()), (code, script), "{report:?}");
    payload.message
}
