//! An isolated world for one test: root inside it installs, makes users and starts services without
//! affecting the host.
//!
//! Mounts, processes and network are private (`unshare`). `/etc` is a copy; `/opt`, `/run`, `/srv`,
//! `/tmp` and `/var` are empty; everything else is read-only. When the world is dropped, all its
//! processes end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use codedeploy_tests::bucket::tools;
use tempfile::TempDir;

use crate::pages;

/// The files of the stage: the world's first process, and the HTTP client for its servers.
const SCRIPTS: [(&str, &str); 2] = [
    ("world.sh", include_str!("world.sh")),
    ("ask.py", include_str!("ask.py")),
];

/// A running world.
pub(crate) struct World {
    process: Child,
    /// Dropped only to end the world.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    stage: TempDir,
}

/// The result of a command in a world.
pub(crate) struct Ran {
    pub(crate) status: i32,
    /// Standard output and error, interleaved.
    pub(crate) output: String,
}

impl World {
    /// Makes a fresh world; only root can.
    pub(crate) fn of_root() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let uids = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .expect("a process has a user");
        // Real, effective, saved, file system.
        assert_eq!(
            uids.split_whitespace().nth(1),
            Some("0"),
            "a world of its own needs root"
        );
        Self::new()
    }

    fn new() -> Self {
        let stage = TempDir::new().expect("a temporary folder");
        for (name, text) in SCRIPTS {
            std::fs::write(stage.path().join(name), text).expect("the stage is writable");
        }
        std::fs::set_permissions(stage.path(), PermissionsExt::from_mode(0o755))
            .expect("the stage is ours");
        let log =
            std::fs::File::create(stage.path().join("setup.log")).expect("the stage is writable");
        let mut process = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
            ])
            .args(["--net", "sh"])
            .arg(stage.path().join("world.sh"))
            .arg(stage.path())
            .args([program(), systemctl(), pages::repository(), tools()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("unshare starts: it is in the package util-linux");
        let requests = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut world = Self {
            process,
            requests,
            answers,
            stage,
        };
        assert_eq!(world.answer(), "ready");
        world
    }

    /// Runs shell text (`sh -eu`) to its end.
    pub(crate) fn run(&mut self, command: &str) -> Ran {
        std::fs::write(self.stage.path().join("command"), command).expect("the stage is writable");
        self.requests
            .as_mut()
            .expect("the world goes on")
            .write_all(b"\n")
            .expect("the world goes on");
        let status = self.answer().parse().expect("the answer is an exit status");
        let output =
            std::fs::read(self.stage.path().join("output")).expect("the command had an output");
        Ran {
            status,
            output: String::from_utf8_lossy(&output).into_owned(),
        }
    }

    /// Runs shell text that must succeed; returns its output without the final newline.
    pub(crate) fn say(&mut self, command: &str) -> String {
        let Ran { status, output } = self.run(command);
        assert_eq!(status, 0, "{command}\n{output}");
        output.trim_end().to_owned()
    }

    /// Copies `bundle` into the world; returns its path there.
    pub(crate) fn bring(&mut self, bundle: &Path, name: &str) -> String {
        let target = self.stage.path().join(name);
        let copied = Command::new("cp")
            .arg("-a")
            .args([bundle, &target])
            .status()
            .expect("cp starts");
        assert!(
            copied.success(),
            "cannot copy {} to {}",
            bundle.display(),
            target.display()
        );
        format!("/mnt/{name}")
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the answer is text");
        if line.is_empty() {
            let log =
                std::fs::read_to_string(self.stage.path().join("setup.log")).unwrap_or_default();
            panic!("the world ended early:\n{log}");
        }
        line.trim_end().to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Its first process ends with its input, and the kernel ends the others.
        drop(self.requests.take());
        let _ = self.process.wait();
    }
}

fn program() -> PathBuf {
    let folder = std::env::var_os("CODEDEPLOY_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("the test has a path");
            test.ancestors()
                .nth(2)
                .expect("it is in the folder deps of the target folder")
                .to_owned()
        },
        PathBuf::from,
    );
    existing(
        folder.join("codedeploy-local"),
        "run `cargo build --workspace` first, as tests/run does",
    )
}

fn systemctl() -> PathBuf {
    existing(
        tools().join("systemctl/usr/bin/systemctl"),
        "run tests/tools.sh first, as tests/run does",
    )
}

fn existing(path: PathBuf, otherwise: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing: {otherwise}", path.display());
    path.canonicalize().expect("it exists")
}
