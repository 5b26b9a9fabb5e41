//! A file on the host that was compared with the planned one, and is the same.

use crate::fs::Status;

/// A file whose content and access are as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// A million of them are kept, each with a number of four bytes.
#[repr(Rust, packed(4))]
pub(super) struct Verified {
    inode: u64,
    /// The time of its last change of any kind. Another time means that somebody changed it.
    changed: i64,
    /// The checksum of its content.
    pub(super) sum: u32,
    modified: i64,
}

impl Verified {
    /// Stands for no time; a million files are verified at once.
    const AS_PLANNED: i64 = i64::MIN;

    /// Describes a file that is to get another time of modification, if any.
    pub(super) fn of(status: &Status, sum: u32, modified: Option<i64>) -> Self {
        Self {
            inode: status.inode,
            changed: status.changed,
            sum,
            modified: modified.unwrap_or(Self::AS_PLANNED),
        }
    }

    /// Whether nobody has changed the file since.
    pub(super) fn is(&self, there: &Status) -> bool {
        (self.inode, self.changed) == (there.inode, there.changed)
    }

    /// The planned time of modification, if the file has another one.
    pub(super) fn modified(&self) -> Option<i64> {
        (self.modified != Self::AS_PLANNED).then_some(self.modified)
    }
}
