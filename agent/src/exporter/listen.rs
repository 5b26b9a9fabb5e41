//! A small HTTP server for one page.
//!
//! A few clients are served at once, each for a short time, so that a bad client does not delay
//! others. While nobody asks, the agent does not wake up.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use codedeploy_api::chain::Chain;
use codedeploy_support::metrics::CONTENT_TYPE;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

use crate::metrics::place::MetricsPlace;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8192;

/// The end of the head of a request.
const END: &[u8] = b"\r\n\r\n";

/// The time for one client's request and response.
const CLIENT_TIME: Duration = Duration::from_secs(5);

/// The number of clients that are served at once.
const CLIENTS: usize = 32;

/// The pause before the next attempt to listen at an address or a path that is in use.
const RETRY: Duration = Duration::from_secs(10);

/// The pause after the system could not accept a connection, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The reason why nobody can ask for the metrics.
#[derive(Debug, thiserror::Error)]
enum ListenError {
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

/// A connection to a client.
trait Client: AsyncRead + AsyncWrite + Unpin + Send {}

impl<C: AsyncRead + AsyncWrite + Unpin + Send> Client for C {}

impl Listener {
    /// Listens, as soon as that is possible: what another program has in use does not keep the agent
    /// from its work.
    pub(super) async fn open(place: &MetricsPlace) -> Self {
        let mut fails = false;
        loop {
            match Self::bind(place) {
                Ok(listener) => return listener,
                Err(error) => {
                    if !std::mem::replace(&mut fails, true) {
                        tracing::warn!(error = %Chain(&error), "the metrics are not offered; trying again");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Listens; a socket of an earlier agent is replaced. Needs a runtime, and the lock on the pid
    /// file.
    fn bind(place: &MetricsPlace) -> Result<Self, ListenError> {
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
    pub(super) async fn serve(&self, text: impl AsyncFn() -> String) {
        let mut clients = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.accept(), if clients.len() < CLIENTS => match accepted {
                    Ok(client) => clients.push(within(client, &text)),
                    Err(error) => {
                        tracing::debug!(%error, "no reader of the metrics can be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(served) = clients.next() => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "a reader of the metrics went away");
                    }
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Client>> {
        Ok(match &self.accepts {
            Accepts::Tcp(listener) => Box::new(listener.accept().await?.0),
            Accepts::Unix(listener) => Box::new(listener.accept().await?.0),
        })
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
    text: &impl AsyncFn() -> String,
) -> io::Result<()> {
    tokio::time::timeout(CLIENT_TIME, serve_one(client, text))
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn serve_one(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    text: &impl AsyncFn() -> String,
) -> io::Result<()> {
    let head = head(&mut client).await?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = path.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", text().await),
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
    loop {
        // The end may have begun with the bytes before.
        let begin = head.len().saturating_sub(END.len() - 1);
        if head.len() >= MAX_HEAD || client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let new = head.get(begin..).unwrap_or_default();
        if new.windows(END.len()).any(|bytes| bytes == END) {
            return Ok(String::from_utf8_lossy(&head).into_owned());
        }
    }
}
