//! HAProxy: makes one server of a backend ready and drains the other (HAProxy Management Guide,
//! "Unix Socket commands").

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use codedeploy_hooks::appspec::strategy::traffic::Haproxy;
use codedeploy_hooks::slots::{Side, SlotName};
use codedeploy_support::plain::harmless;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::LOOK;

/// The time in which a server must come up, or stop to get traffic.
const CHANGE: Duration = Duration::from_secs(30);

/// The time in which HAProxy must answer, and that of attempts to reach it, because a reload
/// replaces its socket.
const ANSWER: Duration = Duration::from_secs(5);
const AWAY: Duration = Duration::from_secs(5);

/// The largest answer, in bytes; a server takes half a KiB.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Shows all servers. A frontend may have the name of a backend, and HAProxy would show that.
const SERVERS: &str = "show stat -1 4 -1";

/// The number of characters of an answer that an error contains.
const MAX_SHOWN: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum HaproxyError {
    #[error("HAProxy at {socket} cannot run {command:?}")]
    Reach {
        socket: String,
        command: String,
        source: io::Error,
    },
    #[error(
        "HAProxy answered {answer:?} to {command:?}; expected success, which needs a socket with \"level admin\""
    )]
    Refused { command: String, answer: String },
    #[error(
        "HAProxy shows no server {server:?} in the backend {backend:?}; add it, or name another one in the AppSpec file"
    )]
    NoServer { backend: String, server: String },
    #[error(
        "HAProxy's server {backend}/{server} has the address {address}; expected the port {port} of the slot"
    )]
    OtherPort {
        backend: String,
        server: String,
        address: String,
        port: u16,
    },
    #[error("HAProxy's server {backend}/{server} is {status} after {} s; expected {expected}", CHANGE.as_secs())]
    NotInTime {
        backend: String,
        server: String,
        status: String,
        expected: &'static str,
    },
}

/// A state that the agent gives to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Ready,
    Drain,
}

/// The state of a server that HAProxy reports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    status: String,
    /// Running and queued.
    sessions: u64,
    /// Absent without the level operator.
    address: Option<String>,
}

/// Makes the slot's server ready, and drains the other one when the first is up. If that fails, the
/// other server goes on as before.
pub(super) async fn move_to(haproxy: &Haproxy, to: &Side) -> Result<(), HaproxyError> {
    let (new, old) = (name(haproxy, to.name), name(haproxy, to.name.other()));
    let before = server(haproxy, &new).await?;
    server(haproxy, &old).await?;
    check_port(haproxy, &before, &new, to.port)?;
    let was_in = before.takes_traffic();
    if let Err(error) = bring(haproxy, &new, Wanted::Ready).await {
        if !was_in {
            undo(haproxy, &new, Wanted::Drain).await;
        }
        return Err(error);
    }
    if let Err(error) = bring(haproxy, &old, Wanted::Drain).await {
        undo(haproxy, &old, Wanted::Ready).await;
        if !was_in {
            undo(haproxy, &new, Wanted::Drain).await;
        }
        return Err(error);
    }
    Ok(())
}

/// The number of sessions of a slot's server.
pub(super) async fn sessions(haproxy: &Haproxy, slot: SlotName) -> Result<u64, HaproxyError> {
    Ok(server(haproxy, &name(haproxy, slot)).await?.sessions)
}

fn name(haproxy: &Haproxy, slot: SlotName) -> String {
    haproxy.servers.of(slot).to_string()
}

/// A server without an address in the statistics is not checked.
fn check_port(
    haproxy: &Haproxy,
    server: &Server,
    name: &str,
    port: Option<u16>,
) -> Result<(), HaproxyError> {
    let (Some(address), Some(port)) = (&server.address, port) else {
        return Ok(());
    };
    match address
        .rsplit_once(':')
        .map(|(_, found)| found.parse::<u16>())
    {
        Some(Ok(found)) if found != port => Err(HaproxyError::OtherPort {
            backend: haproxy.backend.to_string(),
            server: name.to_owned(),
            address: address.clone(),
            port,
        }),
        _ => Ok(()),
    }
}

/// Sets a server's state, and waits until it has the effect. A restarted HAProxy has lost the
/// state, so it is set again.
async fn bring(haproxy: &Haproxy, name: &str, wanted: Wanted) -> Result<(), HaproxyError> {
    let until = Instant::now() + CHANGE;
    set(haproxy, name, wanted).await?;
    loop {
        let found = server(haproxy, name).await?;
        match wanted {
            Wanted::Ready if found.takes_traffic() => return Ok(()),
            Wanted::Drain if !found.takes_traffic() => return Ok(()),
            Wanted::Ready if !found.is_taken_out() => {}
            Wanted::Ready | Wanted::Drain => set(haproxy, name, wanted).await?,
        }
        if Instant::now() >= until {
            return Err(HaproxyError::NotInTime {
                backend: haproxy.backend.to_string(),
                server: name.to_owned(),
                status: found.status,
                expected: wanted.expected(),
            });
        }
        sleep(LOOK).await;
    }
}

/// Puts a state back after a failure, which is the error to report.
async fn undo(haproxy: &Haproxy, name: &str, state: Wanted) {
    if let Err(error) = set(haproxy, name, state).await {
        tracing::warn!(server = name, %error, "HAProxy's server keeps its new state");
    }
}

async fn set(haproxy: &Haproxy, name: &str, wanted: Wanted) -> Result<(), HaproxyError> {
    let state = wanted.word();
    let command = format!("set server {}/{name} state {state}", haproxy.backend);
    let answer = tell(haproxy, &command).await?;
    if answer.trim().is_empty() {
        return Ok(());
    }
    Err(refused(command, &answer))
}

async fn server(haproxy: &Haproxy, name: &str) -> Result<Server, HaproxyError> {
    let answer = tell(haproxy, SERVERS).await?;
    let Some(mut servers) = read(&answer, &haproxy.backend.to_string()) else {
        return Err(refused(SERVERS.to_owned(), &answer));
    };
    servers.remove(name).ok_or_else(|| HaproxyError::NoServer {
        backend: haproxy.backend.to_string(),
        server: name.to_owned(),
    })
}

fn refused(command: String, answer: &str) -> HaproxyError {
    let answer = harmless(answer.trim()).chars().take(MAX_SHOWN).collect();
    HaproxyError::Refused { command, answer }
}

/// Sends one command on its own connection, as HAProxy expects.
async fn tell(haproxy: &Haproxy, command: &str) -> Result<String, HaproxyError> {
    let until = Instant::now() + AWAY;
    loop {
        let exchange = timeout(ANSWER, exchange(haproxy, command)).await;
        let source = match exchange {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", ANSWER.as_secs()),
            ),
        };
        if Instant::now() >= until {
            return Err(HaproxyError::Reach {
                socket: haproxy.socket.as_path().display().to_string(),
                command: command.to_owned(),
                source,
            });
        }
        sleep(LOOK).await;
    }
}

async fn exchange(haproxy: &Haproxy, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(haproxy.socket.as_path()).await?;
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

/// Reads `show stat`: a header with the columns' names, and a line for each server. Returns those of
/// the backend.
fn read(statistics: &str, backend: &str) -> Option<HashMap<String, Server>> {
    let mut lines = statistics.lines().filter(|line| !line.is_empty());
    let header: Vec<_> = lines.next()?.strip_prefix("# ")?.split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (proxy, name, status) = (column("pxname")?, column("svname")?, column("status")?);
    let (current, queued, address) = (column("scur")?, column("qcur")?, column("addr"));
    let server = |line: &str| {
        let row: Vec<_> = line.split(',').collect();
        let text = |column: usize| row.get(column).filter(|text| !text.is_empty());
        let of_backend = *text(proxy)? == backend;
        let number = |column| text(column).and_then(|text| text.parse::<u64>().ok());
        let server = Server {
            status: (*text(status)?).to_owned(),
            sessions: number(current)
                .unwrap_or(0)
                .saturating_add(number(queued).unwrap_or(0)),
            address: address.and_then(text).map(|text| (*text).to_owned()),
        };
        Some((of_backend, ((*text(name)?).to_owned(), server)))
    };
    let servers: Option<Vec<_>> = lines.map(server).collect();
    let of_backend = servers?.into_iter().filter(|(of_backend, _)| *of_backend);
    Some(of_backend.map(|(_, server)| server).collect())
}

impl Wanted {
    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Ready => "it to be up, as its health check decides",
            Self::Drain => "it to get no new sessions",
        }
    }
}

impl Server {
    /// Whether it is up, or has no check at all.
    fn takes_traffic(&self) -> bool {
        self.status.starts_with("UP") || self.status == "no check"
    }

    /// Whether it accepts no new sessions. This is not shown for a server that is down.
    fn is_taken_out(&self) -> bool {
        self.status.starts_with("DRAIN") || self.status.starts_with("MAINT")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_by_their_columns_names_and_noise_is_rejected() {
        let shown = "# pxname,svname,qcur,scur,status,addr,\nweb,blue,1,2,DRAIN,127.0.0.1:8001,\nweb,green,,0,UP 1/2,,\nother,blue,,9,UP,,\n\n";
        let servers = read(shown, "web").unwrap();
        let blue = Server {
            status: "DRAIN".into(),
            sessions: 3,
            address: Some("127.0.0.1:8001".into()),
        };
        assert_eq!(servers["blue"], blue);
        assert!(blue.is_taken_out() && !blue.takes_traffic());
        assert!(servers["green"].takes_traffic() && servers["green"].address.is_none());
        for noise in ["", "Unknown command.", "No such proxy.\n\n", "# svname\nb"] {
            assert_eq!(read(noise, "web"), None, "{noise}");
        }
    }
}
