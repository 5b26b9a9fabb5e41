//! The HTTP side: one endpoint for both APIs. A request is identified, verified and passed to its
//! API.

mod bucket_notifications;
pub(crate) mod connections;
mod elsewhere;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host;
mod metrics;
pub(crate) mod operator;
mod protocol;
mod query;
mod ready;
mod s3;
mod sigv4;
mod token;
pub(crate) mod unauthenticated;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header,
};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use codedeploy_api::codedeploy::{self, Timestamp};
use codedeploy_api::command;
use codedeploy_support::metrics::Value;
use tower::ServiceExt as _;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::credentials::unlocked::UnlockedKey;
use crate::credentials::{self, Principal, Role, StoredKey};
use crate::error::{ApiError, ErrorName};
use crate::metrics::Metrics;
use crate::service::Service;
use crate::transaction::Caller;
use connections::Client;
use protocol::{ApiOperation, Protocol, RequestBody};
use unauthenticated::Slot;

/// The largest body of a request, in bytes; the largest legitimate one is a batch of names.
const MAX_BODY: usize = 1024 * 1024;

/// The folder of the web console's pages.
const CONSOLE: &str = "/console";

/// The service as an HTTP application, with the web console if there is one.
pub fn router(service: Arc<Service>, console: Option<Router>) -> Router {
    let store = service
        .objects
        .clone()
        .map(|objects| s3::Store::new(&service, objects));
    let rest = move |State(service), request: Request<Body>| {
        let (store, console) = (store.clone(), console.clone());
        async move {
            match console {
                Some(console) if is_for_console(&request) => answer_by(console, request).await,
                _ => rest(service, store, request).await,
            }
        }
    };
    let ready = ready::Readiness::default();
    let scrapes = metrics::Scrapes::default();
    let to_rest = rest.clone();
    Router::new()
        .route("/", post(call).fallback(rest.clone()))
        .route(
            bucket_notifications::PATH,
            post(bucket_notifications::take).fallback(rest.clone()),
        )
        .route(
            ready::PATH,
            get(move |state| ready.tell(state)).fallback(rest.clone()),
        )
        .route(
            metrics::PATH,
            get(
                move |State(service): State<Arc<Service>>, request: Request<Body>| async move {
                    if metrics::is_meant(&service, &request) {
                        scrapes.answer(&service, request).await
                    } else {
                        to_rest(State(service), request).await
                    }
                },
            )
            .fallback(rest.clone()),
        )
        .fallback(rest)
        .layer(from_fn_with_state(Arc::clone(&service), traced))
        .with_state(service)
}

/// Whether an unsigned request is for the web console: a bucket can have its name. Browsers also
/// request `/`.
fn is_for_console(request: &Request<Body>) -> bool {
    let (headers, uri) = (request.headers(), request.uri());
    let is_signed = headers.contains_key(header::AUTHORIZATION)
        || uri.query().is_some_and(|query| query.contains("X-Amz-"));
    let rest = uri.path().strip_prefix(CONSOLE);
    let is_page = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let accepts = header_text(headers, header::ACCEPT.as_str()).unwrap_or_default();
    let is_front =
        uri.path() == "/" && request.method() == Method::GET && accepts.starts_with("text/html");
    (is_page || is_front) && !is_signed
}

async fn answer_by(console: Router, request: Request<Body>) -> Response<Body> {
    match console.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The headers with the id of a request, under which the log has its result; AWS's two kinds of
/// services name them differently.
const REQUEST_IDS: [&str; 2] = ["x-amzn-requestid", "x-amz-request-id"];

/// The id of a request, for responses with the id in their body.
#[derive(Debug, Clone)]
struct RequestId(String);

/// The origin of a request.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) address: Option<String>,
    pub(crate) request_id: String,
    /// The way in which it came, if it is not the API.
    pub(crate) source: Option<&'static str>,
}

impl Origin {
    /// The origin of a request that came over the API.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Origin {
            address: extensions
                .get::<Client>()
                .map(|Client(client)| client.ip().to_string()),
            request_id: extensions
                .get::<RequestId>()
                .map(|RequestId(id)| id.clone())
                .unwrap_or_default(),
            source: None,
        }
    }

    /// The same for a request to the console.
    pub(crate) fn of_console(extensions: &Extensions) -> Self {
        Origin {
            source: Some("console"),
            ..Self::of(extensions)
        }
    }

    /// The caller with the rights of a principal.
    pub(crate) fn caller(self, principal: Principal) -> Caller {
        Caller {
            arn: principal.arn,
            access_key_id: principal.access_key_id,
            address: self.address,
            request_id: self.request_id,
            source: self.source,
            scopes: principal.scopes,
            subject: principal.subject,
        }
    }
}

/// Creates a span for the request: all its log lines have its id, its client, and the access key
/// that it claims. The verified signer and the operation are added as soon as they are known.
async fn traced(
    State(service): State<Arc<Service>>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let began = Instant::now();
    let request_id = crate::ids::new_id().unwrap_or_default();
    let client = request
        .extensions()
        .get::<Client>()
        .map(|Client(client)| tracing::field::display(client));
    let access_key_id = sigv4::claimed_key(request.headers()).map(crate::request::members::shorten);
    let span = tracing::info_span!(
        "request",
        request_id,
        client,
        access_key_id,
        by = Empty,
        operation = Empty,
        bucket = Empty,
        key = Empty
    );
    request
        .extensions_mut()
        .insert(RequestId(request_id.clone()));
    let mut response = next.run(request).instrument(span).await;
    service.measure(|metrics| measure(metrics, &response, began.elapsed()));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        for name in REQUEST_IDS {
            response.headers_mut().insert(name, id.clone());
        }
    }
    response
}

/// The API and the operation of a request, in an extension of its response.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) api: &'static str,
    pub(crate) operation: Value,
}

/// The error that a request was refused with, in an extension of its response.
#[derive(Debug, Clone, Copy)]
struct Refused(&'static str);

pub(crate) fn refused(response: &mut Response<Body>, error: &ApiError) {
    response.extensions_mut().insert(Refused(error.name.bare()));
}

/// An operation that is not one of this service's: a client chose its name.
const UNKNOWN: &str = "unknown";

fn measure(metrics: &Metrics, response: &Response<Body>, took: Duration) {
    let Kind { api, operation } = response.extensions().get().cloned().unwrap_or(Kind {
        api: "other",
        operation: UNKNOWN.into(),
    });
    let code = response.status().as_str().to_owned();
    let of = [api.into(), operation.clone(), code.into()];
    metrics.requests.with(of).inc();
    metrics
        .request_seconds
        .with([api.into(), operation])
        .observe(took.as_secs_f64());
    if let Some(Refused(reason)) = response.extensions().get() {
        metrics.refused_requests.with([*reason]).inc();
    }
}

/// The metrics on a listener of their own.
pub(crate) fn metrics_router(service: Arc<Service>) -> Router {
    metrics::open_router(service)
}

/// Handles requests outside of `/`: a protocol with operations in paths is recognised by a header;
/// everything else that does not belong to the two APIs goes to the folder of revisions, if there
/// is one. Agents request `/` once at their start, unsigned, to check TLS.
async fn rest(
    service: Arc<Service>,
    store: Option<s3::Store>,
    request: Request<Body>,
) -> Response<Body> {
    if Protocol::of(request.headers()) == Protocol::RpcV2Cbor {
        return call(State(service), request).await;
    }
    if query::is_query(request.method(), request.uri(), request.headers()) {
        return query::call(&service, request).await;
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_signed = request.headers().contains_key(header::AUTHORIZATION);
    match store {
        _ if request.uri().path() == "/" && is_read && !is_signed => {
            Response::new(Body::from("codedeploy-controller\n"))
        }
        Some(store) => store.call(request).await,
        None => elsewhere::no_s3(&request),
    }
}

async fn call(State(service): State<Arc<Service>>, request: Request<Body>) -> Response<Body> {
    if query::is_query(request.method(), request.uri(), request.headers()) {
        return query::call(&service, request).await;
    }
    let (head, body) = request.into_parts();
    let protocol = Protocol::of(&head.headers);
    let kind = match protocol.identify(&head) {
        Ok(ApiOperation::Host(name)) => Some(Kind {
            api: "commands",
            operation: host::known(name).unwrap_or(UNKNOWN).into(),
        }),
        Ok(ApiOperation::Operator(name)) => Some(Kind {
            api: "codedeploy",
            operation: operator::known(operator::PUBLIC, name)
                .unwrap_or(UNKNOWN)
                .into(),
        }),
        Ok(ApiOperation::Controller(name)) => Some(Kind {
            api: "controller",
            operation: operator::known_own(name).unwrap_or(UNKNOWN).into(),
        }),
        Err(_) => None,
    };
    let is_for_agents = kind.as_ref().is_some_and(|kind| kind.api == "commands");
    let mut reason = None;
    let (status, body) = match answer(&service, protocol, head, body).await {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            tracing::info!(error = %error.name, reason = error.message, "request refused");
            let status = StatusCode::from_u16(error.name.status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            reason = Some(Refused(error.name.bare()));
            (status, protocol.refusal(&error))
        }
    };
    let mut headers = HeaderMap::new();
    protocol.mark(&mut headers, &body);
    if is_for_agents {
        headers.insert(command::SIGNERS_HEADER, service.signers.clone());
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let extensions = response.extensions_mut();
    kind.map(|kind| extensions.insert(kind));
    reason.map(|reason| extensions.insert(reason));
    response
}

async fn answer(
    service: &Arc<Service>,
    protocol: Protocol,
    head: Parts,
    body: Body,
) -> Result<Vec<u8>, ApiError> {
    let target = protocol.identify(&head)?;
    let (ApiOperation::Operator(operation)
    | ApiOperation::Controller(operation)
    | ApiOperation::Host(operation)) = target;
    let span = tracing::Span::current();
    span.record("operation", crate::request::members::shorten(operation));
    let services: &'static [&'static str] = match target {
        ApiOperation::Operator(_) | ApiOperation::Controller(_) => &[codedeploy::SIGNING_NAME],
        ApiOperation::Host(_) => &[command::SIGNING_NAME, command::SIGNING_NAME_SECURE],
    };
    // No body is read before its claimed owner is known.
    let claimed = match target {
        ApiOperation::Host(_) => Claimed::find_host(service, &head).await?,
        ApiOperation::Operator(_) | ApiOperation::Controller(_) => {
            Claimed::find(service, &head).await?
        }
    };
    claimed.is_for(&service.settings.partition.region, services)?;
    let body = receive(body, service.settings.timers.request).await?;
    let principal = claimed.verify(service, &head, &body)?;
    if let Some(slot) = head.extensions.get::<Arc<Slot>>() {
        slot.authenticated();
    }
    span.record("by", &principal.arn);
    let body = RequestBody::new(protocol, &head.headers, body)?;
    match target {
        ApiOperation::Operator(operation) => {
            let caller = (
                Arc::unwrap_or_clone(principal),
                Origin::of(&head.extensions),
            );
            // A held poll should not be as large as these.
            Box::pin(operator::call(
                service,
                operator::PUBLIC,
                caller,
                operation,
                body,
            ))
            .await
        }
        ApiOperation::Controller(operation) => {
            let caller = (
                Arc::unwrap_or_clone(principal),
                Origin::of(&head.extensions),
            );
            Box::pin(operator::call_own(service, caller, operation, body)).await
        }
        ApiOperation::Host(operation) => {
            let (operation, caller) = (
                operation.to_owned(),
                host::Caller::new(principal, &head.headers),
            );
            // A poll is held for long, and the headers keep the buffer that they were read into.
            drop(head);
            host::call(service, caller, &operation, &body).await
        }
    }
}

/// Reads the whole body, within limits of size and time.
async fn receive(body: Body, timeout: Duration) -> Result<Bytes, ApiError> {
    receive_at_most(MAX_BODY, body, timeout).await
}

async fn receive_at_most(most: usize, body: Body, timeout: Duration) -> Result<Bytes, ApiError> {
    let received = tokio::time::timeout(timeout, to_bytes(body, most))
        .await
        .map_err(|_| {
            ErrorName::RequestTimeout
                .because(format!("The body did not arrive within {timeout:?}."))
        })?;
    let body = received.map_err(|_| {
        ErrorName::RequestEntityTooLarge.because(format!(
            "The body could not be read; at most {most} bytes are."
        ))
    })?;
    // A slice would keep the connection's whole read buffer for as long as a poll is held.
    Ok(Bytes::copy_from_slice(&body))
}

/// A request with its claimed signer, and the key that must have signed it.
struct Claimed {
    claim: sigv4::Claim,
    key: ClaimedKey,
}

enum ClaimedKey {
    Stored(StoredKey),
    /// Of a host that called recently.
    Recent(Arc<UnlockedKey>),
}

impl Claimed {
    /// The same as [`find`](Self::find) for a request to the agents' API, whose operations check
    /// later that the key is not revoked.
    async fn find_host(service: &Arc<Service>, head: &Parts) -> Result<Self, ApiError> {
        let claim = sigv4::Claim::read(&head.headers)?;
        match service.host_keys.get(&claim.access_key_id, claim.scope()) {
            Some(key) => Ok(Self {
                claim,
                key: ClaimedKey::Recent(key),
            }),
            None => Self::find_stored(service, claim).await,
        }
    }

    async fn find(service: &Arc<Service>, head: &Parts) -> Result<Self, ApiError> {
        let claim = sigv4::Claim::read(&head.headers)?;
        Self::find_stored(service, claim).await
    }

    async fn find_stored(service: &Arc<Service>, claim: sigv4::Claim) -> Result<Self, ApiError> {
        let access_key_id = claim.access_key_id.clone();
        let found = service
            .read(move |_, context| Ok(credentials::find(context.tx, &access_key_id)?))
            .await?;
        let Some(key) = found else {
            return Err(ErrorName::UnrecognizedClient.because(format!(
                "The access key {:?} is unknown or revoked.",
                crate::request::members::shorten(&claim.access_key_id)
            )));
        };
        Ok(Self {
            claim,
            key: ClaimedKey::Stored(key),
        })
    }

    /// Checks that it is signed for one of `services` in `region`, and at about the present time.
    fn is_for(&self, region: &str, services: &[&str]) -> Result<(), ApiError> {
        self.claim.is_for(region, services, Timestamp::now())
    }

    fn region(&self) -> &str {
        self.claim.region()
    }

    fn verify(
        self,
        service: &Service,
        head: &Parts,
        body: &Bytes,
    ) -> Result<Arc<Principal>, ApiError> {
        let (key, is_new) = match self.key {
            ClaimedKey::Recent(key) => (key, false),
            ClaimedKey::Stored(key) => {
                let key = UnlockedKey::of(key, &service.vault, self.claim.scope())?;
                (Arc::new(key), true)
            }
        };
        let signed = sigv4::Request {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            body,
        };
        self.claim.verify(signed, &key.signing)?;
        let principal = key.admit(self.claim.token.as_deref(), Timestamp::now())?;
        if is_new && principal.role == Role::Host {
            service.host_keys.keep(key);
        }
        Ok(principal)
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
