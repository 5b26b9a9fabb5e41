//! One line of a journal: a record as JSON that begins with a checksum of the rest of the line.

use std::hash::Hasher as _;
use std::io::{self, BufRead, Write};

use fnv::FnvHasher;
use serde::Serialize;

/// The beginning of every line; 16 hexadecimal digits follow, then [`AFTER`].
const BEFORE: &[u8] = b"{\"sum\":\"";
const AFTER: &[u8] = b"\",";
const DIGITS: usize = 16;

/// Writes a line and returns its length. `record` must serialise to a JSON object with one member.
/// It is serialised twice, because a record that names every file of an Install is too long to hold
/// in memory.
pub(super) fn write(writer: &mut impl Write, record: &impl Serialize) -> io::Result<u64> {
    let mut sum = Rest {
        inner: Checksum::default(),
        length: 0,
    };
    serde_json::to_writer(&mut sum, record)?;
    writer.write_all(BEFORE)?;
    write!(writer, "{:016x}", sum.inner.0.finish())?;
    writer.write_all(AFTER)?;
    serde_json::to_writer(
        Rest {
            inner: &mut *writer,
            length: 0,
        },
        record,
    )?;
    writer.write_all(b"\n")?;
    Ok((BEFORE.len() + DIGITS + AFTER.len()) as u64 + sum.length)
}

/// Each byte changes the state that all bytes before it produced, so a single changed byte never
/// goes unnoticed.
#[derive(Default)]
struct Checksum(FnvHasher);

impl Write for Checksum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// Passes everything on but the first byte, which is a brace.
struct Rest<W> {
    inner: W,
    /// Bytes of the whole record, the first one included.
    length: u64,
}

impl<W: Write> Write for Rest<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = if self.length == 0 {
            1.min(bytes.len())
        } else {
            0
        };
        self.inner.write_all(&bytes[skipped..])?;
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A finished line.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// A record without its checksum, which is correct.
    Sealed(&'a [u8]),
    /// A record without a checksum, as version 1 wrote it.
    Bare(&'a [u8]),
    /// The checksum does not match.
    Damaged,
}

impl<'a> Line<'a> {
    /// Checks a line without its end.
    pub(super) fn of(line: &'a mut [u8]) -> Self {
        let begin = BEFORE.len() + DIGITS + AFTER.len();
        let Some(sealed) = line.strip_prefix(BEFORE) else {
            return Self::Bare(line);
        };
        let digits = sealed
            .get(..DIGITS)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let written = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(rest) = line.get(begin..) else {
            return Self::Damaged;
        };
        if written != Some(checksum(rest)) || !line[..begin].ends_with(AFTER) {
            return Self::Damaged;
        }
        // The opening brace of the record replaces the comma before it.
        line[begin - 1] = b'{';
        Self::Sealed(&line[begin - 1..])
    }
}

/// The finished lines of a file.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    position: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn of(reader: R) -> Self {
        Self {
            reader,
            line: Vec::new(),
            position: 0,
        }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        self.reader.read_until(b'\n', &mut self.line)?;
        self.position += self.line.len() as u64;
        if self.line.pop() != Some(b'\n') {
            return Ok(None);
        }
        Ok(Some(Line::of(&mut self.line)))
    }

    /// The position of the next line.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the last line has a byte that JSON never has: a block that never reached the disk
    /// reads as zeros.
    pub(super) fn has_holes(&self) -> bool {
        self.line.contains(&0)
    }
}
