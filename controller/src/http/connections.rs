//! Owns the connections: accepts them, and lets no client hold one for longer than its request needs.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Most bytes of a request's head; a signed one has about two thousand.
const MAX_HEAD: usize = 64 * 1024;

/// How long to wait when no connection can be accepted, which mostly means that all file descriptors are in use.
const PAUSE: Duration = Duration::from_secs(1);

/// Where connections come from.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// Absent for plain http.
    pub(crate) tls: Option<Tls>,
}

/// What makes a connection one that nobody between can read.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Serves until `stop` is ready, and then until every request that has arrived is answered.
///
/// A client must have ended its TLS handshake within `patience`, and sent the head of its next request; an idle
/// connection is closed after it.
pub(crate) async fn serve(door: Door, router: Router, patience: Duration, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_HEAD);
    let open = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, client)) => {
                let guest =
                    Guest { http: http.clone(), router: router.clone(), watcher: open.watcher(), client };
                match door.tls.clone() {
                    None => tokio::spawn(guest.serve(stream)),
                    Some(Tls(acceptor)) => tokio::spawn(async move {
                        match tokio::time::timeout(patience, acceptor.accept(stream)).await {
                            Ok(Ok(stream)) => guest.serve(stream).await,
                            Ok(Err(error)) => tracing::info!(%client, %error, "a TLS handshake failed"),
                            Err(_) => tracing::info!(%client, "a TLS handshake took too long"),
                        }
                    }),
                };
            }
            Err(error) if of_one_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(door);
    open.shutdown().await;
}

/// A connection that was accepted, and what it is served with.
struct Guest {
    http: http1::Builder,
    router: Router,
    watcher: Watcher,
    client: SocketAddr,
}

impl Guest {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let requests = TowerToHyperService::new(self.router);
        let connection = self.watcher.watch(self.http.serve_connection(TokioIo::new(stream), requests));
        if let Err(error) = connection.await {
            tracing::debug!(client = %self.client, %error, "a connection ended early");
        }
    }
}

/// A client that went away before it was accepted is no trouble of the service.
fn of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
