//! The limits of one Install: above any real revision, and within the means of a small host.

/// Files, links and folders in one Install, and in a revision.
pub(super) const MAX_OBJECTS: usize = 1_000_000;

/// Conflicts that are listed. Anyone with more fixes these first.
pub(super) const MAX_CONFLICTS: usize = 200;

/// Comparisons of paths with `permissions`; they take less than a second.
pub(super) const MAX_COMPARISONS: usize = 20_000_000;

/// Names that are looked up to resolve the links of a revision; this takes less than a second.
pub(super) const MAX_LOOKUPS: usize = 10_000_000;
