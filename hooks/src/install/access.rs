//! The access to a file: owner, mode, POSIX access control lists, SELinux rules; reads and applies
//! it.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::fs::{Folder, Readers};

pub(super) const ACCESS_ACL: &str = "system.posix_acl_access";
pub(super) const DEFAULT_ACL: &str = "system.posix_acl_default";

/// The attributes that an object gets; `None` leaves an attribute alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) owner: Option<Wish>,
    pub(super) group: Option<Wish>,
    pub(super) mode: Option<Wish>,
    pub(super) acl: Option<AclAttributes>,
}

/// An owner, a group or mode bits. A wish of the AppSpec must be granted. An attribute that a copy
/// merely keeps is given up without the right to set it, as `cp` does: the owner, the group, and
/// then the set-id bits, which would stand for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) value: u32,
    pub(super) must: bool,
}

/// Both lists in the kernel's form; `None` means that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct AclAttributes {
    pub(super) access: Option<Vec<u8>>,
    pub(super) default: Option<Vec<u8>>,
}

/// Accesses by number: most objects of a revision share one of a few.
#[derive(Debug, Default)]
pub(super) struct Accesses {
    all: Vec<Access>,
    numbers: HashMap<Access, u32>,
}

impl Accesses {
    pub(super) fn number(&mut self, access: Access) -> u32 {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(access).or_insert_with_key(|access| {
            self.all.push(access.clone());
            next
        })
    }

    pub(super) fn get(&self, number: u32) -> &Access {
        &self.all[number as usize]
    }
}

/// An SELinux rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    #[serde(default)]
    pub(super) user: Option<String>,
    /// Always absent: roles are rejected.
    #[serde(default)]
    pub(super) role: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) range: Option<String>,
}

/// The user or group of an entry, in the order and with the numbers of the kernel (acl(5),
/// `linux/posix_acl.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tag {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Other,
}

/// One entry with its names resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResolvedEntry {
    pub(super) default: bool,
    pub(super) tag: Tag,
    pub(super) perms: u8,
}

impl AclAttributes {
    /// Completes `entries` from a file's mode, as `setfacl --set` expects them: base entries, a
    /// mask where named entries need one, and the same for the default list if it has any entry.
    pub(super) fn complete(entries: &[ResolvedEntry], mode: u32) -> Self {
        let list = |default| {
            let given = entries.iter().filter(|entry| entry.default == default);
            let mut list: Vec<(Tag, u8)> = given.map(|entry| (entry.tag, entry.perms)).collect();
            let has = |list: &[(Tag, u8)], tag| list.iter().any(|(t, _)| *t == tag);
            for (tag, shift) in [(Tag::Owner, 6), (Tag::OwningGroup, 3), (Tag::Other, 0)] {
                if !has(&list, tag) {
                    list.push((tag, (mode >> shift & 0o7) as u8));
                }
            }
            let named = list
                .iter()
                .any(|(tag, _)| matches!(tag, Tag::User(_) | Tag::Group(_)));
            if named && !has(&list, Tag::Mask) {
                let group = list.iter().find(|(tag, _)| *tag == Tag::OwningGroup);
                list.push((Tag::Mask, group.map_or(0, |(_, perms)| *perms)));
            }
            list.sort_unstable();
            encode(&list)
        };
        let has_default = entries.iter().any(|entry| entry.default);
        Self {
            access: Some(list(false)),
            default: has_default.then(|| list(true)),
        }
    }
}

/// Returns the mode of an object with this mode and this access list, in the kernel's form, and
/// whether the list says more than the mode. If it does not, the kernel does not store it.
fn combine(list: &[u8], mode: u32) -> (u32, bool) {
    let (mut class, mut masked, mut more) = ([0; 3], None, false);
    for entry in list.get(4..).unwrap_or_default().chunks_exact(8) {
        let perms = u32::from(entry[2]);
        match entry[0] {
            0x01 => class[0] = perms,
            0x04 => class[1] = perms,
            0x10 => (masked, more) = (Some(perms), true),
            0x20 => class[2] = perms,
            _ => more = true,
        }
    }
    let [owner, group, others] = class;
    let group = masked.unwrap_or(group);
    (mode & 0o7000 | owner << 6 | group << 3 | others, more)
}

fn encode(list: &[(Tag, u8)]) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, perms) in list {
        let (number, id): (u16, u32) = match tag {
            Tag::Owner => (0x01, NOBODY),
            Tag::User(id) => (0x02, *id),
            Tag::OwningGroup => (0x04, NOBODY),
            Tag::Group(id) => (0x08, *id),
            Tag::Mask => (0x10, NOBODY),
            Tag::Other => (0x20, NOBODY),
        };
        bytes.extend(number.to_le_bytes());
        bytes.extend(u16::from(*perms).to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

impl Access {
    /// The access of a record of Installs.
    pub(super) fn of_record(readers: &Readers) -> Self {
        Self {
            owner: readers.owner.map(|(uid, _)| Wish::kept(uid)),
            group: readers.owner.map(|(_, gid)| Wish::kept(gid)),
            mode: Some(Wish::asked(readers.mode)),
            acl: None,
        }
    }

    /// Reads the current access of an open file, so that it can be restored.
    pub(super) fn read(file: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        Ok(Self {
            owner: Some(Wish::asked(stat.st_uid)),
            group: Some(Wish::asked(stat.st_gid)),
            mode: Some(Wish::asked(stat.st_mode & 0o7777)),
            acl: Some(AclAttributes {
                access: attribute(&file, ACCESS_ACL)?,
                default: attribute(&file, DEFAULT_ACL)?,
            }),
        })
    }

    /// The exact access of an object that has no default list and was given this access; `mode`
    /// is its mode if this access has none.
    pub(super) fn exactly(&self, mode: u32, owner: (u32, u32)) -> Self {
        let mode = self.mode.map_or(mode, |mode| mode.value);
        let list = self.acl.as_ref().and_then(|acl| acl.access.as_deref());
        let (mode, more) = list.map_or((mode, false), |list| combine(list, mode));
        Self {
            owner: Some(Wish::asked(self.owner.map_or(owner.0, |wish| wish.value))),
            group: Some(Wish::asked(self.group.map_or(owner.1, |wish| wish.value))),
            mode: Some(Wish::asked(mode)),
            acl: Some(AclAttributes {
                access: list.filter(|_| more).map(<[u8]>::to_vec),
                default: None,
            }),
        }
    }

    /// Applies the access to an open file or folder. Owner and group come first, because changing
    /// them clears set-id bits.
    pub(super) fn apply(&self, file: impl AsFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(&file)?;
        let change = |owner, group| rustix::fs::fchown(&file, owner, group);
        let kept = self.change_owner(stat.st_uid, stat.st_gid, change)?;
        if let Some(mode) = self.mode {
            let mode = if kept || mode.must {
                mode.value
            } else {
                mode.value & !0o6000
            };
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        }
        if let Some(acl) = &self.acl {
            set_attribute(&file, ACCESS_ACL, acl.access.as_deref())?;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
                set_attribute(&file, DEFAULT_ACL, acl.default.as_deref())?;
            }
        }
        Ok(())
    }

    /// Applies the access to a link itself, which has only an owner and a group.
    pub(super) fn apply_to_link(&self, folder: &Folder, name: &std::ffi::OsStr) -> io::Result<()> {
        let Some(stat) = folder.stat(name)? else {
            return Err(Errno::NOENT.into());
        };
        let change = |owner, group| {
            rustix::fs::chownat(folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)
        };
        self.change_owner(stat.st_uid, stat.st_gid, change)
            .map(drop)
    }

    /// Sets owner and group; returns whether they are now as wished.
    fn change_owner(
        &self,
        uid: u32,
        gid: u32,
        change: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> io::Result<bool> {
        let mut kept = true;
        // The group comes first: after giving a file away, this process may no longer change it.
        if let Some(wish) = self.group.filter(|wish| wish.value != gid) {
            kept &= wish.granted(change(None, Some(Gid::from_raw(wish.value))))?;
        }
        if let Some(wish) = self.owner.filter(|wish| wish.value != uid) {
            kept &= wish.granted(change(Some(Uid::from_raw(wish.value)), None))?;
        }
        Ok(kept)
    }
}

impl Wish {
    pub(super) fn asked(value: u32) -> Self {
        Self { value, must: true }
    }

    pub(super) fn kept(value: u32) -> Self {
        Self { value, must: false }
    }

    fn granted(self, result: Result<(), Errno>) -> io::Result<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::INVAL) if !self.must => Ok(false),
            Err(Errno::PERM) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "giving it to id {} needs root; run as root, or remove owner and group",
                    self.value
                ),
            )),
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn attribute(file: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 64 * 1024];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn set_attribute(file: impl AsFd, name: &str, value: Option<&[u8]>) -> io::Result<()> {
    match value {
        Some(value) => Ok(rustix::fs::fsetxattr(
            file,
            name,
            value,
            XattrFlags::empty(),
        )?),
        None => match rustix::fs::fremovexattr(file, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        },
    }
}

/// The mode of a new folder under this process's umask.
pub(super) fn folder_mode() -> u32 {
    // Reading it with umask(2) would change it for other threads.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
    0o777 & !umask.unwrap_or(0o022)
}

/// Whether this host has the tools that [`add_context`] needs.
pub(super) fn has_selinux_tools() -> bool {
    tool("semanage").is_some() && tool("restorecon").is_some()
}

/// Adds an SELinux rule for `path` and labels the files accordingly.
pub(super) fn add_context(path: &Path, context: &Context) -> io::Result<()> {
    let mut arguments = vec!["fcontext", "-a"];
    if let Some(user) = &context.user {
        arguments.extend(["-s", user]);
    }
    arguments.extend(["-t", &context.kind]);
    if let Some(range) = &context.range {
        arguments.extend(["-r", range]);
    }
    run("semanage", &arguments, path).or_else(|error| {
        // A rule may exist already.
        arguments[1] = "-m";
        run("semanage", &arguments, path).map_err(|_| error)
    })?;
    run("restorecon", &["-v"], path)
}

/// Removes the SELinux rule for `path`; labels stay.
pub(super) fn remove_context(path: &Path) -> io::Result<()> {
    run("semanage", &["fcontext", "-d"], path)
}

fn tool(name: &str) -> Option<std::path::PathBuf> {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

#[allow(
    clippy::disallowed_methods,
    reason = "short-lived tools of the system, not hook scripts"
)]
fn run(name: &str, arguments: &[&str], path: &Path) -> io::Result<()> {
    let Some(program) = tool(name) else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{name} is not installed"),
        ));
    };
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{name} {} {} ended with {}: {}",
        arguments.join(" "),
        path.display(),
        output.status,
        said.trim()
    )))
}

/// The times of an object, for restoring them.
pub(super) fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
