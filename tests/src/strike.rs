//! Injects a fault at one system call of a program: the program is killed before the call, or the
//! call fails. System calls that change files are counted over all threads of the process, from 1,
//! so that a sweep over the numbers omits none.

mod calls;
pub mod tracer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::programs::{Program, programs_folder};

/// The time that a program may take after a fault.
pub const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The fault at a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blow {
    /// The process is killed with SIGKILL, and the call is not made.
    Kill,
    /// The call is not made and fails with this error.
    Fail(Errno),
    /// This call fails with this error, and so do all later ones that would fail in such a state of
    /// the host.
    FailFromThenOn(Errno),
    /// Everything else waits while this script runs; then the call is made.
    Run(PathBuf),
    /// The same at this call and at all later ones.
    RunFromThenOn(PathBuf),
}

/// A fault, and the number of its call; `None` only counts.
#[derive(Debug, Clone)]
pub struct Strike(pub Option<(usize, Blow)>);

/// One system call that changes files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// The file that it changes; empty if unknown.
    pub path: String,
}

/// The result of a program that ran under a strike.
#[derive(Debug)]
pub struct Report {
    /// All calls, in order.
    pub calls: Vec<Call>,
    /// The call that met the fault; `None` if the program made fewer calls.
    pub struck: Option<Call>,
    /// The exit code; `None` if the program was killed.
    pub exit: Option<i32>,
    /// The program's output, both streams.
    pub output: String,
}

impl Strike {
    pub const COUNT: Self = Self(None);

    /// The number of the call; 0 without a fault.
    pub fn at(&self) -> usize {
        self.0.as_ref().map_or(0, |(at, _)| *at)
    }

    /// The program and its arguments under this strike; the report goes to `report` when it has
    /// ended.
    pub fn program(&self, program: &Program, report: &Path) -> Program {
        let mut first: Vec<OsString> = vec![report.into(), self.to_string().into()];
        first.extend(program.words());
        Program::with(programs_folder().join("strike"), first)
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    ///
    /// If it does not end within [`ENDS_WITHIN`].
    pub async fn run(&self, program: &Program, arguments: &[OsString]) -> Report {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let report = folder.path().join("report");
        let program = self.program(program, &report);
        let output = tokio::time::timeout(ENDS_WITHIN, program.output(arguments)).await;
        let output = output.unwrap_or_else(|_| panic!("{self}: not ended within {ENDS_WITHIN:?}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let written = text(&output.stdout) + &text(&output.stderr);
        let report =
            Report::read(&report).unwrap_or_else(|| panic!("{self}: {}\n{written}", output.status));
        Report {
            output: written,
            ..report
        }
    }
}

impl std::fmt::Display for Strike {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            None => f.write_str("count"),
            Some((at, Blow::Kill)) => write!(f, "kill:{at}"),
            Some((at, Blow::Fail(errno))) => write!(f, "fail:{at}:{}", *errno as i32),
            Some((at, Blow::FailFromThenOn(errno))) => write!(f, "fail-on:{at}:{}", *errno as i32),
            Some((at, Blow::Run(script))) => write!(f, "run:{at}:{}", script.display()),
            Some((at, Blow::RunFromThenOn(script))) => {
                write!(f, "run-on:{at}:{}", script.display())
            }
        }
    }
}

impl std::str::FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "expected count, kill:N, fail:N:ERRNO, fail-on:N:ERRNO, run:N:SCRIPT or run-on:N:SCRIPT, found {text:?}"
            )
        };
        let number = |text: &str| text.parse::<i32>().map_err(|_| unknown());
        let at = |text: &str| text.parse::<usize>().map_err(|_| unknown());
        let parts: Vec<&str> = text.splitn(3, ':').collect();
        Ok(Self(match parts[..] {
            ["count"] => None,
            ["kill", n] => Some((at(n)?, Blow::Kill)),
            ["fail", n, errno] => Some((at(n)?, Blow::Fail(Errno::from_raw(number(errno)?)))),
            ["fail-on", n, errno] => Some((
                at(n)?,
                Blow::FailFromThenOn(Errno::from_raw(number(errno)?)),
            )),
            ["run", n, script] => Some((at(n)?, Blow::Run(script.into()))),
            ["run-on", n, script] => Some((at(n)?, Blow::RunFromThenOn(script.into()))),
            _ => return Err(unknown()),
        }))
    }
}

impl Report {
    /// Reads the report at `path`; `None` if there is none yet.
    pub fn read(path: &Path) -> Option<Self> {
        let report: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let call = |value: &Value| {
            let text = |index: usize| value[index].as_str().map(str::to_owned);
            Some(Call {
                name: text(0)?,
                path: text(1)?,
            })
        };
        Some(Self {
            calls: report["calls"]
                .as_array()?
                .iter()
                .filter_map(call)
                .collect(),
            struck: call(&report["struck"]),
            exit: report["exit"]
                .as_i64()
                .and_then(|code| i32::try_from(code).ok()),
            output: String::new(),
        })
    }

    fn to_json(&self) -> Value {
        let call = |call: &Call| json!([call.name, call.path]);
        json!({
            "calls": self.calls.iter().map(call).collect::<Vec<_>>(),
            "struck": self.struck.as_ref().map(call),
            "exit": self.exit,
        })
    }

    /// The numbers of the calls that can fail with an error.
    pub fn that_can_fail_with(&self, errno: Errno) -> Vec<usize> {
        let possible =
            |(index, call): (usize, &Call)| calls::can_fail(&call.name, errno).then_some(index + 1);
        self.calls.iter().enumerate().filter_map(possible).collect()
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.path)
    }
}
