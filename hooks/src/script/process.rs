//! Starts scripts and ends them. The only module that starts processes.
//!
//! A script has a process group of its own, and in its environment a mark ([`MARK`]) that no other script has. When it
//! must be ended, everything that descends from it is found in `/proc` by group, parentage and mark ([`table`]), also what
//! left the group or the session, and by its control group where there is one ([`cgroup`]). When it ends by itself, what
//! it left running is left alone: hooks start applications.
//!
//! The agent does not make itself the reaper of orphans: a daemon that a script starts belongs to init, as it does when
//! anything else starts it, and an orphan without the mark could not be told from such a daemon anyway.

mod account;
mod cgroup;
mod executable;
mod format;
mod inspect;
mod pipes;
mod table;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{Uid, geteuid};
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::outcome::{Holder, Outcome};
use crate::appspec::Script;
use account::Account;
use cgroup::ControlGroup;
use executable::Executable;
pub use inspect::{ScriptFinding, inspect};
pub(super) use pipes::Pipes;
use table::Family;

/// Environment variable whose value only the descendants of one script have.
pub const MARK: &str = "CODEDEPLOY_HOOK_RUN";

/// Credentials of the agent, which are not passed on.
const SECRETS: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CREDENTIAL_FILE", "AWS_SESSION_TOKEN"];

/// What runs a script that does not name its interpreter.
const DEFAULT_INTERPRETER: &str = "/bin/sh";

/// How often a condition without an event is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How often, [`POLL`] apart, what is left of a script is looked for and killed; a process in an uninterruptible wait
/// outlives any number of signals.
const KILL_ROUNDS: usize = 100;

/// How often, [`POLL`] apart, starting a script is tried again when its file is open for writing (ETXTBSY): a child that
/// is just being started elsewhere in the agent can for a moment have a copy of the handle that unpacked it.
const BUSY_ROUNDS: usize = 50;

/// A script that can be started.
#[derive(Debug)]
pub(super) struct Prepared {
    executable: Executable,
    runs_as: RunsAs,
}

#[derive(Debug)]
enum RunsAs {
    /// The agent's user.
    Agent,
    /// The agent's user, which `runas` names.
    Named(Account),
    /// Another user, whom root becomes.
    Switched(Account),
    /// Root or another user, through sudo, because the agent is not root.
    Sudo(Option<Account>),
}

/// A script that was started, and all that it starts.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: i32,
    trace: Trace,
}

/// By what the descendants of one script are known, wherever they went.
#[derive(Debug)]
struct Trace {
    mark: String,
    group: Option<ControlGroup>,
}

impl Prepared {
    /// Checks that `script` of the revision `archive` can run, and makes its file fit for it. Blocks.
    pub(super) fn new(archive: &Path, script: &Script) -> Result<Self, Outcome> {
        let refused = |reason: String| Outcome::NotStarted {
            location: location(script),
            user: script.runas.clone(),
            reason,
        };
        let account = script.runas.as_deref().map(Account::find).transpose();
        let account = account.map_err(|error| refused(error.to_string()))?;
        let executable = Executable::prepare(archive, script.location.as_path(), account.as_ref())?;
        let runs_as = RunsAs::decide(geteuid(), account, script.sudo).map_err(refused)?;
        Ok(Self { executable, runs_as })
    }

    /// Starts the script with `environment`.
    pub(super) async fn start(&self, environment: &[(OsString, OsString)]) -> Result<Running, String> {
        let mark = format!("{:032x}", fastrand::u128(..));
        let trace = Trace { group: ControlGroup::make(&mark), mark };
        let path = self.executable.path.as_os_str();
        let mut attempts = 0..BUSY_ROUNDS;
        let started = loop {
            match self.spawn(path, &[], environment, &trace) {
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && attempts.next().is_some() => {
                    sleep(POLL).await;
                }
                // Neither a program nor with an interpreter: for the shell, as a shell would decide.
                Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                    break self.spawn(OsStr::new(DEFAULT_INTERPRETER), &[path], environment, &trace);
                }
                started => break started,
            }
        };
        let child = started.map_err(|error| match self.runs_as {
            RunsAs::Sudo(_) => format!("sudo, which the AppSpec asks for, cannot be run: {error}"),
            _ => self.executable.explain(&error),
        })?;
        let Some(pid) = child.id().map(u32::cast_signed) else {
            return Err("its process id is not known".to_owned());
        };
        Ok(Running { child, pid, trace })
    }

    /// What the script's file may have to do with its failure.
    pub(super) fn hint(&self) -> Option<String> {
        self.executable.hint()
    }

    fn spawn(
        &self,
        program: &OsStr,
        arguments: &[&OsStr],
        environment: &[(OsString, OsString)],
        trace: &Trace,
    ) -> io::Result<Child> {
        let mut command = self.runs_as.command(program);
        command
            .args(arguments)
            .env_clear()
            .envs(environment.iter().filter(|(name, _)| SECRETS.iter().all(|secret| name != secret)).cloned())
            .envs(self.runs_as.environment())
            .env(MARK, &trace.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(entrance) = trace.group.as_ref().and_then(ControlGroup::entrance) {
            enter(entrance, &mut command);
        }
        if let RunsAs::Switched(account) = &self.runs_as {
            switch_to(account, &mut command);
        }
        keep_handles(&mut command);
        command.spawn()
    }
}

impl RunsAs {
    fn decide(agent: Uid, account: Option<Account>, sudo: bool) -> Result<Self, String> {
        match account {
            Some(account) if agent.is_root() => Ok(RunsAs::Switched(account)),
            None if agent.is_root() => Ok(RunsAs::Agent),
            account if sudo => Ok(RunsAs::Sudo(account)),
            Some(account) if account.uid == agent => Ok(RunsAs::Named(account)),
            Some(_) => Err(format!(
                "the agent runs with user id {agent}, and only root can run a script as another user; run the agent as \
                 root, or add `sudo: true` to the script and allow that user to use sudo without a password"
            )),
            None => Ok(RunsAs::Agent),
        }
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        match self {
            RunsAs::Named(account) | RunsAs::Switched(account) => account.environment().into(),
            RunsAs::Agent | RunsAs::Sudo(_) => Vec::new(),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this is the module that starts children")]
    fn command(&self, program: &OsStr) -> Command {
        let RunsAs::Sudo(account) = self else {
            return Command::new(program);
        };
        let mut command = Command::new("sudo");
        // Never ask for a password: nobody is there to type one.
        command.arg("-n");
        if let Some(account) = account {
            command.args(["-u", &account.name]);
        }
        command.arg("--").arg(program);
        command
    }
}

/// Makes the child enter a control group, before it may have become another user.
fn enter(entrance: OwnedFd, command: &mut Command) {
    #[allow(
        unsafe_code,
        reason = "a child can only enter its control group by itself before it starts others"
    )]
    // SAFETY: runs between fork and exec; it only makes a raw system call on memory that was allocated before.
    unsafe {
        command.pre_exec(move || {
            // A script without its control group can still be found by its mark.
            let _ = rustix::io::write(&entrance, b"0");
            Ok(())
        });
    }
}

/// Makes the child become `account` just before it is replaced by the script.
fn switch_to(account: &Account, command: &mut Command) {
    let gid = rustix::fs::Gid::from_raw(account.gid.as_raw());
    let uid = rustix::fs::Uid::from_raw(account.uid.as_raw());
    let groups: Vec<_> =
        account.groups.iter().map(|group| rustix::fs::Gid::from_raw(group.as_raw())).collect();
    #[allow(unsafe_code, reason = "the standard library cannot set supplementary groups")]
    // SAFETY: runs between fork and exec; it only makes raw system calls on memory that was allocated before.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::set_thread_groups(&groups)?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            Ok(())
        });
    }
}

/// Keeps whatever the agent has open from the script, also what the agent itself inherited from whoever started it.
fn keep_handles(command: &mut Command) {
    #[allow(unsafe_code, reason = "handles can be closed by the child alone")]
    // SAFETY: runs between fork and exec; it only makes a raw system call, which closes nothing before exec.
    unsafe {
        command.pre_exec(|| {
            // Kernels before 5.11 do not know it; what the agent opened itself is not inherited there either.
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
}

impl Running {
    pub(super) fn pipes(&mut self) -> Pipes {
        Pipes::of(&mut self.child)
    }

    /// Waits for the script's own end, whatever it leaves behind.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the script, which must not have been waited for to its end, and everything that descends from it: TERM, up
    /// to `grace` for them to follow it, then KILL.
    pub(super) async fn end(&mut self, grace: Duration) {
        let mut family = Family::of(self.pid);
        family.find(&self.processes().await);
        family.terminate();
        let gone = async {
            while !family.alive().is_empty() {
                sleep(POLL).await;
            }
        };
        // Over or not: what is still there is killed, also what was started in the meantime.
        let _ = timeout(grace, gone).await;
        for _ in 0..KILL_ROUNDS {
            family.find(&self.processes().await);
            let alive = family.alive();
            if alive.is_empty() {
                break;
            }
            self.trace.group.iter().for_each(ControlGroup::kill);
            alive.iter().for_each(|process| process.signal(Signal::KILL));
            sleep(POLL).await;
        }
        for process in family.alive() {
            tracing::warn!(
                pid = process.pid,
                "a process of the ended script could not be killed; look at it"
            );
        }
        // Collected if it is dead; if it cannot be killed, the runtime does so once it is.
        let _ = timeout(POLL, self.child.wait()).await;
    }

    async fn processes(&self) -> Vec<table::Entry> {
        let mark = format!("{MARK}={}", self.trace.mark).into_bytes();
        let entries = tokio::task::spawn_blocking(move || table::processes(&mark)).await;
        let group = self.trace.group.as_ref().map(ControlGroup::pids).unwrap_or_default();
        let mut entries = entries.unwrap_or_default();
        entries.iter_mut().for_each(|entry| entry.marked |= group.contains(&entry.process.pid));
        entries
    }
}

/// The processes that hold one of `pipes` open.
pub(super) async fn holders(pipes: &Pipes) -> Vec<Holder> {
    let inodes = pipes.inodes();
    tokio::task::spawn_blocking(move || table::holders_of(&inodes)).await.unwrap_or_default()
}

/// A script's location as the AppSpec names it.
pub(super) fn location(script: &Script) -> String {
    script.location.as_path().to_string_lossy().into_owned()
}
