//! Opens a path beneath a folder. No name and no link on the way can lead out of the folder, even
//! if somebody changes the tree at the same time.
//!
//! The kernel does it in one call, openat2, from Linux 5.6 on. Without that call, [`step_by_step`]
//! resolves one name after the other, with the same results.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The treatment of symbolic links on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Links are followed if their targets are beneath the folder.
    Followed,
    /// The first link is an error.
    Rejected,
}

/// The number of links that one path may follow, as in the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// A handle that only names an object: opening it needs no permission for the object and never
/// blocks.
const NAMED: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens the relative `path` beneath `folder`; an empty path is the folder itself. With
/// [`OFlags::NOFOLLOW`], a link as the last name is not followed.
///
/// # Errors
///
/// `XDEV` if the path is absolute, or a link or `..` leads out of the folder; `LOOP` for a rejected
/// link and for too many links; those of open(2).
pub fn open_beneath(
    folder: impl AsFd,
    path: &Path,
    flags: OFlags,
    links: Links,
) -> Result<OwnedFd, Errno> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let resolve = match links {
        Links::Followed => beneath,
        Links::Rejected => beneath | ResolveFlags::NO_SYMLINKS,
    };
    let flags = flags | OFlags::CLOEXEC;
    match rustix::fs::openat2(&folder, or_itself(path), flags, Mode::empty(), resolve) {
        // NOSYS: before Linux 5.6. PERM: containers that forbid unknown system calls. AGAIN: a
        // rename on the host at the same time made the kernel unsure about a `..`.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => step_by_step(folder, path, flags, links),
        opened => opened,
    }
}

/// The path, or the folder itself if it is empty.
fn or_itself(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// Does the same with one call for each name.
pub(super) fn step_by_step(
    folder: impl AsFd,
    path: &Path,
    flags: OFlags,
    links: Links,
) -> Result<OwnedFd, Errno> {
    let mut walk = Walk::begin(folder, path)?;
    let mut followed = 0;
    while let Some((name, is_last)) = walk.next_name() {
        let name = name.as_os_str();
        if name.is_empty() || name == "." {
            continue;
        }
        if name == ".." {
            walk.leave()?;
            continue;
        }
        // Asking for a folder first also mounts file systems that are mounted on demand.
        let opened = match walk.open(name, NAMED | OFlags::NOFOLLOW | OFlags::DIRECTORY) {
            Err(Errno::NOTDIR | Errno::LOOP) => walk.open(name, NAMED | OFlags::NOFOLLOW)?,
            opened => opened?,
        };
        let stat = rustix::fs::fstat(&opened)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let follows = kind.is_symlink() && !(is_last && flags.contains(OFlags::NOFOLLOW));
        if follows {
            followed += 1;
            if links == Links::Rejected || followed > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&opened, "", Vec::new())?;
            walk.follow(target.to_bytes())?;
        } else if kind.is_dir() {
            walk.enter(opened, &stat);
        } else if is_last {
            return walk.open_last(opened, name, kind, flags);
        } else {
            return Err(Errno::NOTDIR);
        }
    }
    if flags.contains(OFlags::PATH) {
        return Ok(walk.here);
    }
    walk.open(OsStr::new("."), flags)
}

/// The position of a walk from folder to folder.
struct Walk {
    here: OwnedFd,
    /// The folders from the first one to `here`, by device and inode.
    way: Vec<(u64, u64)>,
    /// The names that are left, the next one last.
    left: Vec<OsString>,
}

impl Walk {
    fn begin(folder: impl AsFd, path: &Path) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&folder)?;
        let mut walk = Self {
            here: rustix::io::fcntl_dupfd_cloexec(folder, 0)?,
            way: vec![(stat.st_dev, stat.st_ino)],
            left: Vec::new(),
        };
        walk.follow(or_itself(path).as_os_str().as_bytes())?;
        Ok(walk)
    }

    /// Continues with the names of `path`, and with the others after them.
    fn follow(&mut self, path: &[u8]) -> Result<(), Errno> {
        match path.first() {
            None => return Err(Errno::NOENT),
            Some(b'/') => return Err(Errno::XDEV),
            Some(_) => {}
        }
        let names = path.rsplit(|byte| *byte == b'/');
        self.left
            .extend(names.map(|name| OsString::from_vec(name.to_vec())));
        Ok(())
    }

    /// Returns the next name, and whether it is the last one. A slash at the end of a path is
    /// followed by an empty name.
    fn next_name(&mut self) -> Option<(OsString, bool)> {
        let name = self.left.pop()?;
        Some((name, self.left.is_empty()))
    }

    fn open(&self, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.here, name, flags, Mode::empty())
    }

    fn enter(&mut self, folder: OwnedFd, stat: &Stat) {
        self.here = folder;
        self.way.push((stat.st_dev, stat.st_ino));
    }

    /// Goes back to the folder around. It must be the one that the walk came through: somebody may
    /// have moved the folder.
    fn leave(&mut self) -> Result<(), Errno> {
        self.way.pop();
        let expected = self.way.last().ok_or(Errno::XDEV)?;
        let around = self.open(OsStr::new(".."), NAMED | OFlags::DIRECTORY)?;
        let stat = rustix::fs::fstat(&around)?;
        if (stat.st_dev, stat.st_ino) != *expected {
            return Err(Errno::XDEV);
        }
        self.here = around;
        Ok(())
    }

    /// Opens the last name, which is no folder.
    fn open_last(
        &self,
        named: OwnedFd,
        name: &OsStr,
        kind: FileType,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        if flags.contains(OFlags::DIRECTORY) {
            Err(Errno::NOTDIR)
        } else if flags.contains(OFlags::PATH) {
            Ok(named)
        } else if kind.is_symlink() {
            Err(Errno::LOOP)
        } else {
            // If the name belongs to another object by now, that one is beneath the folder, too.
            self.open(name, flags | OFlags::NOFOLLOW)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    /// A path of a few names that may or may not exist, with every way to write one.
    fn path() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            6 => prop::sample::select(vec!["a", "b", "c", "d"]),
            2 => Just(".."),
            1 => Just("."),
            1 => Just(""),
        ];
        (
            prop::collection::vec(name, 1..6),
            prop::bool::weighted(0.05),
        )
            .prop_map(|(names, absolute)| {
                let path = names.join("/");
                if absolute { format!("/{path}") } else { path }
            })
    }

    #[derive(Debug, Clone)]
    enum Object {
        Folder,
        File,
        Link(String),
    }

    fn object() -> impl Strategy<Value = Object> {
        prop_oneof![
            3 => Just(Object::Folder),
            1 => Just(Object::File),
            3 => path().prop_map(Object::Link),
        ]
    }

    /// Makes what can be made; later objects may lie behind earlier links.
    fn make(root: &Path, objects: &[(String, Object)]) {
        for (path, object) in objects {
            let Ok(Walk { here, .. }) = step_by_step_to_parent(root, path) else {
                continue;
            };
            let name = path.rsplit('/').next().unwrap_or_default();
            let _ = match object {
                Object::Folder => rustix::fs::mkdirat(&here, name, Mode::RWXU),
                Object::File => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
                    rustix::fs::openat(&here, name, flags, Mode::RWXU).map(drop)
                }
                Object::Link(target) => rustix::fs::symlinkat(target, &here, name),
            };
        }
    }

    /// The folder in which the last name of `path` is made.
    fn step_by_step_to_parent(root: &Path, path: &str) -> Result<Walk, Errno> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let folder = rustix::fs::open(root, NAMED | OFlags::DIRECTORY, Mode::empty())?;
        let flags = NAMED | OFlags::DIRECTORY;
        Walk::begin(
            step_by_step(folder, Path::new(parent), flags, Links::Followed)?,
            Path::new(""),
        )
    }

    /// The object that was opened, or the error.
    fn found(opened: Result<OwnedFd, Errno>) -> Result<(u64, u64), Errno> {
        let stat = rustix::fs::fstat(opened?)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    const FLAGS: [OFlags; 4] = [
        NAMED,
        NAMED.union(OFlags::NOFOLLOW),
        OFlags::RDONLY.union(OFlags::DIRECTORY),
        OFlags::RDONLY
            .union(OFlags::DIRECTORY)
            .union(OFlags::NOFOLLOW),
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn one_name_after_the_other_leads_where_the_kernel_does(
            objects in prop::collection::vec((path(), object()), 1..12),
            paths in prop::collection::vec(path(), 30),
        ) {
            let temporary = tempfile::tempdir().unwrap();
            let root = temporary.path().join("a/b");
            std::fs::create_dir_all(&root).unwrap();
            make(&root, &objects);
            let folder = rustix::fs::open(&root, NAMED | OFlags::DIRECTORY, Mode::empty()).unwrap();
            for path in &paths {
                for flags in FLAGS {
                    for links in [Links::Followed, Links::Rejected] {
                        let path = Path::new(path);
                        prop_assert_eq!(
                            found(step_by_step(&folder, path, flags, links)),
                            found(open_beneath(&folder, path, flags, links)),
                            "{:?} {:?} {:?}", path, flags, links
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_chain_of_links_ends_where_the_kernel_ends_it() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        std::fs::create_dir(root.join("0")).unwrap();
        for number in 0..50 {
            symlink(number.to_string(), root.join((number + 1).to_string())).unwrap();
        }
        symlink("itself", root.join("itself")).unwrap();
        let folder = rustix::fs::open(root, NAMED, Mode::empty()).unwrap();
        let open = |path: &str| step_by_step(&folder, path.as_ref(), NAMED, Links::Followed);
        open("40").unwrap();
        assert_eq!(open("41").unwrap_err(), Errno::LOOP);
        assert_eq!(open("itself").unwrap_err(), Errno::LOOP);
        for path in ["40", "41", "itself"] {
            let kernel = open_beneath(&folder, path.as_ref(), NAMED, Links::Followed);
            assert_eq!(found(open(path)), found(kernel), "{path}");
        }
    }

    #[test]
    fn a_folder_that_moves_away_does_not_take_the_walk_along() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |path: &str| temporary.path().join(path);
        std::fs::create_dir_all(at("root/a/b")).unwrap();
        std::fs::create_dir_all(at("outside")).unwrap();
        let root = rustix::fs::open(at("root"), NAMED, Mode::empty()).unwrap();
        let mut walk = Walk::begin(&root, Path::new("")).unwrap();
        for name in ["a", "b"] {
            let folder = walk.open(name.as_ref(), NAMED).unwrap();
            let stat = rustix::fs::fstat(&folder).unwrap();
            walk.enter(folder, &stat);
        }
        std::fs::rename(at("root/a/b"), at("outside/b")).unwrap();
        assert_eq!(walk.leave().unwrap_err(), Errno::XDEV);
    }
}
