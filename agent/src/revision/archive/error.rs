//! The reasons why a bundle is not unpacked.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::BundleType;
use super::compression::StreamProblem;
use super::entry::EntryName;

/// The bundle was not unpacked, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry that no revision may contain.
    #[error("entry {entry} {reason}; the bundle is refused and nothing outside was touched")]
    Refused { entry: EntryName, reason: Refusal },

    /// More content than the operator allows.
    #[error(
        "entry {entry} would make the revision {needed} bytes or more, and archive_max_extraction_size allows {limit}; \
         make the bundle smaller or raise the limit"
    )]
    TooLarge {
        entry: EntryName,
        needed: u64,
        limit: u64,
    },

    /// More content than the file system has room for.
    #[error(
        "entry {entry} would make the revision {needed} bytes or more, and the file system had {free} bytes free; \
         free disk space or make the bundle smaller"
    )]
    NoSpace {
        entry: EntryName,
        needed: u64,
        free: u64,
    },

    /// More entries than any revision needs.
    #[error(
        "the bundle holds more than {limit} entries; split it, or archive the small files inside it"
    )]
    TooManyEntries { limit: u64 },

    /// More, or longer, folders and links than fit in memory.
    #[error(
        "the names of the bundle's folders and links take more than {limit} bytes; archive the small files inside it"
    )]
    TooManyNames { limit: u64 },

    /// Not an archive of that type, or damaged outside of any entry.
    #[error(
        "the bundle cannot be read as {kind}; build it again, or correct the bundle type that the deployment names"
    )]
    Read { kind: BundleType, source: io::Error },

    /// Another format than the deployment names.
    #[error(
        "the bundle cannot be read as {kind}: it is {found}; {}",
        advice(found)
    )]
    NotThisType {
        kind: BundleType,
        found: &'static str,
    },

    /// A compressed stream that this agent does not unpack.
    #[error(transparent)]
    Stream(StreamProblem),

    /// A zip that two readers would understand differently.
    #[error(
        "the directory of the zip bundle contradicts the rest of it: {problem}; readers would see different contents, \
         build it again"
    )]
    Contradiction { problem: &'static str },

    /// An archive that stops before its end.
    #[error("the {kind} bundle is truncated: it ends {}without its end marker; upload it again", after(.last))]
    Truncated {
        kind: BundleType,
        last: Option<EntryName>,
    },

    /// Content after the end marker, which an unpacker would silently drop.
    #[error(
        "the {kind} bundle holds data after its end marker, {}which would be dropped; build it as one archive",
        after(.last)
    )]
    TrailingData {
        kind: BundleType,
        last: Option<EntryName>,
    },

    /// An entry whose content cannot be read from the archive: damaged, truncated, or with a wrong
    /// checksum.
    #[error(
        "entry {entry} cannot be read from the bundle, which is damaged or truncated; build or upload it again"
    )]
    ReadEntry { entry: EntryName, source: io::Error },

    /// An entry with more or less content than its header says, in bytes.
    #[error(
        "entry {entry} declares {declared} bytes and holds {found}; the bundle is damaged, build it again"
    )]
    SizeMismatch {
        entry: EntryName,
        declared: u64,
        found: Found,
    },

    /// A system call on the target failed.
    #[error("cannot {operation} entry {entry} in the deployment archive folder")]
    Write {
        entry: EntryName,
        operation: &'static str,
        source: io::Error,
    },

    /// The target is no folder, or cannot be opened.
    #[error("cannot open the folder {} to unpack into it", path.display())]
    Target { path: PathBuf, source: io::Error },

    /// The target is not empty.
    #[error("the folder {} to unpack into is not empty; remove and recreate it first", path.display())]
    TargetNotEmpty { path: PathBuf },

    /// A system call failed while the only folder was made the root.
    #[error("cannot {operation} {} to make the bundle's only folder the root of the revision", path.display())]
    Flatten {
        path: PathBuf,
        operation: &'static str,
        source: io::Error,
    },
}

/// The advice for a bundle that is `found`.
fn advice(found: &str) -> &'static str {
    match found {
        "a zip" => "correct the bundle type that the deployment names",
        "empty" => "build and upload it again",
        _ => {
            "build it as zip, or as tar, plain or compressed with gzip, bzip2, xz or zstd, and name that bundle type"
        }
    }
}

impl UnpackError {
    /// The error for unreadable content of `entry`.
    pub(super) fn read_entry(entry: impl Into<EntryName>, source: io::Error) -> Self {
        match StreamProblem::of(&source) {
            Some(problem) => Self::Stream(problem),
            None => Self::ReadEntry {
                entry: entry.into(),
                source,
            },
        }
    }
}

fn after(last: &Option<EntryName>) -> String {
    last.as_ref()
        .map(|entry| format!("after entry {entry} "))
        .unwrap_or_default()
}

/// The size of an entry's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Exactly(u64),
    More,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(f, "{bytes}"),
            Self::More => f.write_str("more"),
        }
    }
}

/// A problem of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    EmptyName,
    NulInName,
    Absolute,
    ParentFolder,
    NameTooLong {
        limit: usize,
    },
    TooDeep {
        limit: usize,
    },
    /// A folder of its path is a symbolic link of the bundle, in whatever order.
    ThroughLink {
        link: EntryName,
    },
    /// Two entries of one name that exclude each other.
    Clash {
        this: &'static str,
        other: &'static str,
    },
    /// A folder of its path is a file of the bundle.
    NotAFolder,
    /// A device, FIFO or socket.
    Special {
        kind: &'static str,
    },
    /// An unknown type code, in the notation of the format.
    UnknownType {
        code: u32,
    },
    /// A hard link to anything but a file that the bundle made before.
    HardLinkTarget {
        target: EntryName,
        problem: &'static str,
    },
    /// A symbolic link with an impossible target.
    LinkTarget {
        limit: usize,
    },
    /// A symbolic link, which the operator forbids.
    Symlink,
    /// Set-id bits, or write permission for everybody, which the operator forbids.
    UnsafePermissions {
        mode: u32,
    },
    Encrypted,
    /// An unsupported compression method.
    Method {
        name: String,
    },
    /// Two parts of the archive contradict each other about it.
    Contradiction {
        problem: &'static str,
    },
    /// The rest of a file that another volume begins.
    Continued,
    /// A record about another member that would exhaust the memory.
    RecordTooLarge {
        limit: u64,
    },
    /// Content that does not belong there.
    UnexpectedData {
        bytes: u64,
    },
    /// Metadata that contradicts itself or cannot be read.
    Header {
        problem: &'static str,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyName => f.write_str("has no name"),
            Self::NulInName => f.write_str("has a NUL byte in its name"),
            Self::Absolute => f.write_str("would land outside the revision (absolute path)"),
            Self::ParentFolder => f.write_str("would land outside the revision (\"..\")"),
            Self::NameTooLong { limit } => write!(f, "has a name longer than {limit} bytes"),
            Self::TooDeep { limit } => write!(f, "lies deeper than {limit} folders"),
            Self::ThroughLink { link } => {
                write!(
                    f,
                    "goes through {link}, which the bundle makes a symbolic link; write to its target's own path"
                )
            }
            Self::Clash { this, other } => {
                write!(
                    f,
                    "is {this} while the bundle also holds {other} of that name; keep one of them"
                )
            }
            Self::NotAFolder => f.write_str(
                "lies under a name that the bundle also gives to a file; keep one of them",
            ),
            Self::Special { kind } => {
                write!(
                    f,
                    "is {kind}; a revision holds files, folders and links only, make it from a hook script"
                )
            }
            Self::UnknownType { code } => {
                write!(
                    f,
                    "is of type {code:#x}, which this agent does not know; archive it as a plain file"
                )
            }
            Self::HardLinkTarget { target, problem } => {
                write!(f, "is a hard link to {target}, which {problem}")
            }
            Self::LinkTarget { limit } => {
                write!(
                    f,
                    "is a link whose target is empty, holds a NUL byte or is longer than {limit} bytes"
                )
            }
            Self::Symlink => {
                f.write_str("is a symbolic link, which reject_symlinks_in_bundle forbids")
            }
            Self::UnsafePermissions { mode } => {
                write!(
                    f,
                    "has mode {mode:04o}, which reject_unsafe_permissions_in_bundle forbids"
                )
            }
            Self::Encrypted => f.write_str("is encrypted; build the bundle without a password"),
            Self::Method { name } => {
                write!(
                    f,
                    "is compressed with {name}; build the bundle with the methods store or deflate"
                )
            }
            Self::Contradiction { problem } => {
                write!(
                    f,
                    "is not the same to every reader: {problem}; build the bundle again"
                )
            }
            Self::Continued => {
                f.write_str("continues a file from another volume; build the bundle as one archive")
            }
            Self::RecordTooLarge { limit } => {
                write!(
                    f,
                    "is a record about another entry and larger than {} MiB",
                    limit >> 20
                )
            }
            Self::UnexpectedData { bytes } => {
                write!(f, "is a folder or link that carries {bytes} bytes of data")
            }
            Self::Header { problem } => write!(f, "has a header that cannot be trusted: {problem}"),
        }
    }
}

impl Refusal {
    /// The error for the entry called `entry`.
    pub(super) fn of(self, entry: impl Into<EntryName>) -> UnpackError {
        UnpackError::Refused {
            entry: entry.into(),
            reason: self,
        }
    }
}
