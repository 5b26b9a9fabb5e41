//! Turns a keeper's child into the script: one fork, and the child's steps up to exec.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, fork};
use rustix::io::Errno;
use rustix::process::Pid;

use super::handles::{self, Closing};
use crate::script::process::cgroup;
use crate::script::process::order::Order;

/// The number of attempts, [`PAUSE`] apart, to start a script whose file is open for writing
/// (ETXTBSY): another child that is just being started in the agent can hold a copy of the handle
/// that unpacked it for a moment.
const BUSY_ROUNDS: usize = 50;
const PAUSE: rustix::thread::Timespec = rustix::thread::Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Starts the script; the error is the operating system's.
pub(super) fn start(order: &Order, environment: &[(OsString, OsString)]) -> io::Result<Pid> {
    let image = Image::new(order, environment)?;
    let mut attempts = 0..BUSY_ROUNDS;
    loop {
        match image.start() {
            Err(error)
                if error.raw_os_error() == Some(libc::ETXTBSY) && attempts.next().is_some() =>
            {
                let _ = rustix::thread::nanosleep(&PAUSE);
            }
            started => return started,
        }
    }
}

/// Everything that the child needs, allocated before the fork.
struct Image {
    command: Words,
    shell: Option<Words>,
    environment: Words,
    /// The user and group to switch to.
    account: Option<(rustix::fs::Uid, rustix::fs::Gid)>,
    entrance: Option<OwnedFd>,
}

impl Image {
    fn new(order: &Order, environment: &[(OsString, OsString)]) -> io::Result<Self> {
        let variables = environment.iter().map(|(name, value)| {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            variable
        });
        let account = order.account.as_ref().map(|account| {
            (
                rustix::fs::Uid::from_raw(account.uid),
                rustix::fs::Gid::from_raw(account.gid),
            )
        });
        Ok(Self {
            command: Words::new(order.command.iter().cloned())?,
            shell: order.shell.clone().map(Words::new).transpose()?,
            environment: Words::new(variables)?,
            account,
            entrance: order.group.as_deref().and_then(cgroup::entrance),
        })
    }

    fn start(&self) -> io::Result<Pid> {
        let (failure, say_failure) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        #[allow(unsafe_code, reason = "fork(2); this process has one thread")]
        // SAFETY: no other thread can hold a lock, such as the allocator's, in the child, which
        // ends in exec or _exit.
        let forked = unsafe { fork() }?;
        let ForkResult::Parent { child } = forked else {
            let error = self.become_script();
            let _ = rustix::io::write(&say_failure, &error.raw_os_error().to_ne_bytes());
            #[allow(unsafe_code, reason = "_exit(2): exit handlers are the parent's")]
            // SAFETY: ends the process.
            unsafe {
                libc::_exit(127)
            }
        };
        drop(say_failure);
        let child = Pid::from_raw(child.as_raw()).ok_or(Errno::SRCH)?;
        let mut error = [0; 4];
        // Exec closes the pipe, so there is nothing to read.
        if File::from(failure).read_exact(&mut error).is_err() {
            return Ok(child);
        }
        let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
        Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error)))
    }

    /// Returns only if the script could not be started, with the error.
    fn become_script(&self) -> Errno {
        if let Err(error) = self.prepare() {
            return error;
        }
        match (self.command.execute(&self.environment), &self.shell) {
            // The file is no program and names no interpreter: run it with a shell, as the user's
            // shell decides.
            (Errno::NOEXEC, Some(shell)) => shell.execute(&self.environment),
            (error, _) => error,
        }
    }

    fn prepare(&self) -> Result<(), Errno> {
        rustix::process::setpgid(None, None)?;
        if let Some(entrance) = &self.entrance {
            // Without its control group, a script can still be found by its descent.
            let _ = rustix::io::write(entrance, b"0");
        }
        if let Some((uid, gid)) = self.account {
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        #[allow(
            unsafe_code,
            reason = "what a program hands down to the next one is set by system calls alone"
        )]
        // SAFETY: the calls take no pointers but one to a signal set on the stack.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
            // Rust programs ignore it.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        // Modules of a session may have opened handles that exec would leave open.
        handles::close(Closing::AtExec);
        Ok(())
    }
}

/// A list of strings in the form that exec needs.
struct Words {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Words {
    fn new(words: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        let strings: Result<Vec<CString>, _> = words
            .into_iter()
            .map(|word| CString::new(word.into_vec()))
            .collect();
        let strings = strings?;
        let pointers = strings
            .iter()
            .map(|word| word.as_ptr())
            .chain([ptr::null()])
            .collect();
        Ok(Self { strings, pointers })
    }

    /// Executes the program of the first word; a name that is no path is looked up in `PATH`.
    fn execute(&self, environment: &Words) -> Errno {
        let Some(program) = self.strings.first() else {
            return Errno::NOENT;
        };
        let (argv, envp) = (self.pointers.as_ptr(), environment.pointers.as_ptr());
        #[allow(unsafe_code, reason = "execve(2)")]
        // SAFETY: both lists end with a null pointer and outlive the call. execvpe would pass
        // scripts without an interpreter line to /bin/sh by itself, so it is used for names alone.
        unsafe {
            if program.as_bytes().contains(&b'/') {
                libc::execve(program.as_ptr(), argv, envp);
            } else {
                libc::execvpe(program.as_ptr(), argv, envp);
            }
        }
        Errno::from_raw_os_error(
            io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EINVAL),
        )
    }
}
