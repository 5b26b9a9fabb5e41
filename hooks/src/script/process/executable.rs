//! Checks a script's file before it runs: it lies in the revision, is a file, can be executed, and
//! cannot be changed by others.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, geteuid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::account::Account;
use super::custody;
use super::format::{Format, START};
use crate::appspec::{ArchivePath, missing_script};
use crate::custody::Deployed;
use crate::fs::{Links, open_beneath};
use crate::script::outcome::Outcome;

/// A script that is ready to run. When dropped, its file goes back to its former owner.
#[derive(Debug)]
pub(crate) struct Executable {
    /// Absolute. A script is started by its path, because it may read `$0`.
    pub(crate) path: PathBuf,
    format: Format,
    file: OwnedFd,
    /// The file's access before, and the one that it was given.
    found: Access,
    made: Access,
}

/// Owner, group and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Executable {
    /// Finds the script at `location` in the revision `archive`, and lets `user` (default: the
    /// agent's own) run it. Root also takes ownership of it and makes it writable by nobody else,
    /// so that the deployed script is the one that runs. All of this uses one handle, so it is the
    /// same file throughout. `deployed` is known for revisions that this agent unpacked.
    pub(crate) fn prepare(
        archive: &Path,
        script: &ArchivePath,
        user: Option<&Account>,
        deployed: Option<&Deployed>,
    ) -> Result<Self, Outcome> {
        let location = script.as_path();
        let path = archive.join(location);
        let name = || location.to_string_lossy().into_owned();
        let refused = |reason: String| Outcome::NotStarted {
            location: name(),
            user: user.map(|user| user.name.clone()),
            reason,
        };
        let file = match open_script(archive, location) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let hint = missing_script(archive, script);
                return Err(Outcome::ScriptMissing {
                    location: name(),
                    path,
                    hint,
                });
            }
            Err(Errno::XDEV) => {
                return Err(refused(format!(
                    "{} is reached through a link that leads out of the revision; put the script itself into it",
                    path.display()
                )));
            }
            Err(error) => {
                return Err(refused(format!(
                    "{} cannot be opened: {error}",
                    path.display()
                )));
            }
        };
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| refused(format!("{} cannot be examined: {error}", path.display())))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused(format!(
                "{} is not a file that could be run",
                path.display()
            )));
        }

        if let Some(deployed) = deployed.filter(|_| geteuid().is_root()) {
            custody::check(archive, &file, deployed).map_err(refused)?;
        }
        let found = Access::from(&stat);
        let wanted = found.wanted(geteuid(), user);
        if let Err(error) = found.change(wanted, file.as_fd()) {
            return Err(match found.mode & 0o111 {
                0 => Outcome::NotExecutable {
                    location: name(),
                    reason: error.to_string(),
                },
                _ => refused(format!(
                    "{} cannot be made root's own: {error}",
                    path.display()
                )),
            });
        }
        let start = |path: PathBuf| read_start(&path).unwrap_or_default();
        let format = Format::of(&start(own_path(&file)), &start("/proc/self/exe".into()));
        if let Some(disguise) = format.disguise() {
            tracing::warn!("{}: {disguise}", path.display());
        }
        Ok(Self {
            path,
            format,
            file,
            found,
            made: wanted,
        })
    }

    /// Whether a shell is certain to read it: some systems know more formats than this program.
    pub(crate) fn is_for_a_shell(&self) -> bool {
        matches!(self.format, Format::Plain { .. })
    }

    /// Explains why the operating system refused to start the script.
    pub(crate) fn explain(&self, error: &io::Error) -> String {
        self.format.explain(error, &self.path)
    }

    /// States how the script's file may have caused its failure.
    pub(crate) fn hint(&self) -> Option<String> {
        self.format.hint(&self.path)
    }
}

impl Drop for Executable {
    /// The script may be one of the files that Install copies with their owners. It stays
    /// executable, as with the official agents; changes that the script made to its own file stay,
    /// too.
    fn drop(&mut self) {
        let Ok(now) = Access::of(&self.file) else {
            return;
        };
        let returned = self.made.returned(self.found, now);
        if let Err(error) = now.change(returned, self.file.as_fd()) {
            tracing::warn!(path = %self.path.display(), %error, "cannot give the script back to its owner");
        }
    }
}

impl From<&Stat> for Access {
    fn from(stat: &Stat) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
        }
    }
}

impl Access {
    fn of(file: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::fstat(file).map(|stat| Self::from(&stat))
    }

    /// The access after the run of a file that was `found` with one access and given this one; a
    /// part that is different `now` stays.
    fn returned(self, found: Self, now: Self) -> Self {
        if now != self {
            return now;
        }
        Self {
            mode: found.mode | (self.mode & 0o111),
            ..found
        }
    }

    /// The access that a script's file needs before `agent` runs it as `user`.
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
            // Set-id bits were not meant for this owner.
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
        // After the owner, because changing the owner changes the mode.
        if self != wanted {
            rustix::fs::chmod(own_path(file), Mode::from_raw_mode(wanted.mode))?;
        }
        Ok(())
    }
}

/// Opens without reading, so that a FIFO does not block and a file without permissions can be given
/// some.
pub(super) fn open_script(archive: &Path, location: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let archive = rustix::fs::open(archive, flags | OFlags::DIRECTORY, Mode::empty())?;
    open_beneath(archive, location, flags, Links::Followed)
}

pub(super) fn read_start(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, START)
}

/// The first `most` bytes of a file.
pub(super) fn read_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut start)?;
    Ok(start)
}

/// A path that reopens a handle which was opened without reading.
pub(super) fn own_path(file: impl AsFd) -> PathBuf {
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
    fn after_the_run_a_script_is_as_it_was_but_executable_unless_it_changed_itself() {
        let (found, made) = (access(1000, 9, 0o664), access(0, 9, 0o755));
        assert_eq!(made.returned(found, made), access(1000, 9, 0o775));
        assert_eq!(
            made.returned(found, access(33, 33, 0o755)),
            access(33, 33, 0o755)
        );
        assert_eq!(
            made.returned(access(0, 0, 0o4755), made),
            access(0, 0, 0o4755)
        );
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
}
