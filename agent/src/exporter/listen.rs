//! A small HTTP server for one page.
//!
//! Clients are served one after another, each for a short time, so a bad client only delays the
//! next one. While nobody asks, the agent does not wake up.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use codedeploy_support::metrics::CONTENT_TYPE;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

use crate::metrics::place::MetricsPlace;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8192;

/// The time for one client's request and response.
const CLIENT_TIME: Duration = Duration::from_secs(5);

/// The pause after the system could not accept a connection, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The reason why nobody can ask for the metrics.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address} (metrics_listen)")]
    Address {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot make the socket {} (metrics_listen)", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("{} is not a socket; the socket of metrics_listen belongs there: remove what is there", .0.display())]
    Obstructed(PathBuf),
}

/// The agent's end; dropping it removes a socket.
#[derive(Debug)]
pub(super) struct Listener {
    accepts: Accepts,
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Accepts {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens; a socket of an earlier agent is replaced. Needs a runtime, and the lock on the pid
    /// file.
    pub(super) fn bind(place: &MetricsPlace) -> Result<Self, ListenError> {
        match place {
            MetricsPlace::Loopback(address) => {
                let address = *address;
                let failed = |source| ListenError::Address { address, source };
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = TcpListener::from_std(listener).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                tracing::info!(%address, "metrics are offered");
                Ok(Listener {
                    accepts: Accepts::Tcp(listener),
                    path: None,
                })
            }
            MetricsPlace::Socket(path) => {
                let failed = |source| ListenError::Socket {
                    path: path.clone(),
                    source,
                };
                match path.symlink_metadata() {
                    Ok(found) if !found.file_type().is_socket() => {
                        return Err(ListenError::Obstructed(path.clone()));
                    }
                    Ok(_) => std::fs::remove_file(path).map_err(failed)?,
                    Err(_) => {}
                }
                let listener = UnixListener::bind(path).map_err(failed)?;
                // As everybody on this host may ask a loopback address; the folder can restrict it.
                std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)?;
                Ok(Listener {
                    accepts: Accepts::Unix(listener),
                    path: Some(path.clone()),
                })
            }
        }
    }

    /// Serves clients for as long as it is polled.
    pub(super) async fn serve(&self, text: impl Fn() -> String) {
        loop {
            let served = match &self.accepts {
                Accepts::Tcp(listener) => match listener.accept().await {
                    Ok((client, _)) => Ok(within(client, &text).await),
                    Err(error) => Err(error),
                },
                Accepts::Unix(listener) => match listener.accept().await {
                    Ok((client, _)) => Ok(within(client, &text).await),
                    Err(error) => Err(error),
                },
            };
            match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a reader of the metrics went away"),
                Err(error) => {
                    tracing::debug!(%error, "no reader of the metrics can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If this fails, the next agent replaces the socket.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn within(
    client: impl AsyncRead + AsyncWrite + Unpin,
    text: &impl Fn() -> String,
) -> io::Result<()> {
    tokio::time::timeout(CLIENT_TIME, serve_one(client, text))
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn serve_one(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    text: &impl Fn() -> String,
) -> io::Result<()> {
    let head = head(&mut client).await?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = path.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", text()),
        ("GET" | "HEAD", _) => ("404 Not Found", "the metrics are at /metrics\n".into()),
        _ => ("405 Method Not Allowed", "expected GET /metrics\n".into()),
    };
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    if method != "HEAD" {
        answer.push_str(&body);
    }
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

/// Reads up to the empty line that ends the head of a request.
async fn head(client: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD || client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
