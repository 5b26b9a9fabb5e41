//! Keeps the resident memory of a mostly idle daemon small.
#![allow(
    unsafe_code,
    reason = "glibc's allocator and the kernel are told through C functions"
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

/// Returns memory to the system that a start or a finished command no longer needs: unused parts of
/// the heap, and code and constants that a waiting agent seldom reads. The kernel maps those again
/// from the program's file.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, and releases only memory that nobody uses.
    // `unmap_constants` has the type that dl_iterate_phdr calls, and reads what that gives it.
    unsafe {
        libc::malloc_trim(0);
        libc::dl_iterate_phdr(Some(unmap_constants), std::ptr::null_mut());
    }
}

/// Unmaps the pages of the program's segments that are never written, and ends the iteration: the
/// program comes first, libraries are shared with others.
///
/// # Safety
///
/// `object` describes a loaded program.
#[cfg(target_env = "gnu")]
unsafe extern "C" fn unmap_constants(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    const END: libc::c_int = 1;
    // SAFETY: the caller's promise; the program's headers stay loaded with it.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (
            object.dlpi_addr,
            std::slice::from_raw_parts(object.dlpi_phdr, count),
        )
    };
    // SAFETY: has no precondition.
    let Ok(page) = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else {
        return END;
    };
    for header in headers {
        // Where relocations are written and protected afterwards, the segment itself is writable.
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let begin = (base + header.p_vaddr) & !(page - 1);
            let length = base + header.p_vaddr + header.p_memsz - begin;
            // SAFETY: nothing writes to these pages of a file, so the file still has their contents.
            unsafe {
                libc::madvise(
                    begin as *mut libc::c_void,
                    length as libc::size_t,
                    libc::MADV_DONTNEED,
                );
            }
        }
    }
    END
}
