//! The process that runs the operator's command: this program, started again ([`WORD`]).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use codedeploy_api::diagnostics::MAX_LOG_CHARS;
use codedeploy_support::plain::harmless_lines;
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Ended, Ending, Folder, LIMIT, Order};

/// The first argument of a program that is started as a runner.
pub(super) const WORD: &str = "run-update";

/// The environment of the command, but for HOME.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The time between TERM and KILL for a command that takes too long.
const GRACE: Duration = Duration::from_secs(10);

/// The time after the command's end in which its output still counts.
const DRAIN: Duration = Duration::from_secs(5);

/// The number of bytes of the output that are kept.
const KEPT: usize = 64 * 1024;

/// Runs as a runner if the program was started as one.
pub fn run_update(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1).as_deref() != Some(OsStr::new(WORD)) {
        return None;
    }
    let folder = Folder(arguments.next().unwrap_or_default().into());
    // The agent sees that there is no result. A failed transient unit would stay loaded.
    let _ = run(&folder);
    Some(ExitCode::SUCCESS)
}

fn run(folder: &Folder) -> Result<(), Box<dyn std::error::Error>> {
    // Fails if systemd has made it the leader of a session.
    let _ = rustix::process::setsid();
    let _lock = folder.lock()?;
    let Some(order) = folder.order() else {
        return Ok(());
    };
    let output = Arc::new(Output::default());
    let ending =
        perform(&order, &output).unwrap_or_else(|error| Ending::NotStarted(error.to_string()));
    Ok(folder.end(&Ended::new(ending, output.last_lines()))?)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the operator's command, and no script of a revision"
)]
fn perform(order: &Order, output: &Arc<Output>) -> io::Result<Ending> {
    let (reader, writer) = io::pipe()?;
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &order.command_line])
        .env_clear()
        .envs([("PATH", OsStr::new(PATH)), ("HOME", &home)])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn()?;
    // Its copies of the pipe would keep the output open.
    drop(command);
    let group = Pid::from_child(&child);
    let drained = Arc::clone(output).drain(reader);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let ending = match end.recv_timeout(LIMIT) {
        Ok(status) => of_status(status?),
        Err(_) => {
            let _ = kill_process_group(group, Signal::TERM);
            let _ = end.recv_timeout(GRACE);
            let _ = kill_process_group(group, Signal::KILL);
            Ending::TimedOut
        }
    };
    // A daemon that the command started may hold it open.
    let _ = drained.recv_timeout(DRAIN);
    Ok(ending)
}

fn of_status(status: ExitStatus) -> Ending {
    match status.code() {
        Some(code) => Ending::ExitCode(code),
        None => Ending::Signal(status.signal().unwrap_or_default()),
    }
}

/// The last bytes of the command's output.
#[derive(Debug, Default)]
struct Output(Mutex<VecDeque<u8>>);

impl Output {
    /// Reads the output in a thread; the channel closes at its end.
    fn drain(self: Arc<Self>, mut reader: impl Read + Send + 'static) -> mpsc::Receiver<()> {
        let (done, drained) = mpsc::channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut part) {
                let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&part[..length]);
                let surplus = kept.len().saturating_sub(KEPT);
                kept.drain(..surplus);
            }
            drop(done);
        });
        drained
    }

    /// The last whole lines that fit into a report.
    fn last_lines(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        last_lines(&harmless_lines(&text))
    }
}

fn last_lines(text: &str) -> String {
    let mut left = MAX_LOG_CHARS;
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().rev() {
        let Some(rest) = left.checked_sub(line.chars().count() + 1) else {
            break;
        };
        left = rest;
        lines.push(line);
    }
    lines.iter().rev().flat_map(|line| [*line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_lines_that_fit_are_kept() {
        assert_eq!(last_lines("one\ntwo"), "one\ntwo\n");
        assert_eq!(last_lines(""), "");
        let long = "x".repeat(MAX_LOG_CHARS);
        assert_eq!(last_lines(&format!("{long}\nlast\n")), "last\n");
    }
}
