//! A control group for one script, on hosts that let the agent make one (cgroups(7), version 2).
//!
//! No process leaves a control group by itself: neither a daemon that cleared its environment, nor
//! a loop that forks faster than `/proc` can be read. The group only adds to the findings of
//! [`super::table`]; hosts without it do without.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The prefix of the groups' names.
const PREFIX: &str = "hook-";

/// The attributes with which systemd marks the control group of a unit that has `Delegate=`.
const DELEGATED: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// The age from which an empty group is an abandoned one, and not one whose script is about to
/// start.
const ABANDONED: Duration = Duration::from_secs(60);

/// A control group below the agent's own. It is removed when dropped; if a daemon still lives in
/// it, when the next group is made after the daemon has ended.
#[derive(Debug)]
pub(super) struct ControlGroup {
    folder: PathBuf,
}

impl ControlGroup {
    /// Makes a group. `None` if that is not possible or not allowed.
    pub(super) fn make(name: &str) -> Option<Self> {
        let own = own_group()?;
        remove_abandoned(&own);
        let folder = own.join(format!("{PREFIX}{name}"));
        std::fs::create_dir(&folder).ok()?;
        Some(Self { folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The processes in it.
    pub(super) fn pids(&self) -> BTreeSet<i32> {
        let procs = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        procs.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Kills all of them at once, if the kernel can (5.14).
    pub(super) fn kill(&self) {
        let _ = std::fs::write(self.folder.join("cgroup.kill"), "1");
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Fails if a daemon is in it, as intended.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// A handle that lets a process enter the group in `folder` by writing `0`.
pub(super) fn entrance(folder: &Path) -> Option<OwnedFd> {
    File::options()
        .write(true)
        .open(folder.join("cgroup.procs"))
        .ok()
        .map(OwnedFd::from)
}

/// The folder of this process's control group, if groups may be made in it.
fn own_group() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let (mount, own) = locate(&mounts, &groups)?;
    let folder = mount.join(own);
    let delegated = folder
        .ancestors()
        .take_while(|folder| **folder != mount)
        .any(|folder| {
            DELEGATED.iter().any(|name| {
                let mut value = [0; 2];
                matches!(rustix::fs::getxattr(folder, *name, &mut value), Ok(1) if value[0] == b'1')
            })
        });
    delegated.then_some(folder)
}

/// The mount point of version 2, joined with the process's group.
fn locate(mounts: &str, groups: &str) -> Option<(PathBuf, PathBuf)> {
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (folder, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(folder)
    })?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some((mount.into(), own.into()))
}

fn remove_abandoned(own: &Path) {
    for entry in std::fs::read_dir(own).into_iter().flatten().flatten() {
        let old = || {
            entry
                .metadata()
                .ok()?
                .modified()
                .ok()?
                .elapsed()
                .ok()
                .map(|age| age > ABANDONED)
        };
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
            && old() == Some(true)
        {
            // Fails if it is not empty.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_on_pure_and_on_mixed_hosts() {
        let unit = "system.slice/codedeploy-agent.service";
        let pure = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let mixed = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let groups = format!("4:memory:/x\n0::/{unit}\n");
        assert_eq!(
            locate(pure, &groups),
            Some(("/sys/fs/cgroup".into(), unit.into()))
        );
        assert_eq!(
            locate(mixed, &groups),
            Some(("/sys/fs/cgroup/unified".into(), unit.into()))
        );
        assert_eq!(
            locate("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", &groups),
            None
        );
        assert_eq!(locate(pure, "4:memory:/x\n"), None);
    }
}
