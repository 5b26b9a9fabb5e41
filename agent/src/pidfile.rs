//! The pid file. Its lock shows whether an agent runs; its number only shows which process holds
//! the lock.
//!
//! A file that names a live process but is not locked is stale, whatever that process is: it does
//! not prevent a start, and the process gets no signal. The lock belongs to the open file
//! (`F_OFD_SETLK`, fcntl(2)), so a query of its holder never takes it, and it ends with the process
//! in any case.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use rustix::process::{Pid, PidfdFlags};

/// The longest process id with its newline, in bytes.
const MAX_TEXT: u64 = 32;

/// The number of times that a stopping agent may remove the file while it is being locked.
const ATTEMPTS: usize = 16;

/// The interval between checks of the lock on kernels that cannot report the end of a process.
const INTERVAL: Duration = Duration::from_millis(50);

/// The pid file of this process, locked; dropping it removes the file and releases the lock.
#[derive(Debug)]
#[must_use]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

/// The holder of the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    /// A running agent; its id is absent for a moment between locking and writing.
    Agent(Option<Pid>),
}

#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    #[error("cannot {action} the pid file {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the pid file {} is not a regular file; remove what is there, or set pid_dir to another folder", path.display())]
    NotAFile { path: PathBuf },
    #[error("the AWS CodeDeploy agent is running already{}: it holds the lock on {}", as_pid(*holder), path.display())]
    Held { holder: Option<Pid>, path: PathBuf },
}

fn as_pid(holder: Option<Pid>) -> String {
    holder.map_or_else(String::new, |pid| format!(" as PID {pid}"))
}

impl PidFile {
    /// Locks `path`, makes its folder if necessary, and writes this process's id into it.
    pub fn acquire(path: &Path) -> Result<Self, PidFileError> {
        let failed = |action| {
            move |source| PidFileError::Io {
                action,
                path: path.into(),
                source,
            }
        };
        if let Some(folder) = path.parent() {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder);
            made.map_err(failed("make the folder of"))?;
        }
        for _ in 0..ATTEMPTS {
            let file = open(path, true).map_err(failed("open"))?;
            require_regular(&file, path)?;
            match lock(&file) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    return Err(PidFileError::Held {
                        holder: read(&file),
                        path: path.into(),
                    });
                }
                Err(error) => return Err(failed("lock")(error.into())),
            }
            if is_at(&file, path) {
                let mut held = Self {
                    path: path.into(),
                    file,
                };
                held.write().map_err(failed("write"))?;
                return Ok(held);
            }
        }
        Err(failed("lock")(io::Error::other(
            "it is replaced again and again; something else writes there",
        )))
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the pid file; without its lock it is stale");
        }
    }
}

/// Returns the holder of the lock on `path`. Changes nothing; the right to read the file is enough.
pub fn holder(path: &Path) -> Result<Holder, PidFileError> {
    let failed = |action| {
        move |source| PidFileError::Io {
            action,
            path: path.into(),
            source,
        }
    };
    let file = match open(path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(failed("open")(error)),
    };
    require_regular(&file, path)?;
    let mut found = whole_file();
    query(&file, &mut found).map_err(|error| failed("query")(error.into()))?;
    if i32::from(found.l_type) == libc::F_UNLCK {
        return Ok(Holder::Nobody);
    }
    Ok(Holder::Agent(read(&file)))
}

/// Returns the process that the file names, locked or not: AWS's agents take no lock.
pub fn named(path: &Path) -> Option<Pid> {
    let file = open(path, false).ok()?;
    require_regular(&file, path).ok()?;
    read(&file)
}

/// A running agent that can be stopped; never a later process with the same id.
#[derive(Debug)]
pub struct Agent {
    pub pid: Pid,
    path: PathBuf,
    /// Absent if the kernel has no such handles (before Linux 5.3).
    handle: Option<rustix::fd::OwnedFd>,
}

impl Agent {
    /// Returns the process `pid`, if it still holds the lock on `path`.
    pub fn find(path: &Path, pid: Pid) -> Result<Option<Self>, PidFileError> {
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        // Checked after the handle was opened, so the handle belongs to the lock's present holder.
        let same = holder(path)? == Holder::Agent(Some(pid));
        Ok(same.then(|| Self {
            pid,
            path: path.into(),
            handle,
        }))
    }

    /// Sends TERM.
    pub fn terminate(&self) -> io::Result<()> {
        match &self.handle {
            Some(handle) => Ok(rustix::process::pidfd_send_signal(
                handle,
                rustix::process::Signal::TERM,
            )?),
            None => {
                let pid = nix::unistd::Pid::from_raw(self.pid.as_raw_nonzero().get());
                Ok(kill(pid, Signal::SIGTERM)?)
            }
        }
    }

    /// Waits until it has ended; `false` if it has not after `timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<bool, PidFileError> {
        let began = Instant::now();
        while self.lives()? {
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.pause(if self.handle.is_some() {
                left
            } else {
                left.min(INTERVAL)
            });
        }
        Ok(true)
    }

    /// The lock is released a moment before the process ends: only its handle shows the end.
    fn lives(&self) -> Result<bool, PidFileError> {
        if self.handle.is_some() {
            return Ok(!self.pause(Duration::ZERO));
        }
        Ok(holder(&self.path)? == Holder::Agent(Some(self.pid)))
    }

    /// Waits for the end of the process through its handle; returns whether it has ended.
    fn pause(&self, at_most: Duration) -> bool {
        let mut ended: Vec<PollFd<'_>> = self
            .handle
            .iter()
            .map(|handle| PollFd::new(handle.as_fd(), PollFlags::POLLIN))
            .collect();
        let at_most = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        poll(&mut ended, at_most).is_ok_and(|count| count > 0)
    }
}

fn open(path: &Path, to_hold: bool) -> io::Result<File> {
    // Do not block on a FIFO, and do not follow a link.
    File::options()
        .read(true)
        .write(to_hold)
        .create(to_hold)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn require_regular(file: &File, path: &Path) -> Result<(), PidFileError> {
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(PidFileError::NotAFile { path: path.into() }),
        Err(source) => Err(PidFileError::Io {
            action: "examine",
            path: path.into(),
            source,
        }),
    }
}

/// A write lock on the whole file.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the lock, without waiting for it.
fn lock(file: &File) -> Result<(), Errno> {
    let wanted = whole_file();
    match fcntl(file, FcntlArg::F_OFD_SETLK(&wanted)) {
        // Before Linux 3.15, the lock belongs to the process. The agent opens the file only once.
        Err(Errno::EINVAL) => fcntl(file, FcntlArg::F_SETLK(&wanted)),
        result => result,
    }
    .map(drop)
}

/// Finds the lock that prevents `wanted`, if any.
fn query(file: &File, wanted: &mut libc::flock) -> Result<(), Errno> {
    match fcntl(file, FcntlArg::F_OFD_GETLK(wanted)) {
        Err(Errno::EINVAL) => fcntl(file, FcntlArg::F_GETLK(wanted)),
        result => result,
    }
    .map(drop)
}

fn read(mut file: &File) -> Option<Pid> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(MAX_TEXT).read_to_string(&mut text).ok()?;
    Pid::from_raw(text.trim().parse().ok().filter(|pid| *pid > 0)?)
}

/// Whether the open file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lock_makes_a_pid_file_true() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/agent.pid");
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let own = Pid::from_raw(std::process::id().try_into().unwrap());
        let held = PidFile::acquire(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Agent(own));
        let refused = PidFile::acquire(&path).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("is running already as PID {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        assert!(!path.exists());
        for stale in ["1\n".to_owned(), std::process::id().to_string()] {
            std::fs::write(&path, &stale).unwrap();
            assert_eq!(holder(&path).unwrap(), Holder::Nobody, "{stale}");
            assert_eq!(
                Agent::find(&path, Pid::INIT)
                    .unwrap()
                    .map(|agent| agent.pid),
                None
            );
        }
        let _taken_over = PidFile::acquire(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Agent(own));
    }

    #[test]
    fn noise_in_the_file_is_overwritten_and_other_things_in_its_place_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.pid");
        let noise: [&[u8]; 5] = [
            b"",
            b"-1",
            b"99999999999999999999",
            b"\xff\xfe\x00",
            &vec![b'7'; 10 << 20],
        ];
        for noise in noise {
            std::fs::write(&path, noise).unwrap();
            assert_eq!(named(&path), None);
            let held = PidFile::acquire(&path).unwrap();
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                format!("{}\n", std::process::id())
            );
            drop(held);
        }
        let elsewhere = folder.path().join("precious");
        std::fs::write(&elsewhere, "precious").unwrap();
        let mode = nix::sys::stat::Mode::S_IRWXU;
        for (number, expected) in ["irectory", "regular file", "symbolic links"]
            .into_iter()
            .enumerate()
        {
            let path = folder.path().join(format!("agent{number}.pid"));
            match number {
                0 => std::fs::create_dir(&path).unwrap(),
                1 => nix::unistd::mkfifo(&path, mode).unwrap(),
                _ => std::os::unix::fs::symlink(&elsewhere, &path).unwrap(),
            }
            let error = PidFile::acquire(&path).unwrap_err();
            let text = codedeploy_api::chain::Chain(&error).to_string();
            assert!(
                text.contains(&path.display().to_string()) && text.contains(expected),
                "{text}"
            );
            assert!(holder(&path).is_err());
        }
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "precious");
    }
}
