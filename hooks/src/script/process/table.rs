//! The host's processes as `/proc` shows them, and those that belong to a script.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};

use crate::script::outcome::Holder;

/// The number of bytes of a process's environment that are searched.
const MAX_ENVIRONMENT: u64 = 1024 * 1024;

/// The number of characters of a command line in a message.
const MAX_COMMAND: usize = 200;

/// One process. A pair of pid and start time is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) started: u64,
}

/// The facts that decide whose process it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pub(super) process: Process,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) dead: bool,
    /// Whether its environment holds the script's mark.
    pub(super) marked: bool,
}

/// The processes of one script, found by their descent from its keeper and by the mark in their
/// environment.
#[derive(Debug)]
pub(super) struct Family {
    keeper: i32,
    members: BTreeSet<Process>,
}

impl Family {
    /// The keeper itself is no member. It must not have been waited for yet, so that its pid is
    /// still its own.
    pub(super) fn of(keeper: i32) -> Self {
        Self {
            keeper,
            members: BTreeSet::new(),
        }
    }

    /// Adds those of `entries` that belong to the family, with all their descendants.
    pub(super) fn find(&mut self, entries: &[Listed]) {
        loop {
            let mut parents: BTreeSet<i32> = BTreeSet::from([self.keeper]);
            let known = entries
                .iter()
                .filter(|entry| self.members.contains(&entry.process));
            parents.extend(known.map(|entry| entry.process.pid));
            let belongs = |entry: &&Listed| {
                entry.process.pid != self.keeper
                    && (entry.marked || parents.contains(&entry.parent))
            };
            let found: Vec<Process> = entries
                .iter()
                .filter(belongs)
                .map(|entry| entry.process)
                .collect();
            let before = self.members.len();
            self.members.extend(found);
            if self.members.len() == before {
                return;
            }
        }
    }

    /// Returns the members that still exist.
    pub(super) fn alive(&self) -> Vec<Process> {
        self.members
            .iter()
            .copied()
            .filter(Process::is_alive)
            .collect()
    }

    /// Sends TERM to every member: to a whole process group at once if its leader is a member.
    pub(super) fn terminate(&self) {
        let alive: Vec<Listed> = self
            .members
            .iter()
            .filter_map(Process::stat)
            .filter(|entry| !entry.dead)
            .collect();
        let leads = |group: i32| alive.iter().any(|entry| entry.process.pid == group);
        let groups: BTreeSet<i32> = alive
            .iter()
            .map(|entry| entry.group)
            .filter(|group| leads(*group))
            .collect();
        for group in groups.iter().filter_map(|group| Pid::from_raw(*group)) {
            let _ = kill_process_group(group, Signal::TERM);
        }
        let others = alive.iter().filter(|entry| !groups.contains(&entry.group));
        others.for_each(|entry| entry.process.signal(Signal::TERM));
    }
}

impl Process {
    fn is_alive(&self) -> bool {
        self.stat().is_some_and(|entry| !entry.dead)
    }

    /// Returns the current state; `None` if the process is gone.
    fn stat(&self) -> Option<Listed> {
        stat(self.pid, &[]).filter(|entry| entry.process == *self)
    }

    /// Sends a signal to exactly this process, and never to a later one with its pid.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        let handle = pidfd_open(pid, PidfdFlags::empty());
        if !self.is_alive() {
            return;
        }
        // The process may be gone, or belong to a user that this agent may not signal: the next
        // look shows either.
        let _ = match handle {
            Ok(handle) => pidfd_send_signal(handle, signal),
            // Before Linux 5.3, and in containers that forbid unknown system calls. The pid is not
            // reused so soon.
            Err(Errno::NOSYS | Errno::PERM) => kill_process(pid, signal),
            Err(error) => Err(error),
        };
    }
}

/// Every process of the host but this one. `mark` is the `NAME=value` to look for.
pub(super) fn processes(mark: &[u8]) -> Vec<Listed> {
    pids().filter_map(|pid| stat(pid, mark)).collect()
}

/// The processes that can write into a pipe of `pipes` (inodes). One that only reads keeps nothing
/// open: a child of this process holds the reading end too, from its fork to its exec.
pub(super) fn holders_of(pipes: &[u64]) -> Vec<Holder> {
    let names: Vec<PathBuf> = pipes
        .iter()
        .map(|inode| format!("pipe:[{inode}]").into())
        .collect();
    let holds = |pid: &i32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        open.filter(is_writable)
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|target| names.contains(&target))
    };
    pids()
        .filter(holds)
        .map(|pid| Holder {
            pid,
            command: command(pid),
        })
        .collect()
}

/// Whether the entry of `/proc/PID/fd` is open for writing: the mode of the link says so
/// (proc_pid_fd(5)).
fn is_writable(descriptor: &DirEntry) -> bool {
    let owner_may_write = Mode::WUSR.bits();
    descriptor
        .metadata()
        .is_ok_and(|link| link.mode() & owner_may_write != 0)
}

fn pids() -> impl Iterator<Item = i32> {
    let own = std::process::id().cast_signed();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

fn stat(pid: i32, mark: &[u8]) -> Option<Listed> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, even parentheses; the fields after it are plain
    // (proc_pid_stat(5)).
    let end_of_name = text.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = str::from_utf8(&text[end_of_name + 1..])
        .ok()?
        .split_ascii_whitespace()
        .collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let pid_at = |index: usize| fields.get(index)?.parse::<i32>().ok();
    // The first thread of a process may have ended before the others.
    let dead = matches!(*fields.first()?, "Z" | "X" | "x") && number(17)? <= 1;
    Some(Listed {
        process: Process {
            pid,
            started: number(19)?,
        },
        parent: pid_at(1)?,
        group: pid_at(2)?,
        dead,
        marked: !mark.is_empty() && !dead && is_marked(pid, mark),
    })
}

fn is_marked(pid: i32, mark: &[u8]) -> bool {
    let mut environment = Vec::new();
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/environ")) else {
        return false;
    };
    // If a process ends in the meantime, the read fails, and the bytes read before count.
    let _ = file.take(MAX_ENVIRONMENT).read_to_end(&mut environment);
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark)
}

fn command(pid: i32) -> String {
    let mut arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    while arguments.pop_if(|byte| *byte == 0).is_some() {}
    arguments
        .iter_mut()
        .filter(|byte| **byte == 0)
        .for_each(|byte| *byte = b' ');
    let command = if arguments.is_empty() {
        let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("[{}]", OsStr::from_bytes(name.trim_ascii_end()).display())
    } else {
        std::ffi::OsString::from_vec(arguments)
            .display()
            .to_string()
    };
    let mut shown: String = command
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_COMMAND)
        .collect();
    if command.chars().nth(MAX_COMMAND).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32, group: i32, marked: bool) -> Listed {
        Listed {
            process: Process { pid, started: 1 },
            parent,
            group,
            dead: false,
            marked,
        }
    }

    #[test]
    fn a_family_is_all_descendants_of_its_keeper_and_of_the_marked() {
        let mut family = Family::of(9);
        let first = [
            entry(9, 1, 9, false),
            entry(10, 9, 10, true),
            entry(14, 13, 14, false),
            entry(11, 10, 10, false),
            entry(12, 1, 12, true),
            entry(13, 12, 13, false),
            entry(16, 9, 16, false),
            entry(20, 1, 20, false),
            entry(21, 20, 20, false),
        ];
        family.find(&first);
        let pids = |family: &Family| {
            family
                .members
                .iter()
                .map(|member| member.pid)
                .collect::<Vec<_>>()
        };
        assert_eq!(pids(&family), [10, 11, 12, 13, 14, 16]);

        // An orphan stays a member, and its children become members.
        family.find(&[entry(14, 1, 14, false), entry(15, 14, 15, false)]);
        assert_eq!(pids(&family), [10, 11, 12, 13, 14, 15, 16]);
    }

    #[test]
    fn a_process_that_has_a_members_pid_but_started_later_is_none() {
        let mut family = Family::of(10);
        family.find(&[entry(12, 1, 12, true)]);
        let reused = Listed {
            process: Process {
                pid: 12,
                started: 2,
            },
            ..entry(12, 1, 12, false)
        };
        family.find(&[reused, entry(13, 12, 12, false)]);
        assert_eq!(family.members.len(), 1);
    }
}
