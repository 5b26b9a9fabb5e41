//! Everything for which an Install is refused before it changes anything, in words for an operator.

use std::path::{Path, PathBuf};

/// One reason why a plan cannot succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error(
        "{}: a file is there already, and the file exists behavior is DISALLOW; remove it, or choose \
         OVERWRITE or RETAIN",
        path.display()
    )]
    Exists { path: PathBuf },
    #[error(
        "{}: two entries of the revision go there, {first} and {second}; remove one of them from \
         files",
        path.display()
    )]
    Twice { path: PathBuf, first: String, second: String },
    #[error(
        "{}: a folder is there, and a file or link must go there; remove it, or choose another \
         destination",
        path.display()
    )]
    FolderInTheWay { path: PathBuf },
    #[error(
        "{}: not a folder, and a folder must be there; remove it, or choose another destination",
        path.display()
    )]
    NotAFolder { path: PathBuf },
    #[error(
        "files: the revision has no {}{}{hint}",
        object.display(),
        behind(link.as_deref())
    )]
    MissingSource { object: PathBuf, link: Option<PathBuf>, hint: String },
    #[error(
        "files: {} is a device, FIFO or socket; only files, folders and symbolic links can be \
         installed",
        object.display()
    )]
    SpecialSource { object: PathBuf },
    #[error(
        "files: {}: too many links to folders outside their mapping, which would be copied again and \
         again; map the folder that holds both",
        link.display()
    )]
    TooManyExpansions { link: PathBuf },
    #[error("{}: inside the revision itself; choose a destination outside it", path.display())]
    InsideRevision { path: PathBuf },
    #[error(
        "{}: is immutable or append-only; run chattr -i -a on it, or choose another destination",
        path.display()
    )]
    Immutable { path: PathBuf },
    #[error(
        "{}: is a mount point and cannot be replaced; unmount it, or choose another destination",
        path.display()
    )]
    MountPoint { path: PathBuf },
    #[error("{}: the file system is mounted read-only; remount it for writing, or choose another destination", path.display())]
    ReadOnly { path: PathBuf },
    #[error(
        "{}: the file system has room for {}, and {} are needed while old and new files are both there; make room, or \
         choose another destination",
        path.display(),
        size(*free),
        size(*needed)
    )]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    #[error(
        "{}: the file system has {free} free inodes, and {needed} are needed while old and new files are both there; \
         remove files that nobody needs, or choose another destination",
        path.display()
    )]
    NoInodes { path: PathBuf, needed: u64, free: u64 },
    #[error(
        "{path:?}: the name contains a line break, which the cleanup file cannot record; rename it in the revision"
    )]
    LineBreak { path: PathBuf },
    #[error("permissions: this host has no user {name:?}; create it first, for example in BeforeInstall")]
    UnknownUser { name: String },
    #[error("permissions: this host has no group {name:?}; create it first, for example in BeforeInstall")]
    UnknownGroup { name: String },
    #[error(
        "{}: two entries of permissions apply to it; narrow one with pattern, except or type",
        path.display()
    )]
    PermissionTwice { path: PathBuf },
    #[error("permissions: {} is a file: pattern must be \"**\" and except empty", object.display())]
    PatternOnFile { object: PathBuf },
    #[error("{}: is a file, which cannot have default ACL entries; add type: [directory]", path.display())]
    DefaultAclOnFile { path: PathBuf },
    #[error("permissions: {}: the ACL names the same user or group twice", object.display())]
    AclTwice { object: PathBuf },
    #[error(
        "permissions: {} is a symbolic link, which permissions do not follow; name what it leads to",
        object.display()
    )]
    PermissionOnLink { object: PathBuf },
    #[error(
        "permissions: {} asks for an SELinux context, but semanage and restorecon are not installed \
         on this host; install policycoreutils, or remove context",
        object.display()
    )]
    NoSelinux { object: PathBuf },
    #[error(
        "permissions: {} asks for the SELinux context {found}, which confines nothing, and \
         reject_unconfined_selinux_in_bundle is set on this host; choose a confined user and type",
        object.display()
    )]
    Unconfined { object: PathBuf, found: String },
}

fn behind(link: Option<&Path>) -> String {
    link.map_or(String::new(), |link| {
        format!("; {} is a symbolic link, and links of a revision are not followed", link.display())
    })
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}
