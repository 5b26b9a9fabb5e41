//! Deletions of many objects at once.

use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Result, s3_error};

use super::folder::Folder;
use crate::objects::ObjectError;

/// The number of objects in one request.
const MOST: usize = 1000;

impl Folder {
    /// Deletes each object separately, as `DeleteObject` does: errors are reported beside the
    /// results of others.
    pub(super) async fn delete_many(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<DeleteObjectsOutput> {
        let DeleteObjectsInput { bucket, delete, .. } = req.input;
        if delete.objects.len() > MOST {
            return Err(s3_error!(
                MalformedXML,
                "A request can delete {MOST} objects."
            ));
        }
        self.bucket(bucket.clone()).await?;
        let quiet = delete.quiet.unwrap_or(false);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for ObjectIdentifier {
            key, version_id, ..
        } in delete.objects
        {
            let (named, of, version) = (bucket.clone(), key.clone(), version_id.clone());
            let gone = self
                .on_disk(move |objects| {
                    Ok::<_, ObjectError>(objects.delete(&named, &of, version.as_deref()))
                })
                .await?;
            match gone {
                Ok(gone) => {
                    tracing::info!(key, version = version_id, "deleted by a request");
                    let mark = gone.filter(|gone| gone.deleted);
                    deleted.push(DeletedObject {
                        key: Some(key),
                        version_id,
                        delete_marker: mark.is_some().then_some(true),
                        delete_marker_version_id: mark.map(|mark| mark.id),
                    });
                }
                Err(error) => {
                    let error = S3Error::from(error);
                    errors.push(Error {
                        key: Some(key),
                        version_id,
                        code: Some(error.code().as_str().to_owned()),
                        message: error.message().map(str::to_owned),
                    });
                }
            }
        }
        Ok(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        })
    }
}
