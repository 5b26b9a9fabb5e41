//! One line of a journal: a record as JSON that begins with a checksum of the rest of the line.

use std::hash::Hasher as _;
use std::io::{self, BufRead, Write};

use fnv::FnvHasher;
use serde::Serialize;

/// The beginning of every line; 16 hexadecimal digits follow, then [`AFTER`].
const BEFORE: &[u8] = b"{\"sum\":\"";
const AFTER: &[u8] = b"\",";
const DIGITS: usize = 16;

/// Writes a line. `record` must serialise to a JSON object with one member.
pub(super) fn write(writer: &mut impl Write, record: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    let rest = text.strip_prefix(b"{").unwrap_or(&text);
    writer.write_all(BEFORE)?;
    write!(writer, "{:016x}", checksum(rest))?;
    writer.write_all(AFTER)?;
    writer.write_all(rest)?;
    writer.write_all(b"\n")
}

/// Each byte changes the state that all bytes before it produced, so a single changed byte never goes unnoticed.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    hasher.finish()
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

/// The finished lines of a file.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn of(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        self.reader.read_until(b'\n', &mut self.line)?;
        if self.line.pop() != Some(b'\n') {
            return Ok(None);
        }
        let begin = BEFORE.len() + DIGITS + AFTER.len();
        let Some(sealed) = self.line.strip_prefix(BEFORE) else {
            return Ok(Some(Line::Bare(&self.line)));
        };
        let digits = sealed.get(..DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
        let written = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(rest) = self.line.get(begin..) else { return Ok(Some(Line::Damaged)) };
        if written != Some(checksum(rest)) || !self.line[..begin].ends_with(AFTER) {
            return Ok(Some(Line::Damaged));
        }
        // The opening brace of the record replaces the comma before it.
        self.line[begin - 1] = b'{';
        Ok(Some(Line::Sealed(&self.line[begin - 1..])))
    }

    /// Whether the last line has a byte that JSON never has: a block that never reached the disk reads as zeros.
    pub(super) fn has_holes(&self) -> bool {
        self.line.contains(&0)
    }
}
