//! The bundle file during its download: it has a temporary name, is filled at offsets, and gets its
//! own name when it is complete.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::archive::Bundle;
use super::arrival::Arrival;
use crate::deployment_root::DeploymentFolder;

/// The number of bytes written at once. A download needs this memory, and the connection's buffer,
/// per stream.
const BUFFER: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("cannot write the bundle {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "the bundle has {needed} bytes, but the file system of {} has only {free} free; make room there, or lower max_revisions",
        path.display()
    )]
    NoSpace {
        path: PathBuf,
        needed: u64,
        free: u64,
    },
}

/// A bundle that is not complete yet. If dropped before [`Incoming::finish`], it leaves nothing
/// behind.
#[derive(Debug)]
pub(super) struct Incoming {
    file: Arc<File>,
    arrival: Arc<Arrival>,
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl Incoming {
    pub(super) fn create(folder: &DeploymentFolder) -> Result<Self, DownloadError> {
        let temporary = folder.incoming_bundle();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary);
        let file = file.map_err(|source| DownloadError::Write {
            path: temporary.clone(),
            source,
        })?;
        Ok(Self {
            file: Arc::new(file),
            arrival: Arc::default(),
            temporary,
            path: folder.bundle(),
            finished: false,
        })
    }

    /// Fails if `bytes` do not fit on the disk.
    pub(super) fn check_space(&self, bytes: u64) -> Result<(), DownloadError> {
        let space = rustix::fs::fstatvfs(&self.file).map_err(|errno| self.failed(errno.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let folder = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        if bytes > free {
            return Err(DownloadError::NoSpace {
                path: folder,
                needed: bytes,
                free,
            });
        }
        Ok(())
    }

    /// Takes the room for `bytes`, where the file system can do that: who unpacks the bundle while it
    /// arrives then sees how much is left.
    pub(super) fn take_room(&self, bytes: u64) {
        let _ = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes);
    }

    /// The bundle for a reader that follows the streams.
    pub(super) fn bundle(&self) -> Bundle {
        Bundle::arriving(Arc::clone(&self.file), Arc::clone(&self.arrival))
    }

    /// The number of bytes that are on the disk.
    pub(super) fn received(&self) -> u64 {
        self.arrival.received()
    }

    /// Discards everything written so far.
    pub(super) fn restart(&self) -> Result<(), DownloadError> {
        self.file.set_len(0).map_err(|source| self.failed(source))
    }

    /// Returns a writer that begins at `offset`; several may write concurrently.
    pub(super) fn at(&self, offset: u64) -> PartWriter<'_> {
        PartWriter {
            incoming: self,
            offset,
            buffer: Vec::with_capacity(BUFFER),
        }
    }

    /// Gives the complete bundle its name, and returns the handle through which it was written.
    pub(super) fn finish(mut self) -> Result<File, DownloadError> {
        std::fs::rename(&self.temporary, &self.path).map_err(|source| self.failed(source))?;
        self.finished = true;
        self.arrival.complete();
        self.file.try_clone().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> DownloadError {
        DownloadError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.finished {
            self.arrival.give_up();
            // If this fails, the next DownloadBundle removes it.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Writes one part of the bundle from its beginning to its end.
#[derive(Debug)]
pub(super) struct PartWriter<'a> {
    incoming: &'a Incoming,
    offset: u64,
    buffer: Vec<u8>,
}

impl PartWriter<'_> {
    /// The position of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), DownloadError> {
        while !bytes.is_empty() {
            let fits = (BUFFER - self.buffer.len()).min(bytes.len());
            self.buffer.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
            if self.buffer.len() == BUFFER {
                self.flush().await?;
            }
        }
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), DownloadError> {
        let (file, buffer, offset) = (
            Arc::clone(&self.incoming.file),
            std::mem::take(&mut self.buffer),
            self.offset,
        );
        let written = tokio::task::spawn_blocking(move || {
            file.write_all_at(&buffer, offset)?;
            Ok::<_, io::Error>(buffer)
        });
        let mut buffer = written
            .await
            .map_err(io::Error::other)
            .and_then(|written| written)
            .map_err(|source| self.incoming.failed(source))?;
        let length = buffer.len() as u64;
        self.incoming.arrival.wrote(self.offset, length);
        self.offset += length;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }
}
