//! The link and the folders of slots: looks at them, and changes them in single steps, each of
//! which can be repeated.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use codedeploy_hooks::appspec::Strategy;
use codedeploy_hooks::fs::remove_tree;
use codedeploy_hooks::slots::SlotName;
use rustix::fs::{CWD, RenameFlags};

use super::layout::{Found, Layout, LayoutError, Live};
use super::mounts;

/// The reason why slots cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is on another file system than {}, so that a folder and the link cannot change places in one step; choose a folder \
         for \"slots\" beside the link",
        slots.display(), around.display()
    )]
    OtherFileSystem { slots: PathBuf, around: PathBuf },
    #[error(
        "{} belongs to user {owner}, who could lead root's files elsewhere; give it to root (chown -h root), or choose another \
         path in \"strategy\"",
        path.display()
    )]
    Stranger { path: PathBuf, owner: u32 },
    #[error(
        "{} can be written by everybody, who could lead root's files elsewhere; take that permission away (chmod o-w)",
        path.display()
    )]
    Writable { path: PathBuf },
    #[error("{} is not a folder; move it away, so that the agent can make the slot", path.display())]
    NotAFolder { path: PathBuf },
    #[error(
        "{} already has files, so {} cannot become this slot; move one of them away",
        slot.display(), link.display()
    )]
    Occupied { slot: PathBuf, link: PathBuf },
    #[error("{} is a mount point, so nothing in the slot is removed; unmount it first (umount)", path.display())]
    MountPoint { path: PathBuf },
    #[error("cannot read the mount points of this host")]
    MountPoints(#[source] io::Error),
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SlotError + 'a {
    move |source| SlotError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The slot that is ready to be filled.
#[derive(Debug)]
pub struct Prepared {
    /// The slot's folder, without links in its parents.
    pub folder: PathBuf,
    pub was_empty: bool,
}

/// Looks at the link's path.
pub fn look(link: &Path) -> Result<Found, SlotError> {
    let metadata = match fs::symlink_metadata(link) {
        Err(error) if is_nowhere(&error) => return Ok(Found::Nothing),
        metadata => metadata.map_err(failed("look at", link))?,
    };
    if metadata.is_dir() {
        return Ok(Found::Folder);
    }
    if !metadata.is_symlink() {
        return Ok(Found::Other);
    }
    let target = fs::read_link(link).map_err(failed("read the link", link))?;
    Ok(Found::Link(target))
}

/// The present layout of slots.
pub fn layout(link: &Path, slots: &Path) -> Result<Layout, SlotError> {
    Ok(Layout::of(link, slots, &look(link)?)?)
}

/// Checks that nobody but root, or the agent's own user, decides about the paths of the strategy,
/// without changing anything.
pub fn check(strategy: &Strategy) -> Result<(), SlotError> {
    let (link, slots) = (strategy.link.as_path(), strategy.slots.as_path());
    let around = existing(link.parent().unwrap_or(link));
    let beside = existing(slots);
    for path in [&around, &beside] {
        let metadata = fs::metadata(path).map_err(failed("look at", path))?;
        trusted(path, &metadata)?;
        if metadata.mode() & 0o1002 == 0o002 {
            return Err(SlotError::Writable { path: path.clone() });
        }
    }
    if let Ok(metadata) = fs::symlink_metadata(link)
        && metadata.is_symlink()
    {
        trusted(link, &metadata)?;
    }
    for path in [slots.to_path_buf()]
        .into_iter()
        .chain(SlotName::BOTH.map(|slot| strategy.folder(slot)))
    {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() && is_left_over(strategy, &path) => {}
            Ok(metadata) if !metadata.is_dir() => return Err(SlotError::NotAFolder { path }),
            Err(error) if !is_nowhere(&error) => return Err(failed("look at", &path)(error)),
            _ => {}
        }
    }
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    let devices = device(&around).and_then(|one| Ok((one, device(&beside)?)));
    let (one, other) = devices.map_err(failed("look at", &beside))?;
    if one != other {
        return Err(SlotError::OtherFileSystem {
            slots: beside,
            around,
        });
    }
    Ok(())
}

/// The nearest folder of `path` that exists.
fn existing(path: &Path) -> PathBuf {
    let mut path = path;
    while !path.exists() {
        let Some(parent) = path.parent() else { break };
        path = parent;
    }
    path.to_path_buf()
}

fn trusted(path: &Path, metadata: &fs::Metadata) -> Result<(), SlotError> {
    let owner = metadata.uid();
    if owner == 0 || owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(SlotError::Stranger {
        path: path.to_owned(),
        owner,
    })
}

/// Whether the slot's name is the link that an interrupted adoption left there.
fn is_left_over(strategy: &Strategy, path: &Path) -> bool {
    let target = fs::read_link(path).unwrap_or_default();
    SlotName::BOTH
        .into_iter()
        .any(|slot| strategy.folder(slot) == target)
}

/// Makes the folder of the slot that is filled next.
pub fn prepare(strategy: &Strategy, layout: Layout) -> Result<Prepared, SlotError> {
    check(strategy)?;
    let slots = strategy.slots.as_path();
    make(slots)?;
    if layout.live == Live::Folder {
        let blue = strategy.folder(SlotName::Blue);
        match fs::symlink_metadata(&blue) {
            Ok(metadata) if metadata.is_symlink() => {
                fs::remove_file(&blue).map_err(failed("remove", &blue))?;
            }
            Ok(_) if fs::remove_dir(&blue).is_err() => {
                let link = strategy.link.as_path().to_owned();
                return Err(SlotError::Occupied { slot: blue, link });
            }
            _ => {}
        }
    }
    let folder = strategy.folder(layout.idle);
    if fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_symlink()) {
        fs::remove_file(&folder).map_err(failed("remove", &folder))?;
    }
    make(&folder)?;
    let was_empty = is_empty(&folder)?;
    let real = slots.canonicalize().map_err(failed("look at", slots))?;
    Ok(Prepared {
        folder: real.join(layout.idle.name()),
        was_empty,
    })
}

/// Whether a slot has no files.
pub fn is_empty(folder: &Path) -> Result<bool, SlotError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if is_nowhere(&error) => Ok(true),
        Err(error) => Err(failed("read", folder)(error)),
    }
}

fn make(folder: &Path) -> Result<(), SlotError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder);
    made.map_err(failed("make the folder", folder))?;
    let open = fs::Permissions::from_mode(0o755);
    let mode = fs::symlink_metadata(folder)
        .map_err(failed("look at", folder))?
        .mode();
    if mode & 0o777 == 0o755 || !is_empty(folder)? {
        return Ok(());
    }
    // The umask of the agent must not close the slots for their users.
    fs::set_permissions(folder, open).map_err(failed("open up", folder))
}

/// Leads the link to a slot, in one step. A folder in the link's place becomes the slot blue in the
/// same step.
pub fn switch(strategy: &Strategy, to: SlotName) -> Result<(), SlotError> {
    let (link, target) = (strategy.link.as_path(), strategy.folder(to));
    match look(link)? {
        Found::Link(present) if present == target => {}
        Found::Folder => {
            let blue = strategy.folder(SlotName::Blue);
            lead(&blue, &target)?;
            exchange(link, &blue)?;
        }
        Found::Nothing | Found::Link(_) => {
            let waiting = waiting(link);
            lead(&waiting, &target)?;
            fs::rename(&waiting, link).map_err(failed("switch", link))?;
        }
        Found::Other => return Err(LayoutError::NotALink { link: link.into() }.into()),
    }
    settle(strategy)
}

/// Puts the folder that became the slot blue back in the link's place, in one step.
pub fn give_back(strategy: &Strategy) -> Result<(), SlotError> {
    let (link, blue) = (strategy.link.as_path(), strategy.folder(SlotName::Blue));
    if look(link)? != Found::Folder {
        exchange(link, &blue)?;
    }
    if look(&blue)? != Found::Folder {
        remove(&blue)?;
    }
    settle(strategy)
}

/// Removes the link.
pub fn remove(link: &Path) -> Result<(), SlotError> {
    match fs::remove_file(link) {
        Err(error) if !is_nowhere(&error) => Err(failed("remove", link)(error)),
        _ => Ok(()),
    }
}

/// Removes everything in a slot. What is mounted there belongs to somebody else, so that nothing is
/// removed then.
pub fn empty(folder: &Path) -> Result<(), SlotError> {
    if is_empty(folder)? {
        return Ok(());
    }
    let real = folder.canonicalize().map_err(failed("look at", folder))?;
    let mounted = mounts::below(&real).map_err(SlotError::MountPoints)?;
    if let Some(path) = mounted {
        return Err(SlotError::MountPoint { path });
    }
    remove_tree(folder).map_err(failed("empty the slot", folder))?;
    make(folder)
}

/// The name of a link that waits to take its place.
fn waiting(link: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(link.file_name().unwrap_or_default());
    name.push(".codedeploy-switch");
    link.with_file_name(name)
}

fn lead(path: &Path, target: &Path) -> Result<(), SlotError> {
    remove(path)?;
    std::os::unix::fs::symlink(target, path).map_err(failed("make the link", path))
}

fn exchange(one: &Path, other: &Path) -> Result<(), SlotError> {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(|error| failed("exchange with its slot, in one step,", one)(error.into()))
}

/// Writes the names to the disk.
fn settle(strategy: &Strategy) -> Result<(), SlotError> {
    let link = strategy.link.as_path();
    for folder in [link.parent().unwrap_or(link), strategy.slots.as_path()] {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(failed("write to the disk", folder))?;
    }
    Ok(())
}

fn is_nowhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
