//! The readiness check for load balancers and monitors: `GET /-/ready`, unsigned.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use tokio::sync::Mutex;

use crate::error::ApiError;
use crate::registry::partition;
use crate::service::Service;

/// No bucket's name begins like this.
pub(super) const PATH: &str = "/-/ready";

/// The time for which a result is cached, so that frequent checks cost nothing.
const FRESH: Duration = Duration::from_secs(2);

/// The last result.
#[derive(Debug, Default, Clone)]
pub(super) struct Readiness(Arc<Mutex<Option<(Instant, bool)>>>);

impl Readiness {
    pub(super) async fn tell(self, State(service): State<Arc<Service>>) -> Response<Body> {
        let mut known = self.0.lock().await;
        let writes = match *known {
            Some((asked, writes)) if asked.elapsed() < FRESH => writes,
            _ => {
                let writes = writes(&service).await;
                *known = Some((Instant::now(), writes));
                writes
            }
        };
        let (status, text) = if writes {
            (StatusCode::OK, "ready\n")
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the database cannot be written: the service's log has the cause\n",
            )
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
    }
}

/// Every request of a host or an operator needs the database; a full disk shows only on a write.
async fn writes(service: &Arc<Service>) -> bool {
    let written = service.transact(|service, context| {
        Ok::<_, ApiError>(partition::touch(context.tx, &service.settings.partition)?)
    });
    written.await.is_ok()
}
