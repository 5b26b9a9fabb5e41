//! What an AppSpec file names inside its bundle: sources and scripts.

use std::path::Path;

use codedeploy_hooks::appspec::{self, AppSpec, Finding};
use codedeploy_hooks::script::{ScriptFinding, inspect};

use super::Severity;

pub(super) fn check(folder: &Path, appspec: &AppSpec, text: &[u8]) -> Vec<(Severity, Finding)> {
    let finding =
        |path: String, message: String| Finding { position: appspec::position(text, &path), path, message };
    let mut findings = Vec::new();
    for (index, mapping) in appspec.files.iter().enumerate() {
        let source = mapping.source.as_path();
        if folder.join(source).symlink_metadata().is_err() {
            let message = format!("{} does not exist in the bundle", source.display());
            findings.push((Severity::Error, finding(format!("files[{index}].source"), message)));
        }
    }
    for (event, scripts) in &appspec.hooks {
        for (index, script) in scripts.iter().enumerate() {
            for found in inspect(folder, script) {
                let Some(severity) = severity(&found) else { continue };
                let message = format!("{}: {found}", script.location.as_path().display());
                findings.push((severity, finding(format!("hooks.{event}[{index}].location"), message)));
            }
        }
    }
    findings
}

/// `None` for what depends on the host: a bundle is often checked elsewhere.
fn severity(finding: &ScriptFinding) -> Option<Severity> {
    match finding {
        ScriptFinding::Missing
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
