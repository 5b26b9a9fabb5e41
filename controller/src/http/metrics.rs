//! The service's metrics in Prometheus's text format: `GET /metrics`, signed with a key of role
//! operator or read-only, or with the token of the configuration; on a listener of its own, for
//! everyone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::routing::get;
use codedeploy_api::codedeploy::{self, DeploymentStatus, TargetStatus, Timestamp};
use codedeploy_support::metrics::CONTENT_TYPE;

use super::token::is_let_in;
use super::unauthenticated::Slot;
use super::{Claimed, header_text, sigv4};
use crate::credentials::{self, Role};
use crate::error::{ApiError, ErrorName};
use crate::events::outbox;
use crate::fleet::{self, Presence, SILENCE};
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::outgoing;
use crate::records::unfinished;
use crate::registry::groups;
use crate::service::Service;
use crate::transaction::Context;

pub(super) const PATH: &str = "/metrics";

/// Keys that expire within this time are counted.
const EXPIRES_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// The time for which the sizes of buckets are known.
const SIZES_FOR: Duration = Duration::from_secs(300);

/// Answers requests for the metrics.
#[derive(Debug, Default, Clone)]
pub(super) struct Scrapes {
    sizes: Arc<Mutex<Sizes>>,
}

/// The last known sizes of buckets.
#[derive(Debug, Default)]
struct Sizes {
    counted: Option<Instant>,
    by_bucket: BTreeMap<String, u64>,
}

/// Whether a request is for the metrics: a bucket can have their name.
pub(super) fn is_meant(service: &Service, request: &Request<Body>) -> bool {
    service.metrics.is_some() && sigv4::claimed_service(request.headers()) != Some("s3")
}

/// The listener for everyone who reaches it.
pub(crate) fn open_router(service: Arc<Service>) -> Router {
    let scrapes = Scrapes::default();
    let answer = move |State(service): State<Arc<Service>>| async move {
        written(scrapes.text(&service).await)
    };
    Router::new().route(PATH, get(answer)).with_state(service)
}

impl Scrapes {
    pub(super) async fn answer(
        self,
        service: &Arc<Service>,
        request: Request<Body>,
    ) -> Response<Body> {
        let (head, _) = request.into_parts();
        let text = match admit(service, &head).await {
            Ok(()) => {
                if let Some(slot) = head.extensions.get::<Arc<Slot>>() {
                    slot.authenticated();
                }
                self.text(service).await
            }
            Err(error) => Err(error),
        };
        written(text)
    }

    async fn text(&self, service: &Arc<Service>) -> Result<String, ApiError> {
        let Some(metrics) = &service.metrics else {
            return Ok(String::new());
        };
        let state = service.read(|_, context| Now::read(context)).await?;
        let sizes = service
            .objects
            .as_ref()
            .map(|objects| self.sizes(objects))
            .unwrap_or_default();
        let filling = &metrics.filling;
        let _filling = filling.lock().unwrap_or_else(PoisonError::into_inner);
        fill(metrics, service, state, sizes);
        Ok(metrics.text())
    }

    /// Returns the last known sizes, and has old ones counted again for the next request.
    fn sizes(&self, objects: &Arc<Objects>) -> BTreeMap<String, u64> {
        let mut known = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.counted.is_none_or(|at| at.elapsed() > SIZES_FOR) {
            known.counted = Some(Instant::now());
            let (objects, sizes) = (Arc::clone(objects), Arc::clone(&self.sizes));
            tokio::task::spawn_blocking(move || match objects.sizes() {
                Ok(counted) => {
                    let mut known = sizes.lock().unwrap_or_else(PoisonError::into_inner);
                    known.by_bucket = counted;
                }
                Err(error) => {
                    tracing::warn!(
                        error = crate::error::chain(&error),
                        "the sizes of buckets could not be counted"
                    );
                }
            });
        }
        known.by_bucket.clone()
    }
}

/// Admits the token, and keys that may read.
async fn admit(service: &Arc<Service>, head: &Parts) -> Result<(), ApiError> {
    if let Some(token) = &service.metrics_token
        && is_let_in(&head.headers, token)
    {
        return Ok(());
    }
    let given = header_text(&head.headers, "authorization").unwrap_or_default();
    if given.is_empty() {
        return Err(ErrorName::MissingAuthenticationToken.because(
            "The request shows no key: send the token of metrics.token or metrics.token_file (Authorization: Bearer …), or sign \
             it with an access key of role operator or read-only.",
        ));
    }
    if given.starts_with("Bearer ") || given.starts_with("Basic ") {
        let wrong = match &service.metrics_token {
            Some(_) => "The token is not that of metrics.token or metrics.token_file.",
            None => {
                "No token is configured: set metrics.token or metrics.token_file, and restart the service."
            }
        };
        return Err(ErrorName::UnrecognizedClient.because(wrong));
    }
    let claimed = Claimed::find(service, head).await?;
    claimed.is_for(
        &service.settings.partition.region,
        &[codedeploy::SIGNING_NAME],
    )?;
    let principal = claimed.verify(service, head, &axum::body::Bytes::new())?;
    tracing::Span::current().record("by", &principal.arn);
    match principal.role {
        Role::Operator | Role::ReadOnly if !principal.scopes.are_limited() => Ok(()),
        _ => Err(ErrorName::AccessDenied.because(format!(
            "{} is not authorized to read the metrics of the whole fleet",
            principal.arn
        ))),
    }
}

fn written(text: Result<String, ApiError>) -> Response<Body> {
    match text {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            let kind = HeaderValue::from_static(CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::info!(error = %error.name, reason = error.message, "request refused");
            let status = match (error.name, error.name.status()) {
                (ErrorName::MissingAuthenticationToken | ErrorName::UnrecognizedClient, _) => {
                    StatusCode::UNAUTHORIZED
                }
                (_, 400) => StatusCode::FORBIDDEN,
                (_, other) => {
                    StatusCode::from_u16(other).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
                }
            };
            let mut response = Response::new(Body::from(format!("{}\n", error.message)));
            *response.status_mut() = status;
            if status == StatusCode::UNAUTHORIZED {
                let scheme = HeaderValue::from_static("Bearer");
                let headers = response.headers_mut();
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            super::refused(&mut response, &error);
            response
        }
    }
}

/// The state at one moment, as the database has it.
struct Now {
    hosts: Presence,
    deployments: Vec<(String, i64)>,
    targets: Vec<(String, i64)>,
    groups: BTreeSet<(String, String)>,
    /// By URL: the number of messages, and the time of the oldest.
    messages: Vec<(String, i64, Timestamp)>,
    expiring: Vec<(Role, i64)>,
}

impl Now {
    fn read(context: &Context<'_>) -> Result<Self, ApiError> {
        let Context { tx, now, .. } = *context;
        let silent_since = now.millis() - i64::try_from(SILENCE.as_millis()).unwrap_or(0);
        Ok(Now {
            hosts: fleet::presence(tx, Timestamp::from_millis(silent_since))?,
            deployments: unfinished::by_status(tx)?,
            targets: unfinished::targets_by_status(tx)?,
            groups: groups::names(tx)?,
            messages: outbox::waiting(tx)?,
            expiring: credentials::expiring(tx, now, now + EXPIRES_WITHIN)?,
        })
    }
}

fn fill(metrics: &Metrics, service: &Service, now: Now, sizes: BTreeMap<String, u64>) {
    let state = &metrics.state;
    metrics.know_groups(&now.groups);
    for (name, number) in [
        ("polling", now.hosts.polling),
        ("silent", now.hosts.silent),
        ("never_seen", now.hosts.never_seen),
    ] {
        state.hosts.with([name]).set(number);
    }
    use DeploymentStatus::{Created, InProgress, Ready};
    for status in [Created, InProgress, Ready] {
        let number = find(&now.deployments, status.as_str());
        state
            .deployments
            .with([status.as_str().to_owned()])
            .set(number);
    }
    for status in [
        TargetStatus::Pending,
        TargetStatus::InProgress,
        TargetStatus::Ready,
        TargetStatus::Succeeded,
        TargetStatus::Failed,
        TargetStatus::Skipped,
    ] {
        let number = find(&now.targets, status.as_str());
        state.targets.with([status.as_str().to_owned()]).set(number);
    }
    let receivers = service.settings.events.receivers();
    let mut waiting: BTreeMap<String, (i64, Option<Timestamp>)> = receivers
        .map(|receiver| (outgoing::place(&receiver.url), (0, None)))
        .collect();
    for (url, number, oldest) in now.messages {
        if let Some((all, first)) = waiting.get_mut(&outgoing::place(&url)) {
            *all += number;
            *first = first.iter().copied().chain([oldest]).min();
        }
    }
    state.outbox_messages.clear();
    state.outbox_oldest.clear();
    for (place, (number, oldest)) in waiting {
        state.outbox_messages.with([place.clone()]).set(number);
        if let Some(oldest) = oldest {
            state
                .outbox_oldest
                .with([place])
                .set(oldest.millis() / 1000);
        }
    }
    if let Some(end) = service
        .certificate
        .get()
        .and_then(|present| present.not_after())
    {
        state
            .certificate_expiry
            .with([""; 0])
            .set(end.unix_timestamp());
    }
    for role in [Role::Operator, Role::ReadOnly, Role::Host] {
        let number = now.expiring.iter().find(|(of, _)| *of == role);
        let number = number.map_or(0, |(_, number)| *number);
        state.credentials_expiring.with([role.text()]).set(number);
    }
    state.object_bytes.clear();
    for (bucket, size) in sizes {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        state.object_bytes.with([bucket]).set(size);
    }
}

fn find(numbers: &[(String, i64)], of: &str) -> i64 {
    let found = numbers.iter().find(|(name, _)| name == of);
    found.map_or(0, |(_, number)| *number)
}
