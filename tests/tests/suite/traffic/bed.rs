//! Two slots with a web server each, which ends without grace: whoever still sends it requests
//! fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use codedeploy_agent::slots::traffic::{Change, Drained, TrafficError, drained, move_to};
use codedeploy_hooks::appspec::strategy::Traffic;
use codedeploy_hooks::slots::{Side, SlotName};
use codedeploy_tests::balancer::quiet_port;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The time that each request takes, so that some are always under way.
const WORK: Duration = Duration::from_millis(10);

/// The time that a test lets an old slot drain; it ends when the slot is empty.
pub(crate) const DRAIN: Duration = Duration::from_secs(60);

/// The two slots.
#[derive(Debug)]
pub(crate) struct Bed {
    ports: [u16; 2],
    servers: [Option<Server>; 2],
}

/// A running web server; dropped, it and its connections end at once.
#[derive(Debug)]
struct Server {
    tasks: JoinSet<()>,
    holds: Arc<AtomicBool>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self {
            ports: [quiet_port(), quiet_port()],
            servers: [None, None],
        }
    }

    pub(crate) fn side(&self, name: SlotName) -> Side {
        Side {
            name,
            folder: "/nowhere".into(),
            port: Some(self.port(name)),
        }
    }

    pub(crate) fn port(&self, name: SlotName) -> u16 {
        self.ports[name as usize]
    }

    /// Starts a slot's server, which answers with `text`.
    pub(crate) async fn serve(&mut self, name: SlotName, text: &str) {
        let listener = TcpListener::bind(("127.0.0.1", self.port(name))).await;
        let listener = listener.expect("the port is free");
        let holds = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, text.to_owned(), Arc::clone(&holds)));
        self.servers[name as usize] = Some(Server { tasks, holds });
    }

    /// Lets the answers of a slot wait, or go on.
    pub(crate) fn hold(&self, name: SlotName, holds: bool) {
        let server = self.servers[name as usize].as_ref();
        let server = server.expect("the server runs");
        server.holds.store(holds, Ordering::Relaxed);
    }

    /// Ends a slot's server at once; its port is free afterwards.
    pub(crate) async fn end(&mut self, name: SlotName) {
        if let Some(mut server) = self.servers[name as usize].take() {
            server.tasks.shutdown().await;
        }
    }

    pub(crate) fn change(&self, to: SlotName) -> Change {
        Change {
            from: Some(self.side(to.other())),
            to: self.side(to),
        }
    }

    pub(crate) async fn move_to(
        &self,
        traffic: &Traffic,
        to: SlotName,
    ) -> Result<(), TrafficError> {
        let run = async |call| panic!("no script moves this traffic: {call:?}");
        move_to(traffic, &self.change(to), Path::new("/nowhere"), run).await
    }

    pub(crate) async fn drained(
        &self,
        traffic: &Traffic,
        old: SlotName,
        limit: Duration,
    ) -> Drained {
        drained(traffic, &self.side(old), limit)
            .await
            .expect("the provider answers")
    }

    /// Releases `text` to the slot `to`: starts its server, moves the traffic, waits for the old
    /// slot and ends that.
    pub(crate) async fn release(&mut self, traffic: &Traffic, to: SlotName, text: &str) {
        self.serve(to, text).await;
        self.move_to(traffic, to).await.expect("the traffic moves");
        let drained = self.drained(traffic, to.other(), DRAIN).await;
        assert_eq!(drained, Drained::Empty, "{text}");
        self.end(to.other()).await;
    }
}

async fn accept(listener: TcpListener, text: String, holds: Arc<AtomicBool>) {
    // Dropped with this task, so that its connections end with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, text.clone(), Arc::clone(&holds)));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(stream: TcpStream, text: String, holds: Arc<AtomicBool>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        match stream.read_line(&mut line).await {
            Ok(1..) if !line.trim().is_empty() => continue,
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        tokio::time::sleep(WORK).await;
        while holds.load(Ordering::Relaxed) {
            tokio::time::sleep(WORK).await;
        }
        let length = text.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
