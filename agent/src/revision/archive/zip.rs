//! Unpacks a zip: the whole central directory is checked before anything is written, then two
//! threads inflate.

mod content;
mod directory;
mod fields;
mod layout;
mod plan;

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::FileType;

use super::entry::{EntryName, EntryPath, link_target};
use super::error::UnpackError;
use super::format::Format;
use super::remarks::Remark;
use super::source::Source;
use super::writer::{Extent, FileWriter, Root, Writer};
use super::{BundleType, Unpacked};
use content::Content;
use directory::{Behind, Directory};
use plan::{Planned, plan};

/// Fewer files than this are not worth a second thread.
const FILES_PER_THREAD: usize = 64;
const MAX_THREADS: usize = 2;
/// The number of bytes read of a link's target: one more than a link can hold.
const MAX_LINK_TARGET: u64 = 4096;

pub(super) fn unpack(bundle: &File, root: &Root<'_>) -> Result<Unpacked, UnpackError> {
    let directory = read_directory(bundle)?;
    let plan = plan(&directory, root)?;
    let contents = layout::check(bundle, &directory)?;
    if directory.behind == Behind::Bytes {
        root.remarks.add(Remark::BehindEnd, EntryName::new(b"."));
    }
    let bundle = Bundle {
        file: bundle,
        directory: &directory,
        contents: &contents,
    };

    let mut writer = Writer::new(root);
    let mut files = Vec::new();
    for (path, planned) in plan {
        match planned.kind {
            FileType::Directory => writer.folder(path, planned.attributes())?,
            FileType::Symlink => {
                let target = bundle.link(&path, planned)?;
                writer.link(path, target, planned.attributes())?;
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

/// Reads the central directory; reports the real format of a bundle without one.
fn read_directory(bundle: &File) -> Result<Directory, UnpackError> {
    let kind = BundleType::Zip;
    let read = Directory::read(bundle);
    if let Err(UnpackError::Read { .. }) = read {
        let format = Format::of(&Source::at(bundle, 0));
        let format = format.map_err(|source| UnpackError::Read { kind, source })?;
        if let (Some(found), false) = (format.name(), format == Format::Zip) {
            return Err(UnpackError::NotThisType { kind, found });
        }
    }
    read
}

fn contradiction(problem: &'static str) -> UnpackError {
    UnpackError::Contradiction { problem }
}

/// Writes all files, on two threads if there are many. The first failure stops both.
fn write_files(
    bundle: Bundle<'_>,
    files: &[(EntryPath, Planned)],
    root: &Root<'_>,
) -> Result<(), UnpackError> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        let mut writer = FileWriter::new(root);
        while !stop.load(Ordering::Relaxed)
            && let Some((path, planned)) = files.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let written = bundle.open(*planned).and_then(|mut data| {
                writer.write(
                    path,
                    &planned.attributes(),
                    Extent::whole(planned.size),
                    &mut data,
                )
            });
            if let Err(error) = written {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = MAX_THREADS
        .min(cores)
        .min(files.len() / FILES_PER_THREAD)
        .max(1);
    thread::scope(|scope| {
        // If a thread cannot start, the others do its share.
        let others: Vec<_> = (1..threads)
            .map_while(|_| {
                thread::Builder::new()
                    .name("unpack".into())
                    .spawn_scoped(scope, work)
                    .ok()
            })
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

/// A zip whose central directory agrees with the rest of it.
#[derive(Clone, Copy)]
struct Bundle<'a> {
    file: &'a File,
    directory: &'a Directory,
    /// The start of each entry's content.
    contents: &'a [u64],
}

impl<'a> Bundle<'a> {
    fn open(&self, planned: Planned) -> Result<Content<'a>, UnpackError> {
        let entry = self.directory.entry(planned.index)?;
        Ok(Content::open(
            self.file,
            &entry,
            planned.method,
            self.contents[planned.index],
        ))
    }

    /// Reads a symbolic link's target, which is its content.
    fn link(&self, path: &EntryPath, planned: Planned) -> Result<Vec<u8>, UnpackError> {
        let mut target = Vec::new();
        self.open(planned)?
            .take(MAX_LINK_TARGET)
            .read_to_end(&mut target)
            .map_err(|source| UnpackError::read_entry(path, source))?;
        link_target(target).map_err(|refusal| refusal.of(path))
    }
}
