//! Decides how to unpack each entry of a zip, from its central directory alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rustix::fs::{FileType, Timespec};
use time::{Date, Month, PrimitiveDateTime, Time};

use super::super::entry::{EntryName, EntryPath};
use super::super::error::{Refusal, UnpackError};
use super::super::writer::{Attributes, Root};
use super::content::Method;
use super::directory::{Directory, DirectoryEntry};
use super::fields::Fields;

/// The permission bits that a zip may set; set-id and sticky bits are dropped, as `unzip` does
/// without -K.
const PERMISSIONS: u32 = 0o777;
const TYPE: u32 = 0o170_000;
/// The first bit of the DOS attributes.
const DOS_READ_ONLY: u32 = 1;
/// Flags of an entry.
const ENCRYPTED: u16 = 1;
const PATCH: u16 = 1 << 5;
const HIDDEN_NAMES: u16 = 1 << 13;
/// The systems that may define an entry's attributes.
const DOS: u8 = 0;
const UNIX: u8 = 3;
const NTFS: u8 = 10;
const VFAT: u8 = 14;

/// The planned result of one entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) index: usize,
    pub(super) kind: FileType,
    pub(super) method: Method,
    pub(super) mode: u32,
    pub(super) size: u64,
    modified: Option<Timespec>,
}

impl Planned {
    pub(super) fn attributes(&self) -> Attributes {
        Attributes {
            mode: self.mode,
            owner: None,
            modified: self.modified,
        }
    }
}

/// Checks every entry. Folders may be restated; any other two entries of one name are two contents
/// for one path.
pub(super) fn plan(
    directory: &Directory,
    root: &Root<'_>,
) -> Result<BTreeMap<EntryPath, Planned>, UnpackError> {
    let mut plan = BTreeMap::<EntryPath, Planned>::new();
    for index in 0..directory.len() {
        let entry = directory.entry(index)?;
        let refuse = |refusal: Refusal| refusal.of(EntryName::new(entry.name));
        let (path, planned) = judge(&entry, index).map_err(refuse)?;
        if let Some(earlier) = plan.insert(path, planned)
            && !(earlier.kind.is_dir() && planned.kind.is_dir())
        {
            let (this, other) = (described(planned.kind), described(earlier.kind));
            return Err(refuse(Refusal::Clash { this, other }));
        }
    }
    let mut total = 0_u64;
    for (path, planned) in &plan {
        total = total.saturating_add(planned.size);
        root.meter.expect(path, total)?;
    }
    Ok(plan)
}

fn judge(entry: &DirectoryEntry<'_>, index: usize) -> Result<(EntryPath, Planned), Refusal> {
    let raw = name(entry)?;
    let attributes = entry.attributes;
    let name = match entry.system {
        // Without any slash, unzip takes it for a DOS path.
        DOS | NTFS | VFAT if !raw.contains(&b'/') => Cow::Owned(slashed(raw)?),
        _ => Cow::Borrowed(raw),
    };
    let path = EntryPath::parse(&name)?;
    let names_folder = name.ends_with(b"/");
    let unix_mode = attributes >> 16;
    let kind = match FileType::from_raw_mode(unix_mode) {
        FileType::Symlink if names_folder => {
            return Err(Refusal::Header {
                problem: "a symbolic link whose name ends like a folder's",
            });
        }
        FileType::Symlink => FileType::Symlink,
        FileType::Directory => FileType::Directory,
        FileType::Fifo => return Err(Refusal::Special { kind: "a FIFO" }),
        FileType::Socket => return Err(Refusal::Special { kind: "a socket" }),
        FileType::CharacterDevice => {
            return Err(Refusal::Special {
                kind: "a character device",
            });
        }
        FileType::BlockDevice => {
            return Err(Refusal::Special {
                kind: "a block device",
            });
        }
        FileType::Unknown if unix_mode & TYPE != 0 && entry.system == UNIX => {
            return Err(Refusal::UnknownType {
                code: unix_mode & TYPE,
            });
        }
        FileType::RegularFile | FileType::Unknown if names_folder => FileType::Directory,
        FileType::RegularFile | FileType::Unknown => FileType::RegularFile,
    };
    if path.is_root() && !kind.is_dir() {
        return Err(Refusal::EmptyName);
    }
    if kind.is_dir() && entry.size > 0 {
        return Err(Refusal::UnexpectedData { bytes: entry.size });
    }
    if entry.flags & (ENCRYPTED | HIDDEN_NAMES) != 0 {
        return Err(Refusal::Encrypted);
    }
    if entry.flags & PATCH != 0 {
        return Err(Refusal::Method {
            name: "patch data".to_owned(),
        });
    }
    let method = Method::of(entry.method).map_err(|name| Refusal::Method { name })?;
    let permissions = unix_mode & PERMISSIONS;
    let mode = match kind {
        // Some writers set no attributes for folders.
        FileType::Directory if unix_mode == 0 => 0o755,
        _ if permissions != 0 || entry.system == UNIX => permissions,
        _ if attributes & DOS_READ_ONLY != 0 => 0o444,
        _ => 0o644,
    };
    let modified = Fields(entry.extra)
        .modified()
        .or_else(|| dos_time(entry.date, entry.time));
    Ok((
        path,
        Planned {
            index,
            kind,
            method,
            mode,
            size: entry.size,
            modified,
        },
    ))
}

/// Returns the entry's name. An additional UTF-8 name counts if it only spells out what the code
/// page abbreviates.
fn name<'a>(entry: &DirectoryEntry<'a>) -> Result<&'a [u8], Refusal> {
    match Fields(entry.extra).unicode_path(entry.name) {
        None => Ok(entry.name),
        Some(unicode) if unicode == entry.name => Ok(unicode),
        Some(unicode) if !entry.name.is_ascii() && std::str::from_utf8(unicode).is_ok() => {
            Ok(unicode)
        }
        Some(_) => Err(Refusal::Contradiction {
            problem: "it has another name in UTF-8",
        }),
    }
}

/// Converts the separators of a DOS path to those of Unix. A drive letter makes it as absolute as a
/// leading slash.
fn slashed(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let slashed: Vec<u8> = path
        .iter()
        .map(|byte| if *byte == b'\\' { b'/' } else { *byte })
        .collect();
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

/// A DOS time, read as UTC.
fn dos_time(date: u16, time: u16) -> Option<Timespec> {
    let month = Month::try_from((date >> 5 & 0xf) as u8).ok()?;
    let date =
        Date::from_calendar_date(1980 + i32::from(date >> 9), month, (date & 0x1f) as u8).ok()?;
    let time = Time::from_hms(
        (time >> 11) as u8,
        (time >> 5 & 0x3f) as u8,
        (time & 0x1f) as u8 * 2,
    )
    .ok()?;
    let seconds = PrimitiveDateTime::new(date, time)
        .assume_utc()
        .unix_timestamp();
    Some(Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    })
}
