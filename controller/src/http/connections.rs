//! Owns the connections: accepts them, and lets no client hold one for longer than its request needs.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// Most bytes of a request's head; a signed one has about two thousand.
const MAX_HEAD: usize = 64 * 1024;

/// How long to wait when no connection can be accepted, which mostly means that all file descriptors are in use.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves until `stop` is ready, and then until every request that has arrived is answered.
///
/// A client must have sent the head of its next request within `patience`; an idle connection is closed after it.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Duration,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_HEAD);
    let open = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, client)) => {
                let requests = TowerToHyperService::new(router.clone());
                let connection = open.watch(http.serve_connection(TokioIo::new(stream), requests));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%client, %error, "a connection ended early");
                    }
                });
            }
            Err(error) if of_one_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    open.shutdown().await;
}

/// A client that went away before it was accepted is no trouble of the service.
fn of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
