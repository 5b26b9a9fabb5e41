//! Files with holes: the places in the file of the bytes in a tar (GNU's old notation, star's, pax
//! 0.0, 0.1, 1.0).

use ::tar::Header;

use super::super::error::Refusal;
use super::super::writer::Segment;
use super::header::{BLOCK, decimal, number};

/// The largest number of segments of one file; they are held in memory.
const MAX_SEGMENTS: usize = 256 * 1024;
/// The size of one segment in a header: its offset and its length.
const PIECE: usize = 24;
/// The longest number in the map of pax 1.0, in digits.
const MAX_DIGITS: usize = 20;

/// A problem of a map.
pub(super) const CONTRADICTS: Refusal = Refusal::Header {
    problem: "its map of holes contradicts itself or its size",
};
const TOO_MANY: Refusal = Refusal::Header {
    problem: "it has more than 262144 holes",
};

/// The pax records about a file with holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// The map precedes the content, as in version 1.0.
    pub(super) map_in_content: bool,
    /// Offsets and lengths, alternating.
    numbers: Vec<u64>,
}

impl Sparse {
    /// Takes one record, whose key begins with `GNU.sparse.`.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let value_of = |digits| u64::try_from(decimal(digits)?).ok();
        match key {
            b"major" => self.map_in_content = value_of(value)? > 0,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(value_of(value)?),
            b"offset" | b"numbytes" => {
                let belongs = self.numbers.len() % 2 == usize::from(key == b"numbytes");
                self.numbers.push(value_of(value).filter(|_| belongs)?);
            }
            b"map" => {
                let numbers = value
                    .split(|byte| *byte == b',')
                    .filter(|number| !number.is_empty());
                self.numbers = numbers.map(value_of).collect::<Option<_>>()?;
            }
            _ => {}
        }
        Some(())
    }

    /// The segments that the records list themselves.
    pub(super) fn segments(&self) -> Result<Vec<Segment>, Refusal> {
        if self.numbers.len() / 2 > MAX_SEGMENTS {
            return Err(TOO_MANY);
        }
        pairs(&self.numbers).ok_or(CONTRADICTS)
    }
}

fn pairs(numbers: &[u64]) -> Option<Vec<Segment>> {
    let pairs = numbers.chunks(2).map(|pair| match pair {
        [offset, length] => Some(Segment {
            offset: *offset,
            length: *length,
        }),
        _ => None,
    });
    pairs.collect()
}

/// The segments in a header block, the file's size, and whether blocks with more segments follow.
pub(super) struct HeaderMap {
    pub(super) segments: Vec<Segment>,
    pub(super) size: u64,
    pub(super) continues: bool,
}

impl HeaderMap {
    /// Reads a header of type S, in GNU's layout or star's.
    pub(super) fn of(header: &Header) -> Result<Self, Refusal> {
        let block = header.as_bytes();
        let star = block[508..512] == *b"tar\0";
        let (first, continues, size) = if star {
            (356, 355, 452)
        } else {
            (386, 482, 483)
        };
        let mut segments = Vec::new();
        append(&mut segments, &block[first..first + 4 * PIECE])?;
        let size = number(&block[size..size + 12]).and_then(|size| u64::try_from(size).ok());
        Ok(Self {
            segments,
            size: size.ok_or(CONTRADICTS)?,
            continues: !matches!(block[continues], 0 | b'0'),
        })
    }

    /// Takes a block that follows the header.
    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<(), Refusal> {
        append(&mut self.segments, &block[..21 * PIECE])?;
        self.continues = !matches!(block[21 * PIECE], 0 | b'0');
        Ok(())
    }
}

/// Takes segments up to the first empty field.
fn append(segments: &mut Vec<Segment>, pieces: &[u8]) -> Result<(), Refusal> {
    for piece in pieces.chunks_exact(PIECE) {
        if piece[12] == 0 {
            break;
        }
        let value = |field| {
            number(field)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or(CONTRADICTS)
        };
        segments.push(Segment {
            offset: value(&piece[..12])?,
            length: value(&piece[12..])?,
        });
        if segments.len() > MAX_SEGMENTS {
            return Err(TOO_MANY);
        }
    }
    Ok(())
}

/// The map in front of the content in version 1.0: decimal numbers, one per line, of which the
/// first is the number of segments; it is padded to whole blocks.
#[derive(Debug, Default)]
pub(super) struct ContentMap {
    digits: Vec<u8>,
    pieces: Option<usize>,
    numbers: Vec<u64>,
}

impl ContentMap {
    /// Takes the next block; returns the segments if it was the last one.
    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Segment>>, Refusal> {
        for byte in block {
            match byte {
                b'0'..=b'9' if self.digits.len() < MAX_DIGITS => self.digits.push(*byte),
                b'\n' => {
                    let number =
                        decimal(&self.digits).and_then(|number| u64::try_from(number).ok());
                    let number = number.ok_or(CONTRADICTS)?;
                    self.digits.clear();
                    match self.pieces {
                        Some(_) => self.numbers.push(number),
                        None => {
                            let pieces = usize::try_from(number)
                                .ok()
                                .filter(|pieces| *pieces <= MAX_SEGMENTS);
                            self.pieces = Some(pieces.ok_or(TOO_MANY)?);
                        }
                    }
                    if self
                        .pieces
                        .is_some_and(|pieces| self.numbers.len() == 2 * pieces)
                    {
                        return pairs(&self.numbers).ok_or(CONTRADICTS).map(Some);
                    }
                }
                _ => return Err(CONTRADICTS),
            }
        }
        Ok(None)
    }
}

/// Checks that the segments are in order within a file of `size` bytes, and have `stored` bytes
/// together. Removes the empty segment that marks the file's end.
pub(super) fn check(
    mut segments: Vec<Segment>,
    size: u64,
    stored: u64,
) -> Result<Vec<Segment>, Refusal> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in &segments {
        let after = segment
            .offset
            .checked_add(segment.length)
            .ok_or(CONTRADICTS)?;
        if segment.offset < end || after > size {
            return Err(CONTRADICTS);
        }
        (end, total) = (after, total + segment.length);
    }
    if total != stored {
        return Err(CONTRADICTS);
    }
    segments.retain(|segment| segment.length > 0);
    Ok(segments)
}
