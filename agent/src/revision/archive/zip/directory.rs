//! Reads the central directory of a zip, which alone decides about its contents and its end.
//!
//! The bytes of the directory must agree with the end record: the number of entries, the size and
//! the place, directly in front of the record. A bundle that readers could interpret differently is
//! rejected.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::super::error::UnpackError;
use super::super::source::Source;
use super::fields::{Fields, u16_at, u32_at, u64_at};
use super::{BundleType, contradiction};

/// The largest central directory, in bytes; it is held in memory.
const MAX_DIRECTORY: u64 = 64 * 1024 * 1024;
/// The longest comment, in bytes, with other data after the end record.
const MAX_BEHIND: u64 = 2 * 65_536;

const END: usize = 22;
const LOCATOR: usize = 20;
const END_64: usize = 56;
const ENTRY: usize = 46;

const END_MARK: &[u8; 4] = b"PK\x05\x06";
const END_64_MARK: &[u8; 4] = b"PK\x06\x06";
const LOCATOR_MARK: &[u8; 4] = b"PK\x06\x07";
const ENTRY_MARK: &[u8; 4] = b"PK\x01\x02";
const SIGNATURE_MARK: &[u8; 4] = b"PK\x05\x05";
const LOCAL_MARK: &[u8; 4] = b"PK\x03\x04";

/// A central directory, as its bytes.
#[derive(Debug)]
pub(super) struct Directory {
    bytes: Vec<u8>,
    /// The start of each entry.
    starts: Vec<u32>,
    /// The start of the directory in the file.
    pub(super) position: u64,
    /// The number of bytes in front of the one that offsets count from.
    pub(super) shift: u64,
    /// The data after the end record: its comment, and bytes that belong to nothing.
    pub(super) behind: Behind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    Nothing,
    Bytes,
}

/// The contents of the end record.
struct End {
    /// The start of the records that end the zip, directly after the directory.
    position: u64,
    count: u64,
    /// Whether the count has only 16 bits, so that larger numbers are truncated.
    short_count: bool,
    size: u64,
    offset: u64,
}

impl Directory {
    pub(super) fn read(bundle: &File) -> Result<Self, UnpackError> {
        let unreadable = |source| UnpackError::Read {
            kind: BundleType::Zip,
            source,
        };
        let (end, behind) = find_end(bundle)?;
        if end.size > MAX_DIRECTORY {
            return Err(contradiction("its size is more than 64 MiB"));
        }
        let position = end.position.checked_sub(end.size);
        let shift = position.and_then(|position| position.checked_sub(end.offset));
        let (Some(position), Some(shift)) = (position, shift) else {
            return Err(contradiction(
                "its size and place are larger than what is in front of the end record",
            ));
        };
        let mut bytes = vec![0; end.size as usize];
        read_whole(bundle, position, &mut bytes).map_err(unreadable)?;
        let starts = entries(&bytes)?;
        let found = starts.len() as u64;
        if found != end.count && !(end.short_count && found & 0xffff == end.count) {
            return Err(contradiction(
                "it does not have as many entries as the end record counts",
            ));
        }
        Ok(Self {
            bytes,
            starts,
            position,
            shift,
            behind,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The entry at `index`, which must exist.
    pub(super) fn entry(&self, index: usize) -> Result<DirectoryEntry<'_>, UnpackError> {
        let start = self.starts.get(index).map(|start| *start as usize);
        let entry = start.and_then(|start| DirectoryEntry::parse(&self.bytes[start..]));
        entry.ok_or_else(|| contradiction("an entry is shorter than its fields"))
    }
}

/// Returns the start of each entry; together they fill the whole directory, except for a signature.
fn entries(bytes: &[u8]) -> Result<Vec<u32>, UnpackError> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(SIGNATURE_MARK)
            && rest.len() >= 6
            && rest.len() == 6 + u16_at(rest, 4) as usize
        {
            break;
        }
        let Some(entry) = DirectoryEntry::parse(rest) else {
            return Err(contradiction("its size does not agree with its entries"));
        };
        starts.push(at as u32);
        at += entry.length;
    }
    Ok(starts)
}

/// Finds the last end record, and the 64-bit records in front of it.
fn find_end(bundle: &File) -> Result<(End, Behind), UnpackError> {
    let unreadable = |source| UnpackError::Read {
        kind: BundleType::Zip,
        source,
    };
    let length = bundle.metadata().map_err(unreadable)?.len();
    let from = length.saturating_sub(MAX_BEHIND + END as u64);
    let mut tail = vec![0; (length - from) as usize];
    read_whole(bundle, from, &mut tail).map_err(unreadable)?;
    let Some(at) = tail.windows(4).rposition(|window| window == END_MARK) else {
        let missing = "it has no end record, so it is truncated or no zip";
        return Err(unreadable(io::Error::new(
            io::ErrorKind::InvalidData,
            missing,
        )));
    };
    let record = &tail[at..];
    if record.len() < END || record.len() - END < u16_at(record, 20) as usize {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "its end record is truncated",
        )));
    }
    let comment = u16_at(record, 20) as usize;
    if any_mark(&record[END..]) {
        return Err(contradiction(
            "behind the end record is what another reader would take for entries",
        ));
    }
    let behind = if record.len() == END + comment {
        Behind::Nothing
    } else {
        Behind::Bytes
    };
    if [u16_at(record, 4), u16_at(record, 6)]
        .iter()
        .any(|disk| !matches!(disk, 0 | 0xffff))
    {
        return Err(contradiction("the zip is one of several volumes"));
    }
    let position = from + at as u64;
    let plain = End {
        position,
        count: u16_at(record, 10).into(),
        short_count: true,
        size: u32_at(record, 12).into(),
        offset: u32_at(record, 16).into(),
    };
    let end = match wide_end(bundle, position)? {
        None => plain,
        Some(wide) => {
            let agrees = |narrow: u64, none: u64, wide: u64| narrow == none || narrow == wide;
            let same = agrees(plain.count, 0xffff, wide.count)
                && agrees(plain.size, 0xffff_ffff, wide.size)
                && agrees(plain.offset, 0xffff_ffff, wide.offset);
            if !same {
                return Err(contradiction("its two end records differ"));
            }
            wide
        }
    };
    Ok((end, behind))
}

/// Returns the 64-bit end record, if a locator in front of the end record at `position` leads to
/// one.
fn wide_end(bundle: &File, position: u64) -> Result<Option<End>, UnpackError> {
    let Some(locator_at) = position.checked_sub(LOCATOR as u64) else {
        return Ok(None);
    };
    let unreadable = |source| UnpackError::Read {
        kind: BundleType::Zip,
        source,
    };
    let mut locator = [0; LOCATOR];
    read_whole(bundle, locator_at, &mut locator).map_err(unreadable)?;
    if !locator.starts_with(LOCATOR_MARK) {
        return Ok(None);
    }
    // The record must stand directly in front of the locator, whatever the locator's offset: other
    // data may precede the whole zip.
    let mut record = [0; END_64];
    let at = locator_at.checked_sub(END_64 as u64);
    let at = at.ok_or_else(|| contradiction("its end record of 64 bits is missing"))?;
    read_whole(bundle, at, &mut record).map_err(unreadable)?;
    if !record.starts_with(END_64_MARK) || u64_at(&record, 4) != END_64 as u64 - 12 {
        return Err(contradiction(
            "its end record of 64 bits is not where the locator says",
        ));
    }
    if u64_at(&locator, 8) > at {
        return Err(contradiction(
            "its end record of 64 bits is not where the locator says",
        ));
    }
    let (offset, size) = (u64_at(&record, 48), u64_at(&record, 40));
    // The locator's offset counts from the same byte as the record's.
    if offset.checked_add(size) != Some(u64_at(&locator, 8)) {
        return Err(contradiction(
            "its end record of 64 bits is not directly behind it",
        ));
    }
    Ok(Some(End {
        position: at,
        count: u64_at(&record, 32),
        short_count: false,
        size,
        offset,
    }))
}

/// Whether `bytes` contain a signature that a scanning reader would take for a part of a zip.
pub(super) fn any_mark(bytes: &[u8]) -> bool {
    let marks = [LOCAL_MARK, ENTRY_MARK, END_MARK, END_64_MARK];
    bytes
        .windows(4)
        .any(|window| window[0] == b'P' && marks.iter().any(|mark| window == *mark))
}

pub(super) fn read_whole(bundle: &File, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    if Source::at(bundle, at).peek(0, buffer)? < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// One entry of a central directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirectoryEntry<'a> {
    pub(super) name: &'a [u8],
    pub(super) extra: &'a [u8],
    /// The system that defines the attributes.
    pub(super) system: u8,
    pub(super) attributes: u32,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) time: u16,
    pub(super) date: u16,
    pub(super) crc: u32,
    pub(super) packed: u64,
    pub(super) size: u64,
    /// The offset of its local header.
    pub(super) offset: u64,
    /// Its size in the directory, in bytes.
    length: usize,
}

impl<'a> DirectoryEntry<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < ENTRY || !bytes.starts_with(ENTRY_MARK) {
            return None;
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(bytes, at) as usize);
        let length = ENTRY + name + extra + comment;
        let range = |from: usize, length: usize| -> Range<usize> { from..from + length };
        let name_bytes = bytes.get(range(ENTRY, name))?;
        let extra_bytes = bytes.get(range(ENTRY + name, extra))?;
        bytes.get(..length)?;
        let (size, packed, offset) = (u32_at(bytes, 24), u32_at(bytes, 20), u32_at(bytes, 42));
        let [size, packed, offset] = Fields(extra_bytes).widened([size, packed, offset])?;
        Some(Self {
            name: name_bytes,
            extra: extra_bytes,
            system: bytes[5],
            attributes: u32_at(bytes, 38),
            flags: u16_at(bytes, 8),
            method: u16_at(bytes, 10),
            time: u16_at(bytes, 12),
            date: u16_at(bytes, 14),
            crc: u32_at(bytes, 16),
            packed,
            size,
            offset,
            length,
        })
    }
}
