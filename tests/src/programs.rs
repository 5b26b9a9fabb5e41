//! The programs under test, as child processes that end with the test.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

/// The time that a program may take to stop after TERM.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The way in which the programs under test are started.
#[derive(Debug, Clone)]
pub struct Programs {
    pub controller: Program,
    pub agent: Program,
    pub local: Program,
}

/// A program and the arguments that always come first.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    first: Vec<OsString>,
}

/// A child process, which is ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The file with all its output.
    pub log: PathBuf,
}

impl Programs {
    /// The programs in [`programs_folder`].
    ///
    /// # Panics
    ///
    /// If one is missing.
    pub fn built() -> Self {
        Self {
            controller: Program::built("codedeploy-controller"),
            agent: Program::built("codedeploy-agent"),
            local: Program::built("codedeploy-local"),
        }
    }

    /// The running executable in the role that follows `flag`, for an executable that contains them
    /// all.
    pub fn of_this_executable(flag: &str) -> Self {
        let path = std::env::current_exe().expect("the executable has a path");
        let role = |name: &str| Program {
            path: path.clone(),
            first: vec![flag.into(), name.into()],
        };
        Self {
            controller: role("codedeploy-controller"),
            agent: role("codedeploy-agent"),
            local: role("codedeploy-local"),
        }
    }
}

/// The folder of the programs that cargo built beside the running test; `CODEDEPLOY_BIN_DIR` names
/// another one.
pub fn programs_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("CODEDEPLOY_BIN_DIR") {
        return folder.into();
    }
    let test = std::env::current_exe().expect("the test has a path");
    let deps = test.parent().expect("the test is in a folder");
    deps.parent()
        .expect("that folder is in the target folder")
        .to_owned()
}

impl Program {
    /// A program of the system, or any other.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            first: Vec::new(),
        }
    }

    /// The program of this name that cargo built beside the running test.
    ///
    /// # Panics
    ///
    /// If it is missing.
    pub fn built(name: &str) -> Self {
        let path = programs_folder().join(name);
        assert!(
            path.exists(),
            "{} is missing; build it first: cargo build --workspace",
            path.display()
        );
        Self::at(path)
    }

    /// A program whose arguments begin with `first`.
    pub(crate) fn with(path: PathBuf, first: Vec<OsString>) -> Self {
        Self { path, first }
    }

    /// Its path, and the arguments that always come first.
    pub(crate) fn words(&self) -> impl Iterator<Item = OsString> {
        std::iter::once(self.path.clone().into()).chain(self.first.clone())
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.path);
        // Programs must not ask the metadata service of the machine that runs the tests.
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
        command
            .args(&self.first)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub async fn output<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command(arguments)
            .output()
            .await
            .expect("the program starts")
    }

    /// Starts it in the background, with its output in `log`.
    pub fn start(&self, configured: impl FnOnce(&mut Command), log: &Path) -> Running {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log can be opened");
        let mut command = self.command::<&OsStr>([]);
        configured(&mut command);
        command
            .stdout(file.try_clone().expect("the log can be shared"))
            .stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        Running {
            child,
            log: log.to_owned(),
        }
    }
}

impl Running {
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns the exit status if it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends TERM and waits for the end.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub async fn stop(mut self) -> std::process::ExitStatus {
        self.signal("TERM").await;
        let ended = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| {
                panic!(
                    "still running {STOP_WITHIN:?} after TERM:\n{}",
                    self.output()
                )
            })
            .expect("it was a child")
    }

    /// Sends KILL and waits for the end.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it was a child");
    }

    pub async fn signal(&self, name: &str) {
        let Some(pid) = self.pid() else { return };
        let status = Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status()
            .await;
        assert!(
            status.expect("kill exists").success(),
            "cannot send {name} to {pid}"
        );
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
