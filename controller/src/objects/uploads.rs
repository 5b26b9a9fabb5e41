//! Multipart uploads: kept beside the buckets until their parts are joined.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};

use super::receive::Temporary;
use super::{Labels, Meter, ObjectError, Objects, Staged, failed, make, name, sync};

const UPLOADS: &str = ".uploads";
const UPLOAD: &str = "upload.json";

/// The next start drops an upload that was abandoned for this long.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// The number of parts of an object.
const MAX_PARTS: i32 = 10_000;

/// A multipart upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upload {
    bucket: String,
    key: String,
    pub labels: Labels,
}

/// A received part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub number: i32,
    pub etag: String,
    pub size: u64,
}

impl Objects {
    fn upload_folder(&self, id: &str) -> Result<PathBuf, ObjectError> {
        let known = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let folder = self.folder.join(UPLOADS).join(id);
        if known && folder.is_dir() {
            Ok(folder)
        } else {
            Err(ObjectError::NoSuchUpload(id.to_owned()))
        }
    }

    /// Begins an upload and returns its id.
    pub fn begin_upload(
        &self,
        bucket: &str,
        key: &str,
        labels: Labels,
    ) -> Result<String, ObjectError> {
        self.bucket(bucket)?;
        name::folder(key).ok_or(ObjectError::Key)?;
        let uploads = self.folder.join(UPLOADS);
        let random = crate::vault::random::<16>();
        let id = hex::encode(random.map_err(|error| failed(&uploads)(io::Error::other(error)))?);
        let folder = uploads.join(&id);
        make(&folder)?;
        let upload = Upload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            labels,
        };
        let path = folder.join(UPLOAD);
        let text = serde_json::to_vec(&upload).map_err(|error| failed(&path)(error.into()))?;
        fs::write(&path, text).map_err(failed(&path))?;
        Ok(id)
    }

    /// Returns an unfinished upload of this key.
    pub fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<Upload, ObjectError> {
        let path = self.upload_folder(id)?.join(UPLOAD);
        let text = fs::read(&path).map_err(failed(&path))?;
        let upload: Upload =
            serde_json::from_slice(&text).map_err(|error| failed(&path)(error.into()))?;
        if upload.bucket == bucket && upload.key == key {
            Ok(upload)
        } else {
            Err(ObjectError::NoSuchUpload(id.to_owned()))
        }
    }

    /// Stores received content as a part, and replaces a part with the same number.
    pub fn add_part(&self, id: &str, number: i32, content: &Staged) -> Result<Part, ObjectError> {
        if !(1..=MAX_PARTS).contains(&number) {
            return Err(ObjectError::NoSuchPart(number));
        }
        let folder = self.upload_folder(id)?;
        let part = Part {
            number,
            etag: content.etag.clone(),
            size: content.size,
        };
        let path = folder.join(format!("{number:05}"));
        let description = folder.join(format!("{number:05}.json"));
        let text = serde_json::to_vec(&part).map_err(|error| failed(&description)(error.into()))?;
        fs::rename(content.path(), &path).map_err(failed(&path))?;
        fs::write(&description, text).map_err(failed(&description))?;
        Ok(part)
    }

    /// Returns the received parts, by number.
    pub fn parts(&self, id: &str) -> Result<Vec<Part>, ObjectError> {
        let folder = self.upload_folder(id)?;
        let mut parts = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let path = entry.map_err(failed(&folder))?.path();
            if path.extension().is_some_and(|kind| kind == "json") && !path.ends_with(UPLOAD) {
                let text = fs::read(&path).map_err(failed(&path))?;
                parts.push(
                    serde_json::from_slice(&text).map_err(|error| failed(&path)(error.into()))?,
                );
            }
        }
        parts.sort_by_key(|part: &Part| part.number);
        Ok(parts)
    }

    /// Joins the chosen parts; the upload stays until [`end_upload`](Self::end_upload).
    pub fn join_parts(
        &self,
        id: &str,
        chosen: &[(i32, Option<String>)],
        mut meter: Meter,
    ) -> Result<Staged, ObjectError> {
        let folder = self.upload_folder(id)?;
        let parts = self.parts(id)?;
        let path = self.staged_path()?;
        let staged = Temporary(path.clone());
        let mut options = OpenOptions::new();
        let mut whole = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed(&path))?;
        let mut of_parts = Md5::new();
        let mut buffer = vec![0; 256 * 1024];
        for (number, etag) in chosen {
            let part = parts.iter().find(|part| part.number == *number);
            let part = part.filter(|part| etag.as_ref().is_none_or(|etag| *etag == part.etag));
            let part = part.ok_or(ObjectError::NoSuchPart(*number))?;
            of_parts
                .update(&hex::decode(&part.etag).map_err(|_| ObjectError::NoSuchPart(*number))?);
            let from = folder.join(format!("{number:05}"));
            let mut content = File::open(&from).map_err(failed(&from))?;
            loop {
                let length = content.read(&mut buffer).map_err(failed(&from))?;
                let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                meter.update(bytes);
                whole.write_all(bytes).map_err(failed(&path))?;
            }
        }
        whole.sync_all().map_err(failed(&path))?;
        let mut staged = meter.finish(staged);
        // In S3's form: the digest of the parts' digests, and their number.
        staged.etag = format!("{}-{}", hex::encode(of_parts.finalize()), chosen.len());
        Ok(staged)
    }

    /// Removes an upload and its parts.
    pub fn end_upload(&self, id: &str) -> Result<(), ObjectError> {
        let folder = self.upload_folder(id)?;
        fs::remove_dir_all(&folder).map_err(failed(&folder))
    }

    pub(super) fn forget_old_uploads(&self) -> Result<(), ObjectError> {
        let folder = self.folder.join(UPLOADS);
        make(&folder)?;
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let entry = entry.map_err(failed(&folder))?;
            let changed = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map_err(failed(&folder))?;
            if SystemTime::now()
                .duration_since(changed)
                .is_ok_and(|age| age > FORGET_AFTER)
            {
                fs::remove_dir_all(entry.path()).map_err(failed(&folder))?;
            }
        }
        sync(&folder)
    }
}
