//! The process between the agent and a script: this program, started again ([`WORD`]).
//!
//! It is what everything that the script starts falls back to (`PR_SET_CHILD_SUBREAPER`), so that nothing can leave the
//! script's descent for as long as the script runs or is being ended: neither by a session of its own, nor an empty
//! environment, nor parents that are gone. When the agent lets go of it, or is gone itself, it ends with the script, and
//! what the script left running belongs to init, as it does when anything else starts a daemon.
//!
//! It also holds the session of the script's user ([`super::session`]) from before the script until after it. A process of
//! its own, because a session changes who opens it: limits, umask, keyring, control group.

mod exec;

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use super::MARK;
use super::order::{Order, Report};
use super::session;

/// The program's first argument when it is to be a keeper.
pub(super) const WORD: &str = "keep-script";

/// How a keeper is called in lists of processes.
pub(super) const NAME: &str = "codedeploy-hook";
const SHORT_NAME: &CStr = c"codedeploy-hook";

/// Largest order that is read, in bytes: 65,536 groups and the longest paths.
const MAX_ORDER: u64 = 4 * 1024 * 1024;

/// Does the work of a keeper if that is what the program was started for; to be asked before anything else.
pub fn keep_script(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1).as_deref() != Some(OsStr::new(WORD)) {
        return None;
    }
    Some(match Keeper::start().and_then(Keeper::run) {
        Ok(()) => ExitCode::SUCCESS,
        // The agent sees that the connection ended before the script did.
        Err(_) => ExitCode::FAILURE,
    })
}

struct Keeper {
    agent: UnixStream,
    order: Order,
}

impl Keeper {
    fn start() -> io::Result<Self> {
        close_inherited();
        let agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        rustix::thread::set_name(SHORT_NAME)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        receive_endings()?;
        let mut line = Vec::new();
        BufReader::new(agent.try_clone()?.take(MAX_ORDER)).read_until(b'\n', &mut line)?;
        Ok(Self { agent, order: serde_json::from_slice(&line)? })
    }

    fn run(mut self) -> io::Result<()> {
        let Some(account) = &self.order.account else {
            return self.run_script(Vec::new());
        };
        become_member(&account.groups)?;
        let opened = account.session.map(|wanted| session::open(account, wanted)).transpose();
        match opened {
            Err(reason) => self.say(&Report::Refused(reason)),
            Ok(None) => self.run_script(Vec::new()),
            Ok(Some((session, opened))) => {
                for warning in opened.warnings {
                    self.say(&Report::Warning(warning))?;
                }
                let ran = self.run_script(opened.environment);
                session.close();
                ran
            }
        }
    }

    /// Runs the script with the variables of this process, those of a session and its mark.
    fn run_script(&mut self, session: Vec<(OsString, OsString)>) -> io::Result<()> {
        let inherited = std::env::vars_os().filter(|(name, _)| session.iter().all(|(own, _)| own != name));
        let mut environment: Vec<_> = inherited.chain(session.iter().cloned()).collect();
        environment.push((MARK.into(), self.order.mark.clone().into()));

        // Whoever ends scripts ends the script, not what watches over it; KILL aside.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let done = match exec::start(&self.order, &environment) {
            Err(error) => self.say(&Report::NotStarted(error.raw_os_error().unwrap_or(libc::EINVAL))),
            Ok(script) => {
                silence()?;
                self.watch(script)
            }
        };
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        done
    }

    /// Until nothing of the script is left, or the script has ended and the agent needs to know no more.
    fn watch(&mut self, script: Pid) -> io::Result<()> {
        let endings = SignalFd::with_flags(&endings(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let (mut ended, mut released) = (false, false);
        loop {
            while endings.read_signal()?.is_some() {}
            loop {
                match wait(WaitOptions::NOHANG) {
                    Ok(Some((pid, status))) if pid == script => {
                        ended = true;
                        released |= self.say(&Report::Ended(status.as_raw())).is_err();
                    }
                    Ok(Some(_)) | Err(Errno::INTR) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            if ended && released {
                return Ok(());
            }
            let mut awaited = vec![PollFd::new(&endings, PollFlags::IN)];
            if !released {
                awaited.push(PollFd::new(&self.agent, PollFlags::IN));
            }
            match poll(&mut awaited, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let heard = awaited.get(1).is_some_and(|agent| !agent.revents().is_empty());
            if heard {
                // Nothing follows an order but its end.
                released = !matches!((&self.agent).read(&mut [0; 64]), Ok(1..));
            }
        }
    }

    fn say(&self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        (&self.agent).write_all(&line)
    }
}

fn endings() -> SigSet {
    SigSet::from_iter([Signal::SIGCHLD])
}

/// Undoes what whoever started the agent may have handed down: a parent that ignores SIGCHLD hears of no child's end.
#[allow(unsafe_code, reason = "signal(2); the default action runs no code of this program")]
fn receive_endings() -> io::Result<()> {
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// Closes whatever the agent had open for others, also what it inherited itself.
#[allow(unsafe_code, reason = "handles that nobody here owns can be closed by number alone")]
fn close_inherited() {
    // SAFETY: nothing has been opened yet but the three standard streams. Kernels before 5.9 do not know it; what the agent
    // opened itself is not inherited there either.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Takes the supplementary groups of the script's user before its session is opened, as `su` does: modules may add some.
fn become_member(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<_> = groups.iter().map(|group| rustix::fs::Gid::from_raw(*group)).collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// Lets go of the script's output: whether it is still open must depend on the script alone.
fn silence() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    let null: BorrowedFd<'_> = null.as_fd();
    nix::unistd::dup2_stdout(null)?;
    nix::unistd::dup2_stderr(null)?;
    Ok(())
}
