//! The benefit of a delegated control group: not even a process that erased every trace of its
//! origin survives a timeout.

use std::path::{Path, PathBuf};

use codedeploy_hooks::script::Outcome;

use super::host::{Host, timeout, until};
use crate::own_process;

/// A delegated control group with this process in it, as systemd sets it up for a unit.
struct Unit {
    folder: PathBuf,
    before: PathBuf,
}

impl Unit {
    /// `None` where control groups of version 2 cannot be made.
    fn enter() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts
            .lines()
            .find_map(|line| line.split_once(" cgroup2 ")?.0.split(' ').nth(1))?;
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let before =
            Path::new(mount).join(groups.lines().find_map(|line| line.strip_prefix("0::/"))?);
        let folder = before.join(format!("codedeploy-test-{}", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        let unit = Self { folder, before };
        rustix::fs::setxattr(
            &unit.folder,
            "trusted.delegate",
            b"1",
            rustix::fs::XattrFlags::empty(),
        )
        .ok()?;
        std::fs::write(unit.folder.join("cgroup.procs"), "0").ok()?;
        Some(unit)
    }

    fn groups(&self) -> usize {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir())
            .count()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = std::fs::write(self.before.join("cgroup.procs"), "0");
        for entry in std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = std::fs::write(entry.path().join("cgroup.kill"), "1");
            let _ = std::fs::remove_dir(entry.path());
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_control_group_finds_what_left_no_trace_which_needs_control_groups() {
    // The test moves its whole process.
    if !own_process::is_here(
        module_path!(),
        "a_control_group_finds_what_left_no_trace_which_needs_control_groups",
    ) {
        return;
    }
    let unit = Unit::enter().expect("root makes control groups of version 2");
    let host = Host::new();
    let pid_file = host.path("traceless").display().to_string();
    let daemon = host.file(
        "daemon.sh",
        0o755,
        format!("#!/bin/sh\necho $$ > {pid_file}; exec /bin/sleep 60\n"),
    );
    // An empty environment, its own session, and parents that end before anybody looks.
    let lines = format!(
        "(env -i setsid {} </dev/null >/dev/null 2>&1 &)\n",
        daemon.display()
    );

    let report = host
        .run_lines(&format!(
            "{lines}while [ ! -s {pid_file} ]; do sleep 0.01; done"
        ))
        .await;
    assert!(report.outcome.succeeded(), "{report:?}");
    let daemon = host.pid_in("traceless").await;
    assert!(daemon.is_alive(), "a daemon survives its script");
    assert_eq!(unit.groups(), 1, "and keeps its group");
    drop(daemon);
    std::fs::remove_file(host.path("traceless")).unwrap();

    let report = host
        .run(&[timeout(
            host.script("slow.sh", &format!("{lines}sleep 60")),
            1000,
        )])
        .await;
    assert!(
        matches!(report.outcome, Outcome::TimedOut { .. }),
        "{report:?}"
    );
    assert!(!host.pid_in("traceless").await.is_alive());
    until("the group of the ended script to go", || unit.groups() == 1).await;
}
