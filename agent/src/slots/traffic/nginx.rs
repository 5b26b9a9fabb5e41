//! nginx: writes the file that names the serving slot's address, and reloads nginx when its test
//! accepts the file.
//!
//! A reload is done when no worker of before accepts connections. Such a worker finishes its
//! requests, so the old slot may get some until it is gone (nginx(8), signals HUP and QUIT).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_hooks::appspec::strategy::traffic::Nginx;
use codedeploy_hooks::fs::replace_file;
use codedeploy_hooks::slots::Side;
use tokio::time::{Instant, sleep};

use super::LOOK;
use super::program::{self, ProgramError};
use crate::bounded_read;

/// The time for a test or the call of a reload, and for its effect.
const PROGRAM: Duration = Duration::from_secs(30);
const RELOAD: Duration = Duration::from_secs(30);

/// The option of nginx that prints its configuration; before each file, it prints this line.
const DUMP: &str = "-T";
const FILE_LINE: &str = "# configuration file ";

#[derive(Debug, thiserror::Error)]
pub enum NginxError {
    #[error(
        "the slot {0} has no port that nginx could send requests to; add \"ports\" to the strategy"
    )]
    NoPort(String),
    #[error("the file {path} for nginx cannot be {what}")]
    File {
        path: PathBuf,
        what: &'static str,
        source: io::Error,
    },
    #[error("nginx rejects its configuration with the new address, so the old one was put back")]
    Test(#[source] ProgramError),
    #[error("nginx does not read {0}; include the file in its configuration")]
    NotIncluded(PathBuf),
    #[error(
        "nginx does not run: {0} has no process id of its master; start nginx, or name its file as \"pid\""
    )]
    NotRunning(PathBuf),
    #[error("nginx cannot be reloaded")]
    Reload(#[source] ProgramError),
    #[error("nginx was reloaded, but after {} s workers of before still accept connections; see its error log", RELOAD.as_secs())]
    NotReloaded,
}

/// A worker process; the time of its start distinguishes it from a later one with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Worker {
    pid: u32,
    started: String,
    ending: bool,
}

/// Writes the slot's address and reloads nginx. If that fails, the former file is put back.
pub(super) async fn move_to(nginx: &Nginx, to: &Side) -> Result<(), NginxError> {
    let path = nginx.include.as_path();
    let port = to
        .port
        .ok_or_else(|| NginxError::NoPort(to.name.to_string()))?;
    let before = former(path)?;
    write(path, contents(nginx, to, port).as_bytes())?;
    let mut reloading = false;
    let Err(error) = apply(nginx, &mut reloading).await else {
        return Ok(());
    };
    put_back(path, before.as_deref())?;
    if reloading {
        let (program, arguments) = nginx.reload.words();
        if let Err(error) = program::run(program, arguments, PROGRAM).await {
            tracing::warn!(%error, "nginx cannot be reloaded with its former file");
        }
    }
    Err(error)
}

/// The number of workers of before a reload that still have requests.
pub(super) fn ending_workers(nginx: &Nginx) -> u64 {
    let workers = master(nginx.pid.as_path()).map(workers).unwrap_or_default();
    workers.iter().filter(|worker| worker.ending).count() as u64
}

/// Tests the configuration and loads it. `reloading` becomes true before nginx may have loaded it.
async fn apply(nginx: &Nginx, reloading: &mut bool) -> Result<(), NginxError> {
    let (program, arguments) = nginx.test.words();
    let printed = program::run(program, arguments, PROGRAM)
        .await
        .map_err(NginxError::Test)?;
    let path = nginx.include.as_path();
    if arguments.iter().any(|argument| argument == DUMP) && !is_included(&printed, path) {
        return Err(NginxError::NotIncluded(path.to_owned()));
    }
    let pid = nginx.pid.as_path();
    let master = master(pid).ok_or_else(|| NginxError::NotRunning(pid.to_owned()))?;
    let before = workers(master);
    *reloading = true;
    let (program, arguments) = nginx.reload.words();
    program::run(program, arguments, PROGRAM)
        .await
        .map_err(NginxError::Reload)?;
    let until = Instant::now() + RELOAD;
    while !is_reloaded(&before, &workers(master)) {
        if Instant::now() >= until {
            return Err(NginxError::NotReloaded);
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Whether no worker of `before` accepts connections, and another one does.
fn is_reloaded(before: &[Worker], now: &[Worker]) -> bool {
    let accepts = |worker: &&Worker| !worker.ending;
    let is_old = |worker: &Worker| {
        before
            .iter()
            .any(|old| (old.pid, &old.started) == (worker.pid, &worker.started))
    };
    let mut accepting = now.iter().filter(accepts).peekable();
    accepting.peek().is_some() && !accepting.any(is_old)
}

/// The file's text: an upstream with the slot as its only server, or only that server.
fn contents(nginx: &Nginx, to: &Side, port: u16) -> String {
    let head = format!(
        "# The slot {} serves. The deployment agent writes this file.\n",
        to.name
    );
    let server = format!("server 127.0.0.1:{port};\n");
    match &nginx.upstream {
        Some(name) => format!("{head}upstream {name} {{\n    {server}}}\n"),
        None => head + &server,
    }
}

/// Whether a printed configuration contains the file, by this name or another.
fn is_included(printed: &str, path: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let wanted = real(path);
    let names = printed
        .lines()
        .filter_map(|line| line.strip_prefix(FILE_LINE));
    names
        .filter_map(|name| name.strip_suffix(':'))
        .any(|name| real(Path::new(name)) == wanted)
}

/// The bytes of the file before the change; `None` if it did not exist.
fn former(path: &Path) -> Result<Option<Vec<u8>>, NginxError> {
    match bounded_read::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NginxError::File {
            path: path.to_owned(),
            what: "read",
            source,
        }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), NginxError> {
    replace_file(path, bytes, 0o644).map_err(|source| NginxError::File {
        path: path.to_owned(),
        what: "written",
        source,
    })
}

fn put_back(path: &Path, before: Option<&[u8]>) -> Result<(), NginxError> {
    let Some(bytes) = before else {
        return std::fs::remove_file(path).map_err(|source| NginxError::File {
            path: path.to_owned(),
            what: "removed",
            source,
        });
    };
    write(path, bytes)
}

/// The master's process id, if it runs.
fn master(file: &Path) -> Option<u32> {
    let text = bounded_read::read_up_to(file, 64).ok()?;
    let pid = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
    title(pid)?.starts_with("nginx: master").then_some(pid)
}

fn workers(master: u32) -> Vec<Worker> {
    let parent = master.to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        // Behind the name, in parentheses, come the state, the parent, and 17 fields later the
        // start (proc_pid_stat(5)).
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
        if fields.next()? != parent {
            return None;
        }
        let started = fields.nth(17)?.to_owned();
        let title = title(pid)?;
        let is_worker = title.starts_with("nginx: worker process");
        is_worker.then(|| Worker {
            pid,
            started,
            ending: title.contains("is shutting down"),
        })
    })
    .collect()
}

/// The title that a process of nginx gives itself.
fn title(pid: u32) -> Option<String> {
    let bytes = bounded_read::read(Path::new(&format!("/proc/{pid}/cmdline"))).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pid: u32, ending: bool) -> Worker {
        Worker {
            pid,
            started: "7".into(),
            ending,
        }
    }

    #[test]
    fn a_reload_is_done_when_only_new_workers_accept_connections() {
        let before = [worker(2, false), worker(3, true)];
        let cases = [
            (vec![worker(2, false)], false),
            (vec![worker(2, false), worker(4, false)], false),
            (vec![worker(2, true)], false),
            (vec![worker(2, true), worker(4, false)], true),
            (vec![worker(4, false)], true),
            (vec![], false),
        ];
        for (now, expected) in cases {
            assert_eq!(is_reloaded(&before, &now), expected, "{now:?}");
        }
    }
}
