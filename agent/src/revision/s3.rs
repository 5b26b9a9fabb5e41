//! Revisions in S3: one object, in the version and with the ETag of the deployment.
//!
//! The first request asks for the whole object. A small object is read to its end. For a large one,
//! this stream reads the first quarter, and three more streams read the others ([`transfer`]). A
//! stream that breaks off is resumed where it ended.

mod error;
mod transfer;

use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::request_id::RequestId as _;

use super::download::Incoming;
use super::retry::Failures;
use super::{DeploymentFolder, FetchedBundle, S3Revision};
use crate::aws::{Access, credentials};
use crate::identity::Region as HostRegion;
use crate::telemetry::milliseconds_since;
pub(super) use error::S3Error;
use error::{Failure, ObjectName};
use transfer::Transfer;

/// Downloads the object, and returns its ETag, without quotes.
pub(super) async fn fetch(
    revision: &S3Revision,
    folder: &DeploymentFolder,
    access: &Access,
) -> Result<(FetchedBundle, String), S3Error> {
    let began = Instant::now();
    let (source, first) = Source::find(revision, access).await?;
    let etag = first.e_tag().unwrap_or_default().to_owned();
    let found = etag.trim_matches('"').to_owned();
    if let Some(expected) = &revision.etag
        && *expected != found
    {
        let (object, expected) = (source.name(), expected.clone());
        return Err(S3Error::NotTheEtag {
            object,
            expected,
            found,
        });
    }
    let incoming = Incoming::create(folder)?;
    let total = first
        .content_length
        .and_then(|length| u64::try_from(length).ok());
    incoming.check_space(total.unwrap_or_default())?;
    let bytes = Transfer {
        source: &source,
        etag: &etag,
        total,
        incoming: &incoming,
    }
    .run(first.body)
    .await?;
    let file = incoming.finish()?;
    tracing::info!(
        bucket = revision.bucket,
        key = revision.key,
        version = revision.version.as_deref(),
        etag = found,
        bytes,
        duration_ms = milliseconds_since(began),
        "bundle downloaded"
    );
    Ok((
        FetchedBundle::File {
            file,
            bundle_type: revision.bundle_type,
        },
        found,
    ))
}

/// An object, and the access to it.
#[derive(Debug)]
struct Source<'a> {
    revision: &'a S3Revision,
    access: &'a Access,
    client: Client,
}

/// The conditions of a request for an object.
#[derive(Debug, Default)]
struct Condition {
    /// The header's value.
    range: Option<String>,
    /// As S3 sent it, with quotes.
    etag: Option<String>,
}

impl<'a> Source<'a> {
    /// Requests the whole object, in the bucket's own region.
    async fn find(
        revision: &'a S3Revision,
        access: &'a Access,
    ) -> Result<(Self, GetObjectOutput), S3Error> {
        let mut source = Self {
            revision,
            access,
            client: client(access, &access.region),
        };
        let mut failures = Failures::new(access.outage);
        let mut may_move = access.endpoints.s3.is_none();
        loop {
            match source.get(Condition::default()).await {
                Ok(object) => return Ok((source, object)),
                Err(Failure::Elsewhere(region)) if may_move => {
                    tracing::info!(bucket = revision.bucket, %region, "the bucket is in another region");
                    source.client = client(access, &region);
                    may_move = false;
                }
                Err(Failure::Temporary { reason, away }) => match failures.pause_after(0, away) {
                    Some(pause) => {
                        tracing::warn!(reason, object = %source.name(), "S3 did not answer; trying again");
                        tokio::time::sleep(pause).await;
                    }
                    None => {
                        return Err(S3Error::Failing {
                            object: source.name(),
                            reason,
                        });
                    }
                },
                Err(failure) => return Err(source.error(failure).await),
            }
        }
    }

    async fn get(&self, condition: Condition) -> Result<GetObjectOutput, Failure> {
        let S3Revision {
            bucket,
            key,
            version,
            ..
        } = self.revision;
        let request = self
            .client
            .get_object()
            .bucket(bucket)
            .key(key)
            .set_version_id(version.clone());
        let request = request
            .set_range(condition.range)
            .set_if_match(condition.etag);
        let used = self.access.credentials.generation();
        let mut answer = request.clone().send().await;
        let refused = answer
            .as_ref()
            .is_err_and(|error| error.code().is_some_and(credentials::is_refusal));
        if refused && self.access.credentials.refused(used).await {
            answer = request.send().await;
        }
        let object = answer.map_err(Failure::of)?;
        match foreign(&object) {
            Some(reason) => Err(Failure::Temporary {
                reason: reason.into(),
                away: false,
            }),
            None => Ok(object),
        }
    }

    fn name(&self) -> ObjectName {
        self.revision.into()
    }

    /// Describes a failure that is not retried.
    async fn error(&self, failure: Failure) -> S3Error {
        let object = self.name();
        match failure {
            Failure::Forbidden(answer) => {
                let action = if self.revision.version.is_some() {
                    "s3:GetObjectVersion"
                } else {
                    "s3:GetObject"
                };
                S3Error::Forbidden {
                    object,
                    identity: self.identity().await,
                    answer,
                    action,
                }
            }
            Failure::Missing(answer) => S3Error::Missing {
                object,
                identity: self.identity().await,
                answer,
            },
            Failure::Replaced => S3Error::Replaced {
                object,
                expected: "what it was".into(),
            },
            Failure::Elsewhere(region) => {
                let reason = format!(
                    "the bucket is in {region}; check s3_endpoint_override and the region of the host"
                );
                S3Error::Get { object, reason }
            }
            Failure::Temporary { reason, .. } | Failure::Permanent(reason) => {
                S3Error::Get { object, reason }
            }
        }
    }

    /// Identifies the credentials that were used, without secrets.
    async fn identity(&self) -> String {
        use aws_credential_types::provider::ProvideCredentials;
        match self.access.credentials.provide_credentials().await {
            Ok(credentials) => format!("the access key {}", credentials.access_key_id()),
            Err(_) => "credentials that cannot be read".into(),
        }
    }

    /// The longest silence of a stream that is tolerated.
    fn read_timeout(&self) -> Duration {
        self.access.read_timeout
    }
}

/// The reason why a successful response does not come from an object store: proxies and portals
/// send pages.
fn foreign(answer: &GetObjectOutput) -> Option<&'static str> {
    let is_page = || {
        answer
            .content_type()
            .is_some_and(|kind| kind.starts_with("text/html"))
    };
    match answer.e_tag() {
        None | Some("" | "\"\"") => Some("the answer has no ETag, so it is not the store's"),
        Some(_) if is_page() && answer.request_id().is_none() => {
            Some("the answer is a web page without a request id, so it is not the store's")
        }
        Some(_) => None,
    }
}

fn client(access: &Access, region: &HostRegion) -> Client {
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.as_str().to_owned()))
        .credentials_provider(access.credentials.clone())
        .identity_cache(IdentityCache::no_cache())
        .http_client(access.http.clone())
        .sleep_impl(TokioSleep::new())
        // Retries happen here, where the number of received bytes is known.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(10))
                .read_timeout(access.read_timeout)
                .build(),
        )
        // The ETag verifies the download; stores that only resemble S3 do not support checksums.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .use_fips(access.endpoints.use_fips);
    if let Some(endpoint) = access.s3_endpoint() {
        config = config
            .endpoint_url(endpoint)
            .force_path_style(access.endpoints.s3.is_some());
    }
    Client::from_conf(config.build())
}
