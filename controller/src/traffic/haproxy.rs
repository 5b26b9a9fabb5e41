//! HAProxy, told through its runtime API (HAProxy Management Guide, "Unix Socket commands").

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::deployment::traffic::Direction;

/// A backend of an HAProxy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Haproxy {
    /// The path of a unix socket with `level admin`, or the `host:port` of one on TCP.
    socket: String,
    backend: String,
    /// The names of servers that are not called as their instances.
    #[serde(default)]
    servers: BTreeMap<String, String>,
    /// Seconds that sessions are given to end by themselves.
    #[serde(default = "default_drain")]
    drain: f64,
}

fn default_drain() -> f64 {
    300.0
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HaproxyError {
    #[error("HAProxy cannot be told {command:?} at {socket}")]
    Tell { command: String, socket: String, source: io::Error },
    #[error("HAProxy answered {answer:?} to {command:?}")]
    Refused { command: String, answer: String },
    #[error("HAProxy at {socket} shows no server {server:?} in the backend {backend:?}")]
    NoServer { socket: String, backend: String, server: String },
}

/// How often a server is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// An answer is not waited for longer.
const ANSWER: Duration = Duration::from_secs(10);
/// No answer is longer.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;

/// What HAProxy shows of a server.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    status: String,
    /// Under way and queued.
    sessions: u64,
}

impl Haproxy {
    /// Gives what there is to remark.
    pub(super) async fn perform(
        &self,
        direction: Direction,
        instance: &str,
    ) -> Result<Option<String>, HaproxyError> {
        let server = self.servers.get(instance).map_or(instance, String::as_str);
        match direction {
            Direction::Block => self.drain(server).await,
            Direction::Allow => {
                self.set(server, "ready").await?;
                while !self.look(server).await?.takes_traffic() {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(None)
            }
        }
    }

    /// New sessions go elsewhere, and those under way are waited for.
    async fn drain(&self, server: &str) -> Result<Option<String>, HaproxyError> {
        self.set(server, "drain").await?;
        let until = Instant::now() + Duration::from_secs_f64(self.drain.clamp(0.0, 86_400.0));
        loop {
            let sessions = self.look(server).await?.sessions;
            if sessions == 0 {
                return Ok(None);
            }
            if Instant::now() >= until {
                self.tell(&format!("shutdown sessions server {}/{server}", self.backend)).await?;
                return Ok(Some(format!(
                    "{sessions} sessions of {}/{server} had not ended after {} s and were closed.",
                    self.backend, self.drain
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn set(&self, server: &str, state: &str) -> Result<(), HaproxyError> {
        let command = format!("set server {}/{server} state {state}", self.backend);
        let answer = self.tell(&command).await?;
        if answer.trim().is_empty() {
            return Ok(());
        }
        Err(HaproxyError::Refused { command, answer: answer.trim().chars().take(200).collect() })
    }

    async fn look(&self, server: &str) -> Result<Server, HaproxyError> {
        let statistics = self.tell(&format!("show stat {} 4 -1", self.backend)).await?;
        Server::read(&statistics, server).ok_or_else(|| HaproxyError::NoServer {
            socket: self.socket.clone(),
            backend: self.backend.clone(),
            server: server.to_owned(),
        })
    }

    /// One command on a connection of its own, as HAProxy expects it.
    async fn tell(&self, command: &str) -> Result<String, HaproxyError> {
        let exchange = async {
            if self.socket.starts_with('/') {
                exchange(UnixStream::connect(&self.socket).await?, command).await
            } else {
                exchange(TcpStream::connect(&self.socket).await?, command).await
            }
        };
        let answer = tokio::time::timeout(ANSWER, exchange).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", ANSWER.as_secs())))
        });
        answer.map_err(|source| HaproxyError::Tell {
            command: command.to_owned(),
            socket: self.socket.clone(),
            source,
        })
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

impl Server {
    /// Reads `show stat`: a header with the columns' names, and a line for each server.
    fn read(statistics: &str, server: &str) -> Option<Server> {
        let mut lines = statistics.lines();
        let header: Vec<_> = lines.next()?.trim_start_matches("# ").split(',').collect();
        let column = |name: &str| header.iter().position(|column| *column == name);
        let (name, status, current, queued) =
            (column("svname")?, column("status")?, column("scur")?, column("qcur")?);
        let row = lines
            .map(|line| line.split(',').collect::<Vec<_>>())
            .find(|row| row.get(name) == Some(&server))?;
        let number = |column: usize| row.get(column).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Some(Server { status: (*row.get(status)?).to_owned(), sessions: number(current) + number(queued) })
    }

    /// Whether it is up, or not checked at all.
    fn takes_traffic(&self) -> bool {
        self.status.starts_with("UP") || self.status == "no check"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_by_their_columns_names() {
        let shown =
            "# pxname,svname,qcur,qmax,scur,smax,status,\nweb,box1,1,0,2,5,DRAIN,\nweb,box2,,0,0,5,UP 1/2,\n";
        let server = |name| Server::read(shown, name);
        assert_eq!(server("box1"), Some(Server { status: "DRAIN".into(), sessions: 3 }));
        assert!(server("box2").unwrap().takes_traffic());
        assert!(!server("box1").unwrap().takes_traffic());
        assert_eq!(server("box3"), None);
        for noise in ["", "Unknown command.", "# svname\nbox1"] {
            assert_eq!(Server::read(noise, "box1"), None, "{noise}");
        }
    }
}
