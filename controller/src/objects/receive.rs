//! Incoming content: received into a file beside the buckets, measured, and checked against the
//! client's declarations.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Stream, StreamExt as _};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::{ObjectError, Objects, failed};

/// A checksum algorithm that clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub const ALL: [Algorithm; 5] = [
        Algorithm::Crc32,
        Algorithm::Crc32c,
        Algorithm::Crc64Nvme,
        Algorithm::Sha1,
        Algorithm::Sha256,
    ];

    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The header or trailer with it.
    pub fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }
}

/// Checksums in base64, as far as known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    pub crc32: Option<String>,
    pub crc32c: Option<String>,
    pub crc64nvme: Option<String>,
    pub sha1: Option<String>,
    pub sha256: Option<String>,
}

impl Checksums {
    pub fn of(&self, algorithm: Algorithm) -> Option<&String> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_ref(),
            Algorithm::Crc32c => self.crc32c.as_ref(),
            Algorithm::Crc64Nvme => self.crc64nvme.as_ref(),
            Algorithm::Sha1 => self.sha1.as_ref(),
            Algorithm::Sha256 => self.sha256.as_ref(),
        }
    }

    /// Rejects content whose checksum differs from the declared one.
    pub fn check(&self, algorithm: Algorithm, said: &str) -> Result<(), ObjectError> {
        if self.of(algorithm).is_some_and(|found| found == said) {
            Ok(())
        } else {
            Err(ObjectError::Digest(algorithm.header()))
        }
    }
}

/// Received content; removed unless it becomes a version.
#[derive(Debug)]
pub struct Staged {
    file: Temporary,
    pub(super) size: u64,
    pub(super) etag: String,
    pub(super) md5: [u8; 16],
    pub(super) checksums: Checksums,
}

impl Staged {
    pub(super) fn path(&self) -> &Path {
        &self.file.0
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn checksums(&self) -> &Checksums {
        &self.checksums
    }

    /// Rejects content whose MD5 differs from the header `Content-MD5`, in base64.
    pub fn check_md5(&self, said: &str) -> Result<(), ObjectError> {
        if STANDARD.decode(said).is_ok_and(|said| said == self.md5) {
            Ok(())
        } else {
            Err(ObjectError::Digest("Content-MD5"))
        }
    }
}

/// A file that is removed when it is no longer needed.
#[derive(Debug)]
pub(super) struct Temporary(pub(super) PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone if it became a version; the next start removes the remains of a crash.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Measures content as it passes.
pub struct Meter {
    md5: Md5,
    hasher: ChecksumHasher,
    size: u64,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Meter {
    pub fn new(algorithms: &[Algorithm]) -> Self {
        let mut hasher = ChecksumHasher::default();
        for algorithm in algorithms {
            match algorithm {
                Algorithm::Crc32 => hasher.crc32 = Some(Default::default()),
                Algorithm::Crc32c => hasher.crc32c = Some(Default::default()),
                Algorithm::Crc64Nvme => hasher.crc64nvme = Some(Default::default()),
                Algorithm::Sha1 => hasher.sha1 = Some(Default::default()),
                Algorithm::Sha256 => hasher.sha256 = Some(Default::default()),
            }
        }
        Meter {
            md5: Md5::new(),
            hasher,
            size: 0,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(super) fn finish(self, file: Temporary) -> Staged {
        let md5 = self.md5.finalize();
        let found = self.hasher.finalize();
        let checksums = Checksums {
            crc32: found.checksum_crc32,
            crc32c: found.checksum_crc32c,
            crc64nvme: found.checksum_crc64nvme,
            sha1: found.checksum_sha1,
            sha256: found.checksum_sha256,
        };
        Staged {
            file,
            size: self.size,
            etag: hex::encode(md5),
            md5,
            checksums,
        }
    }
}

impl Objects {
    /// Receives content; gives up if the client sends nothing for `timeout`.
    pub async fn receive<E>(
        &self,
        content: impl Stream<Item = Result<Bytes, E>>,
        mut meter: Meter,
        timeout: Duration,
    ) -> Result<Staged, ObjectError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = self.staged_path()?;
        let mut options = tokio::fs::OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await;
        let mut file = file.map_err(failed(&path))?;
        let staged = Temporary(path.clone());
        let mut content = std::pin::pin!(content);
        loop {
            let late = |_| ObjectError::Incomplete(io::Error::from(io::ErrorKind::TimedOut).into());
            let Some(bytes) = tokio::time::timeout(timeout, content.next())
                .await
                .map_err(late)?
            else {
                break;
            };
            let bytes = bytes.map_err(|error| ObjectError::Incomplete(error.into()))?;
            meter.update(&bytes);
            file.write_all(&bytes).await.map_err(failed(&path))?;
        }
        file.sync_all().await.map_err(failed(&path))?;
        Ok(meter.finish(staged))
    }
}
