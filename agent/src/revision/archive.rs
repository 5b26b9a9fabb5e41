//! Unpacks a bundle: zip, tar and tgz become files under one directory handle, or an error that
//! names the entry.
//!
//! The formats' readers ([`tar`], [`zip`]) turn bytes into entries and decide about each; only the
//! [`writer`] touches the disk, through a handle of the target folder. Rules for every format:
//!
//! - A name that is absolute, contains `..` or NUL, or passes a symbolic link of the bundle is
//!   rejected, whatever the order of the entries. Devices, FIFOs and sockets are rejected. Records
//!   that are no entries (labels) or cannot be restored (extended attributes) are reported once for
//!   each kind; nothing is skipped silently.
//! - Symbolic links are made after every file, verbatim, and never followed. Hard links reach only
//!   files and links that the same bundle made before.
//! - A later file replaces an earlier one of the same name; a later folder or link restates an
//!   earlier one. Any other pair of entries with one name is rejected.
//! - Declared sizes are compared with the free disk space first; the limits count bytes that are
//!   really written. Holes of sparse files stay holes, and count as if they were written.
//! - An entry for the root itself (`./`) changes nothing: the target folder keeps the mode that its
//!   owner gave it.
//!
//! A failure leaves a partly filled target folder, which the caller removes.

mod compression;
mod entry;
mod error;
mod flatten;
mod format;
mod meter;
mod remarks;
mod source;
mod tar;
mod writer;
mod zip;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

pub use compression::StreamProblem;
pub use entry::EntryName;
pub use error::{Found, Refusal, UnpackError};
pub use flatten::flatten_single_folder;
pub use source::Bundle;

use super::digest::Digests;
use writer::Root;

/// The format of a bundle, as a deployment specification names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BundleType {
    /// A tar archive. Its compression (gzip, bzip2, xz, zstd) is recognized, as `tar -x` does.
    Tar,
    /// A compressed tar archive; several compressed streams in a row count as one.
    Tgz,
    /// A zip archive; entries stored, or compressed with Deflate, Deflate64 or bzip2.
    Zip,
}

impl BundleType {
    /// The name in CodeDeploy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Tgz => "tgz",
            Self::Zip => "zip",
        }
    }
}

impl fmt::Display for BundleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A bundle type other than tar, tgz and zip.
#[derive(Debug, thiserror::Error)]
#[error("the bundle type {0:?} is not supported; expected tar, tgz or zip")]
pub struct UnknownBundleType(String);

impl FromStr for BundleType {
    type Err = UnknownBundleType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Tar, Self::Tgz, Self::Zip]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownBundleType(text.to_owned()))
    }
}

/// The limits that the operator sets for a bundle; the default allows as much as the official agent
/// does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of bytes of file content that may be written
    /// (`archive_max_extraction_size`); free disk space is a limit in any case.
    pub max_extracted_bytes: Option<u64>,
    /// Refuse every symbolic link.
    pub reject_symlinks: bool,
    /// Leave files to the agent's own user, whatever owners a tar names.
    pub ignore_ownership: bool,
    /// Reject set-user-id, set-group-id, and write permission for everybody (except for a folder
    /// with the sticky bit).
    pub reject_unsafe_permissions: bool,
}

/// The result of unpacking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the archive that were unpacked, folders and links included.
    pub entries: u64,
    /// Bytes of file content that were written.
    pub bytes: u64,
}

/// Unpacks `bundle` into the existing, empty folder `into`; returns the digests of its files, too.
/// Files with holes have none.
///
/// The bundle is read from its start through the handle, whose own position does not move; a tar may
/// still be on its way. As root,
/// files of a tar get the owners in the archive: by user and group name if this host knows them,
/// else by number, as with GNU tar. Set-id bits are kept only together with the owner that they
/// were meant for. A zip has no owners, and its set-id and sticky bits are dropped, as `unzip`
/// does.
///
/// # Errors
///
/// Fails if an entry is rejected, a limit is exceeded, the bundle is damaged or truncated, or the
/// disk fails.
pub fn unpack(
    bundle: &Bundle,
    kind: BundleType,
    into: &Path,
    limits: &Limits,
) -> Result<(Unpacked, Digests), UnpackError> {
    let root = Root::open(into, limits)?;
    let unpacked = match kind {
        BundleType::Tar | BundleType::Tgz => tar::unpack(bundle.source(), kind, &root),
        BundleType::Zip => zip::unpack(&bundle.file, &root),
    }?;
    root.remarks.warn();
    Ok((unpacked, root.into_digests()))
}
