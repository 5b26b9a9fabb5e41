//! A member of a tar, as its headers describe it.

use super::super::writer::Segment;

/// The kind of a member; other types are rejected while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
}

/// A member with all data of its headers. Name and link target are not checked yet.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// The target of a link, else empty.
    pub(super) link: Vec<u8>,
    /// The size of the file in bytes, including holes.
    pub(super) size: u64,
    /// The places of the content in a file with holes.
    pub(super) segments: Option<Vec<Segment>>,
    /// Permission bits, set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) user: i128,
    pub(super) group: i128,
    pub(super) user_name: Vec<u8>,
    pub(super) group_name: Vec<u8>,
    /// Seconds since the epoch, and nanoseconds.
    pub(super) modified: (i64, u32),
}
