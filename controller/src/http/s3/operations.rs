//! The operations of S3 on a folder of objects, in the terms of `s3s`.

use s3s::dto::{self, *};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::folder::{Folder, Uploader, Wanted, checksums, etag, labels, size, timestamp};
use super::integrity::{DeclaredContent, may_replace};
use super::listing;
use crate::objects::{Checksums, Labels, Objects};

#[async_trait::async_trait]
impl S3 for Folder {
    async fn list_buckets(
        &self,
        _: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self
            .on_disk(Objects::buckets)
            .await?
            .into_iter()
            .map(|(name, made)| Bucket {
                name: Some(name),
                creation_date: Some(dto::Timestamp::from(made)),
                ..Bucket::default()
            });
        let buckets = Some(buckets.collect());
        Ok(S3Response::new(ListBucketsOutput {
            buckets,
            ..ListBucketsOutput::default()
        }))
    }

    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        if !crate::objects::is_bucket(&bucket) {
            return Err(s3_error!(
                InvalidBucketName,
                "A bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens."
            ));
        }
        let location = Some(format!("/{bucket}"));
        self.on_disk(move |objects| objects.create_bucket(&bucket))
            .await?;
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.on_disk(move |objects| objects.delete_bucket(&req.input.bucket))
            .await?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(req.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket(req.input.bucket).await?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.bucket(req.input.bucket).await?;
        let status = Some(BucketVersioningStatus::from_static(
            BucketVersioningStatus::ENABLED,
        ));
        Ok(S3Response::new(GetBucketVersioningOutput {
            status,
            ..GetBucketVersioningOutput::default()
        }))
    }

    /// Buckets are always versioned.
    async fn put_bucket_versioning(
        &self,
        req: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let status = req.input.versioning_configuration.status;
        if status.is_none_or(|status| status.as_str() != BucketVersioningStatus::ENABLED) {
            return Err(s3_error!(
                NotImplemented,
                "The versions of this service's buckets cannot be switched off."
            ));
        }
        self.bucket(req.input.bucket).await?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }

    /// The service's own settings watch new objects.
    async fn put_bucket_notification_configuration(
        &self,
        _: S3Request<PutBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
        Err(s3_error!(
            NotImplemented,
            "This service deploys new objects by itself: set events.watches in its configuration file."
        ))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let declared =
            DeclaredContent::new(&req, req.input.content_md5.clone(), checksums!(req.input));
        let labels = labels!(req.input);
        let uploader = Uploader::of(&req.extensions)?;
        let PutObjectInput {
            bucket,
            key,
            body,
            if_match,
            if_none_match,
            ..
        } = req.input;
        self.bucket(bucket.clone()).await?;
        let staged = self.received(body, &declared).await?;
        let version = self
            .keep(bucket, key, uploader, move |objects, bucket, key| {
                objects.add(
                    bucket,
                    key,
                    staged,
                    labels,
                    may_replace(if_match, if_none_match),
                )
            })
            .await?;
        let sums = version.checksums.clone();
        Ok(S3Response::new(PutObjectOutput {
            e_tag: etag(&version),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            version_id: Some(version.id),
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput {
            bucket,
            key,
            version_id,
            if_match,
            if_none_match,
            range,
            checksum_mode,
            ..
        } = req.input;
        let wanted = Wanted {
            bucket,
            key,
            version: version_id,
            if_match,
            if_none_match,
        };
        let (version, path) = self.find(wanted).await?;
        let bytes = range.map(|range| range.check(version.size)).transpose()?;
        let content_range = bytes.as_ref().map(|bytes| {
            format!(
                "bytes {}-{}/{}",
                bytes.start,
                bytes.end.saturating_sub(1),
                version.size
            )
        });
        let whole = bytes.is_none() && checksum_mode.is_some();
        let bytes = bytes.unwrap_or(0..version.size);
        let length = bytes.end.saturating_sub(bytes.start);
        let body = StreamingBlob::wrap(self.content(&version, path, bytes).await?);
        let sums = if whole {
            version.checksums.clone()
        } else {
            Checksums::default()
        };
        let output = GetObjectOutput {
            body: Some(body),
            accept_ranges: Some("bytes".into()),
            content_length: size(length),
            content_range,
            e_tag: etag(&version),
            last_modified: timestamp(&version),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            content_type: version.labels.content_type,
            content_encoding: version.labels.content_encoding,
            content_disposition: version.labels.content_disposition,
            cache_control: version.labels.cache_control,
            metadata: Some(version.labels.metadata.into_iter().collect()),
            version_id: Some(version.id),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let HeadObjectInput {
            bucket,
            key,
            version_id,
            if_match,
            if_none_match,
            ..
        } = req.input;
        let wanted = Wanted {
            bucket,
            key,
            version: version_id,
            if_match,
            if_none_match,
        };
        let (version, _) = self.find(wanted).await?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: size(version.size),
            e_tag: etag(&version),
            last_modified: timestamp(&version),
            content_type: version.labels.content_type,
            content_encoding: version.labels.content_encoding,
            content_disposition: version.labels.content_disposition,
            cache_control: version.labels.cache_control,
            metadata: Some(version.labels.metadata.into_iter().collect()),
            version_id: Some(version.id),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput {
            bucket,
            key,
            version_id,
            ..
        } = req.input;
        let deleted = self
            .on_disk(move |objects| objects.delete(&bucket, &key, version_id.as_deref()))
            .await?;
        let (delete_marker, version_id) =
            deleted.map(|version| (version.deleted, version.id)).unzip();
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker,
            version_id,
            ..DeleteObjectOutput::default()
        }))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        Ok(S3Response::new(self.delete_many(req).await?))
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        Ok(S3Response::new(self.copy(req).await?))
    }

    /// Objects have no tags; clients ask for them before a multipart copy.
    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let GetObjectTaggingInput {
            bucket,
            key,
            version_id,
            ..
        } = req.input;
        let wanted = Wanted {
            bucket,
            key,
            version: version_id,
            if_match: None,
            if_none_match: None,
        };
        let (version, _) = self.find(wanted).await?;
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set: Vec::new(),
            version_id: Some(version.id),
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let labels = labels!(req.input);
        let CreateMultipartUploadInput {
            bucket,
            key,
            checksum_algorithm,
            checksum_type,
            ..
        } = req.input;
        let (named, of) = (bucket.clone(), key.clone());
        let id = self
            .on_disk(move |objects| objects.begin_upload(&named, &of, labels))
            .await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(id),
            checksum_algorithm,
            checksum_type,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let declared =
            DeclaredContent::new(&req, req.input.content_md5.clone(), checksums!(req.input));
        let UploadPartInput {
            bucket,
            key,
            upload_id,
            part_number,
            body,
            ..
        } = req.input;
        let id = upload_id.clone();
        self.on_disk(move |objects| objects.upload(&bucket, &key, &id))
            .await?;
        let staged = self.received(body, &declared).await?;
        let sums = staged.checksums().clone();
        let part = self
            .on_disk(move |objects| objects.add_part(&upload_id, part_number, &staged))
            .await?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(part.etag)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..UploadPartOutput::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        Ok(S3Response::new(self.copy_part(req).await?))
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let ListPartsInput {
            bucket,
            key,
            upload_id,
            ..
        } = req.input;
        let (named, of, id) = (bucket.clone(), key.clone(), upload_id.clone());
        let parts = self
            .on_disk(move |objects| {
                objects.upload(&named, &of, &id)?;
                objects.parts(&id)
            })
            .await?;
        let parts = parts.into_iter().map(|part| Part {
            part_number: Some(part.number),
            e_tag: Some(ETag::Strong(part.etag)),
            size: size(part.size),
            ..Part::default()
        });
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(upload_id),
            is_truncated: Some(false),
            parts: Some(parts.collect()),
            ..ListPartsOutput::default()
        }))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        Ok(S3Response::new(
            self.on_disk(move |objects| listing::plain(objects, req.input))
                .await?,
        ))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        Ok(S3Response::new(
            self.on_disk(move |objects| listing::objects(objects, req.input))
                .await?,
        ))
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        Ok(S3Response::new(
            self.on_disk(move |objects| listing::versions(objects, req.input))
                .await?,
        ))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        Ok(S3Response::new(self.complete(req).await?))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput {
            bucket,
            key,
            upload_id,
            ..
        } = req.input;
        self.on_disk(move |objects| {
            objects.upload(&bucket, &key, &upload_id)?;
            objects.end_upload(&upload_id)
        })
        .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
