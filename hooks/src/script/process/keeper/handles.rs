//! The handles beyond the three standard streams, which a script must not get.

/// The time at which they are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    Now,
    /// When this process becomes another program.
    AtExec,
}

/// The first handle after the standard streams.
const FIRST: libc::c_uint = 3;

/// Closes all handles but the standard streams.
#[allow(
    unsafe_code,
    reason = "handles that nobody here owns can be closed by number alone"
)]
pub(super) fn close(closing: Closing) {
    let flags = match closing {
        Closing::Now => 0,
        Closing::AtExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: the callers own no handles, or keep them until exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) };
    if result == 0 {
        return;
    }
    // Before Linux 5.9, in part before 5.11, and in containers that forbid unknown system calls.
    for handle in open().into_iter().filter(|handle| *handle >= 3) {
        // SAFETY: as above; a handle that is closed already is an error that changes nothing.
        unsafe {
            match closing {
                Closing::Now => libc::close(handle),
                Closing::AtExec => libc::fcntl(handle, libc::F_SETFD, libc::FD_CLOEXEC),
            };
        }
    }
}

/// The numbers of all open handles, one of which was that of the list itself.
fn open() -> Vec<libc::c_int> {
    let entries = std::fs::read_dir("/proc/self/fd");
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
