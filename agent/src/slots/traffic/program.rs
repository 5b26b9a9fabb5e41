//! Runs a program of the host that answers soon, such as `systemctl` or `nginx -t`.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use codedeploy_support::plain::harmless;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The folders of programs of the host: those of administrators are not in every PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The largest output that is read, in bytes; a program that writes more is ended.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;

/// The number of characters of an output that an error contains.
const MAX_SHOWN: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("{program:?} cannot be started")]
    Start { program: String, source: io::Error },
    #[error("{command:?} did not end within {} s", .limit.as_secs())]
    TooLong { command: String, limit: Duration },
    #[error("{command:?} failed ({status}): {output}")]
    Failed {
        command: String,
        status: String,
        output: String,
    },
}

/// Runs a program to its end, at most for `limit`; returns its standard output.
pub(in crate::slots) async fn run<A: AsRef<str>>(
    program: &str,
    arguments: &[A],
    limit: Duration,
) -> Result<String, ProgramError> {
    let words = || {
        [program]
            .into_iter()
            .chain(arguments.iter().map(AsRef::as_ref))
    };
    let command = || words().collect::<Vec<_>>().join(" ");
    let start = |source| ProgramError::Start {
        program: program.to_owned(),
        source,
    };
    let mut child = spawn(program, arguments).map_err(start)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let end = async {
        let (out, err) = tokio::join!(read(out), read(err));
        (child.wait().await, out, err)
    };
    let Ok((status, out, err)) = tokio::time::timeout(limit, end).await else {
        let command = command();
        return Err(ProgramError::TooLong { command, limit });
    };
    let status = status.map_err(start)?;
    if status.success() {
        return Ok(out);
    }
    let said = if err.trim().is_empty() { out } else { err };
    let shown: String = harmless(said.trim()).chars().take(MAX_SHOWN).collect();
    Err(ProgramError::Failed {
        command: command(),
        status: status.to_string(),
        output: shown,
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "a program of the system, and no script of a revision"
)]
fn spawn<A: AsRef<str>>(program: &str, arguments: &[A]) -> io::Result<tokio::process::Child> {
    tokio::process::Command::new(program)
        .args(arguments.iter().map(AsRef::as_ref))
        .env_clear()
        .envs([("PATH", PATH), ("LC_ALL", "C")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Reads a stream to its end; beyond the limit, the pipe fills and the program waits for its end.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
