//! The user that acts in a data directory: its owner, whoever runs the program. If root opened,
//! made or gave away a file there by path, the owner could redirect that to any file of the system
//! with a link.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    #[error("cannot look at the data directory {}", path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error(
        "the data directory {} belongs to root and everyone may write to it: give it to the service's user (chown), or take it from the others (chmod 700)",
        .0.display()
    )]
    Shared(PathBuf),
    #[error("the data directory {} belongs to the user with id {uid}, and this process cannot act as that user: run it as root or as that user", path.display())]
    Become {
        path: PathBuf,
        uid: u32,
        source: io::Error,
    },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// From here on the calling thread, and every thread that it starts, acts as the owner of the data
/// directory. This cannot be undone.
///
/// Only root can change, and only root needs to: for other users, or without such a directory,
/// nothing happens.
pub fn act_as_owner(data_dir: &Path) -> Result<(), PrivilegesError> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let path = || data_dir.to_owned();
    let folder = match std::fs::metadata(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|source| PrivilegesError::Look {
            path: path(),
            source,
        })?,
    };
    if folder.uid() == 0 {
        return if folder.mode() & 0o002 == 0 {
            Ok(())
        } else {
            Err(PrivilegesError::Shared(path()))
        };
    }
    let uid = Uid::from_raw(folder.uid());
    // Otherwise, a folder that belongs to its user but to root's group would keep the rights of
    // root's group.
    let gid = Gid::from_raw(if folder.gid() == 0 {
        folder.uid()
    } else {
        folder.gid()
    });
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|error| PrivilegesError::Become {
            path: path(),
            uid: folder.uid(),
            source: error.into(),
        })
}

/// Runs `work` in a thread that [acts as the owner](act_as_owner) of the data directory, while the
/// caller keeps its user, for files elsewhere.
pub fn as_owner<T: Send>(
    data_dir: &Path,
    work: impl FnOnce(&Path) -> T + Send,
) -> Result<T, PrivilegesError> {
    thread::scope(|scope| {
        let owner = thread::Builder::new().name("owner".into());
        let working = owner.spawn_scoped(scope, || {
            act_as_owner(data_dir)?;
            Ok(work(data_dir))
        });
        match working.map_err(PrivilegesError::Thread)?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
