//! Writes the content of files. Several writers work on one tree at a time, each on files of its
//! own.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use codedeploy_hooks::fs::{WORTH_WRITING_BACK, begin_writeback};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::super::digest::{Digest, Running};
use super::super::entry::EntryPath;
use super::super::error::{Found, UnpackError};
use super::{Attributes, FILE, Root, failed, remove_file};

const BUFFER: usize = 256 * 1024;
/// The bytes of a large file whose way to the disk begins together.
const WRITTEN_BACK: u64 = 8 * 1024 * 1024;
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A segment of a file between two holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Segment {
    pub(in super::super) offset: u64,
    pub(in super::super) length: u64,
}

/// The size of a file and, if it has holes, the places of its content.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Extent<'a> {
    pub(in super::super) size: u64,
    /// In order, without overlap, all within the size.
    pub(in super::super) segments: Option<&'a [Segment]>,
}

impl Extent<'_> {
    /// A file without holes.
    pub(in super::super) fn whole(size: u64) -> Self {
        Self {
            size,
            segments: None,
        }
    }
}

/// Writes files into folders that exist.
#[derive(Debug)]
pub(in super::super) struct FileWriter<'a> {
    root: &'a Root<'a>,
    /// The folder of the last file: archives list the files of a folder together.
    parent: Option<(EntryPath, OwnedFd)>,
    buffer: Box<[u8]>,
}

impl<'a> FileWriter<'a> {
    pub(in super::super) fn new(root: &'a Root<'a>) -> Self {
        Self {
            root,
            parent: None,
            buffer: vec![0; BUFFER].into(),
        }
    }

    /// Makes a file from `data`, which must contain exactly the file's content, and replaces an
    /// earlier file of that name.
    pub(in super::super) fn write(
        &mut self,
        path: &EntryPath,
        attributes: &Attributes,
        extent: Extent<'_>,
        data: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let root = self.root;
        root.meter.expect(path, extent.size)?;
        let parent = self.parent(path)?;
        let create = || rustix::fs::openat(parent, path.name(), NEW_FILE, Mode::RUSR | Mode::WUSR);
        let file = match create() {
            Err(Errno::EXIST) => {
                remove_file(parent, path, FILE)?;
                create()
            }
            created => created,
        };
        let mut file = std::fs::File::from(file.map_err(|errno| failed(path, "create", errno))?);
        let digest = match extent.segments {
            None => Some(self.copy(path, extent.size, data, &mut file)?),
            Some(segments) => {
                self.fill_in(path, extent.size, segments, data, &mut file)?;
                None
            }
        };
        root.digested(path, &file, digest)?;
        root.apply(path, &file, attributes)
    }

    /// Writes the segments of a file with holes. Holes count as if they were written, because a
    /// copy may fill them.
    fn fill_in(
        &mut self,
        path: &EntryPath,
        size: u64,
        segments: &[Segment],
        data: &mut dyn Read,
        file: &mut std::fs::File,
    ) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Write {
            entry: path.into(),
            operation: "write",
            source,
        };
        let content: u64 = segments.iter().map(|segment| segment.length).sum();
        self.root.meter.add(path, size.saturating_sub(content))?;
        for segment in segments {
            file.seek(SeekFrom::Start(segment.offset)).map_err(failed)?;
            self.copy(path, segment.length, &mut data.take(segment.length), file)?;
        }
        file.set_len(size).map_err(failed)
    }

    /// Writes `size` bytes; returns their digest.
    fn copy(
        &mut self,
        path: &EntryPath,
        size: u64,
        data: &mut dyn Read,
        file: &mut std::fs::File,
    ) -> Result<Digest, UnpackError> {
        let mismatch = |found| UnpackError::SizeMismatch {
            entry: path.into(),
            declared: size,
            found,
        };
        let mut digest = Running::default();
        let (mut written, mut begun) = (0, 0);
        loop {
            let count = fill(data, &mut self.buffer)
                .map_err(|source| UnpackError::read_entry(path, source))?;
            if count == 0 {
                break;
            }
            written += count as u64;
            if written > size {
                return Err(mismatch(Found::More));
            }
            self.root.meter.add(path, count as u64)?;
            file.write_all(&self.buffer[..count])
                .map_err(|source| UnpackError::Write {
                    entry: path.into(),
                    operation: "write",
                    source,
                })?;
            digest.update(&self.buffer[..count]);
            if written - begun >= WRITTEN_BACK {
                begin_writeback(file);
                begun = written;
            }
            if count < self.buffer.len() {
                break;
            }
        }
        if written < size {
            return Err(mismatch(Found::Exactly(written)));
        }
        if written >= WORTH_WRITING_BACK {
            begin_writeback(file);
        }
        Ok(digest.finish())
    }

    /// Returns the open folder of `path`.
    pub(super) fn parent(&mut self, path: &EntryPath) -> Result<BorrowedFd<'_>, UnpackError> {
        let (_, folder) = match self.parent.take() {
            Some(cached) if cached.0.is_parent_of(path) => self.parent.insert(cached),
            _ => {
                let parent = path.parent();
                let folder = self
                    .root
                    .open_folder(&parent)
                    .map_err(|errno| failed(path, "open the folder of", errno))?;
                self.parent.insert((parent, folder))
            }
        };
        Ok(OwnedFd::as_fd(folder))
    }

    /// Whether the folder of `path` is the open one, and so exists.
    pub(super) fn has_parent_of(&self, path: &EntryPath) -> bool {
        self.parent
            .as_ref()
            .is_some_and(|(parent, _)| parent.is_parent_of(path))
    }
}

/// Reads until `buffer` is full or `data` ends.
fn fill(data: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match data.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
