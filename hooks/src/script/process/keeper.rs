//! The process between the agent and a script: this program, started again ([`WORD`]).
//!
//! All orphans of the script become its children (`PR_SET_CHILD_SUBREAPER`). So no process can
//! leave the script's descent while the script runs or is being ended: neither by a session of its
//! own, nor by an empty environment, nor because its parents are gone. When the agent releases the
//! keeper, or is gone itself, the keeper ends with the script; processes that the script left then
//! belong to init, like any other daemon.
//!
//! It also holds the session of the script's user ([`super::session`]), from before the script
//! until after it. This needs a process of its own, because a session changes the process that
//! opens it: limits, umask, keyring, control group.

mod exec;
mod handles;

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

use handles::Closing;

use super::MARK;
use super::order::{Order, Report};
use super::session;

/// The first argument of a program that is started as a keeper.
pub(super) const WORD: &str = "keep-script";

/// The name of a keeper in process lists.
pub(super) const NAME: &str = "codedeploy-hook";
const SHORT_NAME: &CStr = c"codedeploy-hook";

/// The largest order that is read, in bytes: 65,536 groups and the longest paths.
const MAX_ORDER: u64 = 4 * 1024 * 1024;

/// Runs as a keeper if the program was started as one; call it before anything else.
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
        // Of the agent and of its supervisor.
        handles::close(Closing::Now);
        let agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        rustix::thread::set_name(SHORT_NAME)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        receive_endings()?;
        let mut line = Vec::new();
        BufReader::new(agent.try_clone()?.take(MAX_ORDER)).read_until(b'\n', &mut line)?;
        Ok(Self {
            agent,
            order: serde_json::from_slice(&line)?,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let Some(account) = &self.order.account else {
            return self.run_script(Vec::new());
        };
        become_member(&account.groups)?;
        let opened = account
            .session
            .map(|wanted| session::open(account, wanted))
            .transpose();
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

    /// Runs the script with the variables of this process and of a session, and with its mark.
    fn run_script(&mut self, session: Vec<(OsString, OsString)>) -> io::Result<()> {
        let inherited =
            std::env::vars_os().filter(|(name, _)| session.iter().all(|(own, _)| own != name));
        let mut environment: Vec<_> = inherited.chain(session.iter().cloned()).collect();
        environment.push((MARK.into(), self.order.mark.clone().into()));

        // Signals to the script's process group must not end its keeper; KILL cannot be blocked.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let done = match exec::start(&self.order, &environment) {
            Err(error) => self.say(&Report::NotStarted(
                error.raw_os_error().unwrap_or(libc::EINVAL),
            )),
            Ok(script) => {
                silence()?;
                self.watch(script)
            }
        };
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        done
    }

    /// Waits until nothing of the script is left, or until the script has ended and the agent has
    /// released the keeper.
    fn watch(&mut self, script: Pid) -> io::Result<()> {
        let endings =
            SignalFd::with_flags(&endings(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
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
            let heard = awaited
                .get(1)
                .is_some_and(|agent| !agent.revents().is_empty());
            if heard {
                // After the order, the agent only closes the connection.
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

/// Resets a setting that the agent may have inherited: a process that ignores SIGCHLD is not
/// notified of its children's ends.
#[allow(
    unsafe_code,
    reason = "signal(2); the default action runs no code of this program"
)]
fn receive_endings() -> io::Result<()> {
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// Takes the supplementary groups of the script's user before its session is opened, as `su` does:
/// modules may add some.
fn become_member(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<_> = groups
        .iter()
        .map(|group| rustix::fs::Gid::from_raw(*group))
        .collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// Closes the keeper's copies of the script's output: only the script may keep it open.
fn silence() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    let null: BorrowedFd<'_> = null.as_fd();
    nix::unistd::dup2_stdout(null)?;
    nix::unistd::dup2_stderr(null)?;
    Ok(())
}
