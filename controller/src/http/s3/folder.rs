//! The common parts of the S3 operations: the folder of objects behind them, in the terms of `s3s`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{io, ops};

use axum::http::Extensions;
use s3s::dto::{self, ETag, ETagCondition};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, Take};
use tokio_util::io::ReaderStream;

use super::integrity::DeclaredContent;
use crate::credentials::Scopes;
use crate::events::bucket_notification::Created;
use crate::events::pending_deployments;
use crate::objects::{Meter, ObjectError, Objects, Staged, Version};
use crate::pruning;
use crate::service::Service;

/// The number of bytes of an object that are read at once.
const CHUNK: usize = 64 * 1024;

#[derive(Clone)]
pub(super) struct Folder {
    pub(super) service: Arc<Service>,
    pub(super) objects: Arc<Objects>,
}

impl From<ObjectError> for S3Error {
    fn from(error: ObjectError) -> Self {
        let code = match &error {
            ObjectError::NoSuchBucket(_) => S3ErrorCode::NoSuchBucket,
            ObjectError::BucketNotEmpty(_) => S3ErrorCode::BucketNotEmpty,
            ObjectError::NoSuchKey(_) => S3ErrorCode::NoSuchKey,
            ObjectError::NoSuchVersion(_) => S3ErrorCode::NoSuchVersion,
            ObjectError::NoSuchUpload(_) => S3ErrorCode::NoSuchUpload,
            ObjectError::NoSuchPart(_) => S3ErrorCode::InvalidPart,
            ObjectError::Key | ObjectError::Token => S3ErrorCode::InvalidArgument,
            ObjectError::Digest(_) => S3ErrorCode::BadDigest,
            ObjectError::Incomplete(_) => S3ErrorCode::IncompleteBody,
            ObjectError::Precondition => S3ErrorCode::PreconditionFailed,
            ObjectError::Io { .. } => S3ErrorCode::InternalError,
        };
        if code == S3ErrorCode::InternalError {
            tracing::error!(
                error = crate::error::chain(&error),
                "an S3 request failed inside the service"
            );
            return S3Error::with_message(
                code,
                "We encountered an internal error. Its cause is in the service's log.",
            );
        }
        S3Error::with_message(code, error.to_string())
    }
}

impl Folder {
    /// The time for which a client may send nothing in the middle of its content.
    pub(super) fn request_timeout(&self) -> Duration {
        self.service.settings.timers.request
    }

    /// Receives the content of a request, and checks it against what the request declares.
    pub(super) async fn received(
        &self,
        body: Option<dto::StreamingBlob>,
        declared: &DeclaredContent,
    ) -> S3Result<Staged> {
        let body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
        let meter = Meter::new(&declared.algorithms);
        let staged = self
            .objects
            .receive(body, meter, self.request_timeout())
            .await?;
        declared.check(&staged)?;
        Ok(staged)
    }

    /// Adds a version and has it deployed if it is watched, even if the client does not wait for
    /// the response.
    pub(super) async fn keep(
        &self,
        bucket: String,
        key: String,
        uploader: Uploader,
        add: impl FnOnce(&Objects, &str, &str) -> Result<Version, ObjectError> + Send + 'static,
    ) -> S3Result<Version> {
        let folder = self.clone();
        let kept = tokio::spawn(async move {
            let (named, of) = (bucket.clone(), key.clone());
            let version = folder
                .on_disk(move |objects| add(objects, &named, &of))
                .await?;
            folder.tell(&bucket, &key, &version, uploader).await;
            pruning::replaced(&folder.service, &bucket, &key).await;
            Ok(version)
        });
        kept.await
            .map_err(|error| s3_error!(error, InternalError))?
    }

    /// Has a new version deployed if it is watched. The version exists in any case.
    async fn tell(&self, bucket: &str, key: &str, version: &Version, Uploader(scopes): Uploader) {
        let created = Created {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            etag: Some(version.etag.clone()),
            version: Some(version.id.clone()),
            sequencer: None,
        };
        if let Err(error) = pending_deployments::accept(&self.service, vec![created], scopes).await
        {
            tracing::error!(bucket, key, %error, "a new object may not be deployed automatically");
        }
    }

    /// Runs disk work on a thread that may block.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Objects) -> Result<T, ObjectError> + Send + 'static,
    ) -> S3Result<T> {
        let objects = Arc::clone(&self.objects);
        let done = tokio::task::spawn_blocking(move || work(&objects)).await;
        Ok(done.map_err(|error| s3_error!(error, InternalError))??)
    }

    /// Rejects a request about a bucket that does not exist.
    pub(super) async fn bucket(&self, name: String) -> S3Result<()> {
        self.on_disk(move |objects| objects.bucket(&name).map(drop))
            .await
    }

    /// Returns a range of a version's content.
    pub(super) async fn content(
        &self,
        version: &Version,
        path: PathBuf,
        range: ops::Range<u64>,
    ) -> S3Result<ReaderStream<Take<File>>> {
        let failed = |source: io::Error| match source.kind() {
            // It was deleted since it was found.
            io::ErrorKind::NotFound => ObjectError::NoSuchVersion(version.id.clone()),
            _ => ObjectError::Io {
                path: path.clone(),
                source,
            },
        };
        let mut file = File::open(&path).await.map_err(failed)?;
        file.seek(io::SeekFrom::Start(range.start))
            .await
            .map_err(failed)?;
        Ok(ReaderStream::with_capacity(
            file.take(range.end.saturating_sub(range.start)),
            CHUNK,
        ))
    }

    /// Returns the version of a request, if it passes the request's conditions.
    pub(super) async fn find(&self, wanted: Wanted) -> S3Result<(Version, PathBuf)> {
        let Wanted {
            bucket,
            key,
            version,
            if_match,
            if_none_match,
        } = wanted;
        let found = self
            .on_disk(move |objects| objects.find(&bucket, &key, version.as_deref()))
            .await?;
        if found.0.deleted {
            return Err(s3_error!(
                MethodNotAllowed,
                "This version marks that the object was deleted."
            ));
        }
        let is_it = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == found.0.etag,
        };
        if if_match.as_ref().is_some_and(|condition| !is_it(condition)) {
            return Err(ObjectError::Precondition.into());
        }
        if if_none_match.as_ref().is_some_and(is_it) {
            return Err(s3_error!(NotModified));
        }
        Ok(found)
    }
}

/// The parts of the fleet that the access key of an upload is for.
#[derive(Debug, Clone)]
pub(super) struct Uploader(pub(super) Scopes);

impl Uploader {
    /// Returns the uploader of an admitted request.
    pub(super) fn of(extensions: &Extensions) -> S3Result<Self> {
        let found = extensions.get::<Uploader>().cloned();
        found.ok_or_else(|| s3_error!(AccessDenied, "The request is not signed."))
    }
}

pub(super) struct Wanted {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) version: Option<String>,
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

/// The checksum fields of many inputs and outputs.
macro_rules! checksums {
    ($input:expr) => {
        Checksums {
            crc32: $input.checksum_crc32.clone(),
            crc32c: $input.checksum_crc32c.clone(),
            crc64nvme: $input.checksum_crc64nvme.clone(),
            sha1: $input.checksum_sha1.clone(),
            sha256: $input.checksum_sha256.clone(),
        }
    };
}

macro_rules! labels {
    ($input:expr) => {
        Labels {
            content_type: $input.content_type.clone(),
            content_encoding: $input.content_encoding.clone(),
            content_disposition: $input.content_disposition.clone(),
            cache_control: $input.cache_control.clone(),
            metadata: $input
                .metadata
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }
    };
}

pub(super) use {checksums, labels};

pub(super) fn etag(version: &Version) -> Option<ETag> {
    Some(ETag::Strong(version.etag.clone()))
}

pub(super) fn timestamp(version: &Version) -> Option<dto::Timestamp> {
    let seconds = version.modified.millis().div_euclid(1000);
    let time = time::OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    Some(dto::Timestamp::from(time))
}

pub(super) fn size(bytes: u64) -> Option<i64> {
    i64::try_from(bytes).ok()
}
