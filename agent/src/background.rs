//! Going to the background, and telling the caller who waits what came of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir, fork, pipe2, setsid};
use serde::{Deserialize, Serialize};

use crate::console;
use codedeploy_api::chain::Chain;

/// How long a caller waits for the daemon to be up: longer than EC2 may take to say who this host is.
const PATIENCE: Duration = Duration::from_secs(90);
/// After what time it tells that it waits.
const LONG: Duration = Duration::from_secs(5);

/// Longest message from the daemon, in bytes.
const MAX_MESSAGE: u64 = 64 * 1024;

/// Which process this is after [`background`].
#[derive(Debug)]
pub(crate) enum Side {
    /// The one that was called, with what the daemon said.
    Caller(Launch),
    /// The daemon; it must say how its start went.
    Daemon(Caller),
}

/// How the start of a daemon went.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Launch {
    Up {
        pid: u32,
    },
    /// Another agent runs.
    AlreadyRunning {
        message: String,
    },
    Failed {
        message: String,
    },
}

/// The daemon's line to its caller; the caller hears of its end too.
#[derive(Debug)]
pub(crate) struct Caller(File);

impl Caller {
    pub(crate) fn tell(mut self, launch: &Launch) {
        // A caller who has gone does not need to know.
        let _ = serde_json::to_writer(&mut self.0, launch);
    }
}

/// Whoever waits for a daemon to be up; nobody does in the foreground.
#[derive(Debug, Default)]
pub struct Waiter(Option<Caller>);

impl Waiter {
    pub(crate) fn of(caller: Caller) -> Self {
        Self(Some(caller))
    }

    /// The agent polls from now on.
    pub fn up(&mut self) {
        self.tell(&Launch::Up { pid: std::process::id() });
    }

    /// There will be no agent, because of `error`, or because another one runs already.
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

/// Splits this process in two. Must be called before there is any thread: a fork takes only the calling one along.
pub(crate) fn background() -> io::Result<Side> {
    let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    match fork_alone()? {
        ForkResult::Parent { child } => {
            drop(write);
            // It ends as soon as it has made the daemon.
            let _ = waitpid(child, None);
            Ok(Side::Caller(listen(read, PATIENCE)))
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

/// Leaves the caller's terminal, session and folder; `true` in the process that has.
fn detach() -> io::Result<bool> {
    setsid()?;
    // No longer the leader of a session, a process cannot get a terminal again.
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

#[allow(unsafe_code, reason = "fork(2); sound, because this program has started no thread yet")]
fn fork_alone() -> io::Result<ForkResult> {
    Ok(unsafe { fork() }?)
}

/// Ends the process between caller and daemon, without running what belongs to the caller.
#[allow(unsafe_code, reason = "_exit(2): exit handlers and buffers are the caller's")]
fn leave() -> ! {
    unsafe { libc::_exit(0) }
}

fn listen(pipe: OwnedFd, patience: Duration) -> Launch {
    let began = Instant::now();
    let mut text = Vec::new();
    let failed = |message: String| Launch::Failed { message };
    let mut pipe = File::from(pipe);
    let mut told = false;
    loop {
        let left = if told { patience } else { LONG }.saturating_sub(began.elapsed());
        let mut waited = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waited, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if !told => {
                console::complain("the agent is still starting; its log says what it waits for");
                told = true;
                continue;
            }
            Ok(0) => {
                return failed(format!(
                    "the agent is not up after {} s; its log says what it is doing, and `status` whether it runs",
                    patience.as_secs()
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
    serde_json::from_slice(&text)
        .unwrap_or_else(|_| failed("the agent ended before it was up; its log has its last words".into()))
}
