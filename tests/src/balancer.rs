//! A real HAProxy in front of web servers, and clients that count failures.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::wait;

/// The backend with every server.
pub const BACKEND: &str = "web";

/// An HAProxy with one frontend and one backend; it ends with this.
#[derive(Debug)]
pub struct Balancer {
    pub address: SocketAddr,
    _child: Child,
}

/// A server of the backend.
#[derive(Debug, Clone)]
pub struct Server {
    pub name: String,
    pub port: u16,
    /// Whether it gets traffic from the start.
    pub enabled: bool,
}

/// The responses that clients got.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The number of responses by their text.
    pub answers: BTreeMap<String, usize>,
    pub failures: Vec<String>,
}

/// Clients that request one page after another.
#[derive(Debug)]
pub struct Clients {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// The admin socket of the balancer in a fleet's folder.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("haproxy.sock")
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// A port that nobody listens on and that the kernel gives to no connection, for a server that is
/// away at times.
pub fn quiet_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Balancer {
    pub async fn start(folder: &Path, servers: &[Server]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut text = format!(
            "global\n  stats socket {} mode 600 level admin\n\
             defaults\n  mode http\n  retries 0\n  timeout connect 2s\n  timeout client 20s\n  timeout server 20s\n\
             frontend in\n  bind {address}\n  default_backend {BACKEND}\n\
             backend {BACKEND}\n  balance roundrobin\n",
            socket(folder).display()
        );
        for Server {
            name,
            port,
            enabled,
        } in servers
        {
            let state = if *enabled { "" } else { " disabled" };
            text +=
                &format!("  server {name} 127.0.0.1:{port} check inter 100 fall 1 rise 1{state}\n");
        }
        Self::run(folder, address, &text).await
    }

    /// Starts one with this configuration, which listens on `address`.
    pub async fn run(folder: &Path, address: SocketAddr, text: &str) -> Self {
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, text).expect("the file can be written");
        let log =
            std::fs::File::create(folder.join("haproxy.log")).expect("the log can be written");
        // Debian installs it in a folder that is not in everyone's PATH.
        let packaged = Path::new("/usr/sbin/haproxy");
        let program = if packaged.exists() {
            packaged
        } else {
            Path::new("haproxy")
        };
        let child = Command::new(program)
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("haproxy is installed; tests/tools.sh installs it");
        wait::until("HAProxy listens", async || {
            TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;
        Self {
            address,
            _child: child,
        }
    }
}

impl Clients {
    pub fn start(address: SocketAddr, number: usize) -> Self {
        let (tally, stop) = (
            Arc::new(Mutex::new(Tally::default())),
            Arc::new(AtomicBool::new(false)),
        );
        let mut tasks = JoinSet::new();
        for _ in 0..number {
            let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = request(address).await;
                    let mut tally = tally.lock().expect("no client panics");
                    match answer {
                        Ok(text) => *tally.answers.entry(text).or_default() += 1,
                        Err(failure) => tally.failures.push(failure),
                    }
                }
            });
        }
        Self { tally, stop, tasks }
    }

    /// The responses so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().expect("no client panics").clone()
    }

    /// Waits for further responses, and returns their pages.
    pub async fn pages(&self) -> Vec<String> {
        // The first responses answer requests that were already under way.
        self.more_answers().await;
        let before = self.tally().answers;
        self.more_answers().await;
        let new = |(page, count): &(String, usize)| before.get(page) != Some(count);
        self.tally()
            .answers
            .into_iter()
            .filter(new)
            .map(|(page, _)| page)
            .collect()
    }

    async fn more_answers(&self) {
        let count = || self.tally().answers.values().sum::<usize>();
        let before = count();
        wait::until("clients are answered", async || {
            if count() > before + 12 {
                Ok(())
            } else {
                Err(self.tally())
            }
        })
        .await;
    }

    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.tally()
    }
}

/// Requests the clients' page; returns its text if it arrived completely.
pub async fn request(address: SocketAddr) -> Result<String, String> {
    get(address, "/page").await
}

/// Requests a page; returns its text if it arrived completely.
pub async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), exchange).await;
    let answer = answer
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, text))
            if head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200") =>
        {
            Ok(text.trim().to_owned())
        }
        _ => Err(answer),
    }
}
