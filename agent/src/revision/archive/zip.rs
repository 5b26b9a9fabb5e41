//! Unpacks a zip: the whole central directory is judged before anything is written, then two threads inflate.

mod plan;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use ::zip::ZipArchive;
use ::zip::read::{ZipArchiveMetadata, ZipFile, ZipReadOptions};
use rustix::fs::FileType;

use super::entry::{EntryPath, link_target};
use super::error::UnpackError;
use super::source::Source;
use super::writer::{Attributes, FileWriter, Root, Writer};
use super::{BundleType, Unpacked};
use plan::{Planned, modified, plan};

/// Fewer files than this are not worth a second thread.
const FILES_PER_THREAD: usize = 64;
const MAX_THREADS: usize = 2;
/// Most bytes of a central directory; it is held in memory.
const MAX_DIRECTORY: u64 = 64 * 1024 * 1024;
/// Most bytes read of a link's target: one more than a link can hold.
const MAX_LINK_TARGET: u64 = 4096;

pub(super) fn unpack(bundle: &File, root: &Root<'_>) -> Result<Unpacked, UnpackError> {
    let directory = directory(bundle)?;
    let plan = plan(&directory, root)?;
    let bundle = Bundle { file: bundle, directory: &directory };

    let mut writer = Writer::new(root);
    let mut files = Vec::new();
    for (path, planned) in plan {
        match planned.kind {
            FileType::Directory => {
                let (_, attributes) = bundle.open(&mut bundle.reader(), &path, planned)?;
                writer.folder(path, attributes)?;
            }
            FileType::Symlink => {
                let (target, attributes) = bundle.link(&path, planned)?;
                writer.link(path, target, attributes)?;
            }
            _ => {
                writer.prepare_file(&path, planned.mode)?;
                files.push((path, planned));
            }
        }
    }
    write_files(bundle, &files, root)?;
    writer.finish()
}

/// Reads the central directory.
fn directory(bundle: &File) -> Result<Arc<ZipArchiveMetadata>, UnpackError> {
    let unreadable = |source| UnpackError::Read { kind: BundleType::Zip, source };
    let reader = Bounded { inner: BufReader::new(Source::new(bundle)), left: MAX_DIRECTORY };
    let archive = ZipArchive::new(reader).map_err(|error| unreadable(error.into()))?;
    if archive.has_duplicate_names() {
        tracing::warn!(
            "the zip bundle lists a name several times; the last one of each is unpacked, as unzip does"
        );
    }
    Ok(archive.metadata())
}

/// Writes all files, on two threads when there are many. The first failure stops both.
fn write_files(
    bundle: Bundle<'_>,
    files: &[(EntryPath, Planned)],
    root: &Root<'_>,
) -> Result<(), UnpackError> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        let mut writer = FileWriter::new(root);
        let mut reader = bundle.reader();
        while !stop.load(Ordering::Relaxed)
            && let Some((path, planned)) = files.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let written = bundle
                .open(&mut reader, path, *planned)
                .and_then(|(mut data, attributes)| writer.write(path, &attributes, planned.size, &mut data));
            if let Err(error) = written {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = MAX_THREADS.min(cores).min(files.len() / FILES_PER_THREAD).max(1);
    thread::scope(|scope| {
        // A thread that cannot start leaves its share to the others.
        let others: Vec<_> = (1..threads)
            .map_while(|_| thread::Builder::new().name("unpack".into()).spawn_scoped(scope, work).ok())
            .collect();
        let mut result = work();
        for other in others {
            match other.join() {
                Ok(outcome) => result = result.and(outcome),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}

/// A zip whose central directory was read.
#[derive(Clone, Copy)]
struct Bundle<'a> {
    file: &'a File,
    directory: &'a ZipArchiveMetadata,
}

impl<'a> Bundle<'a> {
    fn reader(&self) -> Source<'a> {
        Source::new(self.file)
    }

    /// The content of an entry, checked against its checksum where it ends.
    fn open<'r>(
        &self,
        reader: &'r mut Source<'a>,
        path: &EntryPath,
        planned: Planned,
    ) -> Result<(ZipFile<'r, Source<'a>>, Attributes), UnpackError>
    where
        'a: 'r,
    {
        let content = self
            .directory
            .entry(planned.index)
            .and_then(|entry| entry.with_reader(reader, ZipReadOptions::new()))
            .map_err(|error| UnpackError::ReadEntry { entry: path.into(), source: error.into() })?;
        let attributes = Attributes { mode: planned.mode, owner: None, modified: modified(&content) };
        Ok((content, attributes))
    }

    /// A symbolic link's target, which is its content.
    fn link(&self, path: &EntryPath, planned: Planned) -> Result<(Vec<u8>, Attributes), UnpackError> {
        let mut reader = self.reader();
        let (content, attributes) = self.open(&mut reader, path, planned)?;
        let mut target = Vec::new();
        content
            .take(MAX_LINK_TARGET)
            .read_to_end(&mut target)
            .map_err(|source| UnpackError::ReadEntry { entry: path.into(), source })?;
        let target = link_target(target).map_err(|refusal| refusal.of(path))?;
        Ok((target, attributes))
    }
}

/// A reader that fails after so many bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!("the central directory is larger than {MAX_DIRECTORY} bytes"))
        })?;
        Ok(count)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
