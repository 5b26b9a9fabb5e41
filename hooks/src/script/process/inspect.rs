//! Examines a script before its deployment: finds what would keep it from running, without changing
//! anything.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::RunsAs;
use super::account::Account;
use super::executable::{open_script, own_path, read_start};
use super::format::{Disguise, Format};
use crate::appspec::{ArchivePath, Script, missing_script};

/// A finding about a script, for its author or the host's operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptFinding {
    /// With a suggestion; empty, or with "; " in front.
    #[error("does not exist in the revision{0}")]
    Missing(String),
    #[error(
        "is reached through a link that leads out of the revision; put the script itself into it"
    )]
    OutsideRevision,
    #[error("is not a file that could be run")]
    NotAFile,
    #[error("cannot be looked at: {0}")]
    Unreadable(String),
    /// Not an obstacle: the agent makes scripts executable.
    #[error("is not executable; the agent makes it so, but chmod +x says what is meant")]
    NotExecutable,
    #[error("its first line ends in a carriage return; save it with Unix line endings")]
    CarriageReturn,
    /// On this host; another one may have it.
    #[error("its first line names the interpreter {}, which does not exist on this host", .0.display())]
    NoInterpreter(PathBuf),
    #[error("is a program for another processor; build it for this host's")]
    ForeignProgram,
    #[error("{0}")]
    Disguised(Disguise),
    /// The user may be created by an earlier script.
    #[error("{0}")]
    User(String),
    /// The agent lacks the right, or sudo, to become the script's user.
    #[error("{0}")]
    CannotBecome(String),
}

/// Examines `script` in the revision `archive`, and its user. Changes nothing, and follows no link
/// out of the revision.
pub fn inspect(archive: &Path, script: &Script) -> Vec<ScriptFinding> {
    let mut findings = inspect_file(archive, &script.location);
    match script.runas.as_deref().map(Account::find).transpose() {
        Err(error) => findings.push(ScriptFinding::User(error.to_string())),
        Ok(account) => {
            if let Err(reason) = RunsAs::decide(geteuid(), account, script.sudo) {
                findings.push(ScriptFinding::CannotBecome(reason));
            }
        }
    }
    findings
}

fn inspect_file(archive: &Path, location: &ArchivePath) -> Vec<ScriptFinding> {
    let file = match open_script(archive, location.as_path()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => {
            return vec![ScriptFinding::Missing(missing_script(archive, location))];
        }
        Err(Errno::XDEV) => return vec![ScriptFinding::OutsideRevision],
        Err(error) => return vec![ScriptFinding::Unreadable(error.to_string())],
    };
    let mode = match rustix::fs::fstat(&file) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => stat.st_mode,
        Ok(_) => return vec![ScriptFinding::NotAFile],
        Err(error) => return vec![ScriptFinding::Unreadable(error.to_string())],
    };
    let mut findings = Vec::new();
    if mode & 0o111 == 0 {
        findings.push(ScriptFinding::NotExecutable);
    }
    // If the caller cannot read it, the agent may still be able to run it: no finding.
    let start = read_start(&own_path(file.as_fd())).unwrap_or_default();
    let native = read_start(Path::new("/proc/self/exe")).unwrap_or_default();
    findings.extend(judge(&Format::of(&start, &native)));
    findings
}

fn judge(format: &Format) -> Option<ScriptFinding> {
    match format {
        Format::Interpreted {
            carriage_return: true,
            ..
        } => Some(ScriptFinding::CarriageReturn),
        Format::Interpreted { interpreter, .. } if !interpreter.exists() => {
            let named = !interpreter.as_os_str().as_bytes().is_empty();
            named.then(|| ScriptFinding::NoInterpreter(interpreter.clone()))
        }
        Format::Program { foreign: true } => Some(ScriptFinding::ForeignProgram),
        Format::Plain { disguise } => disguise.map(ScriptFinding::Disguised),
        Format::Interpreted { .. } | Format::Program { .. } => None,
    }
}
