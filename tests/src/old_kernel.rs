//! Runs a program as on an older kernel: a filter (seccomp(2)) rejects the system calls that this
//! kernel lacks, in the program and in everything that it starts.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::programs::{Program, programs_folder};

/// The system calls that a program can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Those of Linux 3.10, as in RHEL 7.
    Linux3_10,
    /// Those of Linux 4.14, as in Amazon Linux 2.
    Linux4_14,
    /// Those of a container whose runtime is older than the kernel: newer calls are forbidden, not
    /// missing.
    OldContainer,
}

impl Kernel {
    pub const ALL: [Self; 3] = [Self::Linux3_10, Self::Linux4_14, Self::OldContainer];

    /// The program and its arguments on this kernel.
    pub fn program(self, program: &Program) -> Program {
        let first = std::iter::once(self.name().into()).chain(program.words());
        Program::with(programs_folder().join("old_kernel"), first.collect())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Linux3_10 => "3.10",
            Self::Linux4_14 => "4.14",
            Self::OldContainer => "container",
        }
    }

    /// The number of the first system call that it lacks. Numbers grow with each kernel.
    fn first_missing(self) -> libc::c_long {
        match self {
            // Linux 3.14 added it after finit_module of 3.8.
            Self::Linux3_10 => libc::SYS_sched_setattr,
            // Linux 4.11 added statx.
            Self::Linux4_14 | Self::OldContainer => libc::SYS_statx + 1,
        }
    }

    /// The filter's instructions.
    fn filter(self) -> Result<Vec<libc::sock_filter>, std::num::TryFromIntError> {
        let number = |call: libc::c_long| u32::try_from(call);
        let missing = match self {
            Self::OldContainer => libc::EPERM,
            _ => libc::ENOSYS,
        };
        let reject = |errno: i32| {
            statement(
                libc::BPF_RET | libc::BPF_K,
                libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
            )
        };
        let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
        let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
        let mut filter = vec![
            load(NUMBER),
            // Waiting for a process by its handle is from Linux 5.4.
            jump(equal, number(libc::SYS_waitid)?, 0, 4),
            load(FIRST_ARGUMENT),
            jump(equal, libc::P_PIDFD, 0, 1),
            reject(libc::EINVAL),
            allow,
        ];
        if self == Self::Linux3_10 {
            filter.extend([
                // Locks that belong to an open file are from Linux 3.15.
                jump(equal, number(libc::SYS_fcntl)?, 0, 5),
                load(SECOND_ARGUMENT),
                jump(at_least, libc::F_OFD_GETLK.cast_unsigned(), 0, 2),
                jump(at_least, libc::F_OFD_SETLKW.cast_unsigned() + 1, 1, 0),
                reject(libc::EINVAL),
                allow,
            ]);
        }
        filter.extend([
            jump(at_least, number(self.first_missing())?, 0, 3),
            // The C library of this machine cannot do without these, unless they are missing.
            jump(equal, number(libc::SYS_clone3)?, 3, 0),
            jump(equal, number(libc::SYS_faccessat2)?, 2, 0),
            reject(missing),
            allow,
            reject(libc::ENOSYS),
        ]);
        Ok(filter)
    }
}

/// The places of the number and of the lower halves of arguments in `seccomp_data`.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

/// Replaces this process: the arguments are the kernel, and the program to run.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> io::Error {
    let (Some(name), Some(program)) = (arguments.next(), arguments.next()) else {
        return io::Error::other("usage: old_kernel 3.10|4.14|container PROGRAM [ARGUMENT…]");
    };
    let Some(kernel) = Kernel::ALL.into_iter().find(|kernel| name == kernel.name()) else {
        return io::Error::other(format!("{}: no such kernel", name.display()));
    };
    match kernel.filter().map_err(io::Error::other).and_then(install) {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

#[allow(unsafe_code, reason = "seccomp(2) by way of prctl(2)")]
fn install(mut filter: Vec<libc::sock_filter>) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_mut_ptr(),
    };
    // Root needs no promise that its programs gain no rights, which scripts with sudo would break.
    if !rustix::process::geteuid().is_root() {
        rustix::thread::set_no_new_privs(true)?;
    }
    // SAFETY: the program and its instructions outlive the call, which copies them.
    let set = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

/// Skips `if_true` or `if_false` instructions.
fn jump(code: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: if_true,
        jf: if_false,
        k,
    }
}
