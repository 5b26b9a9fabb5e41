//! Whether the file systems that an Install writes to can take it: room for bytes and inodes, and not read-only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags};

use super::conflict::Conflict;
use super::journal;
use super::layout::WantedKind;
use super::plan::Decision;
use super::records::Records;
use super::snapshot::Revision;
use super::undo;
use crate::fs::{Folder, Handles};

/// What the journal and the records take for each change, in bytes: paths, three times over.
const RECORDED: u64 = 1024;

/// File systems whose files share what they have in common, so that a copy takes no room (`linux/magic.h`).
const SHARING: [u64; 3] = [0x9123_683E, 0x5846_5342, 0xCA45_1A4E];

/// What comes into a folder, as the revision has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Need {
    objects: u64,
    /// Sizes of files; each takes whole blocks.
    sizes: Vec<u64>,
    /// Whether the files are copies of the revision.
    copies: bool,
}

/// One file system.
struct Place {
    /// The first folder that something comes into.
    folder: PathBuf,
    device: u64,
    bytes: u64,
    inodes: u64,
    free: StatVfs,
}

/// What was found out about room.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) conflicts: Vec<Conflict>,
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
) -> Room {
    let mut room = Room::default();
    let archive = device(&revision.root).ok();
    let mut places: Vec<Place> = Vec::new();
    for (folder, need) in needs(decision, revision, records) {
        let Ok(place) = Place::of(&folder, &need, archive) else { continue };
        // A mount of its own may be read-only where the file system is not.
        if place.free.f_flag.contains(StatVfsMountFlags::RDONLY) {
            room.conflicts.push(Conflict::ReadOnly { path: folder });
        }
        match places.iter_mut().find(|known| known.device == place.device) {
            Some(known) => {
                known.bytes += place.bytes;
                known.inodes += place.inodes;
            }
            None => places.push(place),
        }
    }
    for place in &places {
        let Some(conflict) = place.conflict(0, 0) else { continue };
        let (bytes, inodes) = given_up(superseded, place.device);
        match place.conflict(bytes, inodes) {
            None => room.only_without_superseded = true,
            Some(_) => room.conflicts.push(conflict),
        }
    }
    room
}

/// What comes into each existing folder. Pure.
fn needs(decision: &Decision, revision: &Revision, records: &Records) -> BTreeMap<PathBuf, Need> {
    let mut needs: BTreeMap<PathBuf, Need> = BTreeMap::new();
    let places: BTreeSet<&Path> = decision.planned.iter().map(|planned| planned.path.as_path()).collect();
    for planned in &decision.planned {
        let mut parents = planned.path.ancestors().skip(1);
        let Some(folder) = parents.find(|parent| !places.contains(parent)) else { continue };
        let need = needs.entry(folder.to_path_buf()).or_default();
        need.objects += 1;
        need.copies = true;
        need.sizes.push(match planned.kind {
            WantedKind::File => revision.objects.get(&planned.source).map_or(0, |object| object.size),
            // It may take a block, or fit into the inode.
            WantedKind::Folder | WantedKind::Link { .. } => 1,
        });
    }
    // Where something only goes, names change as well.
    for path in &decision.removed {
        if let Some(parent) = path.parent().filter(|parent| !decision.removed.contains(*parent)) {
            needs.entry(parent.to_path_buf()).or_default();
        }
    }
    if let Some(folder) = records.journal.parent() {
        let changes = decision.planned.len() + decision.removed.len();
        let own = Need { objects: 8, sizes: vec![RECORDED * (changes as u64 + 64)], copies: false };
        needs.insert(folder.to_path_buf(), own);
    }
    needs
}

impl Place {
    fn of(path: &Path, need: &Need, archive: Option<u64>) -> io::Result<Self> {
        let folder = Folder::open(path)?;
        let device = rustix::fs::fstat(&folder)?.st_dev;
        let free = rustix::fs::fstatvfs(&folder)?;
        let kind = rustix::fs::fstatfs(&folder)?.f_type as u64 & 0xFFFF_FFFF;
        let block = free.f_frsize.max(1);
        let bytes = match need.copies && Some(device) == archive && SHARING.contains(&kind) {
            true => need.objects * block,
            false => need.sizes.iter().map(|size| size.div_ceil(block) * block).sum(),
        };
        Ok(Self { folder: path.to_path_buf(), device, bytes, inodes: need.objects, free })
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
            if let Ok((folder, name)) = handles.parent(&path) {
                // What cannot be seen is not counted.
                let _ = add(&folder, name, device, &mut sum);
            }
        }
    }
    sum
}

fn add(folder: &Folder, name: &std::ffi::OsStr, device: u64, sum: &mut (u64, u64)) -> io::Result<()> {
    let Some(stat) = folder.stat(name)?.filter(|stat| stat.st_dev == device) else {
        return Ok(());
    };
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        let below = folder.folder(name)?;
        below.names()?.iter().try_for_each(|name| add(&below, name, device, sum))?;
    } else if stat.st_nlink > 1 {
        return Ok(());
    }
    sum.0 += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
    sum.1 += 1;
    Ok(())
}
