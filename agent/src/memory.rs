//! Keeping the resident memory of a daemon that mostly waits small.
#![allow(unsafe_code, reason = "glibc's allocator is told through its C functions")]

/// Has all threads share one arena: the agent's threads seldom allocate at once, and an arena of its own for each
/// would stay resident. To be called before threads are started.
pub(crate) fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator; no pointer is involved.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back to the system what a finished command no longer needs.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time; only memory that nobody uses is released.
    unsafe {
        libc::malloc_trim(0);
    }
}
