//! A member of a tar, as its headers say.

use super::super::writer::Segment;

/// What a member is; other types are refused while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
}

/// A member with everything that its headers say. Name and link target are not checked yet.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Target of a link, else empty.
    pub(super) link: Vec<u8>,
    /// Bytes of the file, holes included.
    pub(super) size: u64,
    /// Where the content belongs in a file with holes.
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
