//! A revision with real scripts in a temporary folder, and the results of running them.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use codedeploy_api::diagnostics::ErrorCode;
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{ArchivePath, Script};
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::{self, HookRun, Limits, LogPlaces, Report, ScriptLog, Session};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const DEPLOYMENT: &str = "d-ABCDEFGHI";

/// The keeper program.
pub(crate) const KEEPER: &str = env!("CARGO_BIN_EXE_keep-script");

/// The time within which a condition must become true.
const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Host {
    folder: TempDir,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) session: Option<Session>,
    pub(crate) limits: Limits,
    pub(crate) stop: CancellationToken,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Like a deployment folder: other users may enter it.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("archive")).unwrap();
        Self {
            folder,
            environment: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            session: None,
            limits: Limits {
                kill_grace: Duration::from_secs(1),
                drain_grace: Duration::from_secs(1),
            },
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    /// Puts a file with these contents and permissions into the revision.
    pub(crate) fn file(&self, name: &str, mode: u32, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.archive().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    /// Puts an executable shell script into the revision, and returns its AppSpec entry.
    pub(crate) fn script(&self, name: &str, lines: &str) -> Script {
        self.file(name, 0o755, format!("#!/bin/sh\n{lines}\n"));
        named(name)
    }

    /// Runs `scripts` as those of ApplicationStart.
    pub(crate) async fn run(&self, scripts: &[Script]) -> Report {
        let plan = HookPlan {
            event: LifecycleEvent::ApplicationStart,
            archive: self.archive(),
            scripts: scripts.to_vec(),
        };
        let deployments_log = self.path("deployment-logs/codedeploy-agent-deployments.log");
        let scripts_log = self.path("logs/scripts.log");
        let places = LogPlaces {
            scripts: &scripts_log,
            deployments: Some(&deployments_log),
            readers: "adm",
        };
        let mut log = ScriptLog::open(places, DEPLOYMENT);
        script::run(HookRun {
            plan: &plan,
            environment: &self.environment,
            keeper: Path::new(KEEPER),
            session: self.session,
            limits: self.limits,
            deployed: None,
            log: &mut log,
            stop: self.stop.clone(),
        })
        .await
    }

    /// Runs one shell script with a long timeout.
    pub(crate) async fn run_lines(&self, lines: &str) -> Report {
        self.run(&[self.script("run.sh", lines)]).await
    }

    pub(crate) fn scripts_log(&self) -> String {
        std::fs::read_to_string(self.path("logs/scripts.log")).unwrap_or_default()
    }

    pub(crate) fn deployments_log(&self) -> String {
        std::fs::read_to_string(self.path("deployment-logs/codedeploy-agent-deployments.log"))
            .unwrap_or_default()
    }

    /// The pid that a script writes to a file in the host's folder.
    pub(crate) async fn pid_in(&self, name: &str) -> Pid {
        let path = self.path(name);
        let read = || std::fs::read_to_string(&path).ok()?.trim().parse().ok();
        until(&format!("a pid in {name}"), || read().is_some()).await;
        Pid(read().unwrap())
    }
}

/// An AppSpec entry with only a location.
pub(crate) fn named(location: &str) -> Script {
    let location = ArchivePath::new(location).unwrap();
    Script {
        location,
        timeout: Duration::from_secs(60),
        runas: None,
        sudo: false,
    }
}

pub(crate) fn timeout(script: Script, milliseconds: u64) -> Script {
    Script {
        timeout: Duration::from_millis(milliseconds),
        ..script
    }
}

pub(crate) fn runas(script: Script, user: &str) -> Script {
    Script {
        runas: Some(user.to_owned()),
        ..script
    }
}

/// A process that a script of this test started; it ends with the test.
#[derive(Debug)]
pub(crate) struct Pid(pub(crate) i32);

impl Pid {
    pub(crate) fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|fields| !fields.is_empty() && !fields.starts_with(" Z"))
    }
}

impl Pid {
    pub(crate) fn parent(&self) -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        fields
            .split_whitespace()
            .nth(1)
            .and_then(|parent| parent.parse().ok())
            .unwrap_or_default()
    }

    /// Lets the process live.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pid {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs `test` on a thread of its own, which as root first becomes another user; passes the user's
/// name.
pub(crate) fn as_ordinary_user(test: impl AsyncFnOnce(&str) + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if nix::unistd::geteuid().is_root() {
                let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
                let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
                let (uid, gid) = (
                    rustix::fs::Uid::from_raw(uid),
                    rustix::fs::Gid::from_raw(gid),
                );
                // This affects only this thread and those that it starts.
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
                .unwrap()
                .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test(&user.name));
        });
    });
}

/// A log without its times, each of which must look like `shape`, where `0` stands for a digit.
pub(crate) fn without_times(log: &str, shape: &str) -> String {
    log.split_inclusive('\n')
        .map(|line| {
            let (time, rest) = line.split_at(shape.len());
            let digits: String = time
                .chars()
                .map(|c| if c.is_ascii_digit() { '0' } else { c })
                .collect();
            assert_eq!(digits, shape, "{line:?}");
            rest
        })
        .collect()
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The message of a report, which must have this code and script.
pub(crate) fn message(report: &Report, code: ErrorCode, script: &str) -> String {
    let payload = report.outcome.diagnostics(&report.log_tail);
    assert_eq!(
        (payload.error_code, payload.script_name.as_str()),
        (code, script),
        "{report:?}"
    );
    payload.message
}
