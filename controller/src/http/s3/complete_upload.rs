//! The completion of a multipart upload.

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};

use super::folder::{Folder, Uploader, checksums, etag};
use super::integrity::{DeclaredContent, may_replace};
use crate::objects::{Checksums, Meter};

impl Folder {
    /// Joins the parts of an upload.
    pub(super) async fn complete(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        // A composite checksum consists of checksums that were verified with their parts.
        let kind = req.input.checksum_type.as_ref().map(ChecksumType::as_str);
        let is_of_whole = kind == Some(ChecksumType::FULL_OBJECT);
        let checksums = if is_of_whole {
            checksums!(req.input)
        } else {
            Checksums::default()
        };
        let declared = DeclaredContent::new(&req, None, checksums);
        let uploader = Uploader::of(&req.extensions)?;
        let CompleteMultipartUploadInput {
            bucket,
            key,
            upload_id,
            multipart_upload,
            if_match,
            if_none_match,
            ..
        } = req.input;
        let named_parts = multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        let parts: Vec<_> = named_parts
            .into_iter()
            .map(|part| {
                (
                    part.part_number.unwrap_or(0),
                    part.e_tag.map(ETag::into_value),
                )
            })
            .collect();
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML, "At least one part is needed."));
        }
        if !parts.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(s3_error!(InvalidPartOrder));
        }
        let (named, of, id) = (bucket.clone(), key.clone(), upload_id.clone());
        let meter = Meter::new(&declared.algorithms);
        let (upload, staged) = self
            .on_disk(move |objects| {
                let upload = objects.upload(&named, &of, &id)?;
                Ok((upload, objects.join_parts(&id, &parts, meter)?))
            })
            .await?;
        declared.check(&staged)?;
        let version = self
            .keep(
                bucket.clone(),
                key.clone(),
                uploader,
                move |objects, bucket, key| {
                    let may = may_replace(if_match, if_none_match);
                    let version = objects.add(bucket, key, staged, upload.labels, may)?;
                    objects.end_upload(&upload_id)?;
                    Ok(version)
                },
            )
            .await?;
        Ok(CompleteMultipartUploadOutput {
            location: Some(format!("/{bucket}/{key}")),
            bucket: Some(bucket),
            key: Some(key),
            e_tag: etag(&version),
            version_id: Some(version.id),
            ..CompleteMultipartUploadOutput::default()
        })
    }
}
