//! Reads a text and returns the findings about it.

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{AppSpec, Finding, Invalid, Permission, Script, parse};

pub(crate) const HEAD: &str = "version: 0.0\nos: linux\n";

pub(crate) fn told(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// Returns the AppSpec of a valid file, and its warnings.
#[track_caller]
pub(crate) fn read(text: impl AsRef<[u8]>) -> (AppSpec, Vec<String>) {
    match parse(text.as_ref()) {
        Ok(parsed) => (parsed.appspec, told(&parsed.warnings)),
        Err(invalid) => panic!("{}\n{invalid}", String::from_utf8_lossy(text.as_ref())),
    }
}

/// Returns the AppSpec of a file without findings.
#[track_caller]
pub(crate) fn clean(text: impl AsRef<[u8]>) -> AppSpec {
    let (appspec, warnings) = read(&text);
    assert_eq!(
        warnings,
        Vec::<String>::new(),
        "{}",
        String::from_utf8_lossy(text.as_ref())
    );
    appspec
}

#[track_caller]
pub(crate) fn refused(text: impl AsRef<[u8]>) -> Invalid {
    match parse(text.as_ref()) {
        Ok(parsed) => panic!(
            "{}\n{:?}",
            String::from_utf8_lossy(text.as_ref()),
            parsed.appspec
        ),
        Err(invalid) => {
            assert!(!invalid.problems.is_empty());
            invalid
        }
    }
}

/// Returns the only problem of a file.
#[track_caller]
pub(crate) fn problem(text: impl AsRef<[u8]>) -> String {
    let problems = told(&refused(text).problems);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

/// A permission for `/srv/app` with `line` in it.
pub(crate) fn with_permission(line: &str) -> String {
    format!("{HEAD}permissions:\n  - object: /srv/app\n    {line}\n")
}

pub(crate) fn with_script(line: &str) -> String {
    format!("{HEAD}hooks:\n  ApplicationStart:\n    - location: start.sh\n      {line}\n")
}

#[track_caller]
pub(crate) fn permission(line: &str) -> Permission {
    clean(with_permission(line)).permissions.remove(0)
}

#[track_caller]
pub(crate) fn script(line: &str) -> Script {
    clean(with_script(line)).scripts(&LifecycleEvent::ApplicationStart)[0].clone()
}
