//! How much one Install may be: more than any revision has that somebody wrote, and what a small host can hold.

/// Files, links and folders that one Install brings, and that a revision has.
pub(super) const MAX_OBJECTS: usize = 1_000_000;

/// Reasons that are listed. Whoever has more mends these first.
pub(super) const MAX_CONFLICTS: usize = 200;

/// Comparisons of paths with `permissions`; less than a second.
pub(super) const MAX_COMPARISONS: usize = 20_000_000;

/// Names that are looked up to find out what the links of a revision lead to; less than a second.
pub(super) const MAX_LOOKUPS: usize = 10_000_000;
