//! Runs a program step by step, from system call to system call (ptrace(2)). It must be the only
//! child of its process.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls::{self, Stopped};
use super::{Blow, Call, Report, Strike};

/// The values of `ptrace_syscall_info` for a thread that enters or leaves a call.
const ENTRY: u8 = 1;
const EXIT: u8 = 2;

/// Runs the program `strike`: its arguments are the report, the strike, and the program to run.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> io::Result<u8> {
    let missing = || io::Error::other("usage: strike REPORT STRIKE PROGRAM [ARGUMENT…]");
    let report = arguments.next().ok_or_else(missing)?;
    let strike = arguments
        .next()
        .ok_or_else(missing)?
        .to_string_lossy()
        .parse::<Strike>();
    let mut command = Command::new(arguments.next().ok_or_else(missing)?);
    command.args(arguments);
    let traced = trace(command, strike.map_err(io::Error::other)?)?;
    std::fs::write(report, traced.to_json().to_string())?;
    Ok(traced
        .exit
        .map_or(137, |code| u8::try_from(code).unwrap_or(u8::MAX)))
}

struct Tracer {
    process: Pid,
    strike: Strike,
    report: Report,
    /// Threads whose present call fails, and the error.
    failing: Vec<(Pid, Errno)>,
}

fn trace(mut command: Command, strike: Strike) -> io::Result<Report> {
    #[allow(
        unsafe_code,
        reason = "only the child itself can ask to be traced, and does nothing else before exec"
    )]
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    let child = command.spawn()?;
    let process = Pid::from_raw(child.id().cast_signed());
    waitpid(process, None)?;
    // Threads are followed, but not children: hooks outlive a killed agent.
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(process, options)?;
    ptrace::syscall(process, None)?;
    let report = Report {
        calls: Vec::new(),
        struck: None,
        exit: None,
        output: String::new(),
    };
    let mut tracer = Tracer {
        process,
        strike,
        report,
        failing: Vec::new(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(Signal::SIGTERM as i32, Arc::clone(&stop))?;
    loop {
        // A request to stop reaches only this process. The traced program's next call brings us
        // here.
        if stop.swap(false, Ordering::Relaxed) {
            nix::sys::signal::kill(process, Signal::SIGTERM)?;
        }
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == process => tracer.report.exit = Some(code),
            Ok(status) => tracer.go_on(status)?,
            Err(Errno::ECHILD) => return Ok(tracer.report),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Tracer {
    fn go_on(&mut self, status: WaitStatus) -> io::Result<()> {
        let (thread, signal) = match status {
            WaitStatus::PtraceSyscall(thread) => {
                self.call(thread)?;
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            // A new thread begins with this stop; nobody sends it to one of ours.
            WaitStatus::Stopped(thread, Signal::SIGSTOP | Signal::SIGTRAP) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => return Ok(()),
        };
        match ptrace::syscall(thread, signal) {
            // It was killed in the meantime.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn call(&mut self, thread: Pid) -> io::Result<()> {
        let info = match ptrace::syscall_info(thread) {
            Err(Errno::ESRCH) => return Ok(()),
            info => info?,
        };
        if info.op == EXIT {
            if let Some(at) = self
                .failing
                .iter()
                .position(|(failing, _)| *failing == thread)
            {
                registers::answer(thread, self.failing.swap_remove(at).1)?;
            }
            return Ok(());
        }
        if info.op != ENTRY {
            return Ok(());
        }
        #[allow(
            unsafe_code,
            reason = "the kernel says in `op` which field of the union it has written"
        )]
        let entry = unsafe { info.u.entry };
        let folder = format!("/proc/{thread}");
        let stopped = Stopped {
            folder: Path::new(&folder),
            number: entry.nr,
            arguments: entry.args,
        };
        let Some((name, path)) = stopped.changes() else {
            return Ok(());
        };
        let call = Call {
            name: name.into(),
            path,
        };
        self.report.calls.push(call.clone());
        let number = self.report.calls.len();
        let Some((at, blow)) = self.strike.0.clone() else {
            return Ok(());
        };
        if number < at {
            return Ok(());
        }
        match blow {
            Blow::Kill if number == at => nix::sys::signal::kill(self.process, Signal::SIGKILL)?,
            Blow::Fail(errno) if number == at => self.fail(thread, errno)?,
            Blow::FailFromThenOn(errno) if calls::can_fail(name, errno) => {
                self.fail(thread, errno)?
            }
            Blow::Run(script) if number == at => run(&script)?,
            Blow::RunFromThenOn(script) => run(&script)?,
            _ => return Ok(()),
        }
        self.report.struck.get_or_insert(call);
        Ok(())
    }

    fn fail(&mut self, thread: Pid, errno: Errno) -> io::Result<()> {
        registers::skip(thread)?;
        self.failing.push((thread, errno));
        Ok(())
    }
}

fn run(script: &Path) -> io::Result<()> {
    let status = Command::new(script).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{}: {status}", script.display())))
    }
}

/// Suppresses a system call and returns a result in its place.
#[cfg(target_arch = "x86_64")]
mod registers {
    use super::*;

    pub(super) fn skip(thread: Pid) -> io::Result<()> {
        let mut registers = ptrace::getregs(thread)?;
        registers.orig_rax = u64::MAX;
        Ok(ptrace::setregs(thread, registers)?)
    }

    pub(super) fn answer(thread: Pid, errno: Errno) -> io::Result<()> {
        let mut registers = ptrace::getregs(thread)?;
        registers.rax = (-i64::from(errno as i32)).cast_unsigned();
        Ok(ptrace::setregs(thread, registers)?)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod registers {
    use super::*;

    pub(super) fn skip(_: Pid) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "calls can be made to fail on x86-64 only; kills work everywhere",
        ))
    }

    pub(super) fn answer(_: Pid, _: Errno) -> io::Result<()> {
        Ok(())
    }
}
