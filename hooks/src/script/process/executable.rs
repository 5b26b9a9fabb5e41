//! A script's file before it runs: that it lies in the revision, is a file, can be executed, and by whom it can be
//! changed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, geteuid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::account::Account;
use crate::script::outcome::Outcome;

/// A script that is ready to run.
#[derive(Debug)]
pub(crate) struct Executable {
    /// Absolute. A script is started by its path, because it may look at `$0`.
    pub(crate) path: PathBuf,
    pub(crate) shebang: Option<Shebang>,
}

/// The first line of a script that names its interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shebang {
    /// As the kernel reads it, a carriage return included.
    interpreter: PathBuf,
    carriage_return: bool,
}

/// Owner, group and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Executable {
    /// Finds the script at `location` in the revision `archive`, and makes it fit to be run by `user` (default: the agent's
    /// own). As root also makes it root's own and writable by nobody else: what runs is what was deployed. All through
    /// one handle, so that it is the same file throughout.
    pub(crate) fn prepare(archive: &Path, location: &Path, user: Option<&Account>) -> Result<Self, Outcome> {
        let path = archive.join(location);
        let name = || location.to_string_lossy().into_owned();
        let refused = |reason: String| Outcome::NotStarted {
            location: name(),
            user: user.map(|user| user.name.clone()),
            reason,
        };
        let file = match open_beneath(archive, location) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return Err(Outcome::ScriptMissing {
                    location: name(),
                    path,
                });
            }
            Err(Errno::XDEV) => {
                return Err(refused(format!(
                    "{} is reached through a link that leads out of the revision; put the script itself into it",
                    path.display()
                )));
            }
            Err(Errno::NOSYS) => return Err(refused(OLD_KERNEL.to_owned())),
            Err(error) => return Err(refused(format!("{} cannot be opened: {error}", path.display()))),
        };
        let found = rustix::fs::fstat(&file)
            .map_err(|error| refused(format!("{} cannot be examined: {error}", path.display())))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(refused(format!(
                "{} is not a file that could be run",
                path.display()
            )));
        }

        let found = Access {
            uid: found.st_uid,
            gid: found.st_gid,
            mode: found.st_mode & 0o7777,
        };
        let wanted = found.wanted(geteuid(), user);
        if let Err(error) = found.change(wanted, file.as_fd()) {
            return Err(match found.mode & 0o111 {
                0 => Outcome::NotExecutable {
                    location: name(),
                    reason: error.to_string(),
                },
                _ => refused(format!("{} cannot be made root's own: {error}", path.display())),
            });
        }
        Ok(Self {
            path,
            shebang: read_start(&file).ok().and_then(|start| Shebang::parse(&start)),
        })
    }

    /// What to say when the operating system refused to start the script.
    pub(crate) fn explain(&self, error: &io::Error) -> String {
        let path = self.path.display();
        match (&self.shebang, error.raw_os_error()) {
            (Some(shebang), Some(libc::ENOENT | libc::ENOTDIR)) => shebang.explain_missing(),
            (None, Some(libc::ENOENT)) => {
                format!(
                    "{path} is a program whose loader does not exist on this host; was it built for another system?"
                )
            }
            (Some(Shebang { interpreter, .. }), Some(libc::EACCES)) => format!(
                "permission denied for {path} or its interpreter {}; check that the user may enter every folder on the \
                 way, that the interpreter is executable and that the file system is not mounted noexec",
                interpreter.display()
            ),
            (None, Some(libc::EACCES)) => format!(
                "permission denied for {path}; check that the user may enter every folder on the way and that the file \
                 system is not mounted noexec"
            ),
            _ => error.to_string(),
        }
    }

    /// What the script's file may have to do with its failure.
    pub(crate) fn hint(&self) -> Option<String> {
        let shebang = self.shebang.as_ref()?;
        shebang.carriage_return.then(|| {
            format!(
                "the first line of {} ends in a carriage return; {UNIX_LINES}",
                self.path.display()
            )
        })
    }
}

const OLD_KERNEL: &str = "the kernel has no openat2, without which a script cannot be proved to lie in the revision; Linux \
                          5.6 or later is needed";
const UNIX_LINES: &str = "save the script with Unix line endings";

impl Shebang {
    /// Reads the beginning of a file.
    fn parse(start: &[u8]) -> Option<Self> {
        let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let interpreter = line
            .split(blank)
            .find(|word| !word.is_empty())
            .unwrap_or_default();
        Some(Self {
            interpreter: PathBuf::from(OsStr::from_bytes(interpreter)),
            carriage_return: line.ends_with(b"\r"),
        })
    }

    fn explain_missing(&self) -> String {
        match self.interpreter.as_os_str().as_bytes().strip_suffix(b"\r") {
            Some(interpreter) => format!(
                "its first line names the interpreter {} and ends in a carriage return; {UNIX_LINES}",
                OsStr::from_bytes(interpreter).display()
            ),
            None => format!(
                "its first line names the interpreter {}, which does not exist on this host",
                self.interpreter.display()
            ),
        }
    }
}

impl Access {
    /// What a script's file must be like before `agent` runs it as `user`.
    fn wanted(self, agent: Uid, user: Option<&Account>) -> Self {
        let mut wanted = self;
        let own = self.uid == agent.as_raw();
        if wanted.mode & 0o111 == 0 || (own && wanted.mode & 0o100 == 0) {
            wanted.mode |= 0o111;
        }
        if !agent.is_root() {
            return wanted;
        }
        wanted.uid = 0;
        wanted.mode &= !0o022;
        if !own {
            // The bits that make a program run as its owner were not meant for this owner.
            wanted.mode &= 0o777;
        }
        if let Some(user) = user.filter(|user| !user.uid.is_root()) {
            let in_group = user.groups.contains(&Gid::from_raw(wanted.gid));
            let open = if in_group { 0o050 } else { 0o005 };
            if wanted.mode & open != open {
                wanted.gid = user.gid.as_raw();
                wanted.mode |= 0o050;
            }
        }
        wanted
    }

    fn change(self, wanted: Self, file: impl AsFd) -> Result<(), Errno> {
        let file = file.as_fd();
        if (self.uid, self.gid) != (wanted.uid, wanted.gid) {
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(wanted.uid),
                rustix::fs::Gid::from_raw(wanted.gid),
            );
            rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        // After the owner, because giving a file away changes its mode.
        if self != wanted {
            rustix::fs::chmod(own_path(file), Mode::from_raw_mode(wanted.mode))?;
        }
        Ok(())
    }
}

/// Opens without reading, so that a FIFO does not wait and a file without permissions can be given some.
fn open_beneath(archive: &Path, location: &Path) -> Result<OwnedFd, Errno> {
    let folder = rustix::fs::open(
        archive,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let location = if location.as_os_str().is_empty() {
        Path::new(".")
    } else {
        location
    };
    rustix::fs::openat2(
        folder,
        location,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

fn read_start(file: &OwnedFd) -> io::Result<Vec<u8>> {
    // As much as the kernel looks at (execve(2)).
    let mut start = Vec::with_capacity(256);
    File::open(own_path(file.as_fd()))?
        .take(256)
        .read_to_end(&mut start)?;
    Ok(start)
}

/// A path by which a handle that was opened without reading can be used for more.
fn own_path(file: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Uid = Uid::from_raw(0);

    fn access(uid: u32, gid: u32, mode: u32) -> Access {
        Access { uid, gid, mode }
    }

    #[test]
    fn what_root_runs_belongs_to_root_and_only_root_can_write_it() {
        let cases = [
            (access(0, 0, 0o755), access(0, 0, 0o755)),
            (access(0, 0, 0o644), access(0, 0, 0o755)),
            (access(0, 0, 0o4755), access(0, 0, 0o4755)),
            (access(1000, 1000, 0o777), access(0, 1000, 0o755)),
            (access(1000, 1000, 0o6775), access(0, 1000, 0o755)),
            (access(1000, 1000, 0o620), access(0, 1000, 0o711)),
        ];
        for (found, expected) in cases {
            assert_eq!(found.wanted(ROOT, None), expected, "{found:?}");
        }
    }

    #[test]
    fn another_agent_only_makes_its_scripts_executable() {
        let agent = Uid::from_raw(1000);
        let cases = [(0o664, 0o775), (0o700, 0o700), (0o010, 0o111)];
        for (found, expected) in cases {
            assert_eq!(
                access(1000, 9, found).wanted(agent, None),
                access(1000, 9, expected),
                "{found:o}"
            );
        }
    }

    #[test]
    fn the_first_line_is_read_as_the_kernel_reads_it() {
        let parsed = |start: &[u8]| Shebang::parse(start).map(|s| (s.interpreter, s.carriage_return));
        assert_eq!(parsed(b"#!/bin/sh\n"), Some(("/bin/sh".into(), false)));
        assert_eq!(parsed(b"#! \t/bin/sh -e\nx\r\n"), Some(("/bin/sh".into(), false)));
        assert_eq!(parsed(b"#!/bin/sh\r\n"), Some(("/bin/sh\r".into(), true)));
        assert_eq!(
            parsed(b"#!/usr/bin/env bash\r\n"),
            Some(("/usr/bin/env".into(), true))
        );
        assert_eq!(parsed(b"#!/bin/sh"), Some(("/bin/sh".into(), false)));
        assert_eq!(parsed(b"echo\n"), None);
    }
}
