//! The HTTP side: one endpoint for both APIs. A request is identified, verified and handed to its API.

pub(crate) mod connections;
mod host;
mod notices;
mod operator;
mod ready;
mod s3;
mod sigv4;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use axum::routing::{get, post};
use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::{codedeploy, command};
use tracing::Instrument as _;

use crate::credentials::{self, Principal};
use crate::error::{ApiError, ErrorName};
use crate::service::Service;

/// Most bytes of a request's body; the largest legitimate one is a batch of names.
const MAX_BODY: usize = 1024 * 1024;

/// The service as an HTTP application.
pub fn router(service: Arc<Service>) -> Router {
    let store = service.objects.clone().map(|objects| s3::Store::new(&service, objects));
    let rest = move |request: Request<Body>| rest(store.clone(), request);
    let ready = ready::Readiness::default();
    Router::new()
        .route("/", post(call).fallback(rest.clone()))
        .route(notices::PATH, post(notices::take))
        .route(ready::PATH, get(move |state| ready.tell(state)))
        .fallback(rest)
        .with_state(service)
}

/// Whatever is not of the two APIs is for the folder of revisions, if there is one. Agents ask for `/` once at their
/// start, without a signature, only to see that TLS works.
async fn rest(store: Option<s3::Store>, request: Request<Body>) -> Response<Body> {
    let hello = request.uri().path() == "/" && request.method() == Method::GET;
    match store {
        Some(store) if !hello || request.headers().contains_key(header::AUTHORIZATION) => {
            store.call(request).await
        }
        _ if hello => Response::new(Body::from("codedeploy-controller\n")),
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

/// The API that `X-Amz-Target` names, and the operation.
enum Target<'a> {
    Operator(&'a str),
    Host(&'a str),
}

async fn call(State(service): State<Arc<Service>>, request: Request<Body>) -> Response<Body> {
    let request_id = crate::registry::new_id().unwrap_or_default();
    let target = request.headers().get("x-amz-target");
    let target = target.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let target = crate::request::members::shorten(target);
    let span = tracing::info_span!("request", request_id, target, by = tracing::field::Empty);
    let answer = answer(&service, &target, request).instrument(span.clone()).await;
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            span.in_scope(|| tracing::info!(error = %error.name, reason = error.message, "request refused"));
            let status =
                StatusCode::from_u16(error.name.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, serde_json::to_vec(&error.body()).unwrap_or_default())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(command::CONTENT_TYPE));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

async fn answer(service: &Arc<Service>, target: &str, request: Request<Body>) -> Result<Vec<u8>, ApiError> {
    let target = identify(target)?;
    let (head, body) = request.into_parts();
    let body = receive(body, service.settings.timers.request).await?;
    let services: &'static [&'static str] = match target {
        Target::Operator(_) => &[codedeploy::SIGNING_NAME],
        Target::Host(_) => &[command::SIGNING_NAME, command::SIGNING_NAME_SECURE],
    };
    let principal = authenticate(service, &head, &body, services).await?;
    tracing::Span::current().record("by", &principal.arn);
    match target {
        Target::Operator(operation) => operator::call(service, principal, operation, body).await,
        Target::Host(operation) => host::call(service, principal, &head.headers, operation, &body).await,
    }
}

/// The whole body, if it is not too long and does not take too long.
async fn receive(body: Body, patience: Duration) -> Result<Bytes, ApiError> {
    let received = tokio::time::timeout(patience, to_bytes(body, MAX_BODY)).await.map_err(|_| {
        ErrorName::RequestTimeout.because(format!("The body did not arrive within {patience:?}."))
    })?;
    received.map_err(|_| {
        ErrorName::RequestEntityTooLarge
            .because(format!("The body could not be read; at most {MAX_BODY} bytes are."))
    })
}

fn identify(target: &str) -> Result<Target<'_>, ApiError> {
    match target.split_once('.') {
        Some((codedeploy::TARGET_PREFIX, operation)) => Ok(Target::Operator(operation)),
        Some((command::TARGET_PREFIX | command::TARGET_PREFIX_SECURE, operation)) => {
            Ok(Target::Host(operation))
        }
        _ => Err(ErrorName::UnknownOperation.because(format!(
            "X-Amz-Target {:?} names no API of this service: expected {}.<Operation> or {}.<Operation>.",
            crate::request::members::shorten(target),
            codedeploy::TARGET_PREFIX,
            command::TARGET_PREFIX
        ))),
    }
}

/// Whose request it is.
async fn authenticate(
    service: &Arc<Service>,
    head: &Parts,
    body: &Bytes,
    services: &[&str],
) -> Result<Principal, ApiError> {
    let claim = sigv4::Claim::read(&head.headers)?;
    let access_key_id = claim.access_key_id.clone();
    let found =
        service.transact(move |_, context| Ok(credentials::find(context.tx, &access_key_id)?)).await?;
    let Some(key) = found else {
        return Err(ErrorName::UnrecognizedClient.because(format!(
            "The access key {:?} is unknown or revoked.",
            crate::request::members::shorten(&claim.access_key_id)
        )));
    };
    let secret = key.secret(&service.vault)?;
    let now = Timestamp::now();
    let signed = sigv4::Request { method: &head.method, uri: &head.uri, headers: &head.headers, body };
    claim.verify(signed, &secret, &service.settings.partition.region, services, now)?;
    key.admit(claim.token.as_deref(), now)
}

/// The input of an operation; no body is an input without members.
fn read<I: serde::de::DeserializeOwned>(body: &[u8]) -> Result<I, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    // A structure would be read from an array of its members as well.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ErrorName::Serialization.because("The body is not a JSON object."));
    }
    serde_json::from_slice(body).map_err(|error| {
        ErrorName::Serialization.because(format!("The body is not the operation's input: {error}"))
    })
}

fn write<O: serde::Serialize>(output: &O) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(output).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        ErrorName::InternalFailure.because("the answer could not be written")
    })
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
