//! Copies of objects, whole or as parts of uploads, without sending the content to the client.

use std::ops;
use std::path::PathBuf;

use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};

use super::folder::{Folder, Uploader, Wanted, etag, labels, timestamp};
use crate::objects::{Algorithm, Labels, Meter, ObjectError, Objects, Staged, Version};

impl Folder {
    /// Makes a version of one object the newest of another, or an earlier version the newest of its
    /// own object.
    pub(super) async fn copy(&self, req: S3Request<CopyObjectInput>) -> S3Result<CopyObjectOutput> {
        let uploader = Uploader::of(&req.extensions)?;
        let input = req.input;
        let replaces = input
            .metadata_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        if let CopySource::Bucket {
            bucket,
            key,
            version_id: None,
        } = &input.copy_source
            && **bucket == *input.bucket
            && **key == *input.key
            && !replaces
        {
            return Err(s3_error!(
                InvalidRequest,
                "This would copy an object to itself: name a version, or give other metadata (REPLACE)."
            ));
        }
        let given: Labels = labels!(input);
        let CopyObjectInput {
            bucket,
            key,
            copy_source,
            checksum_algorithm,
            ..
        } = input;
        let conditions = (input.copy_source_if_match, input.copy_source_if_none_match);
        let name = bucket.clone();
        self.bucket(name).await?;
        let (source, path) = self.source(copy_source, conditions).await?;
        let wanted = |algorithm: &Algorithm| {
            let asked = checksum_algorithm.as_ref();
            source.checksums.of(*algorithm).is_some()
                || asked.is_some_and(|asked| asked.as_str() == algorithm.name())
        };
        let algorithms: Vec<_> = Algorithm::ALL.into_iter().filter(wanted).collect();
        let staged = self
            .duplicate(&source, path, 0..source.size, &algorithms)
            .await?;
        let labels = if replaces { given } else { source.labels };
        let add = move |objects: &Objects, bucket: &str, key: &str| {
            objects.add(bucket, key, staged, labels, |_| true)
        };
        let version = self.keep(bucket, key, uploader, add).await?;
        let sums = version.checksums.clone();
        Ok(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: etag(&version),
                last_modified: timestamp(&version),
                checksum_crc32: sums.crc32,
                checksum_crc32c: sums.crc32c,
                checksum_crc64nvme: sums.crc64nvme,
                checksum_sha1: sums.sha1,
                checksum_sha256: sums.sha256,
                ..CopyObjectResult::default()
            }),
            copy_source_version_id: Some(source.id),
            version_id: Some(version.id),
            ..CopyObjectOutput::default()
        })
    }

    /// Copies a version, or a range of it, into a part of an upload.
    pub(super) async fn copy_part(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<UploadPartCopyOutput> {
        let UploadPartCopyInput {
            bucket,
            key,
            upload_id,
            part_number,
            copy_source,
            copy_source_range,
            ..
        } = req.input;
        let id = upload_id.clone();
        self.on_disk(move |objects| objects.upload(&bucket, &key, &id))
            .await?;
        let conditions = (
            req.input.copy_source_if_match,
            req.input.copy_source_if_none_match,
        );
        let (source, path) = self.source(copy_source, conditions).await?;
        let range = match copy_source_range {
            Some(range) => Range::parse(&range)
                .map_err(|error| {
                    s3_error!(
                        error,
                        InvalidArgument,
                        "The range is not of the form bytes=0-9."
                    )
                })?
                .check(source.size)?,
            None => 0..source.size,
        };
        let staged = self.duplicate(&source, path, range, &[]).await?;
        let part = self
            .on_disk(move |objects| objects.add_part(&upload_id, part_number, &staged))
            .await?;
        Ok(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(ETag::Strong(part.etag)),
                last_modified: timestamp(&source),
                ..CopyPartResult::default()
            }),
            copy_source_version_id: Some(source.id),
            ..UploadPartCopyOutput::default()
        })
    }

    /// Returns the version to copy, if it passes the conditions.
    async fn source(
        &self,
        source: CopySource,
        (if_match, if_none_match): (Option<ETagCondition>, Option<ETagCondition>),
    ) -> S3Result<(Version, PathBuf)> {
        let CopySource::Bucket {
            bucket,
            key,
            version_id,
        } = source
        else {
            return Err(s3_error!(
                NotImplemented,
                "Only objects of this service's buckets can be copied: expected <bucket>/<key>."
            ));
        };
        let wanted = Wanted {
            bucket: bucket.into(),
            key: key.into(),
            version: version_id.map(String::from),
            if_match,
            if_none_match,
        };
        self.find(wanted).await.map_err(|error| match error.code() {
            S3ErrorCode::NotModified => S3Error::from(ObjectError::Precondition),
            _ => error,
        })
    }

    /// Duplicates the content of a version, or a range of it.
    async fn duplicate(
        &self,
        source: &Version,
        path: PathBuf,
        range: ops::Range<u64>,
        algorithms: &[Algorithm],
    ) -> S3Result<Staged> {
        let content = self.content(source, path, range).await?;
        Ok(self
            .objects
            .receive(content, Meter::new(algorithms), self.request_timeout())
            .await?)
    }
}
