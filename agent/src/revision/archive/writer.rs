//! Makes files, folders and links under one directory handle; independent of archive formats.
//!
//! While entries arrive, the tree on disk contains only folders and files that this bundle made.
//! Symbolic links wait until [`Writer::finish`], so nothing can lead out of the tree. Folders keep
//! mode 0700 until then, so that read-only ones can be filled.

mod file;
mod root;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::Unpacked;
use super::entry::{EntryName, EntryPath};
use super::error::{Refusal, UnpackError};

pub(super) use file::{Extent, FileWriter, Segment};
pub(super) use root::Root;

const FILE: &str = "a file";
const FOLDER: &str = "a folder";
const LINK: &str = "a symbolic link";
const HARD_LINK: &str = "a hard link";

/// The mode of a folder that has no entry of its own.
const IMPLIED_FOLDER_MODE: u32 = 0o755;

/// The metadata of an entry in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Permission bits, set-id and sticky bits.
    pub(super) mode: u32,
    /// User and group number; `None` in formats without owners.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) modified: Option<Timespec>,
}

impl Attributes {
    fn times(&self) -> Option<Timestamps> {
        let last_access = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        self.modified.map(|last_modification| Timestamps {
            last_access,
            last_modification,
        })
    }
}

#[derive(Debug)]
enum Link {
    Symbolic {
        target: Vec<u8>,
        attributes: Attributes,
    },
    /// Another name of a symbolic link of the bundle.
    SameAs(EntryPath),
}

/// Takes the entries of one bundle, in any order.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    root: &'a Root<'a>,
    files: FileWriter<'a>,
    /// Every folder that was made; with attributes if it has an entry.
    folders: BTreeMap<EntryPath, Option<Attributes>>,
    links: BTreeMap<EntryPath, Link>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(root: &'a Root<'a>) -> Self {
        Self {
            root,
            files: FileWriter::new(root),
            folders: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    /// Makes a folder, or restates one.
    pub(super) fn folder(
        &mut self,
        path: EntryPath,
        attributes: Attributes,
    ) -> Result<(), UnpackError> {
        self.root.meter.entry()?;
        if path.is_root() {
            return Ok(());
        }
        self.root
            .check_permissions(&path, attributes.mode, FileType::Directory)?;
        self.check_links(&path, FOLDER)?;
        self.make_folder(&path, &path)?;
        self.root.meter.hold(path.as_os_str().len())?;
        self.folders.insert(path, Some(attributes));
        Ok(())
    }

    /// Writes a file from `data`, which must contain exactly the file's content.
    pub(super) fn file(
        &mut self,
        path: &EntryPath,
        attributes: &Attributes,
        extent: Extent<'_>,
        data: &mut dyn std::io::Read,
    ) -> Result<(), UnpackError> {
        self.prepare_file(path, attributes.mode)?;
        self.files.write(path, attributes, extent, data)
    }

    /// Checks a file's path and makes its folder; then a [`FileWriter`] can write it, after all
    /// links are known.
    pub(super) fn prepare_file(&mut self, path: &EntryPath, mode: u32) -> Result<(), UnpackError> {
        self.root.meter.entry()?;
        self.root
            .check_permissions(path, mode, FileType::RegularFile)?;
        self.prepare(path, FILE)
    }

    /// Keeps a symbolic link for the end.
    pub(super) fn link(
        &mut self,
        path: EntryPath,
        target: Vec<u8>,
        attributes: Attributes,
    ) -> Result<(), UnpackError> {
        self.root.meter.entry()?;
        if self.root.limits.reject_symlinks {
            return Err(Refusal::Symlink.of(&path));
        }
        self.prepare_ancestors(&path, LINK)?;
        let parent = self.files.parent(&path)?;
        if let Some(other) = existing(parent, &path)? {
            return Err(Refusal::Clash {
                this: LINK,
                other: described(other),
            }
            .of(&path));
        }
        self.root
            .meter
            .hold(path.as_os_str().len() + target.len())?;
        self.links
            .insert(path, Link::Symbolic { target, attributes });
        Ok(())
    }

    /// Makes a second name for a file or symbolic link that this bundle made before.
    pub(super) fn hard_link(
        &mut self,
        path: &EntryPath,
        target: &EntryPath,
    ) -> Result<(), UnpackError> {
        self.root.meter.entry()?;
        let refuse = |problem| {
            Refusal::HardLinkTarget {
                target: target.into(),
                problem,
            }
            .of(path)
        };
        if target.is_root() {
            return Err(refuse("is the revision itself"));
        }
        if path == target && self.links.contains_key(target) {
            return Ok(());
        }
        self.prepare(path, HARD_LINK)?;
        if target
            .ancestors()
            .any(|folder| self.links.contains_key(&folder))
        {
            return Err(refuse("goes through a symbolic link of the bundle"));
        }
        if let Some(link) = self.links.get(target) {
            let first = match link {
                Link::Symbolic { .. } => target.clone(),
                Link::SameAs(first) => first.clone(),
            };
            return self.second_name(path, first);
        }
        let target_parent = match self.root.open_folder(&target.parent()) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return Err(refuse("the bundle has not made before"));
            }
            Err(errno) => return Err(failed(path, "open the folder of the target of", errno)),
        };
        match rustix::fs::statat(&target_parent, target.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_file() => {}
            Ok(_) => return Err(refuse("is not a file")),
            Err(Errno::NOENT) => return Err(refuse("the bundle has not made before")),
            Err(errno) => return Err(failed(path, "look at the target of", errno)),
        }
        if path == target {
            return Ok(());
        }
        let parent = self.files.parent(path)?;
        remove_file(parent, path, HARD_LINK)?;
        rustix::fs::linkat(
            &target_parent,
            target.name(),
            parent,
            path.name(),
            AtFlags::empty(),
        )
        .map_err(|errno| failed(path, "make hard link", errno))
    }

    /// Keeps another name of the symbolic link `first` for the end.
    fn second_name(&mut self, path: &EntryPath, first: EntryPath) -> Result<(), UnpackError> {
        let parent = self.files.parent(path)?;
        if let Some(other) = existing(parent, path)? {
            return Err(Refusal::Clash {
                this: HARD_LINK,
                other: described(other),
            }
            .of(path));
        }
        self.root
            .meter
            .hold(path.as_os_str().len() + first.as_os_str().len())?;
        self.links.insert(path.clone(), Link::SameAs(first));
        Ok(())
    }

    /// Makes the symbolic links, then gives folders their attributes, the deepest first.
    pub(super) fn finish(mut self) -> Result<Unpacked, UnpackError> {
        let links = std::mem::take(&mut self.links);
        for (path, link) in &links {
            if let Link::Symbolic { target, attributes } = link {
                self.make_link(path, target, attributes)?;
            }
        }
        for (path, link) in &links {
            if let Link::SameAs(first) = link {
                self.link_again(path, first)?;
            }
        }
        for (path, attributes) in self.folders.iter().rev() {
            self.finish_folder(path, attributes.as_ref())?;
        }
        Ok(Unpacked {
            entries: self.root.meter.entries(),
            bytes: self.root.meter.bytes(),
        })
    }

    fn make_link(
        &mut self,
        path: &EntryPath,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let (owner, _) = self.root.granted(attributes);
        let parent = self.files.parent(path)?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::symlinkat(target, parent, path.name())
            .map_err(|errno| failed(path, "make symbolic link", errno))?;
        if let Some((user, group)) = owner {
            rustix::fs::chownat(parent, path.name(), Some(user), Some(group), nofollow)
                .map_err(|errno| failed(path, "set the owner of", errno))?;
        }
        if let Some(times) = attributes.times() {
            rustix::fs::utimensat(parent, path.name(), &times, nofollow)
                .map_err(|errno| failed(path, "set the time of", errno))?;
        }
        Ok(())
    }

    /// Makes a second name for the symbolic link `first`, without following it.
    fn link_again(&mut self, path: &EntryPath, first: &EntryPath) -> Result<(), UnpackError> {
        let made = self.root.open_folder(&first.parent()).and_then(|folder| {
            let parent = self.root.open_folder(&path.parent())?;
            rustix::fs::linkat(
                &folder,
                first.name(),
                &parent,
                path.name(),
                AtFlags::empty(),
            )
        });
        made.map_err(|errno| failed(path, "make hard link", errno))
    }

    fn finish_folder(
        &self,
        path: &EntryPath,
        attributes: Option<&Attributes>,
    ) -> Result<(), UnpackError> {
        let folder = self
            .root
            .open_folder(path)
            .map_err(|errno| failed(path, "open", errno))?;
        match attributes {
            Some(attributes) => self.root.apply(path, &folder, attributes),
            None => rustix::fs::fchmod(&folder, Mode::from_raw_mode(IMPLIED_FOLDER_MODE))
                .map_err(|errno| failed(path, "set the mode of", errno)),
        }
    }

    /// Checks that an object other than a folder may have the name `path`, and makes the folders
    /// above it.
    fn prepare(&mut self, path: &EntryPath, this: &'static str) -> Result<(), UnpackError> {
        self.check_links(path, this)?;
        self.prepare_ancestors(path, this)
    }

    fn prepare_ancestors(
        &mut self,
        path: &EntryPath,
        this: &'static str,
    ) -> Result<(), UnpackError> {
        if path.is_root() {
            return Err(Refusal::Clash {
                this,
                other: FOLDER,
            }
            .of(EntryName::new(b".")));
        }
        self.check_ancestors(path)?;
        if self.files.has_parent_of(path) {
            return Ok(());
        }
        self.make_folder(&path.parent(), path)
    }

    fn check_links(&self, path: &EntryPath, this: &'static str) -> Result<(), UnpackError> {
        if self.links.contains_key(path) {
            return Err(Refusal::Clash { this, other: LINK }.of(path));
        }
        self.check_ancestors(path)
    }

    fn check_ancestors(&self, path: &EntryPath) -> Result<(), UnpackError> {
        if self.links.is_empty() {
            return Ok(());
        }
        match path
            .ancestors()
            .find(|folder| self.links.contains_key(folder))
        {
            Some(link) => Err(Refusal::ThroughLink {
                link: EntryName::from(&link),
            }
            .of(path)),
            None => Ok(()),
        }
    }

    /// Makes `folder` and every folder above it that is missing, on behalf of `entry`.
    fn make_folder(&mut self, folder: &EntryPath, entry: &EntryPath) -> Result<(), UnpackError> {
        match self.root.open_folder(folder) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) if folder == entry => {
                return Err(Refusal::Clash {
                    this: FOLDER,
                    other: FILE,
                }
                .of(entry));
            }
            Err(Errno::NOTDIR) => return Err(Refusal::NotAFolder.of(entry)),
            Err(errno) => return Err(failed(entry, "open the folder of", errno)),
        }
        let above = folder.parent();
        self.make_folder(&above, entry)?;
        let parent = self
            .root
            .open_folder(&above)
            .map_err(|errno| failed(entry, "open the folder of", errno))?;
        rustix::fs::mkdirat(&parent, folder.name(), Mode::RWXU)
            .map_err(|errno| failed(entry, "make a folder for", errno))?;
        self.root.meter.hold(folder.as_os_str().len())?;
        self.folders.insert(folder.clone(), None);
        Ok(())
    }
}

/// The type of the object at `path` in its folder `parent`.
fn existing(parent: BorrowedFd<'_>, path: &EntryPath) -> Result<Option<FileType>, UnpackError> {
    match rustix::fs::statat(parent, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed(path, "look at", errno)),
    }
}

/// Removes an earlier file at `path`; any other object is a clash.
fn remove_file(
    parent: BorrowedFd<'_>,
    path: &EntryPath,
    this: &'static str,
) -> Result<(), UnpackError> {
    match existing(parent, path)? {
        None => Ok(()),
        Some(FileType::RegularFile) => rustix::fs::unlinkat(parent, path.name(), AtFlags::empty())
            .map_err(|errno| failed(path, "replace", errno)),
        Some(other) => Err(Refusal::Clash {
            this,
            other: described(other),
        }
        .of(path)),
    }
}

fn described(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => FILE,
        FileType::Directory => FOLDER,
        FileType::Symlink => LINK,
        _ => "something else",
    }
}

fn failed(path: &EntryPath, operation: &'static str, errno: Errno) -> UnpackError {
    UnpackError::Write {
        entry: path.into(),
        operation,
        source: errno.into(),
    }
}
