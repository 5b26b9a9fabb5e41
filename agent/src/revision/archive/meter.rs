//! Limits and counts the output of a bundle, in bytes that reach the disk, never in declared sizes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::EntryPath;
use super::error::UnpackError;

/// The largest number of entries. A larger tree would exhaust the host's inodes and this process's
/// memory.
const MAX_ENTRIES: u64 = 1_000_000;

/// The largest size in bytes of names that wait for the end in memory: folders, links and their
/// targets.
const MAX_HELD: u64 = 64 * 1024 * 1024;

/// Shared by all threads that write.
#[derive(Debug)]
pub(super) struct Meter {
    limit: Option<u64>,
    free: u64,
    bytes: AtomicU64,
    entries: AtomicU64,
    held: AtomicU64,
}

impl Meter {
    /// `limit` is the operator's, `free` is the free space of the file system; both in bytes.
    pub(super) fn new(limit: Option<u64>, free: u64) -> Self {
        Self {
            limit,
            free,
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// Counts an entry.
    pub(super) fn entry(&self) -> Result<(), UnpackError> {
        if self.entries.fetch_add(1, Ordering::Relaxed) >= MAX_ENTRIES {
            return Err(UnpackError::TooManyEntries { limit: MAX_ENTRIES });
        }
        Ok(())
    }

    /// Counts the bytes of a name that is kept until the end.
    pub(super) fn hold(&self, bytes: usize) -> Result<(), UnpackError> {
        let bytes = bytes as u64;
        if self
            .held
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes)
            > MAX_HELD
        {
            return Err(UnpackError::TooManyNames { limit: MAX_HELD });
        }
        Ok(())
    }

    /// Fails if `declared` more bytes, which `entry` announces, would not fit.
    pub(super) fn expect(&self, entry: &EntryPath, declared: u64) -> Result<(), UnpackError> {
        self.fits(
            entry,
            self.bytes.load(Ordering::Relaxed).saturating_add(declared),
        )
    }

    /// Counts bytes of `entry`, before they are written.
    pub(super) fn add(&self, entry: &EntryPath, bytes: u64) -> Result<(), UnpackError> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.fits(entry, before.saturating_add(bytes))
    }

    fn fits(&self, entry: &EntryPath, needed: u64) -> Result<(), UnpackError> {
        match self.limit {
            Some(limit) if needed > limit => Err(UnpackError::TooLarge {
                entry: entry.into(),
                needed,
                limit,
            }),
            _ if needed > self.free => Err(UnpackError::NoSpace {
                entry: entry.into(),
                needed,
                free: self.free,
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }
}
