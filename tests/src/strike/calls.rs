//! The system calls that change files, the file that each names, and the errors with which each can
//! fail.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The arguments of a call that name the changed file.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// An open file.
    File(usize),
    /// A path.
    #[cfg(target_arch = "x86_64")]
    Path(usize),
    /// A folder, and behind it a path below.
    Below(usize),
    /// The same, if the flags behind them create or truncate a file.
    Creates(usize),
    /// The same, with the flags in a structure.
    CreatesHow(usize),
    /// A path of an extended attribute's call.
    Attribute(usize),
}

const CALLS: &[(libc::c_long, &str, Names)] = &[
    (libc::SYS_copy_file_range, "copy_file_range", Names::File(2)),
    (libc::SYS_fallocate, "fallocate", Names::File(0)),
    (libc::SYS_fchmod, "fchmod", Names::File(0)),
    (libc::SYS_fchmodat, "fchmodat", Names::Below(0)),
    (libc::SYS_fchown, "fchown", Names::File(0)),
    (libc::SYS_fchownat, "fchownat", Names::Below(0)),
    (libc::SYS_fdatasync, "fdatasync", Names::File(0)),
    (libc::SYS_fremovexattr, "fremovexattr", Names::File(0)),
    (libc::SYS_fsetxattr, "fsetxattr", Names::File(0)),
    (libc::SYS_fsync, "fsync", Names::File(0)),
    (libc::SYS_ftruncate, "ftruncate", Names::File(0)),
    (libc::SYS_linkat, "linkat", Names::Below(2)),
    (libc::SYS_lremovexattr, "lremovexattr", Names::Attribute(0)),
    (libc::SYS_lsetxattr, "lsetxattr", Names::Attribute(0)),
    (libc::SYS_mkdirat, "mkdirat", Names::Below(0)),
    (libc::SYS_openat, "openat", Names::Creates(0)),
    (libc::SYS_openat2, "openat2", Names::CreatesHow(0)),
    (libc::SYS_pwrite64, "pwrite64", Names::File(0)),
    (libc::SYS_removexattr, "removexattr", Names::Attribute(0)),
    (libc::SYS_renameat2, "renameat2", Names::Below(2)),
    (libc::SYS_renameat, "renameat", Names::Below(2)),
    (libc::SYS_sendfile, "sendfile", Names::File(0)),
    (libc::SYS_setxattr, "setxattr", Names::Attribute(0)),
    (libc::SYS_symlinkat, "symlinkat", Names::Below(1)),
    (libc::SYS_syncfs, "syncfs", Names::File(0)),
    (libc::SYS_unlinkat, "unlinkat", Names::Below(0)),
    (libc::SYS_utimensat, "utimensat", Names::Below(0)),
    (libc::SYS_write, "write", Names::File(0)),
    (libc::SYS_writev, "writev", Names::File(0)),
];

/// System calls that newer architectures no longer have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(libc::c_long, &str, Names)] = &[
    (libc::SYS_chmod, "chmod", Names::Path(0)),
    (libc::SYS_chown, "chown", Names::Path(0)),
    (libc::SYS_lchown, "lchown", Names::Path(0)),
    (libc::SYS_link, "link", Names::Path(1)),
    (libc::SYS_mkdir, "mkdir", Names::Path(0)),
    (libc::SYS_rename, "rename", Names::Path(1)),
    (libc::SYS_rmdir, "rmdir", Names::Path(0)),
    (libc::SYS_symlink, "symlink", Names::Path(1)),
    (libc::SYS_unlink, "unlink", Names::Path(0)),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(libc::c_long, &str, Names)] = &[];

/// The call that a stopped thread is about to make.
pub(super) struct Stopped<'a> {
    /// Below /proc.
    pub(super) folder: &'a Path,
    pub(super) number: u64,
    pub(super) arguments: [u64; 6],
}

impl Stopped<'_> {
    /// Returns the name and the path of the call, if it changes a file.
    pub(super) fn changes(&self) -> Option<(&'static str, String)> {
        let mut known = CALLS.iter().chain(OLD_CALLS);
        let (_, name, names) =
            known.find(|(number, ..)| u64::try_from(*number) == Ok(self.number))?;
        let path = match *names {
            // Pipes, sockets and the like are not files.
            Names::File(at) => self.open_file(at),
            #[cfg(target_arch = "x86_64")]
            Names::Path(at) => Some(self.text(at)),
            Names::Attribute(at) => Some(self.text(at)),
            Names::Below(at) => Some(self.below(at)),
            Names::Creates(at) => creating(self.arguments[at + 2]).then(|| self.below(at)),
            Names::CreatesHow(at) => {
                let flags = self.read(self.arguments[at + 2], 8);
                let flags = flags.try_into().map_or(0, u64::from_ne_bytes);
                creating(flags).then(|| self.below(at))
            }
        };
        Some((name, path?.display().to_string()))
    }

    fn file(&self, at: usize) -> Option<PathBuf> {
        std::fs::read_link(self.descriptor(at)).ok()
    }

    fn open_file(&self, at: usize) -> Option<PathBuf> {
        let kind = std::fs::metadata(self.descriptor(at)).ok()?.file_type();
        if kind.is_file() || kind.is_dir() {
            self.file(at)
        } else {
            None
        }
    }

    fn descriptor(&self, at: usize) -> PathBuf {
        self.folder.join(format!("fd/{}", self.arguments[at]))
    }

    fn text(&self, at: usize) -> PathBuf {
        let mut text = self.read(self.arguments[at], 4096);
        text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(0));
        String::from_utf8_lossy(&text).into_owned().into()
    }

    fn below(&self, at: usize) -> PathBuf {
        self.file(at).unwrap_or_default().join(self.text(at + 1))
    }

    /// Up to `length` bytes of the thread's memory.
    fn read(&self, address: u64, length: usize) -> Vec<u8> {
        use std::os::unix::fs::FileExt as _;
        let Ok(memory) = std::fs::File::open(self.folder.join("mem")) else {
            return Vec::new();
        };
        let mut bytes = vec![0; length];
        // The next page may not exist.
        let page = 4096 - usize::try_from(address % 4096).unwrap_or(0);
        let first = page.min(length);
        let mut read = memory.read_at(&mut bytes[..first], address).unwrap_or(0);
        if read == first && !bytes[..read].contains(&0) {
            read += memory
                .read_at(&mut bytes[first..], address + first as u64)
                .unwrap_or(0);
        }
        bytes.truncate(read);
        bytes
    }
}

fn creating(flags: u64) -> bool {
    flags & u64::try_from(libc::O_CREAT | libc::O_TRUNC).unwrap_or(0) != 0
}

/// Whether a host could return this error for this call.
pub(super) fn can_fail(name: &str, errno: Errno) -> bool {
    let opens = name.starts_with("openat");
    let takes_space = || {
        let frees = [
            "unlink",
            "rmdir",
            "remove",
            "chmod",
            "chown",
            "fchmod",
            "fchown",
            "utimensat",
        ];
        !frees.iter().any(|free| name.contains(free))
    };
    let is_sync = ["fsync", "fdatasync", "syncfs"].contains(&name);
    match errno {
        Errno::EMFILE => opens,
        Errno::ENOSPC | Errno::EDQUOT => takes_space(),
        // For open files, these checks have already passed.
        Errno::EACCES => {
            !is_sync
                && ![
                    "write",
                    "writev",
                    "pwrite64",
                    "copy_file_range",
                    "ftruncate",
                ]
                .contains(&name)
        }
        Errno::EROFS => !is_sync,
        _ => true,
    }
}
