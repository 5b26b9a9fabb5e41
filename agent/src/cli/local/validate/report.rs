//! The three output formats of findings.

use codedeploy_hooks::appspec::Finding;
use codedeploy_support::plain::harmless;
use serde_json::{Value, json};

use crate::cli::local::validate::{Checked, Severity};
use crate::output;

/// The version of the JSON format: new members may be added.
const VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// `file:line:column: error: what`, which editors understand.
    Text,
    Json,
    /// Annotations of GitHub Actions.
    Github,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

pub(super) fn report(checked: &[Checked], format: Format) -> String {
    match format {
        Format::Json => output::json(&document(checked)) + "\n",
        Format::Text => lines(checked, text_line) + &summary(checked),
        Format::Github => lines(checked, annotation) + &summary(checked),
    }
}

/// One line per finding; an unreadable file is an error for the whole file.
fn lines(checked: &[Checked], line: impl Fn(&str, Severity, &Finding) -> String) -> String {
    let mut text = String::new();
    for file in checked {
        match &file.findings {
            Ok(findings) => {
                findings
                    .iter()
                    .for_each(|(severity, finding)| text += &line(&file.name, *severity, finding));
            }
            Err(error) => {
                let finding = Finding {
                    position: None,
                    path: String::new(),
                    message: error.clone(),
                };
                text += &line(&file.name, Severity::Error, &finding);
            }
        }
    }
    text
}

fn text_line(file: &str, severity: Severity, finding: &Finding) -> String {
    let at = finding
        .position
        .map(|at| format!("{}:{}:", at.line, at.column))
        .unwrap_or_default();
    harmless(&format!(
        "{file}:{at} {}: {}",
        severity.name(),
        message(finding)
    ))
    .into_owned()
        + "\n"
}

/// See "Workflow commands for GitHub Actions".
fn annotation(file: &str, severity: Severity, finding: &Finding) -> String {
    let data = |text: &str| harmless(text).replace('%', "%25");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let at = finding
        .position
        .map(|at| format!(",line={},col={}", at.line, at.column))
        .unwrap_or_default();
    format!(
        "::{} file={}{at},title=AppSpec::{}\n",
        match severity {
            Severity::Note => "notice",
            other => other.name(),
        },
        property(file),
        data(&message(finding))
    )
}

fn message(finding: &Finding) -> String {
    if finding.path.is_empty() {
        finding.message.clone()
    } else {
        format!("{}: {}", finding.path, finding.message)
    }
}

fn summary(checked: &[Checked]) -> String {
    let counted = |number: usize, word: &str| match number {
        1 => format!("1 {word}"),
        number => format!("{number} {word}s"),
    };
    let count = |severity| {
        checked
            .iter()
            .map(|file| file.count(severity))
            .sum::<usize>()
    };
    let unread = checked.iter().filter(|file| file.findings.is_err()).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut line = format!(
        "{}: {}, {}",
        counted(checked.len(), "file"),
        counted(errors, "error"),
        counted(warnings, "warning")
    );
    if unread > 0 {
        line += &format!(", {unread} not readable");
    }
    line + "\n"
}

fn document(checked: &[Checked]) -> Value {
    let finding = |(severity, finding): &(Severity, Finding)| {
        json!({
            "severity": severity.name(),
            "line": finding.position.map(|at| at.line),
            "column": finding.position.map(|at| at.column),
            "path": finding.path,
            "message": finding.message,
        })
    };
    let files = checked.iter().map(|file| match &file.findings {
        Ok(findings) => json!({
            "file": file.name,
            "valid": file.count(Severity::Error) == 0,
            "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "file": file.name, "valid": false, "error": error, "findings": [] }),
    });
    json!({
        "version": VERSION,
        "valid": checked.iter().all(|file| file.exit_code() == crate::cli::local::validate::VALID),
        "files": files.collect::<Vec<_>>(),
    })
}
