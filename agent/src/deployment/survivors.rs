//! The processes of a lifecycle event whose agent is gone. They are reported and left alone,
//! because scripts start applications.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::MARK;

use crate::path_component::PathComponent;

/// The number of bytes of a process's environment, and of its command line, that are read.
const MAX_ENVIRONMENT: u64 = 4 * 1024 * 1024;
const MAX_COMMAND_LINE: u64 = 4096;

/// The number of characters of a command line in a message.
const SHOWN: usize = 200;

/// A process that a script of the event started, directly or indirectly.
#[derive(Debug, PartialEq, Eq)]
pub struct Survivor {
    pub pid: i32,
    command_line: String,
}

impl Survivor {
    /// Whether it is a script in `folder`, and not a process that such a script has started.
    pub fn runs_from(&self, folder: &Path) -> bool {
        self.command_line.contains(&*folder.to_string_lossy())
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command_line)
    }
}

/// Returns the processes whose environment belongs to `event` of `deployment`, by process id.
/// Processes that this user may not inspect are not included.
pub fn of(deployment: &PathComponent, event: &LifecycleEvent) -> Vec<Survivor> {
    let id = format!("DEPLOYMENT_ID={deployment}").into_bytes();
    let event = format!("LIFECYCLE_EVENT={event}").into_bytes();
    let mark = format!("{MARK}=").into_bytes();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut survivors: Vec<Survivor> = pids
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let environment = read(&format!("/proc/{pid}/environ"), MAX_ENVIRONMENT);
            let has =
                |wanted: &dyn Fn(&[u8]) -> bool| environment.split(|byte| *byte == 0).any(wanted);
            has(&|variable| variable == id)
                && has(&|variable| variable == event)
                && has(&|variable| variable.starts_with(&mark))
        })
        .map(|pid| Survivor {
            pid,
            command_line: command_line(pid),
        })
        .collect();
    survivors.sort_by_key(|survivor| survivor.pid);
    survivors
}

/// The command line of a process on one line; its name in brackets if it has none.
fn command_line(pid: i32) -> String {
    let arguments = read(&format!("/proc/{pid}/cmdline"), MAX_COMMAND_LINE);
    let text = String::from_utf8_lossy(&arguments);
    let text = text.trim_end_matches('\0');
    if text.is_empty() {
        let name = read(&format!("/proc/{pid}/comm"), MAX_COMMAND_LINE);
        return format!("[{}]", String::from_utf8_lossy(&name).trim());
    }
    text.chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Reads as much as possible of a file that may disappear at any moment.
fn read(path: &str, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(Path::new(path)) {
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the processes to be found are started here"
)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper(deployment: &str, event: &str) -> Child {
        let mut command = Command::new("sh");
        command
            .args(["-c", "read line"])
            .stdin(Stdio::piped())
            .env(MARK, "0123");
        command
            .env("DEPLOYMENT_ID", deployment)
            .env("LIFECYCLE_EVENT", event)
            .spawn()
            .unwrap()
    }

    #[test]
    fn the_processes_of_one_event_of_one_deployment_are_named_and_live_on() {
        let unique = format!("d-{:x}", std::process::id());
        let mut started = [
            sleeper(&unique, "ApplicationStart"),
            sleeper(&unique, "ValidateService"),
            sleeper("d-other", "ApplicationStart"),
        ];
        let id = PathComponent::new(&unique).unwrap();
        // The environment exists once the program has started.
        let found = loop {
            let found = of(&id, &LifecycleEvent::ApplicationStart);
            if found
                .iter()
                .any(|survivor| survivor.command_line == "sh -c read line")
            {
                break found;
            }
        };
        let pids: Vec<_> = found.iter().map(|survivor| survivor.pid).collect();
        assert_eq!(pids, [started[0].id().cast_signed()]);
        assert_eq!(
            found[0].to_string(),
            format!("process {} (sh -c read line)", pids[0])
        );
        assert!(
            started
                .iter_mut()
                .all(|child| child.try_wait().unwrap().is_none()),
            "nobody was ended"
        );
        for child in &mut started {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
