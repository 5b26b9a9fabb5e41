//! Checks that the file systems of an Install can take it: free bytes and inodes, and not
//! read-only.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags};

use super::conflict::{Conflict, Conflicts};
use super::decision::Decision;
use super::journal;
use super::layout::WantedKind;
use super::paths::{PathId, Paths};
use super::records::Records;
use super::schedule::Units;
use super::snapshot::Revision;
use super::undo;
use crate::fs::{Folder, Handles};

/// The size in bytes of the journal and record entries for each change: its paths, three times.
const RECORDED: u64 = 1024;

/// File systems whose copies share their data, so that a copy takes no room (`linux/magic.h`).
const SHARING: [u64; 3] = [0x9123_683E, 0x5846_5342, 0xCA45_1A4E];

/// One file system.
struct FileSystem {
    /// The first folder that gets something.
    folder: PathBuf,
    device: u64,
    /// Whether copies of the revision need only an inode.
    shares: bool,
    bytes: u64,
    inodes: u64,
    free: StatVfs,
}

/// The result of the check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Whether there is room only after the objects that earlier Installs displaced are given up.
    pub(super) only_without_superseded: bool,
}

/// Examines every affected file system; `superseded` are records that could be given up. A folder
/// that cannot be examined is skipped: writing there reports the error.
pub(super) fn look(
    decision: &Decision,
    revision: &Revision,
    records: &Records,
    superseded: &[PathBuf],
    paths: &Paths,
    conflicts: &mut Conflicts,
) -> Room {
    let mut file_systems = FileSystems {
        all: Vec::new(),
        known: HashMap::new(),
        archive: device(&revision.root).ok(),
        conflicts,
    };
    let units = Units::of(&decision.planned, decision, paths);
    for unit in 0..units.len() {
        let members = units
            .members(unit)
            .iter()
            .map(|number| &decision.planned[*number as usize]);
        let folder = members
            .clone()
            .next()
            .and_then(|top| paths.parent(top.path));
        let Some(file_system) = folder.and_then(|folder| file_systems.of(folder, paths)) else {
            continue;
        };
        for planned in members {
            let size = match planned.kind {
                WantedKind::File => revision.object(planned.source).size,
                // It may take a block, or fit into the inode.
                WantedKind::Folder | WantedKind::Link => 1,
            };
            file_system.add(size, true);
        }
    }
    // A removal changes names, too.
    for path in &decision.removed {
        if let Some(parent) = paths
            .parent(*path)
            .filter(|parent| !decision.goes.contains(*parent))
        {
            file_systems.of(parent, paths);
        }
    }
    // A new time is written, too.
    for (number, verified) in &decision.stays {
        let folder = paths.parent(decision.planned[*number as usize].path);
        if let Some(folder) = folder.filter(|_| verified.modified().is_some()) {
            file_systems.of(folder, paths);
        }
    }
    let changes = (decision.planned.len() + decision.removed.len()) as u64;
    if let Some(file_system) = records
        .journal
        .parent()
        .and_then(|folder| file_systems.at(folder))
    {
        file_system.add(RECORDED * (changes + 64), false);
        file_system.inodes += 7;
    }
    let mut only_without_superseded = false;
    let FileSystems { all, conflicts, .. } = file_systems;
    for file_system in &all {
        let Some(conflict) = file_system.conflict(0, 0) else {
            continue;
        };
        let (bytes, inodes) = given_up(superseded, file_system.device);
        match file_system.conflict(bytes, inodes) {
            None => only_without_superseded = true,
            Some(_) => conflicts.push(conflict),
        }
    }
    Room {
        only_without_superseded,
    }
}

/// The file systems, by the folders that get something.
struct FileSystems<'a> {
    all: Vec<FileSystem>,
    /// The number of each folder's file system; `None` for a folder that cannot be examined.
    known: HashMap<PathId, Option<usize>>,
    archive: Option<u64>,
    conflicts: &'a mut Conflicts,
}

impl FileSystems<'_> {
    fn of(&mut self, folder: PathId, paths: &Paths) -> Option<&mut FileSystem> {
        let known = self.known.get(&folder).copied();
        let found = known.unwrap_or_else(|| self.look(&paths.path(folder)));
        self.known.insert(folder, found);
        self.all.get_mut(found?)
    }

    fn at(&mut self, folder: &Path) -> Option<&mut FileSystem> {
        let number = self.look(folder)?;
        self.all.get_mut(number)
    }

    fn look(&mut self, folder: &Path) -> Option<usize> {
        let file_system = FileSystem::of(folder, self.archive).ok()?;
        // A mount may be read-only where the file system is not.
        if file_system.free.f_flag.contains(StatVfsMountFlags::RDONLY) {
            self.conflicts.push(Conflict::ReadOnly {
                path: folder.to_path_buf(),
            });
        }
        let known = self
            .all
            .iter()
            .position(|known| known.device == file_system.device);
        Some(known.unwrap_or_else(|| {
            self.all.push(file_system);
            self.all.len() - 1
        }))
    }
}

impl FileSystem {
    fn of(path: &Path, archive: Option<u64>) -> io::Result<Self> {
        let folder = Folder::open(path)?;
        let device = rustix::fs::fstat(&folder)?.st_dev;
        let free = rustix::fs::fstatvfs(&folder)?;
        let kind = rustix::fs::fstatfs(&folder)?.f_type as u64 & 0xFFFF_FFFF;
        let shares = Some(device) == archive && SHARING.contains(&kind);
        Ok(Self {
            folder: path.to_path_buf(),
            device,
            shares,
            bytes: 0,
            inodes: 0,
            free,
        })
    }

    /// Adds an object of this size.
    fn add(&mut self, size: u64, is_copy: bool) {
        let block = self.free.f_frsize.max(1);
        let blocks = if is_copy && self.shares {
            1
        } else {
            size.div_ceil(block)
        };
        self.bytes = self.bytes.saturating_add(blocks.saturating_mul(block));
        self.inodes += 1;
    }

    /// The conflict if it cannot take the new objects, with this much more room than it has.
    fn conflict(&self, more_bytes: u64, more_inodes: u64) -> Option<Conflict> {
        let root = rustix::process::geteuid().is_root();
        let free = &self.free;
        let (blocks, inodes) = if root {
            (free.f_bfree, free.f_ffree)
        } else {
            (free.f_bavail, free.f_favail)
        };
        let path = self.folder.clone();
        let bytes = blocks
            .saturating_mul(free.f_frsize)
            .saturating_add(more_bytes);
        if self.bytes > bytes {
            return Some(Conflict::NoRoom {
                path,
                needed: self.bytes,
                free: bytes,
            });
        }
        // All zeros: the file system makes inodes on demand.
        let inodes = inodes.saturating_add(more_inodes);
        (free.f_files > 0 && self.inodes > inodes).then_some(Conflict::NoInodes {
            path,
            needed: self.inodes,
            free: inodes,
        })
    }
}

fn device(folder: &Path) -> io::Result<u64> {
    Ok(rustix::fs::fstat(&Folder::open(folder)?)?.st_dev)
}

/// Bytes and inodes on a file system that become free when `superseded` are given up.
fn given_up(superseded: &[PathBuf], device: u64) -> (u64, u64) {
    let mut handles = Handles::default();
    let mut sum = (0, 0);
    for record in superseded {
        let Ok(Some(contents)) = journal::read(record) else {
            continue;
        };
        let add = |path: PathBuf| {
            let Ok((folder, name)) = handles.parent(&path) else {
                return;
            };
            let count = |stat: &rustix::fs::Stat| {
                let is_folder = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
                if is_folder || stat.st_nlink == 1 {
                    sum.0 += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
                    sum.1 += 1;
                }
            };
            // Unreadable content is not counted.
            let _ = folder.each_below(name, device, count);
        };
        // Unreadable files are not counted either.
        let _ = undo::each_displaced(&contents.begun, &contents.changes, add);
    }
    sum
}
