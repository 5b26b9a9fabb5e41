//! Checks the sources and scripts that an AppSpec file names inside its bundle.

use std::path::Path;

use codedeploy_hooks::appspec::{self, AppSpec, Finding, exists, missing_source};
use codedeploy_hooks::script::{ScriptFinding, inspect};

use crate::cli::local::validate::Severity;

pub(super) fn check(folder: &Path, appspec: &AppSpec, text: &[u8]) -> Vec<(Severity, Finding)> {
    let finding = |path: String, message: String| Finding {
        position: appspec::position(text, &path),
        path,
        message,
    };
    let mut findings = Vec::new();
    for (index, mapping) in appspec.files.iter().enumerate() {
        if !exists(folder, &mapping.source) {
            let (source, hint) = (
                mapping.source.as_path(),
                missing_source(folder, mapping.source.as_path()),
            );
            let message = format!("{} does not exist in the bundle{hint}", source.display());
            findings.push((
                Severity::Error,
                finding(format!("files[{index}].source"), message),
            ));
        }
    }
    for (event, scripts) in &appspec.hooks {
        for (index, script) in scripts.iter().enumerate() {
            for found in inspect(folder, script) {
                let Some(severity) = severity(&found) else {
                    continue;
                };
                let message = format!("{}: {found}", script.location.written());
                findings.push((
                    severity,
                    finding(format!("hooks.{event}[{index}].location"), message),
                ));
            }
        }
    }
    findings
}

/// `None` for a finding that depends on the host: a bundle is often checked elsewhere.
fn severity(finding: &ScriptFinding) -> Option<Severity> {
    match finding {
        ScriptFinding::Missing(_)
        | ScriptFinding::OutsideRevision
        | ScriptFinding::NotAFile
        | ScriptFinding::Unreadable(_)
        | ScriptFinding::CarriageReturn => Some(Severity::Error),
        ScriptFinding::NotExecutable | ScriptFinding::Disguised(_) => Some(Severity::Warning),
        ScriptFinding::NoInterpreter(_)
        | ScriptFinding::ForeignProgram
        | ScriptFinding::User(_)
        | ScriptFinding::CannotBecome(_) => None,
    }
}
