//! Checks that every reader sees the same contents in a zip: the local headers, which stream
//! readers use, agree with the directory; nothing overlaps, and nothing outside the entries looks
//! like an entry.

use std::fs::File;
use std::io::{self, Read};

use super::super::entry::EntryName;
use super::super::error::{Refusal, UnpackError};
use super::super::source::Source;
use super::directory::{Directory, DirectoryEntry, any_mark, read_whole};
use super::fields::{Fields, u16_at, u32_at, u64_at};
use super::{BundleType, contradiction};

const HEADER: usize = 30;
const HEADER_MARK: &[u8; 4] = b"PK\x03\x04";
const DESCRIPTOR_MARK: &[u8; 4] = b"PK\x07\x08";
/// The longest data descriptor: signature, checksum, two 64-bit sizes.
const DESCRIPTOR: usize = 24;
/// The size and checksum follow the content.
const DESCRIBED_BEHIND: u16 = 1 << 3;
const BUFFER: usize = 64 * 1024;

/// Returns the start of each entry's content, by the index of the entry.
pub(super) fn check(bundle: &File, directory: &Directory) -> Result<Vec<u64>, UnpackError> {
    let mut contents = Vec::with_capacity(directory.len());
    let mut spans = Vec::with_capacity(directory.len());
    for index in 0..directory.len() {
        let entry = directory.entry(index)?;
        let name = || EntryName::new(entry.name);
        let local =
            Local::read(bundle, directory, &entry).map_err(|source| UnpackError::ReadEntry {
                entry: name(),
                source,
            })?;
        let local = local.map_err(|problem| Refusal::Contradiction { problem }.of(name()))?;
        contents.push(local.content);
        spans.push((local.start, local.end));
    }
    spans.sort_unstable();
    let mut end = 0;
    for (start, next) in spans {
        if start < end {
            return Err(contradiction("two of its entries share bytes"));
        }
        check_gap(bundle, end, start)?;
        end = next;
    }
    if end > directory.position {
        return Err(contradiction("an entry reaches into it"));
    }
    check_gap(bundle, end, directory.position)?;
    Ok(contents)
}

/// The place of an entry in the file.
struct Local {
    start: u64,
    content: u64,
    end: u64,
}

impl Local {
    /// Reads the local header of `entry`, and reports where it differs from the directory.
    fn read(
        bundle: &File,
        directory: &Directory,
        entry: &DirectoryEntry<'_>,
    ) -> io::Result<Result<Self, &'static str>> {
        let mut header = [0; HEADER];
        let Some(start) = entry.offset.checked_add(directory.shift) else {
            return Ok(Err(
                "the directory names a place for it that is behind the end",
            ));
        };
        if start.saturating_add(HEADER as u64) > directory.position {
            return Ok(Err(
                "the directory names a place for it that is behind the end",
            ));
        }
        read_whole(bundle, start, &mut header)?;
        if !header.starts_with(HEADER_MARK) {
            return Ok(Err("there is no header where the directory says"));
        }
        let [name, extra] = [26, 28].map(|at| u16_at(&header, at) as usize);
        let mut texts = vec![0; name + extra];
        read_whole(bundle, start + HEADER as u64, &mut texts)?;
        let (name, extra) = texts.split_at(name);
        let content = start + (HEADER + texts.len()) as u64;
        let Some(end) = content
            .checked_add(entry.packed)
            .filter(|end| *end <= directory.position)
        else {
            return Ok(Err("its content reaches into the directory"));
        };
        if name != entry.name {
            return Ok(Err("its own header gives it another name"));
        }
        if u16_at(&header, 8) != entry.method || u16_at(&header, 6) & 1 != entry.flags & 1 {
            return Ok(Err("its own header names another method"));
        }
        let (crc, packed, size) = (
            u32_at(&header, 14),
            u32_at(&header, 18),
            u32_at(&header, 22),
        );
        let Some([size, packed]) = Fields(extra).widened([size, packed]) else {
            return Ok(Err("its own header has no sizes"));
        };
        let own = (crc, packed, size);
        let expected = (entry.crc, entry.packed, entry.size);
        if own == expected {
            let length = match entry.flags & DESCRIBED_BEHIND {
                0 => 0,
                _ => descriptor(bundle, directory, entry, end)?.unwrap_or(0),
            };
            return Ok(Ok(Self {
                start,
                content,
                end: end + length,
            }));
        }
        let described_behind = entry.flags & u16_at(&header, 6) & DESCRIBED_BEHIND != 0;
        let open = |own: u64, expected: u64| own == expected || matches!(own, 0 | 0xffff_ffff);
        if !described_behind
            || !open(crc.into(), entry.crc.into())
            || !open(packed, entry.packed)
            || !open(size, entry.size)
        {
            return Ok(Err("its own header names another size or checksum"));
        }
        Ok(match descriptor(bundle, directory, entry, end)? {
            Some(length) => Ok(Self {
                start,
                content,
                end: end + length,
            }),
            None => Err("what describes its content behind it names another size or checksum"),
        })
    }
}

/// Returns the length of the data descriptor behind the content that ends at `end`, if it agrees
/// with the directory.
fn descriptor(
    bundle: &File,
    directory: &Directory,
    entry: &DirectoryEntry<'_>,
    end: u64,
) -> io::Result<Option<u64>> {
    let room = (directory.position - end).min(DESCRIPTOR as u64) as usize;
    let mut bytes = [0; DESCRIPTOR];
    read_whole(bundle, end, &mut bytes[..room])?;
    let bytes = &bytes[..room];
    let marked = usize::from(bytes.starts_with(DESCRIPTOR_MARK)) * DESCRIPTOR_MARK.len();
    // A checksum may happen to equal the signature.
    for skip in [marked, 0] {
        let fields = &bytes[skip.min(room)..];
        let sizes = (entry.packed, entry.size);
        let wide = fields.len() >= 20 && (u64_at(fields, 4), u64_at(fields, 12)) == sizes;
        let narrow =
            fields.len() >= 12 && (u32_at(fields, 4).into(), u32_at(fields, 8).into()) == sizes;
        if u32_at(fields, 0) == entry.crc && (wide || narrow) {
            return Ok(Some((skip + if wide { 20 } else { 12 }) as u64));
        }
    }
    Ok(None)
}

/// Reads bytes that belong to no entry: a stub in front, padding. A reader that scans for
/// signatures must find none there.
fn check_gap(bundle: &File, from: u64, to: u64) -> Result<(), UnpackError> {
    let mut left = Source::at(bundle, from).take(to - from);
    let mut buffer = vec![0; BUFFER.min((to - from) as usize)];
    let mut kept = 0;
    loop {
        let read = left.read(&mut buffer[kept..]);
        let count = read.map_err(|source| UnpackError::Read {
            kind: BundleType::Zip,
            source,
        })?;
        if count == 0 {
            return Ok(());
        }
        let filled = kept + count;
        if any_mark(&buffer[..filled]) {
            return Err(contradiction(
                "beside its entries is what another reader would take for one",
            ));
        }
        // A signature may be cut in two.
        kept = filled.min(3);
        buffer.copy_within(filled - kept..filled, 0);
    }
}
