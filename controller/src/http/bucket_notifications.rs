//! The endpoint for buckets' notifications of new objects: `POST /events`, with the token of the
//! configuration.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};

use super::receive;
use super::token::is_let_in;
use crate::credentials::Scopes;
use crate::events::bucket_notification::{self, BucketNotification};
use crate::events::pending_deployments::{self, Noted};
use crate::service::Service;

pub(super) const PATH: &str = "/events";

pub(super) async fn take(
    State(service): State<Arc<Service>>,
    request: Request<Body>,
) -> Response<Body> {
    let (status, text) = answer(&service, request).await;
    let mut response = Response::new(Body::from(text + "\n"));
    *response.status_mut() = status;
    response
}

async fn answer(service: &Arc<Service>, request: Request<Body>) -> (StatusCode, String) {
    let (head, body) = request.into_parts();
    let Some(token) = &service.settings.events.token else {
        return (
            StatusCode::NOT_FOUND,
            "This service accepts no notifications: events.token is not set.".into(),
        );
    };
    if !is_let_in(&head.headers, token) {
        tracing::info!("a notification was rejected: its token is not that of events.token");
        return (
            StatusCode::UNAUTHORIZED,
            "The token is not that of events.token.".into(),
        );
    }
    let body = match receive(body, service.settings.timers.request).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::BAD_REQUEST, error.message),
    };
    match bucket_notification::read(&body) {
        Some(BucketNotification::Created(created)) => {
            let objects = created
                .iter()
                .map(|object| format!("{}/{}", object.bucket, object.key));
            let objects = objects.collect::<Vec<_>>().join(", ");
            match pending_deployments::accept(service, created, Scopes::default()).await {
                Ok(noted) => (StatusCode::OK, effect(noted, &objects)),
                Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.message),
            }
        }
        Some(BucketNotification::Confirm(url)) => {
            tracing::warn!(
                url,
                "a topic asks to be confirmed: open this URL, if it is one that you subscribed to"
            );
            (
                StatusCode::OK,
                "The URL for the confirmation is in the service's log.".into(),
            )
        }
        None => {
            let expected = "Expected a notification of S3, as it sends it itself, through EventBridge or through SNS.";
            (StatusCode::BAD_REQUEST, expected.into())
        }
    }
}

/// Describes the effect of new objects.
fn effect(noted: Noted, objects: &str) -> String {
    match noted.new {
        0 if objects.is_empty() => "The notification contains no new object.".into(),
        0 if noted.watched > 0 => {
            "Nothing new: this content is deployed, or a newer notification was accepted.".into()
        }
        0 => {
            tracing::info!(
                objects,
                "a notification was accepted, but no watch of events.watches matches its objects"
            );
            format!("No watch of events.watches matches {objects}.")
        }
        1 => "1 deployment will be started.".into(),
        more => format!("{more} deployments will be started."),
    }
}
