//! Whether the file systems that an Install writes to can take it: room for bytes and inodes, and not read-only.

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

/// What the journal and the records take for each change, in bytes: paths, three times over.
const RECORDED: u64 = 1024;

/// File systems whose files share what they have in common, so that a copy takes no room (`linux/magic.h`).
const SHARING: [u64; 3] = [0x9123_683E, 0x5846_5342, 0xCA45_1A4E];

/// One file system.
struct Place {
    /// The first folder that something comes into.
    folder: PathBuf,
    device: u64,
    /// Whether copies of the revision take no room but their inode's.
    shares: bool,
    bytes: u64,
    inodes: u64,
    free: StatVfs,
}

/// What was found out about room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Whether there is only room when what earlier Installs displaced is given up first.
    pub(super) only_without_superseded: bool,
}

/// Looks at every file system concerned; `superseded` are records that could be given up. A folder that cannot be looked
/// at is none of this module's business: whoever writes there finds out.
pub(super) fn look(
    decision: &Decision,
    revision: &Revision,
    records: &Records,
    superseded: &[PathBuf],
    paths: &Paths,
    conflicts: &mut Conflicts,
) -> Room {
    let mut places =
        Places { all: Vec::new(), known: HashMap::new(), archive: device(&revision.root).ok(), conflicts };
    let units = Units::of(&decision.planned, decision, paths);
    for unit in 0..units.len() {
        let members = units.members(unit).iter().map(|number| &decision.planned[*number as usize]);
        let folder = members.clone().next().and_then(|top| paths.parent(top.path));
        let Some(place) = folder.and_then(|folder| places.of(folder, paths)) else { continue };
        for planned in members {
            let size = match planned.kind {
                WantedKind::File => revision.object(planned.source).size,
                // It may take a block, or fit into the inode.
                WantedKind::Folder | WantedKind::Link => 1,
            };
            place.add(size, true);
        }
    }
    // Where something only goes, names change as well.
    for path in &decision.removed {
        if let Some(parent) = paths.parent(*path).filter(|parent| !decision.goes.contains(*parent)) {
            places.of(parent, paths);
        }
    }
    let changes = (decision.planned.len() + decision.removed.len()) as u64;
    if let Some(place) = records.journal.parent().and_then(|folder| places.at(folder)) {
        place.add(RECORDED * (changes + 64), false);
        place.inodes += 7;
    }
    let mut only_without_superseded = false;
    let Places { all, conflicts, .. } = places;
    for place in &all {
        let Some(conflict) = place.conflict(0, 0) else { continue };
        let (bytes, inodes) = given_up(superseded, place.device);
        match place.conflict(bytes, inodes) {
            None => only_without_superseded = true,
            Some(_) => conflicts.push(conflict),
        }
    }
    Room { only_without_superseded }
}

/// The file systems, by the folders that something comes into.
struct Places<'a> {
    all: Vec<Place>,
    /// The number of the place that a folder is in; `None` for one that cannot be looked at.
    known: HashMap<PathId, Option<usize>>,
    archive: Option<u64>,
    conflicts: &'a mut Conflicts,
}

impl Places<'_> {
    fn of(&mut self, folder: PathId, paths: &Paths) -> Option<&mut Place> {
        let number = match self.known.get(&folder) {
            Some(known) => (*known)?,
            None => {
                let found = self.look(&paths.path(folder));
                self.known.insert(folder, found);
                found?
            }
        };
        self.all.get_mut(number)
    }

    fn at(&mut self, folder: &Path) -> Option<&mut Place> {
        let number = self.look(folder)?;
        self.all.get_mut(number)
    }

    fn look(&mut self, folder: &Path) -> Option<usize> {
        let place = Place::of(folder, self.archive).ok()?;
        // A mount of its own may be read-only where the file system is not.
        if place.free.f_flag.contains(StatVfsMountFlags::RDONLY) {
            self.conflicts.push(Conflict::ReadOnly { path: folder.to_path_buf() });
        }
        let known = self.all.iter().position(|known| known.device == place.device);
        Some(known.unwrap_or_else(|| {
            self.all.push(place);
            self.all.len() - 1
        }))
    }
}

impl Place {
    fn of(path: &Path, archive: Option<u64>) -> io::Result<Self> {
        let folder = Folder::open(path)?;
        let device = rustix::fs::fstat(&folder)?.st_dev;
        let free = rustix::fs::fstatvfs(&folder)?;
        let kind = rustix::fs::fstatfs(&folder)?.f_type as u64 & 0xFFFF_FFFF;
        let shares = Some(device) == archive && SHARING.contains(&kind);
        Ok(Self { folder: path.to_path_buf(), device, shares, bytes: 0, inodes: 0, free })
    }

    /// Something of so many bytes comes there.
    fn add(&mut self, size: u64, is_copy: bool) {
        let block = self.free.f_frsize.max(1);
        let blocks = if is_copy && self.shares { 1 } else { size.div_ceil(block) };
        self.bytes = self.bytes.saturating_add(blocks.saturating_mul(block));
        self.inodes += 1;
    }

    /// Why it cannot take what comes, with this much more than it has.
    fn conflict(&self, more_bytes: u64, more_inodes: u64) -> Option<Conflict> {
        let root = rustix::process::geteuid().is_root();
        let free = &self.free;
        let (blocks, inodes) =
            if root { (free.f_bfree, free.f_ffree) } else { (free.f_bavail, free.f_favail) };
        let path = self.folder.clone();
        let bytes = blocks.saturating_mul(free.f_frsize).saturating_add(more_bytes);
        if self.bytes > bytes {
            return Some(Conflict::NoRoom { path, needed: self.bytes, free: bytes });
        }
        // Zero of all: the file system makes inodes as it needs them.
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

/// Bytes and inodes on a file system that are free when `superseded` are given up.
fn given_up(superseded: &[PathBuf], device: u64) -> (u64, u64) {
    let mut handles = Handles::default();
    let mut sum = (0, 0);
    for record in superseded {
        let Ok(Some(contents)) = journal::read(record) else { continue };
        for path in undo::displaced(&contents.begun, &contents.changes) {
            let Ok((folder, name)) = handles.parent(&path) else { continue };
            let count = |stat: &rustix::fs::Stat| {
                let is_folder = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
                if is_folder || stat.st_nlink == 1 {
                    sum.0 += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
                    sum.1 += 1;
                }
            };
            // What cannot be seen is not counted.
            let _ = folder.each_below(name, device, count);
        }
    }
    sum
}
