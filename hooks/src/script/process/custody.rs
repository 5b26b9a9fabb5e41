//! Checks before root runs a script: nobody else can replace it, and it is the deployed one.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};

use super::executable::own_path;
use crate::custody::Deployed;

const FOLDER: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const OTHERS_WRITE: u32 = 0o022;

/// The way in which another user than root could change a script.
#[derive(Debug)]
struct Exposure {
    path: PathBuf,
    uid: u32,
}

impl Exposure {
    fn of(path: &Path, stat: &Stat) -> Option<Self> {
        let exposed = stat.st_uid != 0 || stat.st_mode & OTHERS_WRITE != 0;
        exposed.then(|| Self {
            path: path.to_owned(),
            uid: stat.st_uid,
        })
    }
}

/// Gives the folders from `archive` down to the script to root, and checks the script's contents:
/// it must be the deployed one, or one that only root can have changed. Call this as root, before
/// the script itself is given to root.
pub(super) fn check(archive: &Path, file: &OwnedFd, deployed: &Deployed) -> Result<(), String> {
    let unreadable = |path: &Path, error: std::io::Error| {
        format!("{} cannot be examined: {error}", path.display())
    };
    let archive = archive
        .canonicalize()
        .map_err(|error| unreadable(archive, error))?;
    let path = std::fs::read_link(own_path(file)).map_err(|error| unreadable(&archive, error))?;
    let Ok(below) = path.strip_prefix(&archive) else {
        return Err(format!(
            "{} does not lie in the revision any more",
            path.display()
        ));
    };
    let mut exposure = None;
    let folders = path
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(&archive));
    for folder in folders {
        let found = hold(folder).map_err(|error| unreadable(folder, error.into()))?;
        exposure = found.or(exposure);
    }
    let stat = rustix::fs::fstat(file).map_err(|error| unreadable(&path, error.into()))?;
    exposure = exposure.or_else(|| Exposure::of(&path, &stat));

    let holds = File::open(own_path(file)).and_then(|opened| deployed.holds(below, opened));
    match (holds.map_err(|error| unreadable(&path, error))?, exposure) {
        (true, None) => {}
        (true, Some(Exposure { path: exposed, uid })) => {
            tracing::info!(path = %exposed.display(), uid, "made root's own before a script below it runs");
        }
        (false, None) => {
            tracing::warn!(script = %path.display(), "is not as it was deployed; root changed it, so it runs");
        }
        (false, Some(Exposure { path: exposed, uid })) => {
            return Err(format!(
                "{} is not as it was deployed, and somebody else than root could change it: {} belongs to user id {uid} or \
                 is writable by others; look at who changed it, then deploy the revision again",
                path.display(),
                exposed.display()
            ));
        }
    }
    Ok(())
}

/// Gives a folder to root; returns its former access if that was different. Everybody who could
/// pass through it still can.
fn hold(path: &Path) -> Result<Option<Exposure>, rustix::io::Errno> {
    let folder = rustix::fs::openat(CWD, path, FOLDER, Mode::empty())?;
    let stat = rustix::fs::fstat(&folder)?;
    let exposure = Exposure::of(path, &stat);
    if exposure.is_some() {
        let root = rustix::fs::Uid::ROOT;
        rustix::fs::chownat(&folder, "", Some(root), None, AtFlags::EMPTY_PATH)?;
        let mode = stat.st_mode & 0o7777 & !OTHERS_WRITE;
        let passage = if stat.st_uid == 0 {
            0
        } else {
            (stat.st_mode >> 6 & 1) * 0o011
        };
        rustix::fs::chmod(
            own_path(folder.as_fd()),
            Mode::from_raw_mode(mode | passage),
        )?;
    }
    Ok(exposure)
}
