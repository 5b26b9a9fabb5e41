//! Decides what becomes of each entry of a zip, from its central directory alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ::zip::read::{ZipArchiveMetadata, ZipFile, ZipFileEntry};
use ::zip::{CompressionMethod, DateTime, ExtraField, System};
use rustix::fs::{FileType, Timespec};
use time::{Date, Month, PrimitiveDateTime, Time};

use super::super::BundleType;
use super::super::entry::{EntryName, EntryPath};
use super::super::error::{Refusal, UnpackError};
use super::super::source::Source;
use super::super::writer::Root;

/// Permission bits that a zip gives; set-id and sticky bits are dropped, as `unzip` does without -K.
const PERMISSIONS: u32 = 0o777;
const TYPE: u32 = 0o170_000;
/// The first bit of the attributes of DOS.
const DOS_READ_ONLY: u32 = 1;
/// Windows counts time in steps of 100 ns from 1601.
const NTFS_STEPS_PER_SECOND: u64 = 10_000_000;
const NTFS_EPOCH: i64 = -11_644_473_600;

/// What one entry will become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) index: usize,
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) size: u64,
}

/// Judges every entry. An entry that repeats a name takes the place of the earlier one.
pub(super) fn plan(
    directory: &ZipArchiveMetadata,
    root: &Root<'_>,
) -> Result<BTreeMap<EntryPath, Planned>, UnpackError> {
    let mut plan = BTreeMap::<EntryPath, Planned>::new();
    for index in 0..directory.len() {
        let entry = directory
            .entry(index)
            .map_err(|error| UnpackError::Read { kind: BundleType::Zip, source: error.into() })?;
        let (path, planned) =
            judge(&entry, index).map_err(|refusal| refusal.of(EntryName::new(entry.name_raw())))?;
        if let Some(earlier) = plan.insert(path, planned)
            && earlier.kind != planned.kind
        {
            let (this, other) = (described(planned.kind), described(earlier.kind));
            return Err(Refusal::Clash { this, other }.of(EntryName::new(entry.name_raw())));
        }
    }
    let mut total = 0_u64;
    for (path, planned) in &plan {
        total = total.saturating_add(planned.size);
        root.meter.expect(path, total)?;
    }
    Ok(plan)
}

fn judge(entry: &ZipFileEntry<'_>, index: usize) -> Result<(EntryPath, Planned), Refusal> {
    let raw = entry.name_raw();
    let attributes = entry.external_attributes();
    let name = match entry.system() {
        // What unzip takes for a path of DOS: no slash at all.
        System::Dos | System::WindowsNTFS | System::VFAT if !raw.contains(&b'/') => Cow::Owned(slashed(raw)?),
        _ => Cow::Borrowed(raw),
    };
    let path = EntryPath::parse(&name)?;
    let names_folder = name.ends_with(b"/");
    let unix_mode = attributes >> 16;
    let kind = match FileType::from_raw_mode(unix_mode) {
        FileType::Symlink if names_folder => {
            return Err(Refusal::Header { problem: "a symbolic link whose name ends like a folder's" });
        }
        FileType::Symlink => FileType::Symlink,
        FileType::Directory => FileType::Directory,
        FileType::Fifo => return Err(Refusal::Special { kind: "a FIFO" }),
        FileType::Socket => return Err(Refusal::Special { kind: "a socket" }),
        FileType::CharacterDevice => {
            return Err(Refusal::Special { kind: "a character device" });
        }
        FileType::BlockDevice => {
            return Err(Refusal::Special { kind: "a block device" });
        }
        FileType::Unknown if unix_mode & TYPE != 0 && entry.system() == System::Unix => {
            return Err(Refusal::UnknownType { code: unix_mode & TYPE });
        }
        FileType::RegularFile | FileType::Unknown if names_folder => FileType::Directory,
        FileType::RegularFile | FileType::Unknown => FileType::RegularFile,
    };
    if path.is_root() && !kind.is_dir() {
        return Err(Refusal::EmptyName);
    }
    if kind.is_dir() && entry.size() > 0 {
        return Err(Refusal::UnexpectedData { bytes: entry.size() });
    }
    if entry.encrypted() {
        return Err(Refusal::Encrypted);
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(Refusal::Method { name: entry.compression().to_string() });
    }
    let mode = match (unix_mode & PERMISSIONS, kind) {
        (0, FileType::Directory) => 0o755,
        (0, _) if attributes & DOS_READ_ONLY != 0 => 0o444,
        (0, _) => 0o644,
        (mode, _) => mode,
    };
    Ok((path, Planned { index, kind, mode, size: entry.size() }))
}

/// A path of DOS with the separators of Unix. A drive letter is as absolute as a leading slash.
fn slashed(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let slashed: Vec<u8> = path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    match slashed.as_slice() {
        [_, b':', b'/', ..] => Err(Refusal::Absolute),
        _ => Ok(slashed),
    }
}

fn described(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        _ => "a file",
    }
}

/// The time of modification: of Unix or Windows where the archive has it, else that of DOS, taken for UTC.
pub(super) fn modified(content: &ZipFile<'_, Source<'_>>) -> Option<Timespec> {
    let mut ntfs = None;
    for field in content.extra_data_fields() {
        match field {
            ExtraField::ExtendedTimestamp(times) if times.mod_time().is_some() => {
                // A signed number of 32 bits, as unzip reads it.
                return times.mod_time().map(|seconds| whole_seconds(i64::from(seconds.cast_signed())));
            }
            ExtraField::Ntfs(times) if times.mtime() > 0 => {
                ntfs = Some(Timespec {
                    tv_sec: (times.mtime() / NTFS_STEPS_PER_SECOND).cast_signed() + NTFS_EPOCH,
                    tv_nsec: ((times.mtime() % NTFS_STEPS_PER_SECOND) * 100).cast_signed() as _,
                });
            }
            _ => {}
        }
    }
    ntfs.or_else(|| content.last_modified().and_then(dos_time))
}

fn dos_time(stamp: DateTime) -> Option<Timespec> {
    let month = Month::try_from(stamp.month()).ok()?;
    let date = Date::from_calendar_date(i32::from(stamp.year()), month, stamp.day()).ok()?;
    let time = Time::from_hms(stamp.hour(), stamp.minute(), stamp.second()).ok()?;
    Some(whole_seconds(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp()))
}

fn whole_seconds(tv_sec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec: 0 }
}
