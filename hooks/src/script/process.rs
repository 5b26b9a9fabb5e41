//! Starts scripts and ends them. The only module that starts processes.
//!
//! Between the agent and a script stands a [`keeper`], which nothing that the script starts can
//! escape. When the script must be ended, all its descendants are found in `/proc` below the keeper
//! ([`table`]), including those that left the group or the session, and by its control group where
//! there is one ([`cgroup`]). Processes whose keeper was killed, too, are still known by a mark in
//! their environment ([`MARK`]). When a script ends by itself, the processes that it left are not
//! touched: hooks start applications.

mod account;
mod cgroup;
mod custody;
mod executable;
mod format;
mod inspect;
mod keeper;
mod order;
mod pipes;
mod session;
mod table;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{Uid, geteuid};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::outcome::{Holder, Outcome};
use super::variables::is_secret;
use crate::appspec::Script;
use crate::custody::Deployed;
use account::{Account, DEFAULT_SHELL};
use cgroup::ControlGroup;
use executable::Executable;
pub use inspect::{ScriptFinding, inspect};
pub use keeper::keep_script;
pub use order::Session;
use order::{Order, Report, Switch};
pub(super) use pipes::Pipes;
use table::Family;

/// Environment variable whose value only the descendants of one script have.
pub const MARK: &str = "CODEDEPLOY_HOOK_RUN";

/// The interval between checks of a condition that has no event.
const POLL: Duration = Duration::from_millis(20);

/// The number of rounds, [`POLL`] apart, in which remaining processes of a script are killed; a
/// process in an uninterruptible wait survives any number of signals.
const KILL_ROUNDS: usize = 100;

/// A script that is ready to start.
#[derive(Debug)]
pub(super) struct Prepared {
    executable: Executable,
    runs_as: RunsAs,
}

#[derive(Debug)]
enum RunsAs {
    /// The agent's user.
    Agent,
    /// The agent's user, because `runas` names it.
    Named(Account),
    /// Another user, whom root switches to.
    Switched(Account),
    /// Root or another user, through sudo, because the agent is not root.
    Sudo(Option<Account>),
}

/// A script under a keeper: starting, running or ended.
#[derive(Debug)]
pub(super) struct Running {
    keeper: Child,
    pid: i32,
    /// The keeper's reports; dropping it releases the keeper.
    reports: Option<Lines<BufReader<UnixStream>>>,
    trace: Trace,
}

/// How a script ended.
#[derive(Debug)]
pub(super) enum Ended {
    Exited(ExitStatus),
    /// The operating system refused to start it.
    Failed(io::Error),
    /// It was refused before it started.
    Refused(String),
    /// Unknown, because its keeper ended first.
    Unknown(String),
}

/// The marks of one script's descendants, besides their descent.
#[derive(Debug)]
struct Trace {
    mark: String,
    group: Option<ControlGroup>,
}

impl Prepared {
    /// Checks that `script` of the revision `archive` can run, and prepares its file. Blocks.
    pub(super) fn new(
        archive: &Path,
        script: &Script,
        deployed: Option<&Deployed>,
    ) -> Result<Self, Outcome> {
        let refused = |reason: String| Outcome::NotStarted {
            location: location(script),
            user: script.runas.clone(),
            reason,
        };
        let account = script.runas.as_deref().map(Account::find).transpose();
        let account = account.map_err(|error| refused(error.to_string()))?;
        let executable =
            Executable::prepare(archive, &script.location, account.as_ref(), deployed)?;
        let runs_as = RunsAs::decide(geteuid(), account, script.sudo).map_err(refused)?;
        Ok(Self {
            executable,
            runs_as,
        })
    }

    /// Starts a keeper, the program `keeper`, and has it start the script with `environment`.
    pub(super) async fn start(
        &self,
        keeper: &Path,
        environment: &[(OsString, OsString)],
        session: Option<Session>,
    ) -> Result<Running, String> {
        let refused = |error: io::Error| {
            format!("the process that is to watch over it cannot be started: {error}")
        };
        let mark = format!("{:032x}", fastrand::u128(..));
        let trace = Trace {
            group: ControlGroup::make(&mark),
            mark,
        };
        let (own, keepers) = std::os::unix::net::UnixStream::pair().map_err(refused)?;
        let keeper = self
            .spawn(keeper, environment, keepers.into())
            .map_err(refused)?;
        let Some(pid) = keeper.id().map(u32::cast_signed) else {
            return Err("its process id is not known".to_owned());
        };
        own.set_nonblocking(true).map_err(refused)?;
        let mut own = UnixStream::from_std(own).map_err(refused)?;
        let mut order = serde_json::to_vec(&self.order(&trace, session)).unwrap_or_default();
        order.push(b'\n');
        // A keeper that does not read it ends, which is noticed.
        let _ = own.write_all(&order).await;
        Ok(Running {
            keeper,
            pid,
            reports: Some(BufReader::new(own).lines()),
            trace,
        })
    }

    fn order(&self, trace: &Trace, session: Option<Session>) -> Order {
        let path = &self.executable.path;
        let own_shell = || vec![DEFAULT_SHELL.into(), path.into()];
        let command = vec![path.into()];
        let (command, shell) = match &self.runs_as {
            RunsAs::Agent => (command, Some(own_shell())),
            RunsAs::Named(account) | RunsAs::Switched(account) => (
                command,
                Some(account.shell_command(path).unwrap_or_else(own_shell)),
            ),
            RunsAs::Sudo(account) => {
                // Never ask for a password: nobody is there to type one.
                let mut sudo: Vec<OsString> = vec!["sudo".into(), "-n".into()];
                let shell = account.as_ref().and_then(|account| {
                    sudo.extend(["-u".into(), account.name.clone().into()]);
                    account
                        .shell_command(path)
                        .filter(|_| self.executable.is_for_a_shell())
                });
                sudo.push("--".into());
                // Without the account's shell, sudo runs files without an interpreter line with
                // /bin/sh.
                sudo.extend(shell.unwrap_or(command));
                (sudo, None)
            }
        };
        let account = match &self.runs_as {
            RunsAs::Switched(account) => Some(Switch {
                name: account.name.clone(),
                uid: account.uid.as_raw(),
                gid: account.gid.as_raw(),
                groups: account.groups.iter().map(|group| group.as_raw()).collect(),
                session,
            }),
            RunsAs::Agent | RunsAs::Named(_) | RunsAs::Sudo(_) => None,
        };
        let group = trace.group.as_ref().map(|group| group.folder().to_owned());
        Order {
            command,
            shell,
            account,
            mark: trace.mark.clone(),
            group,
        }
    }

    /// Explains why the operating system refused to start the script.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        match self.runs_as {
            RunsAs::Sudo(_) => format!("sudo, which the AppSpec asks for, cannot be run: {error}"),
            _ => self.executable.explain(error),
        }
    }

    /// States how the script's file may have caused its failure.
    pub(super) fn hint(&self) -> Option<String> {
        self.executable.hint()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the module that starts children"
    )]
    fn spawn(
        &self,
        keeper: &Path,
        environment: &[(OsString, OsString)],
        connection: OwnedFd,
    ) -> io::Result<Child> {
        Command::new(keeper)
            .arg0(keeper::NAME)
            .arg(keeper::WORD)
            // For readers of process lists.
            .arg(&self.executable.path)
            .env_clear()
            .envs(
                environment
                    .iter()
                    .filter(|(name, _)| !is_secret(&name.to_string_lossy()))
                    .cloned(),
            )
            .envs(self.runs_as.environment())
            .stdin(Stdio::from(connection))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
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
}

impl Running {
    pub(super) fn pipes(&mut self) -> Pipes {
        Pipes::of(&mut self.keeper)
    }

    /// Waits for the end of the script itself, but not of processes that it leaves.
    pub(super) async fn wait(&mut self) -> Ended {
        while let Some(reports) = &mut self.reports {
            let Ok(Some(line)) = reports.next_line().await else {
                break;
            };
            match serde_json::from_str(&line) {
                Ok(Report::Warning(text)) => tracing::warn!("{text}"),
                Ok(Report::NotStarted(error)) => {
                    return Ended::Failed(io::Error::from_raw_os_error(error));
                }
                Ok(Report::Refused(reason)) => return Ended::Refused(reason),
                Ok(Report::Ended(status)) => return Ended::Exited(ExitStatus::from_raw(status)),
                Err(error) => return Ended::Unknown(error.to_string()),
            }
        }
        let ended = self.keeper.wait().await;
        Ended::Unknown(match ended {
            Ok(status) => {
                format!(
                    "the process {} that watched over it ended before it, with {status}",
                    self.pid
                )
            }
            Err(error) => error.to_string(),
        })
    }

    /// Ends the script and all its descendants: TERM, up to `grace`, then KILL.
    pub(super) async fn end(&mut self, grace: Duration) {
        let mut family = Family::of(self.pid);
        family.find(&self.processes().await);
        family.terminate();
        let gone = async {
            while !family.alive().is_empty() {
                sleep(POLL).await;
            }
        };
        // Even if the grace is over, kill what remains, including processes that were started in
        // the meantime.
        let _ = timeout(grace, gone).await;
        for _ in 0..KILL_ROUNDS {
            family.find(&self.processes().await);
            let alive = family.alive();
            if alive.is_empty() {
                // A keeper without children ends by itself; one that stays has children that were
                // missed.
                if timeout(POLL, self.keeper.wait()).await.is_ok() {
                    break;
                }
                continue;
            }
            self.trace.group.iter().for_each(ControlGroup::kill);
            alive
                .iter()
                .for_each(|process| process.signal(Signal::KILL));
            sleep(POLL).await;
        }
        for process in family.alive() {
            let pid = process.pid;
            tracing::warn!(
                pid,
                "process {pid} of the ended script could not be killed; look at it"
            );
        }
    }

    /// Releases the keeper, whose script has ended: it closes the session of the script's user
    /// within `grace`.
    pub(super) async fn release(&mut self, grace: Duration) {
        self.reports = None;
        if timeout(grace, self.keeper.wait()).await.is_err() {
            let pid = self.pid;
            tracing::warn!(
                pid,
                "the session of the script's user does not close; its process {pid} is killed"
            );
            let _ = self.keeper.start_kill();
            // Reap it if it is dead; if it cannot be killed, the runtime reaps it later.
            let _ = timeout(POLL, self.keeper.wait()).await;
        }
    }

    async fn processes(&self) -> Vec<table::Listed> {
        let mark = format!("{MARK}={}", self.trace.mark).into_bytes();
        let entries = tokio::task::spawn_blocking(move || table::processes(&mark)).await;
        let group = self
            .trace
            .group
            .as_ref()
            .map(ControlGroup::pids)
            .unwrap_or_default();
        let mut entries = entries.unwrap_or_default();
        entries
            .iter_mut()
            .for_each(|entry| entry.marked |= group.contains(&entry.process.pid));
        entries
    }
}

/// Returns the processes that hold one of `pipes` open.
pub(super) async fn holders(pipes: &Pipes) -> Vec<Holder> {
    let inodes = pipes.inodes();
    tokio::task::spawn_blocking(move || table::holders_of(&inodes))
        .await
        .unwrap_or_default()
}

/// The script's location in the AppSpec.
pub(super) fn location(script: &Script) -> String {
    script.location.written().to_owned()
}
