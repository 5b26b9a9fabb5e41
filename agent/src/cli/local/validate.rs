//! `codedeploy-local validate`: checks AppSpec files, and bundles that are folders, for people and
//! for CI.

mod bundle;
mod report;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use codedeploy_hooks::appspec::{self, Finding};

use crate::bounded_read;
use crate::deployment::appspec::{read_bounded, where_it_belongs};
use crate::spec::parse::APPSPEC_FILENAMES;
use report::Format;

/// Everything was checked and is valid.
const VALID: u8 = 0;
/// At least one file is not valid.
const INVALID: u8 = 1;
/// Something could not be checked.
const UNCHECKED: u8 = 2;

/// Checks AppSpec files and bundles. Exits with 0 if everything is valid, 1 if something is not,
/// and 2 if a file cannot be read.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// AppSpec files; `-` is the standard input. A folder is a bundle: its scripts and sources are
    /// checked as well.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Treat warnings as errors.
    #[arg(long)]
    strict: bool,
    /// The output format of the findings.
    #[arg(long, value_name = "text|json|github", default_value = "text")]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// The AppSpec file's name inside a bundle.
    #[arg(short = 'A', long, value_name = "NAME", default_value = APPSPEC_FILENAMES[0])]
    appspec_filename: String,
}

/// One file and its findings.
#[derive(Debug)]
struct Checked {
    /// The name that was given; for a bundle, its AppSpec file.
    name: String,
    findings: Result<Vec<(Severity, Finding)>, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
    /// A fact; never an error.
    Note,
}

#[derive(Debug, thiserror::Error)]
enum UnreadableError {
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("has no {name}; {hint}, and -A names another AppSpec file")]
    NoAppSpec { name: String, hint: String },
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let checked: Vec<Checked> = arguments
        .files
        .iter()
        .map(|path| arguments.check(path))
        .collect();
    let format = if arguments.json {
        Format::Json
    } else {
        arguments.format
    };
    let written = io::stdout()
        .lock()
        .write_all(report::report(&checked, format).as_bytes());
    if let Err(error) = written {
        return crate::output::fail(
            "codedeploy-local",
            &crate::cli::local::LocalError::Output(error),
        );
    }
    ExitCode::from(
        checked
            .iter()
            .map(Checked::exit_code)
            .max()
            .unwrap_or(VALID),
    )
}

impl Arguments {
    fn check(&self, path: &Path) -> Checked {
        if path.as_os_str() == "-" {
            return self.checked("<stdin>".into(), read_input(), None);
        }
        if !path.is_dir() {
            return self.checked(path.display().to_string(), read(path), None);
        }
        let named = Some(self.appspec_filename.as_str()).filter(|name| !name.is_empty());
        let names = named.into_iter().chain(APPSPEC_FILENAMES.into_iter().rev());
        let file = names
            .map(|name| path.join(name))
            .find(|file| file.symlink_metadata().is_ok());
        match file {
            Some(file) => {
                let text = read_bounded(path, &file).map_err(UnreadableError::Read);
                self.checked(file.display().to_string(), text, Some(path))
            }
            None => {
                let name = self.appspec_filename.clone();
                let hint = where_it_belongs(path, &name);
                let missing = UnreadableError::NoAppSpec { name, hint };
                self.checked(path.display().to_string(), Err(missing), None)
            }
        }
    }

    fn checked(
        &self,
        name: String,
        text: Result<Vec<u8>, UnreadableError>,
        folder: Option<&Path>,
    ) -> Checked {
        let findings = text.map_err(|error| codedeploy_api::chain::Chain(&error).to_string());
        let findings = findings.map(|text| {
            let mut findings = check(&text, folder);
            if self.strict {
                findings
                    .iter_mut()
                    .filter(|(severity, _)| *severity == Severity::Warning)
                    .for_each(|(severity, _)| *severity = Severity::Error);
            }
            findings.sort_by_key(|(_, finding)| finding.position);
            findings
        });
        Checked { name, findings }
    }
}

impl Checked {
    fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .flatten()
            .filter(|(found, _)| *found == severity)
            .count()
    }

    fn exit_code(&self) -> u8 {
        match &self.findings {
            Err(_) => UNCHECKED,
            Ok(_) if self.count(Severity::Error) > 0 => INVALID,
            Ok(_) => VALID,
        }
    }
}

/// `folder` is the bundle that the text belongs to.
fn check(text: &[u8], folder: Option<&Path>) -> Vec<(Severity, Finding)> {
    let (problems, mut findings) = match appspec::parse(text) {
        Ok(parsed) => {
            let odd = folder.map(|folder| parsed.lint(folder)).unwrap_or_default();
            let warnings = parsed.warnings.into_iter().chain(odd);
            let mut findings: Vec<_> = warnings
                .map(|warning| (Severity::Warning, warning))
                .collect();
            let notes = parsed.notes.into_iter();
            findings.extend(notes.map(|note| (Severity::Note, note)));
            let appspec = parsed.appspec;
            findings.extend(
                folder
                    .into_iter()
                    .flat_map(|folder| bundle::check(folder, &appspec, text)),
            );
            (Vec::new(), findings)
        }
        Err(invalid) => (
            invalid.problems,
            invalid
                .warnings
                .into_iter()
                .map(|warning| (Severity::Warning, warning))
                .collect(),
        ),
    };
    findings.extend(
        problems
            .into_iter()
            .map(|problem| (Severity::Error, problem)),
    );
    findings
}

/// One byte more than an AppSpec may have shows that a file is too large.
const MOST: u64 = appspec::MAX_BYTES as u64 + 1;

fn read(path: &Path) -> Result<Vec<u8>, UnreadableError> {
    bounded_read::open(path)
        .and_then(beginning)
        .map_err(UnreadableError::Read)
}

fn read_input() -> Result<Vec<u8>, UnreadableError> {
    beginning(io::stdin().lock()).map_err(UnreadableError::Read)
}

fn beginning(input: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}
