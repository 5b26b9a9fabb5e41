//! The S3 side: a folder of revisions for clients and agents without another store. `s3s`
//! implements the protocol and its signatures; this module decides about permissions,
//! [`crate::objects`] about storage.

mod complete_upload;
mod copy;
mod deletion;
mod folder;
mod integrity;
mod listing;
mod operations;

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Request, Response, StatusCode, header};
use codedeploy_api::codedeploy::Timestamp;
use futures_util::StreamExt as _;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::sigv4::Claim;
use super::unauthenticated::Slot;
use super::{Kind, UNKNOWN};
use crate::credentials::{self, Role, Scopes, StoredKey};
use crate::error::{ApiError, ErrorName};
use crate::fleet;
use crate::objects::Objects;
use crate::s3_document;
use crate::service::Service;
use crate::transaction::Context;

/// The operations that a host needs to fetch a revision.
const FETCHES: [&str; 2] = ["GetObject", "HeadObject"];

/// The other operations that change nothing.
const READS: [&str; 9] = [
    "GetBucketLocation",
    "GetBucketVersioning",
    "GetObjectTagging",
    "HeadBucket",
    "ListBuckets",
    "ListObjectVersions",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
];

/// Steps of an operation that do not change an object by themselves.
const STEPS: [&str; 4] = [
    "AbortMultipartUpload",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
];

/// The operations on one object that a key for some applications needs: to look for a bundle, and
/// to upload it.
const SCOPED: [&str; 8] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateMultipartUpload",
    "GetObject",
    "HeadObject",
    "ListParts",
    "PutObject",
    "UploadPart",
];

/// Whether a key may perform an operation on an object: one for some applications has the objects
/// below their names.
fn is_in_scope(scopes: &Scopes, operation: &str, object: &str) -> bool {
    let application = object.split_once('/').map(|(application, _)| application);
    !scopes.are_limited()
        || (SCOPED.contains(&operation)
            && application.is_some_and(|application| scopes.have_application(application)))
}

/// The query parameters of requests that are signed in the query, in any version.
const QUERY_SIGNATURES: [&str; 4] = [
    "X-Amz-Algorithm",
    "X-Amz-Signature",
    "Signature",
    "AWSAccessKeyId",
];

const FORM: &[u8] = b"multipart/form-data";

const CONTENT_HASH: &str = "x-amz-content-sha256";

/// The S3 service of a folder.
#[derive(Debug, Clone)]
pub(super) struct Store {
    service: Arc<Service>,
    s3: S3Service,
}

impl Store {
    pub(super) fn new(service: &Arc<Service>, objects: Arc<Objects>) -> Self {
        let mut builder = S3ServiceBuilder::new(folder::Folder {
            service: Arc::clone(service),
            objects,
        });
        builder.set_auth(Gate(Arc::clone(service)));
        builder.set_access(Gate(Arc::clone(service)));
        builder.set_validation(AnyName);
        Store {
            service: Arc::clone(service),
            s3: builder.build(),
        }
    }

    pub(super) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let timeout = self.service.settings.timers.request;
        let failed = |error: &dyn std::fmt::Debug| {
            tracing::error!(?error, "an S3 request could not be answered");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        };
        if let Err(error) = self.screen(&request) {
            tracing::info!(error = %error.name, reason = error.message, "request refused");
            let answer = refusal(&error).to_http_response();
            let mut response =
                answer.map_or_else(|error| failed(&error), |response| response.map(Body::new));
            super::refused(&mut response, &error);
            response.extensions_mut().insert(kind(None));
            return response;
        }
        let mut request = request.map(|body| s3s::Body::http_body_unsync(unhurried(body, timeout)));
        let operation = Arc::new(OnceLock::new());
        request
            .extensions_mut()
            .insert(Admitted(Arc::clone(&operation)));
        let answer = self.s3.call(request).await;
        if let Ok(answer) = &answer {
            log(operation.get(), answer);
        }
        let mut response =
            answer.map_or_else(|error| failed(&error), |response| response.map(Body::new));
        response.extensions_mut().insert(kind(operation.get()));
        response
    }

    /// Rejects requests that the protocol's library would keep in memory, or accept, before it
    /// knows the caller.
    fn screen(&self, request: &Request<Body>) -> Result<(), ApiError> {
        let headers = request.headers();
        let said = |what: &str| Err(ErrorName::AccessDenied.because(what));
        if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
            return said("The request has more than one Authorization header.");
        }
        // Signatures in the query stay in logs and histories; version 2 uses SHA-1.
        let query = request.uri().query().unwrap_or_default();
        let signs = |(name, _): (Cow<'_, str>, _)| QUERY_SIGNATURES.contains(&&*name);
        if form_urlencoded::parse(query.as_bytes()).any(signs) {
            return said(
                "Signatures belong in the Authorization header: presigned requests are not accepted.",
            );
        }
        let content = headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.as_bytes().to_ascii_lowercase());
        if request.method() == Method::POST && content.is_some_and(|kind| kind.starts_with(FORM)) {
            return said("Uploads by forms are not accepted.");
        }
        let claim = Claim::read(headers)?;
        let amazon = headers
            .keys()
            .map(header::HeaderName::as_str)
            .filter(|name| name.starts_with("x-amz-"));
        claim.covers(amazon.chain([CONTENT_HASH]))?;
        claim.is_for(
            &self.service.settings.partition.region,
            &["s3"],
            Timestamp::now(),
        )
    }
}

/// The operation of an admitted request.
#[derive(Debug, Clone)]
struct Admitted(Arc<OnceLock<String>>);

/// The library's names of operations are as few as the protocol has.
fn kind(operation: Option<&String>) -> Kind {
    Kind {
        api: "s3",
        operation: operation.map_or(UNKNOWN.into(), |name| name.clone().into()),
    }
}

/// Logs a request that changed something, and a rejected one; `operation` is that of an admitted
/// request.
fn log(operation: Option<&String>, answer: &Response<s3s::Body>) {
    let is =
        |names: &[&str]| operation.is_some_and(|operation| names.contains(&operation.as_str()));
    let status = answer.status();
    if status.is_client_error() || status.is_server_error() {
        let said = answer.body().bytes().unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        tracing::info!(
            status = status.as_u16(),
            error = s3_document::member(&said, "Code"),
            reason = s3_document::member(&said, "Message"),
            "request refused"
        );
    } else if is(&READS) || is(&FETCHES) || is(&STEPS) {
        tracing::debug!("an S3 request");
    } else {
        tracing::info!("changed by a request");
    }
}

/// A body that fails if nothing arrives for `timeout`.
fn unhurried(body: Body, timeout: Duration) -> Body {
    // The library knows the length of an empty body only.
    if body.is_end_stream() {
        return body;
    }
    Body::from_stream(futures_util::stream::unfold(
        body.into_data_stream(),
        move |mut frames| async move {
            let frame = match tokio::time::timeout(timeout, frames.next()).await {
                Ok(frame) => frame?.map_err(io::Error::other),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            Some((frame, frames))
        },
    ))
}

fn refusal(error: &ApiError) -> S3Error {
    let name = error.name.text();
    let name = name.trim_end_matches("Exception");
    let code = match error.name {
        ErrorName::InvalidSignature => S3ErrorCode::SignatureDoesNotMatch,
        ErrorName::MissingAuthenticationToken | ErrorName::IncompleteSignature => {
            S3ErrorCode::AccessDenied
        }
        _ => S3ErrorCode::from_bytes(name.as_bytes()).unwrap_or(S3ErrorCode::InternalError),
    };
    S3Error::with_message(code, error.message.clone())
}

/// `s3s` rejects a name without a message; the folder checks names, and explains.
struct AnyName;

impl NameValidation for AnyName {
    fn validate_bucket_name(&self, _: &str) -> bool {
        true
    }
}

/// Admits the callers that the rest of the service admits.
struct Gate(Arc<Service>);

impl Gate {
    async fn find<T, W>(&self, access_key_id: &str, use_it: W) -> S3Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>, StoredKey) -> Result<T, ApiError> + Send + 'static,
    {
        let id = access_key_id.to_owned();
        let found = self.0.read(move |service, context| {
            let key = credentials::find(context.tx, &id)?;
            key.map(|key| use_it(service, context, key)).transpose()
        });
        found
            .await
            .map_err(|error| refusal(&error))?
            .ok_or_else(|| s3_error!(InvalidAccessKeyId, "The access key is unknown or revoked."))
    }
}

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = self.find(
            access_key,
            |service, _, key| Ok(key.secret(&service.vault)?),
        );
        Ok(SecretKey::from(secret.await?))
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    /// Called after the signature is verified.
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let Some(credentials) = request.credentials() else {
            return Err(s3_error!(AccessDenied, "The request is not signed."));
        };
        let operation = request.s3_op().name().to_owned();
        let token = header("x-amz-security-token").map(str::to_owned);
        let admitted = self.find(&credentials.access_key, move |_, context, key| {
            let principal = key.admit(token.as_deref(), Timestamp::now())?;
            let registered = principal.role != Role::Host
                || fleet::instance_of_host(context.tx, &principal.arn)?.is_some();
            Ok((principal, registered))
        });
        let (principal, registered) = admitted.await?;
        let allowed = match principal.role {
            Role::Operator => true,
            Role::ReadOnly => READS.iter().chain(&FETCHES).any(|one| *one == operation),
            Role::Host => registered && FETCHES.iter().any(|one| *one == operation),
        };
        let object = request.s3_path().get_object_key().unwrap_or_default();
        let allowed = allowed && is_in_scope(&principal.scopes, &operation, object);
        if let Some(slot) = request.extensions_mut().get::<Arc<Slot>>() {
            slot.authenticated();
        }
        let span = tracing::Span::current();
        span.record("by", &principal.arn);
        span.record("operation", &operation);
        let path = request.s3_path();
        if let Some(bucket) = path.get_bucket_name() {
            span.record("bucket", bucket);
        }
        if let Some(key) = path.get_object_key() {
            span.record("key", key);
        }
        if allowed {
            let uploader = folder::Uploader(principal.scopes.clone());
            request.extensions_mut().insert(uploader);
            if let Some(Admitted(known)) = request.extensions_mut().get::<Admitted>() {
                let _ = known.set(operation);
            }
            Ok(())
        } else {
            Err(s3_error!(
                AccessDenied,
                "{} is not authorized to perform s3:{operation}",
                principal.arn
            ))
        }
    }
}
