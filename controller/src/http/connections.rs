//! Accepts connections, and lets no client hold one for longer than its request needs.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::util::MapRequest;

use super::elsewhere;
use super::unauthenticated::{Slot, UnauthenticatedConnections};

/// The largest head of a request, in bytes; a signed one has about two thousand.
const MAX_HEAD: usize = 64 * 1024;

/// The largest number of connections without a signed request, if there may be many files.
const MAX_UNAUTHENTICATED: u64 = 4096;

/// The pause after no connection could be accepted, which mostly means that all file descriptors
/// are in use.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// Absent for plain http.
    pub(crate) tls: Option<Tls>,
}

/// Encrypts a connection.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The origin of a request: its client, or a proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub(crate) SocketAddr);

/// Serves until `stop` is ready, and then until every request that has arrived is answered.
///
/// A client must have ended its TLS handshake within `timeout`, sent the head of its next request,
/// and taken what it was sent; an idle connection is closed after it.
pub(crate) async fn serve(
    listener: Listener,
    router: Router,
    timeout: Duration,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(MAX_HEAD);
    let open = GracefulShutdown::new();
    let unauthenticated = UnauthenticatedConnections::new(most_unauthenticated());
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, client)) => {
                let connection = Connection {
                    http: http.clone(),
                    router: router.clone(),
                    watcher: open.watcher(),
                    client,
                    timeout,
                };
                let slot = tokio::select! {
                    slot = unauthenticated.admit() => Arc::new(slot),
                    () = &mut stop => break,
                };
                let tls = listener.tls.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection.serve(stream, tls, Arc::clone(&slot)) => {}
                        () = slot.evicted() => {}
                    }
                });
            }
            Err(error) if of_one_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; retrying");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    open.shutdown().await;
}

/// An accepted connection, and everything for serving it.
struct Connection {
    http: http1::Builder,
    router: Router,
    watcher: Watcher,
    client: SocketAddr,
    timeout: Duration,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<Tls>, slot: Arc<Slot>) {
        match tls {
            None => self.answer(stream, slot).await,
            // Plain connections, of which there may be thousands, should not be as large as those
            // with TLS.
            Some(tls) => Box::pin(self.answer_by_tls(stream, tls, slot)).await,
        }
    }

    async fn answer_by_tls(mut self, stream: TcpStream, Tls(acceptor): Tls, slot: Arc<Slot>) {
        let client = self.client;
        let mut first = [0; 1];
        let peeked = tokio::time::timeout(self.timeout, stream.peek(&mut first)).await;
        // No TLS record begins with a letter, and every http method does.
        if matches!(peeked, Ok(Ok(1))) && first[0].is_ascii_alphabetic() {
            tracing::info!(%client, "a client spoke plain http, and this service accepts only https://");
            self.router = elsewhere::plain_http();
            return self.answer(stream, slot).await;
        }
        match tokio::time::timeout(self.timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.answer(stream, slot).await,
            Ok(Err(error)) => tracing::info!(%client, %error, "a TLS handshake failed"),
            Err(_) => tracing::info!(%client, "a TLS handshake took too long"),
        }
    }

    async fn answer(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        slot: Arc<Slot>,
    ) {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.timeout));
        let client = Client(self.client);
        let introduce = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&slot));
            request.extensions_mut().insert(client);
            request
        };
        let requests = TowerToHyperService::new(MapRequest::new(self.router, introduce));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = self
            .watcher
            .watch(self.http.serve_connection(stream, requests));
        if let Err(error) = connection.await {
            tracing::debug!(client = %self.client, %error, "a connection ended early");
        }
    }
}

/// Raises the process's file limit to its maximum: every host holds a connection.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files cannot be raised; large fleets will not fit");
    }
}

/// A quarter of the file limit.
fn most_unauthenticated() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((files / 4).clamp(16, MAX_UNAUTHENTICATED)).unwrap_or(16)
}

/// A client that disconnects before it is accepted does not affect the service.
fn of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
