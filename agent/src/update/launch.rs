//! Starts a runner so that it survives the agent: as a transient unit where systemd runs the host,
//! else as a process in a session of its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Folder;
use super::runner::WORD;

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the agent's own program cannot be found")]
    Program(#[source] io::Error),
    #[error("{program} cannot be started")]
    Start {
        program: &'static str,
        source: io::Error,
    },
    #[error("systemd-run cannot start the update command: {0}")]
    Unit(String),
}

/// Starts the runner of the update in `folder`.
pub async fn launch(folder: &Folder) -> Result<(), LaunchError> {
    let program = own_program().map_err(LaunchError::Program)?;
    if is_under_systemd() {
        in_unit(&program, folder).await
    } else {
        on_its_own(&program, folder)
    }
}

/// The path of this program, or of the one that has replaced it.
fn own_program() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let bytes = path.as_os_str().as_bytes();
    let kept = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(OsString::from_vec(kept.to_vec()).into())
}

/// Whether systemd runs the host (sd_booted(3)) and would start a unit for this process.
fn is_under_systemd() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/run/systemd/system").is_dir()
}

#[allow(
    clippy::disallowed_methods,
    reason = "a program of the system, and no script of a revision"
)]
async fn in_unit(program: &Path, folder: &Folder) -> Result<(), LaunchError> {
    let start = |source| LaunchError::Start {
        program: "systemd-run",
        source,
    };
    let unit = format!("--unit=codedeploy-agent-update-{:08x}", fastrand::u32(..));
    let output = tokio::process::Command::new("systemd-run")
        .args(["--quiet", &unit])
        .arg("--description=Update of the CodeDeploy agent")
        .arg("--")
        .arg(program)
        .arg(WORD)
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line: String = said.trim().chars().take(500).collect();
    Err(LaunchError::Unit(line))
}

#[allow(
    clippy::disallowed_methods,
    reason = "this program, which makes a session of its own"
)]
fn on_its_own(program: &Path, folder: &Folder) -> Result<(), LaunchError> {
    let start = |source| LaunchError::Start {
        program: "the update's runner",
        source,
    };
    // Dropped, it goes on; the runtime waits for it, if the agent lives that long.
    tokio::process::Command::new(program)
        .arg(WORD)
        .arg(folder.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
        .map_err(start)
}
