//! The conflicts for which an Install is rejected before it changes anything, in words for an
//! operator.

use std::path::{Path, PathBuf};

use super::limits::MAX_CONFLICTS;
use super::paths::{PathId, Paths};
use super::records::{self, Records};
use super::snapshot::Stranger;
use crate::appspec::{MAX_FOLDERS, MAX_PATH_BYTES};

/// One reason why a plan cannot succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error(
        "{}: a file is there already{}, and the file exists behavior is DISALLOW; {}, or choose OVERWRITE or RETAIN",
        path.display(),
        installed_by(group.as_deref()),
        if group.is_some() { "deploy this elsewhere" } else { "remove it" }
    )]
    Exists {
        path: PathBuf,
        /// The deployment group that installed it, if another one did.
        group: Option<String>,
    },
    #[error(
        "{}: two entries of the revision go there, {first} and {second}; remove one of them from \
         files",
        path.display()
    )]
    Twice {
        path: PathBuf,
        first: String,
        second: String,
    },
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
    MissingSource {
        object: PathBuf,
        link: Option<PathBuf>,
        hint: String,
    },
    #[error(
        "files: {} is a device, FIFO or socket; only files, folders and symbolic links can be \
         installed",
        object.display()
    )]
    SpecialSource { object: PathBuf },
    #[error(
        "files: too many links to folders outside their mapping, which would be copied again and again; map the folder \
         that holds both"
    )]
    TooManyExpansions,
    #[error(
        "files: more than {most} files, links and folders would be installed; map fewer of them, or one folder once"
    )]
    TooManyObjects { most: usize },
    #[error(
        "the revision has more than {most} files, links and folders; leave out files that are not deployed"
    )]
    TooManyInRevision { most: usize },
    #[error("the revision has folders in more than {most} folders, such as {}; make it flatter", object.display())]
    TooDeepInRevision { object: PathBuf, most: usize },
    #[error(
        "permissions: too many entries with a pattern, or over the same folders, to compare each with every file; name \
         fewer, larger objects"
    )]
    TooManyPermissions,
    #[error(
        "{}: a path of {length} bytes in {depth} folders; a host has paths of at most {MAX_PATH_BYTES} bytes, and Install \
         makes at most {MAX_FOLDERS} names in one another",
        path.display()
    )]
    TooLong {
        path: PathBuf,
        length: usize,
        depth: usize,
    },
    #[error(
        "{}: inside {}, which the agent keeps for itself; choose a destination outside it",
        path.display(),
        folder.display()
    )]
    AgentsOwn { path: PathBuf, folder: PathBuf },
    #[error("{}: inside or through /proc or /sys, where the kernel keeps no files; choose another destination", path.display())]
    Kernels { path: PathBuf },
    #[error("{}: in /dev, where the kernel makes the files of devices; choose another destination", path.display())]
    Devices { path: PathBuf },
    #[error(
        "{}: {} is a symbolic link of {}, and what it leads to, {}, belongs to {}; whoever owns the link could lead the \
         deployment anywhere. Give the link to root (chown -h root), or write the path that is meant",
        path.display(),
        link.display(),
        user(*owner),
        target.display(),
        user(*target_owner)
    )]
    UnsafeLink {
        path: PathBuf,
        link: PathBuf,
        owner: u32,
        target: PathBuf,
        target_owner: u32,
    },
    #[error("these are the first {MAX_CONFLICTS} conflicts; there may be more")]
    More,
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
    NoRoom {
        path: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error(
        "{}: the file system has {free} free inodes, and {needed} are needed while old and new files are both there; \
         remove files that nobody needs, or choose another destination",
        path.display()
    )]
    NoInodes {
        path: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error(
        "{path:?}: the name contains a line break, which the cleanup file cannot record; rename it in the revision"
    )]
    LineBreak { path: PathBuf },
    #[error(
        "permissions: this host has no user {name:?}; create it first, for example in BeforeInstall"
    )]
    UnknownUser { name: String },
    #[error(
        "permissions: this host has no group {name:?}; create it first, for example in BeforeInstall"
    )]
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
        "permissions: {} is a symbolic link, which permissions do not follow; name its target",
        object.display()
    )]
    PermissionOnLink { object: PathBuf },
    #[error(
        "permissions: {}: on the way to this file, {} is a symbolic link of {}; files that this Install does not bring get \
         permissions only without links. Write the path that is meant",
        object.display(),
        link.display(),
        user(*owner)
    )]
    PermissionThroughLink {
        object: PathBuf,
        link: PathBuf,
        owner: u32,
    },
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

/// The conflicts of a plan, up to the limit of the list.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    listed: Vec<Conflict>,
}

impl Conflicts {
    pub(super) fn push(&mut self, conflict: Conflict) {
        if !self.is_full() {
            self.listed.push(conflict);
        }
    }

    pub(super) fn push_once(&mut self, conflict: Conflict) {
        if !self.listed.contains(&conflict) {
            self.push(conflict);
        }
    }

    /// Whether the list is full, so that further search is of little use.
    pub(super) fn is_full(&self) -> bool {
        self.listed.len() >= MAX_CONFLICTS
    }

    /// Adds the deployment group that existing files belong to.
    pub(super) fn name_groups(&mut self, records: &Records) {
        let there = self
            .listed
            .iter_mut()
            .filter_map(|conflict| match conflict {
                Conflict::Exists { path, group } => Some((&*path, group)),
                _ => None,
            });
        let there: Vec<_> = there.collect();
        if !there.is_empty() {
            let wanted = there.iter().map(|(path, _)| path.to_path_buf()).collect();
            let mut groups = records::installed_by(records, &wanted);
            there
                .into_iter()
                .for_each(|(path, group)| *group = groups.remove(path));
        }
    }

    pub(super) fn into_listed(mut self) -> Vec<Conflict> {
        if self.is_full() {
            self.listed.push(Conflict::More);
        }
        self.listed
    }
}

impl Extend<Conflict> for Conflicts {
    fn extend<T: IntoIterator<Item = Conflict>>(&mut self, conflicts: T) {
        conflicts
            .into_iter()
            .for_each(|conflict| self.push(conflict));
    }
}

impl Conflict {
    /// The conflict of the path `written`, which leads through `stranger`.
    pub(super) fn stranger(paths: &Paths, written: PathId, stranger: Stranger) -> Self {
        let Stranger {
            link,
            owner,
            target,
            target_owner,
        } = stranger;
        let [path, link, target] = [written, link, target].map(|id| paths.path(id));
        Self::UnsafeLink {
            path,
            link,
            owner,
            target,
            target_owner,
        }
    }
}

/// The user's number, with the name if there is one.
fn user(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

fn installed_by(group: Option<&str>) -> String {
    group.map_or(String::new(), |group| {
        format!(", which the deployment group {group} has installed")
    })
}

fn behind(link: Option<&Path>) -> String {
    link.map_or(String::new(), |link| {
        format!(
            "; {} is a symbolic link, and links of a revision are not followed",
            link.display()
        )
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
