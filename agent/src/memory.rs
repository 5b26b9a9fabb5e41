//! Keeps the resident memory of a mostly idle daemon small.
#![allow(
    unsafe_code,
    reason = "glibc's allocator is told through its C functions"
)]

/// Makes all threads share one arena: the agent's threads seldom allocate at the same time, and an
/// arena for each would stay resident. Call this before threads start.
pub(crate) fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator; no pointer is involved.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns memory to the system that a finished command no longer needs.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time; only memory that nobody uses is released.
    unsafe {
        libc::malloc_trim(0);
    }
}
