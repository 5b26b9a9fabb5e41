//! Visitors of a web site that count what went wrong: half of them open a connection for each
//! request, half keep theirs.
//!
//! A server may close a kept connection while it is idle; a client whose request was under way then
//! repeats it on a new one (RFC 9112, section 9.3.1). These repetitions are counted apart, and one
//! that fails is a failure. A new connection that is refused, reset or closed, an answer that is cut
//! off, and any status but 200 are failures.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::wait;

/// The time in which an answer must be complete.
const ANSWER: Duration = Duration::from_secs(30);

/// The pause of a visitor whose request failed, so that it does not spin.
const PAUSE: Duration = Duration::from_millis(10);

/// The number of failures whose text is kept.
const KEPT: usize = 20;

/// What visitors saw.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// The number of answers by their text.
    pub answers: BTreeMap<String, usize>,
    pub failed: usize,
    /// Of the failed ones, those whose connection was reset.
    pub resets: usize,
    /// Requests repeated because an idle connection was closed.
    pub repeated: usize,
    /// The first failures.
    pub failures: Vec<String>,
    /// The time in which every request failed, from the first failure to the next request that was
    /// answered.
    pub down: Duration,
    down_since: Option<Instant>,
}

#[derive(Debug)]
pub struct Visitors {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// An answer that did not come.
#[derive(Debug)]
struct Wrong {
    error: io::Error,
    /// Whether the server had sent nothing of it.
    unanswered: bool,
}

type Connection = BufReader<TcpStream>;

impl Visitors {
    /// Starts `number` visitors, at least two.
    pub fn start(address: SocketAddr, number: usize) -> Self {
        let (seen, stop) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for index in 0..number {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            tasks.spawn(visit(address, index % 2 == 0, seen, stop));
        }
        Self { seen, stop, tasks }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no visitor panics").clone()
    }

    /// Waits until `text` is the answer to a number of requests from now on.
    pub async fn see(&self, text: &str) {
        let count = || self.seen().answers.get(text).copied().unwrap_or_default();
        let before = count();
        wait::until("visitors see the page", async || {
            if count() > before + 20 {
                Ok(())
            } else {
                Err((text.to_owned(), self.seen()))
            }
        })
        .await;
    }

    pub async fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.seen()
    }
}

impl Seen {
    pub fn requests(&self) -> usize {
        self.answers.values().sum::<usize>() + self.failed
    }

    /// # Panics
    ///
    /// If a request failed, or if nobody visited.
    pub fn nothing_failed(&self) {
        assert!(self.failed == 0 && self.requests() > 0, "{self:#?}");
    }

    fn note(&mut self, began: Instant, answer: Result<String, Wrong>) {
        match answer {
            Ok(text) => {
                *self.answers.entry(text).or_default() += 1;
                if let Some(since) = self.down_since.filter(|since| *since <= began) {
                    self.down += began - since;
                    self.down_since = None;
                }
            }
            Err(wrong) => {
                self.failed += 1;
                self.down_since.get_or_insert(began);
                let reset = wrong.error.kind() == io::ErrorKind::ConnectionReset;
                self.resets += usize::from(reset);
                if self.failures.len() < KEPT {
                    self.failures.push(wrong.error.to_string());
                }
            }
        }
    }
}

async fn visit(address: SocketAddr, keeps: bool, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>) {
    let mut kept: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let reused = kept.take();
        let is_reused = reused.is_some();
        let mut answer = match reused {
            Some(connection) => ask(connection, keeps).await,
            None => ask_anew(address, keeps).await,
        };
        if is_reused && answer.as_ref().is_err_and(Wrong::is_of_an_idle_connection) {
            seen.lock().expect("no visitor panics").repeated += 1;
            answer = ask_anew(address, keeps).await;
        }
        let failed = answer.is_err();
        let text = answer.map(|(text, connection)| {
            kept = connection;
            text
        });
        seen.lock().expect("no visitor panics").note(began, text);
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn ask_anew(address: SocketAddr, keeps: bool) -> Result<(String, Option<Connection>), Wrong> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(Wrong::unanswered)?;
    ask(BufReader::new(stream), keeps).await
}

/// Sends one request; returns the text, and the connection if it stays open.
async fn ask(connection: Connection, keeps: bool) -> Result<(String, Option<Connection>), Wrong> {
    tokio::time::timeout(ANSWER, exchange(connection, keeps))
        .await
        .unwrap_or_else(|late| Err(Wrong::cut(late.into())))
}

async fn exchange(
    mut connection: Connection,
    keeps: bool,
) -> Result<(String, Option<Connection>), Wrong> {
    let word = if keeps { "keep-alive" } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: {word}\r\n\r\n");
    let written = connection.write_all(request.as_bytes()).await;
    written.map_err(Wrong::unanswered)?;
    let mut line = String::new();
    let read = connection.read_line(&mut line).await;
    if read.map_err(Wrong::unanswered)? == 0 {
        return Err(Wrong::unanswered(io::ErrorKind::UnexpectedEof.into()));
    }
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut closes) = (0, line.starts_with("HTTP/1.0"));
    loop {
        line.clear();
        connection.read_line(&mut line).await.map_err(Wrong::cut)?;
        let header = line.trim_end().to_ascii_lowercase();
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        match name {
            "content-length" => length = value.trim().parse().unwrap_or_default(),
            "connection" => closes |= value.trim() == "close",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.map_err(Wrong::cut)?;
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    if status != "200" {
        return Err(Wrong::cut(io::Error::other(format!("{status}: {text}"))));
    }
    Ok((text, (keeps && !closes).then_some(connection)))
}

impl Wrong {
    fn unanswered(error: io::Error) -> Self {
        Self {
            error,
            unanswered: true,
        }
    }

    fn cut(error: io::Error) -> Self {
        Self {
            error,
            unanswered: false,
        }
    }

    /// Whether a server that closes an idle connection may have caused it.
    fn is_of_an_idle_connection(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        self.unanswered
            && matches!(
                self.error.kind(),
                BrokenPipe | ConnectionReset | UnexpectedEof
            )
    }
}
