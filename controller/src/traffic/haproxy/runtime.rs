//! HAProxy's runtime API (HAProxy Management Guide, "Unix Socket commands"), called on short
//! connections.
//!
//! Any number of instances can be drained at a time, but HAProxy accepts few connections, so these
//! are limited, and all waiters for a backend share one query.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

#[derive(Debug, thiserror::Error)]
pub(in crate::traffic) enum HaproxyError {
    #[error("HAProxy at {socket} cannot run {command:?}")]
    Tell {
        command: String,
        socket: String,
        source: io::Error,
    },
    #[error("HAProxy answered {answer:?} to {command:?}")]
    Refused { command: String, answer: String },
    #[error("HAProxy at {socket} shows no server {server:?} in the backend {backend:?}")]
    NoServer {
        socket: String,
        backend: String,
        server: String,
    },
}

/// The timeout of a response.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest response: a server takes half a KiB.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// The number of connections at a time; HAProxy accepts ten by default (`stats maxconn`), and
/// others need some.
const CONNECTIONS: usize = 4;
/// The time that HAProxy may be unreachable, for example during a restart; commands are retried
/// after each pause.
const AWAY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

/// The runtime API of one HAProxy.
#[derive(Debug)]
pub(super) struct Runtime {
    connections: Semaphore,
    seen: Mutex<Option<Look>>,
}

/// A query of a backend.
#[derive(Debug, Clone)]
struct Look {
    began: Instant,
    servers: Result<Arc<HashMap<String, Server>>, Arc<HaproxyError>>,
}

/// The state of a server that HAProxy reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    status: String,
    /// Running and queued.
    pub(super) sessions: u64,
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime {
            connections: Semaphore::new(CONNECTIONS),
            seen: Mutex::new(None),
        }
    }
}

impl Runtime {
    /// Returns the state of a server after `told`.
    pub(super) async fn look(
        &self,
        socket: &str,
        backend: &str,
        server: &str,
        told: Instant,
    ) -> Result<Server, Arc<HaproxyError>> {
        let servers = {
            let mut seen = self.seen.lock().await;
            match seen.as_ref() {
                Some(look) if look.began >= told => look.servers.clone(),
                _ => {
                    let began = Instant::now();
                    let servers = self
                        .servers(socket, backend)
                        .await
                        .map(Arc::new)
                        .map_err(Arc::new);
                    *seen = Some(Look {
                        began,
                        servers: servers.clone(),
                    });
                    servers
                }
            }
        };
        servers?.get(server).cloned().ok_or_else(|| {
            let (socket, backend, server) =
                (socket.to_owned(), backend.to_owned(), server.to_owned());
            Arc::new(HaproxyError::NoServer {
                socket,
                backend,
                server,
            })
        })
    }

    async fn servers(
        &self,
        socket: &str,
        backend: &str,
    ) -> Result<HashMap<String, Server>, HaproxyError> {
        let command = format!("show stat {backend} 4 -1");
        let answer = self.tell(socket, &command).await?;
        read(&answer).ok_or_else(|| HaproxyError::Refused {
            command,
            answer: answer.trim().chars().take(200).collect(),
        })
    }

    /// Sends one command on its own connection, as HAProxy expects. Waits for an unreachable
    /// HAProxy.
    pub(super) async fn tell(&self, socket: &str, command: &str) -> Result<String, HaproxyError> {
        let since = Instant::now();
        loop {
            let answer = match self.connections.acquire().await {
                Ok(_connection) => exchange(socket, command).await,
                Err(closed) => Err(io::Error::other(closed)),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(source) if since.elapsed() >= AWAY => {
                    let (command, socket) = (command.to_owned(), socket.to_owned());
                    return Err(HaproxyError::Tell {
                        command,
                        socket,
                        source,
                    });
                }
                Err(error) => {
                    tracing::debug!(socket, command, %error, "HAProxy is unreachable");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn exchange(socket: &str, command: &str) -> io::Result<String> {
    let exchange = async {
        if socket.starts_with('/') {
            converse(UnixStream::connect(socket).await?, command).await
        } else {
            converse(TcpStream::connect(socket).await?, command).await
        }
    };
    tokio::time::timeout(ANSWER, exchange)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", ANSWER.as_secs()),
            ))
        })
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    command: &str,
) -> io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    // Every response ends with an empty line.
    if answer != b"\n" && !answer.ends_with(b"\n\n") {
        let found = format!(
            "the answer ends after {} bytes, before its last line",
            answer.len()
        );
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, found));
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Reads `show stat`: a header with the columns' names, and a line for each server.
fn read(statistics: &str) -> Option<HashMap<String, Server>> {
    let mut lines = statistics.lines().filter(|line| !line.is_empty());
    let header: Vec<_> = lines.next()?.strip_prefix("# ")?.split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (name, status, current, queued) = (
        column("svname")?,
        column("status")?,
        column("scur")?,
        column("qcur")?,
    );
    let server = |line: &str| {
        let row: Vec<_> = line.split(',').collect();
        let number = |column: usize| {
            row.get(column)
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let server = Server {
            status: (*row.get(status)?).to_owned(),
            sessions: number(current).saturating_add(number(queued)),
        };
        Some(((*row.get(name)?).to_owned(), server))
    };
    lines.map(server).collect()
}

impl Server {
    /// Whether it is up, or has no check at all.
    pub(super) fn takes_traffic(&self) -> bool {
        self.status.starts_with("UP") || self.status == "no check"
    }

    /// Whether it accepts no new sessions. This is not shown for a server that is down.
    pub(super) fn is_taken_out(&self) -> bool {
        self.status.starts_with("DRAIN") || self.status.starts_with("MAINT")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_by_their_columns_names() {
        let shown = "# pxname,svname,qcur,qmax,scur,smax,status,\nweb,box1,1,0,2,5,DRAIN,\nweb,box2,,0,0,5,UP 1/2,\n\n";
        let servers = read(shown).unwrap();
        assert_eq!(
            servers["box1"],
            Server {
                status: "DRAIN".into(),
                sessions: 3
            }
        );
        assert!(servers["box1"].is_taken_out() && !servers["box1"].takes_traffic());
        assert!(servers["box2"].takes_traffic() && !servers["box2"].is_taken_out());
        assert_eq!(servers.len(), 2);
        for noise in [
            "",
            "Unknown command.",
            "No such proxy.\n\n",
            "# svname\nbox1",
        ] {
            assert_eq!(read(noise), None, "{noise}");
        }
    }
}
