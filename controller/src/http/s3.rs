//! The S3 side: a folder of revisions for clients and agents that have no other store. The protocol and its signatures
//! are `s3s`'s; who may do what is decided here, what is kept where in [`crate::objects`].

mod copy;
mod deletion;
mod folder;
mod listing;
mod operations;
mod parts;
mod said;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use codedeploy_api::codedeploy::Timestamp;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::credentials::{self, Kept, Role};
use crate::error::ApiError;
use crate::fleet;
use crate::objects::Objects;
use crate::registry::Context;
use crate::service::Service;

/// What changes nothing.
const READS: [&str; 11] = [
    "GetBucketLocation",
    "GetBucketVersioning",
    "GetObject",
    "GetObjectTagging",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListObjectVersions",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
];

/// The S3 service of a folder.
#[derive(Debug, Clone)]
pub(super) struct Store(S3Service);

impl Store {
    pub(super) fn new(service: &Arc<Service>, objects: Arc<Objects>) -> Self {
        let mut builder = S3ServiceBuilder::new(folder::Folder { service: Arc::clone(service), objects });
        builder.set_auth(Gate(Arc::clone(service)));
        builder.set_access(Gate(Arc::clone(service)));
        builder.set_validation(AnyName);
        Store(builder.build())
    }

    pub(super) async fn call(&self, request: Request<Body>) -> Response<Body> {
        match self.0.call(request.map(s3s::Body::http_body_unsync)).await {
            Ok(response) => response.map(Body::new),
            Err(error) => {
                tracing::error!(?error, "an S3 request could not be answered");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }
}

/// `s3s` refuses a name without a word; the folder knows what names it can have, and says so.
struct AnyName;

impl NameValidation for AnyName {
    fn validate_bucket_name(&self, _: &str) -> bool {
        true
    }
}

/// Lets in whom the rest of the service lets in.
struct Gate(Arc<Service>);

impl Gate {
    async fn find<T, W>(&self, access_key_id: &str, use_it: W) -> S3Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>, Kept) -> Result<T, ApiError> + Send + 'static,
    {
        let id = access_key_id.to_owned();
        let found = self.0.transact(move |service, context| {
            let key = credentials::find(context.tx, &id)?;
            key.map(|key| use_it(service, context, key)).transpose()
        });
        let found = found.await.map_err(|error| {
            S3Error::with_message(
                S3ErrorCode::from_bytes(error.name.text().trim_end_matches("Exception").as_bytes())
                    .unwrap_or(S3ErrorCode::InternalError),
                error.message,
            )
        })?;
        found.ok_or_else(|| s3_error!(InvalidAccessKeyId, "The access key is unknown or revoked."))
    }
}

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = self.find(access_key, |service, _, key| Ok(key.secret(&service.vault)?));
        Ok(SecretKey::from(secret.await?))
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    /// Called when the signature was verified.
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        // Signatures in the query are for ever in logs and histories; those of version 2 are SHA-1's.
        let signed = header("authorization").is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256"));
        let Some(credentials) = request.credentials().filter(|_| signed) else {
            return Err(s3_error!(
                AccessDenied,
                "Requests must be signed with AWS Signature Version 4 in the Authorization header."
            ));
        };
        let operation = request.s3_op().name();
        let token = header("x-amz-security-token").map(str::to_owned);
        let admitted = self.find(&credentials.access_key, move |_, context, key| {
            let principal = key.admit(token.as_deref(), Timestamp::now())?;
            let registered = principal.role != Role::Host
                || fleet::instance_of_host(context.tx, &principal.arn)?.is_some();
            Ok((principal, registered))
        });
        let (principal, registered) = admitted.await?;
        let allowed = match principal.role {
            Role::Operator => operation != "PostObject",
            Role::ReadOnly | Role::Host => registered && READS.contains(&operation),
        };
        if allowed {
            tracing::debug!(by = principal.arn, operation, "an S3 request");
            Ok(())
        } else {
            tracing::info!(by = principal.arn, operation, "an S3 request was refused");
            Err(s3_error!(AccessDenied, "{} is not authorized to perform s3:{operation}", principal.arn))
        }
    }
}
