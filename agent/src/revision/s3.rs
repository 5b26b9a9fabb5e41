//! Revisions in S3: one object, in the version and with the ETag that the deployment names.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::io::{AsyncWriteExt, BufWriter};

use super::{DeploymentFolder, FetchedBundle, S3Revision};
use crate::aws::{Access, credentials};

/// What is written to the bundle at once.
const WRITE_BUFFER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error("cannot get s3://{bucket}/{key}: {reason}")]
    Get { bucket: String, key: String, reason: String },
    #[error(
        "s3://{bucket}/{key} has the ETag {found}, but the deployment names {expected}; deploy the revision that is there, or upload this one again"
    )]
    Changed { bucket: String, key: String, expected: String, found: String },
    #[error("s3://{bucket}/{key} broke off after {received} of {expected} bytes")]
    Short { bucket: String, key: String, received: u64, expected: u64 },
    #[error("cannot write the bundle {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

pub(super) async fn fetch(
    revision: &S3Revision,
    folder: &DeploymentFolder,
    access: &Access,
) -> Result<FetchedBundle, S3Error> {
    let S3Revision { bucket, key, bundle_type, version, etag } = revision;
    let failed = |reason: String| S3Error::Get { bucket: bucket.clone(), key: key.clone(), reason };
    let request = client(access).get_object().bucket(bucket).key(key).set_version_id(version.clone());
    let used = access.credentials.generation();
    let mut answer = request.clone().send().await;
    let refused = answer.as_ref().is_err_and(|error| error.code().is_some_and(credentials::is_refusal));
    if refused && access.credentials.refused(used).await {
        answer = request.send().await;
    }
    let mut object = answer.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;

    let found = object.e_tag().unwrap_or_default().trim_matches('"').to_owned();
    if let Some(expected) = etag
        && *expected != found
    {
        let (bucket, key, expected) = (bucket.clone(), key.clone(), expected.clone());
        return Err(S3Error::Changed { bucket, key, expected, found });
    }

    let path = folder.bundle();
    let write = |source| S3Error::Write { path: path.clone(), source };
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(write)?;
    let reader = file.try_clone().map_err(write)?;
    let mut writer = BufWriter::with_capacity(WRITE_BUFFER, tokio::fs::File::from_std(file));
    let mut received = 0;
    while let Some(chunk) = object.body.next().await {
        let chunk = chunk.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        received += chunk.len() as u64;
        writer.write_all(&chunk).await.map_err(write)?;
    }
    writer.flush().await.map_err(write)?;
    match object.content_length.and_then(|length| u64::try_from(length).ok()) {
        Some(expected) if expected != received => {
            Err(S3Error::Short { bucket: bucket.clone(), key: key.clone(), received, expected })
        }
        _ => {
            folder.note_source(&found).map_err(write)?;
            tracing::info!(
                bucket,
                key,
                version = version.as_deref(),
                etag = found,
                bytes = received,
                "bundle downloaded"
            );
            Ok(FetchedBundle::File { file: reader, bundle_type: *bundle_type })
        }
    }
}

fn client(access: &Access) -> Client {
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(access.region.as_str().to_owned()))
        .credentials_provider(access.credentials.clone())
        .identity_cache(IdentityCache::no_cache())
        .http_client(access.http.clone())
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(10))
                .read_timeout(access.read_timeout)
                .build(),
        )
        // What was fetched is checked by its ETag; stores that only resemble S3 know no checksums.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .use_fips(access.endpoints.use_fips);
    if let Some(endpoint) = access.s3_endpoint() {
        config = config.endpoint_url(endpoint).force_path_style(access.endpoints.s3.is_some());
    }
    Client::from_conf(config.build())
}
