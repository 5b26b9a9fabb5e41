//! The local control socket: one JSON line of request, one JSON line of response, then the
//! connection ends.
//!
//! Only root and the agent's own user get responses. Clients are served one after another, each for
//! a short time, so a bad client only delays the next one. While there is no request, the agent
//! does not wake up.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::control_socket::status::{Report, Status};

/// The version of the protocol.
const VERSION: u32 = 1;

/// The longest request, in bytes.
const MAX_REQUEST: u64 = 4096;

/// The longest response that a client reads, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// The time for one client's request and response.
const CLIENT_TIME: Duration = Duration::from_secs(2);

/// The time that a client waits: earlier clients are served first.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The pause after the system could not accept a connection, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    version: u32,
    request: RequestKind,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequestKind {
    Status,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Report>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The agent's end; dropping it removes the socket.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: tokio::net::UnixListener,
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("cannot make the control socket {}", path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error("{} is not a socket; the control socket belongs there: remove what is there", path.display())]
    Obstructed { path: PathBuf },
    #[error("cannot ask the agent through {}", path.display())]
    Ask { path: PathBuf, source: io::Error },
    #[error("the answer of the agent through {} is not readable; is it of another version?", path.display())]
    Answer {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the agent does not answer: {reason}")]
    Refused { reason: String },
}

impl ControlSocket {
    /// Listens at `path`, and replaces a socket of an earlier agent. Needs a runtime, and the lock
    /// on the pid file.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        if path
            .symlink_metadata()
            .is_ok_and(|found| !found.file_type().is_socket())
        {
            return Err(SocketError::Obstructed { path: path.into() });
        }
        let bind = || {
            let new = path.with_extension("sock.new");
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let (_folder, short) = short_path(&new)?;
            let listener = tokio::net::UnixListener::bind(short)?;
            std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            std::fs::rename(&new, path)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| SocketError::Bind {
            path: path.into(),
            source,
        })?;
        Ok(Self {
            path: path.into(),
            listener,
        })
    }

    /// Serves permitted clients for as long as it is polled.
    pub async fn serve(&self, status: &Status) {
        loop {
            match self.listener.accept().await {
                Ok((client, _)) => {
                    let served = tokio::time::timeout(CLIENT_TIME, serve_one(client, status)).await;
                    if let Ok(Err(error)) = served {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the control socket cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // If this fails, the next agent replaces the socket.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve_one(mut client: tokio::net::UnixStream, status: &Status) -> io::Result<()> {
    let user = client.peer_cred()?.uid();
    let answer = if user != 0 && user != nix::unistd::geteuid().as_raw() {
        refusal("only root may ask")
    } else {
        let (reader, _) = client.split();
        let mut line = Vec::new();
        tokio::io::BufReader::new(reader.take(MAX_REQUEST))
            .read_until(b'\n', &mut line)
            .await?;
        answer(&line, status)
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    client.write_all(&text).await?;
    client.shutdown().await
}

fn answer(line: &[u8], status: &Status) -> Answer {
    match serde_json::from_slice::<Request>(line) {
        Ok(Request {
            version: VERSION,
            request: RequestKind::Status,
        }) => Answer {
            version: VERSION,
            status: Some(status.report()),
            error: None,
        },
        Ok(Request { version, .. }) => refusal(&format!(
            "version {version} of a request; this agent knows version {VERSION}"
        )),
        Err(error) => refusal(&format!("this is no request that the agent knows: {error}")),
    }
}

fn refusal(reason: &str) -> Answer {
    Answer {
        version: VERSION,
        status: None,
        error: Some(reason.to_owned()),
    }
}

/// Queries the agent that listens at `path`.
pub fn ask(path: &Path) -> Result<Report, SocketError> {
    let failed = |source| SocketError::Ask {
        path: path.into(),
        source,
    };
    let talk = || {
        let (_folder, short) = short_path(path)?;
        let mut stream = std::os::unix::net::UnixStream::connect(short)?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        let mut line = serde_json::to_vec(&Request {
            version: VERSION,
            request: RequestKind::Status,
        })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut answer)?;
        Ok(answer)
    };
    let line = talk().map_err(failed)?;
    let answer: Answer = serde_json::from_slice(&line).map_err(|source| SocketError::Answer {
        path: path.into(),
        source,
    })?;
    let reason = answer.error.unwrap_or_else(|| "it gave no reason".into());
    answer.status.ok_or(SocketError::Refused { reason })
}

/// Returns a name for `path` that fits into a socket's address of 107 bytes; valid while the
/// returned folder is open.
fn short_path(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected the path of a socket in a folder",
        ));
    };
    let folder = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(folder)?;
    let short = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    Ok((folder, short))
}
