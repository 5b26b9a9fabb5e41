//! The folder of revisions: buckets of objects, whose versions stay until they are deleted by id or
//! are old.
//!
//! A bucket is a folder; an object is a folder of its versions in it (`objects::name`), and a
//! version is two files: its content, and `<version>.json`, its description. A version exists once
//! its description exists; both are on disk before an upload is acknowledged. Incomplete uploads
//! are in `.staged` and `.uploads` beside the buckets.

mod name;
mod receive;
mod retention;
mod size;
mod uploads;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use codedeploy_api::codedeploy::Timestamp;
use serde::{Deserialize, Serialize};

pub use receive::{Algorithm, Checksums, Meter, Staged};
pub use retention::Retention;
pub use uploads::{Part, Upload};

const STAGED: &str = ".staged";

/// The buckets in a folder.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
    /// Held while a version is added or deleted, so that versions of one key are ordered.
    writing: Mutex<()>,
}

/// A version of an object, or a delete marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub id: String,
    /// Without quotes.
    pub etag: String,
    /// The size of the content in bytes.
    pub size: u64,
    pub modified: Timestamp,
    #[serde(default)]
    pub deleted: bool,
    #[serde(default)]
    pub labels: Labels,
    /// The checksums of the whole content; empty for a multipart upload.
    #[serde(default)]
    pub checksums: Checksums,
}

/// A client's metadata of an object, returned with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub content_disposition: Option<String>,
    pub cache_control: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("The bucket {0:?} does not exist.")]
    NoSuchBucket(String),
    #[error("The bucket {0:?} is not empty: delete every version of its objects first.")]
    BucketNotEmpty(String),
    #[error("The key {0:?} does not exist.")]
    NoSuchKey(String),
    #[error("The key has no version {0:?}.")]
    NoSuchVersion(String),
    #[error("The upload {0:?} does not exist: it was completed or aborted, or was never begun.")]
    NoSuchUpload(String),
    #[error("The part {0} was not uploaded, or with another ETag.")]
    NoSuchPart(i32),
    #[error(
        "The key cannot be stored: expected 1 to 1024 bytes without control characters, and at most 250 between slashes."
    )]
    Key,
    #[error("The continuation token is not one of this service.")]
    Token,
    #[error("The {0} that was sent is not that of the content.")]
    Digest(&'static str),
    #[error("The content ended early or did not arrive in time.")]
    Incomplete(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("At least one of the preconditions you specified did not hold.")]
    Precondition,
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Objects {
    /// Opens the folder and its buckets, makes missing ones, and removes the remains of earlier
    /// uploads.
    pub fn open(folder: &Path, buckets: &[String]) -> Result<Self, ObjectError> {
        let objects = Objects {
            folder: folder.to_owned(),
            writing: Mutex::new(()),
        };
        make(folder)?;
        let staged = folder.join(STAGED);
        if staged.exists() {
            fs::remove_dir_all(&staged).map_err(failed(&staged))?;
        }
        make(&staged)?;
        objects.forget_old_uploads()?;
        for bucket in buckets {
            objects.create_bucket(bucket)?;
        }
        Ok(objects)
    }

    /// Returns the buckets and their creation times, by name.
    pub fn buckets(&self) -> Result<Vec<(String, SystemTime)>, ObjectError> {
        let mut buckets = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed(&self.folder))? {
            let entry = entry.map_err(failed(&self.folder))?;
            let metadata = entry.metadata().map_err(failed(&self.folder))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if metadata.is_dir() && is_bucket(&name) {
                buckets.push((
                    name,
                    metadata
                        .created()
                        .or_else(|_| metadata.modified())
                        .unwrap_or(SystemTime::UNIX_EPOCH),
                ));
            }
        }
        buckets.sort();
        Ok(buckets)
    }

    /// Makes a bucket; leaves an existing one unchanged.
    pub fn create_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        if !is_bucket(bucket) {
            return Err(ObjectError::NoSuchBucket(bucket.to_owned()));
        }
        make(&self.folder.join(bucket))?;
        sync(&self.folder)
    }

    /// Deletes a bucket without any version of an object.
    pub fn delete_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        let folder = self.bucket(bucket)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.keys(bucket, "")?.is_empty() {
            return Err(ObjectError::BucketNotEmpty(bucket.to_owned()));
        }
        fs::remove_dir_all(&folder).map_err(failed(&folder))
    }

    /// Returns the folder of an existing bucket.
    pub fn bucket(&self, bucket: &str) -> Result<PathBuf, ObjectError> {
        let folder = self.folder.join(bucket);
        if is_bucket(bucket) && folder.is_dir() {
            Ok(folder)
        } else {
            Err(ObjectError::NoSuchBucket(bucket.to_owned()))
        }
    }

    /// Returns the keys with a prefix and at least one version, in byte order.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let root = self.bucket(bucket)?;
        let mut keys = Vec::new();
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            let path = root.join(&folder);
            for entry in fs::read_dir(&path).map_err(failed(&path))? {
                let entry = entry.map_err(failed(&path))?;
                if !entry.file_type().map_err(failed(&path))?.is_dir() {
                    continue;
                }
                let found = folder.join(entry.file_name());
                match name::key(&found) {
                    Some(key) if key.starts_with(prefix) => keys.push(key),
                    Some(_) => {}
                    None => open.push(found),
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Returns the versions of a key, the newest first; none for an unknown key.
    pub fn versions(&self, bucket: &str, key: &str) -> Result<Vec<Version>, ObjectError> {
        let folder = self
            .bucket(bucket)?
            .join(name::folder(key).ok_or(ObjectError::Key)?);
        let ids = match version_ids(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            ids => ids.map_err(failed(&folder))?,
        };
        ids.iter().rev().map(|id| read(&folder, id)).collect()
    }

    /// Returns a version of an object, or the newest if none is named, and the path of its content.
    pub fn find(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<(Version, PathBuf), ObjectError> {
        let folder = self
            .bucket(bucket)?
            .join(name::folder(key).ok_or(ObjectError::Key)?);
        let ids = version_ids(&folder).unwrap_or_default();
        let found = match version {
            Some(wanted) => {
                let found = ids.into_iter().find(|id| id == wanted);
                let id = found.ok_or_else(|| ObjectError::NoSuchVersion(wanted.to_owned()))?;
                read(&folder, &id)?
            }
            None => {
                let gone = || ObjectError::NoSuchKey(key.to_owned());
                let newest = read(&folder, ids.last().ok_or_else(gone)?)?;
                if newest.deleted { Err(gone())? } else { newest }
            }
        };
        let content = folder.join(&found.id);
        Ok((found, content))
    }

    /// Makes received content the newest version of a key, if the present one passes
    /// `precondition`.
    pub fn add(
        &self,
        bucket: &str,
        key: &str,
        content: Staged,
        labels: Labels,
        precondition: impl FnOnce(Option<&Version>) -> bool,
    ) -> Result<Version, ObjectError> {
        let folder = self
            .bucket(bucket)?
            .join(name::folder(key).ok_or(ObjectError::Key)?);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.versions(bucket, key)?.into_iter().next();
        if !precondition(newest.as_ref().filter(|version| !version.deleted)) {
            return Err(ObjectError::Precondition);
        }
        make(&folder)?;
        let version = Version {
            id: next_id(newest.as_ref())?,
            etag: content.etag.clone(),
            size: content.size,
            modified: Timestamp::now(),
            deleted: false,
            labels,
            checksums: content.checksums.clone(),
        };
        let target = folder.join(&version.id);
        fs::rename(content.path(), &target).map_err(failed(&target))?;
        self.describe(&folder, &version)?;
        self.sync_up(&folder)?;
        Ok(version)
    }

    /// Deletes one version for good; without a version, adds a delete marker and returns it.
    pub fn delete(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Option<Version>, ObjectError> {
        let folder = self
            .bucket(bucket)?
            .join(name::folder(key).ok_or(ObjectError::Key)?);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.versions(bucket, key)?.into_iter().next();
        let Some(id) = version else {
            if newest.is_none() {
                return Ok(None);
            }
            let mark = Version {
                id: next_id(newest.as_ref())?,
                etag: String::new(),
                size: 0,
                modified: Timestamp::now(),
                deleted: true,
                labels: Labels::default(),
                checksums: Checksums::default(),
            };
            self.describe(&folder, &mark)?;
            self.sync_up(&folder)?;
            return Ok(Some(mark));
        };
        let Ok((gone, _)) = self.find(bucket, key, Some(id)) else {
            return Ok(None);
        };
        erase(&folder, &gone)?;
        self.sync_up(
            folder
                .ancestors()
                .find(|folder| folder.exists())
                .unwrap_or(&self.folder),
        )?;
        Ok(Some(gone))
    }

    /// Returns the buckets and keys of objects with expired versions.
    pub fn expired(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Vec<(String, String)>, ObjectError> {
        let mut expired = Vec::new();
        for (bucket, _) in self.buckets()? {
            for key in self.keys(&bucket, "")? {
                if !retention
                    .expired(&self.versions(&bucket, &key)?, now)
                    .is_empty()
                {
                    expired.push((bucket.clone(), key));
                }
            }
        }
        Ok(expired)
    }

    /// Deletes the expired versions of an object that are not `needed`, and returns them. A delete
    /// marker that is left alone is deleted, too.
    pub fn prune(
        &self,
        bucket: &str,
        key: &str,
        retention: Retention,
        now: Timestamp,
        needed: impl Fn(&Version) -> bool,
    ) -> Result<Vec<Version>, ObjectError> {
        let folder = self
            .bucket(bucket)?
            .join(name::folder(key).ok_or(ObjectError::Key)?);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = self.versions(bucket, key)?;
        let mut gone: Vec<_> = retention
            .expired(&versions, now)
            .into_iter()
            .filter(|version| !needed(version))
            .cloned()
            .collect();
        if gone.len() + 1 == versions.len() {
            gone.extend(versions.first().filter(|newest| newest.deleted).cloned());
        }
        for version in &gone {
            erase(&folder, version)?;
        }
        Ok(gone)
    }

    /// Writes the description that makes a version exist.
    fn describe(&self, folder: &Path, version: &Version) -> Result<(), ObjectError> {
        let target = description(folder, &version.id);
        let staged = self.staged_path()?;
        let text = serde_json::to_vec(version).map_err(|error| failed(&target)(error.into()))?;
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged);
        file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&staged, &target))
            .map_err(failed(&target))
    }

    /// A path for a new file on the same file system.
    fn staged_path(&self) -> Result<PathBuf, ObjectError> {
        let path = self.folder.join(STAGED);
        let name =
            crate::vault::random::<16>().map_err(|error| failed(&path)(io::Error::other(error)))?;
        Ok(path.join(hex::encode(name)))
    }

    /// Syncs the names on the path from the buckets to a folder.
    fn sync_up(&self, folder: &Path) -> Result<(), ObjectError> {
        for folder in folder
            .ancestors()
            .take_while(|folder| *folder != self.folder)
        {
            sync(folder)?;
        }
        Ok(())
    }
}

/// Names of 3 to 63 lower-case letters, digits, dots and hyphens, as in S3: never one of the other
/// folders.
pub fn is_bucket(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| allowed(*b))
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..")
}

fn description(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.json"))
}

/// Returns the ids of an object's versions, the newest last.
fn version_ids(folder: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        ids.extend(
            name.to_str()
                .and_then(|name| name.strip_suffix(".json"))
                .map(str::to_owned),
        );
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Deletes a version for good; the caller holds the lock.
fn erase(folder: &Path, version: &Version) -> Result<(), ObjectError> {
    let (description, content) = (description(folder, &version.id), folder.join(&version.id));
    fs::remove_file(&description).map_err(failed(&description))?;
    if !version.deleted {
        fs::remove_file(&content).map_err(failed(&content))?;
    }
    if version_ids(folder).is_ok_and(|ids| ids.is_empty()) {
        // A folder that is not empty belongs to an upload in progress.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

fn read(folder: &Path, id: &str) -> Result<Version, ObjectError> {
    let path = description(folder, id);
    let text = fs::read(&path).map_err(failed(&path))?;
    serde_json::from_slice(&text).map_err(|error| failed(&path)(error.into()))
}

/// Ids sort by age: milliseconds, later than those of the previous version, plus enough randomness
/// to prevent guessing.
fn next_id(before: Option<&Version>) -> Result<String, ObjectError> {
    let of_before = before.and_then(|version| i64::from_str_radix(version.id.get(..12)?, 16).ok());
    let millis = Timestamp::now().millis().max(of_before.unwrap_or(0) + 1);
    let random = crate::vault::random::<10>();
    let random = random.map_err(|error| failed(Path::new(STAGED))(io::Error::other(error)))?;
    Ok(format!("{millis:012x}{}", hex::encode(random)))
}

fn make(folder: &Path) -> Result<(), ObjectError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed(folder))
}

fn sync(folder: &Path) -> Result<(), ObjectError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ObjectError {
    let path = path.to_owned();
    move |source| ObjectError::Io { path, source }
}
