//! Starts the daemon in the background, and reports the result to the waiting caller.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir, fork, pipe2, setsid};
use serde::{Deserialize, Serialize};

use crate::output;
use codedeploy_api::chain::Chain;

/// The time that a caller waits for the daemon: longer than EC2 may take to identify the host.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// The time after which the caller reports that it waits.
const LONG: Duration = Duration::from_secs(5);

/// The longest message from the daemon, in bytes.
const MAX_MESSAGE: u64 = 64 * 1024;

/// The two processes after [`background`].
#[derive(Debug)]
pub(crate) enum Side {
    /// The calling process, with the daemon's report.
    Caller(Launch),
    /// The daemon, which must report the result of its start.
    Daemon(Caller),
}

/// The result of a daemon's start.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Launch {
    Up {
        pid: u32,
    },
    /// Another agent is running.
    AlreadyRunning {
        message: String,
    },
    Failed {
        message: String,
    },
}

/// The daemon's connection to its caller, which notices its end, too.
#[derive(Debug)]
pub(crate) struct Caller(File);

impl Caller {
    pub(crate) fn tell(mut self, launch: &Launch) {
        // The caller may be gone.
        let _ = serde_json::to_writer(&mut self.0, launch);
    }
}

/// The caller that waits for the daemon; absent in the foreground.
#[derive(Debug, Default)]
pub struct Waiter(Option<Caller>);

impl Waiter {
    pub(crate) fn of(caller: Caller) -> Self {
        Self(Some(caller))
    }

    /// Reports that the agent is polling.
    pub fn up(&mut self) {
        self.tell(&Launch::Up {
            pid: std::process::id(),
        });
    }

    /// Reports that the agent will not run, because of `error`, or because another one is running
    /// already.
    pub fn failed(&mut self, error: &(dyn std::error::Error + 'static), runs_already: bool) {
        let message = Chain(error).to_string();
        self.tell(&if runs_already {
            Launch::AlreadyRunning { message }
        } else {
            Launch::Failed { message }
        });
    }

    fn tell(&mut self, launch: &Launch) {
        if let Some(caller) = self.0.take() {
            caller.tell(launch);
        }
    }
}

/// Splits this process in two. Call this before there is any thread: a fork copies only the calling
/// one.
pub(crate) fn background() -> io::Result<Side> {
    let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    match fork_alone()? {
        ForkResult::Parent { child } => {
            drop(write);
            // It ends as soon as it has started the daemon.
            let _ = waitpid(child, None);
            Ok(Side::Caller(listen(read, START_TIMEOUT)))
        }
        ForkResult::Child => {
            drop(read);
            let caller = Caller(File::from(write));
            match detach() {
                Ok(true) => Ok(Side::Daemon(caller)),
                Ok(false) => leave(),
                Err(error) => {
                    let message = format!("cannot go to the background: {error}");
                    caller.tell(&Launch::Failed { message });
                    leave()
                }
            }
        }
    }
}

/// Leaves the caller's terminal, session and folder; returns `true` in the process that has.
fn detach() -> io::Result<bool> {
    setsid()?;
    // A process that is not a session leader cannot get a terminal again.
    if let ForkResult::Parent { .. } = fork_alone()? {
        return Ok(false);
    }
    chdir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(true)
}

#[allow(
    unsafe_code,
    reason = "fork(2); sound, because this program has started no thread yet"
)]
fn fork_alone() -> io::Result<ForkResult> {
    Ok(unsafe { fork() }?)
}

/// Ends the process between caller and daemon, without running the caller's exit handlers.
#[allow(
    unsafe_code,
    reason = "_exit(2): exit handlers and buffers are the caller's"
)]
fn leave() -> ! {
    unsafe { libc::_exit(0) }
}

fn listen(pipe: OwnedFd, timeout: Duration) -> Launch {
    let began = Instant::now();
    let mut text = Vec::new();
    let failed = |message: String| Launch::Failed { message };
    let mut pipe = File::from(pipe);
    let mut told = false;
    loop {
        let left = if told { timeout } else { LONG }.saturating_sub(began.elapsed());
        let mut waited = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(
            &mut waited,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(0) if !told => {
                output::complain("the agent is still starting; its log has the reason");
                told = true;
                continue;
            }
            Ok(0) => {
                return failed(format!(
                    "the agent is not up after {} s; see its log and `codedeploy-agent status`",
                    timeout.as_secs()
                ));
            }
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return failed(format!("cannot wait for the agent: {error}")),
        }
        let mut part = [0; 4096];
        match pipe.read(&mut part) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&part[..length]),
            Err(error) => return failed(format!("cannot hear from the agent: {error}")),
        }
        if text.len() as u64 > MAX_MESSAGE {
            break;
        }
    }
    serde_json::from_slice(&text).unwrap_or_else(|_| {
        failed("the agent ended before it was up; its log has its last words".into())
    })
}
