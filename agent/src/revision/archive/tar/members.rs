//! Reads the members of a tar stream: v7, ustar, GNU, star and pax headers, one member at a time.
//!
//! The crate `tar` names the fields of header blocks, but its iterator is not used: it splits pax
//! records at newlines, which their values may contain, and reads name records of any size into
//! memory.

use std::io::{self, Read};

use ::tar::{EntryType, Header};

use super::super::BundleType;
use super::super::compression::StreamProblem;
use super::super::entry::EntryName;
use super::super::error::{Refusal, UnpackError};
use super::super::remarks::{Remark, Remarks};
use super::super::writer::Segment;
use super::header::{BLOCK, Numbers, is_header, own_name, text};
use super::member::{Kind, Member};
use super::pax::{Extension, Pax};
use super::sparse::{self, ContentMap, HeaderMap};

/// The largest GNU long name, in bytes.
const MAX_NAME_RECORD: u64 = 1024 * 1024;
/// The largest pax record, in bytes; the map of a file with very many holes is one.
const MAX_PAX_RECORD: u64 = 8 * 1024 * 1024;
/// The largest padding after the end marker, in bytes: that of the largest blocking factor in use,
/// with a margin.
const MAX_PADDING: u64 = 64 * 1024 * 1024;

/// The members of a stream, in order.
pub(super) struct Members<'a, R> {
    stream: R,
    kind: BundleType,
    /// Whether the stream is compressed: then its own length and checksum prove that it is
    /// complete.
    compressed: bool,
    remarks: &'a Remarks,
    /// The global pax records, which apply to every later member.
    global: Pax,
    /// The rest of the current member's content, and of the padding behind it.
    content: u64,
    padding: u64,
    last: Option<EntryName>,
}

impl<'a, R: Read> Members<'a, R> {
    pub(super) fn new(stream: R, kind: BundleType, compressed: bool, remarks: &'a Remarks) -> Self {
        let global = Pax::default();
        Self {
            stream,
            kind,
            compressed,
            remarks,
            global,
            content: 0,
            padding: 0,
            last: None,
        }
    }

    /// The content of the current member; ends early if the stream does.
    pub(super) fn content(&mut self) -> impl Read + '_ {
        Content(self)
    }

    /// Returns the next member; `None` after the end marker, if nothing behind it could be a
    /// member.
    pub(super) fn next(&mut self) -> Result<Option<Member>, UnpackError> {
        let mut extension = Extension {
            pax: self.global.clone(),
            ..Extension::default()
        };
        let mut described = false;
        loop {
            self.skip(self.content + self.padding)?;
            (self.content, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                if described {
                    return Err(
                        self.damaged("name or pax records describe a member that does not follow")
                    );
                }
                return Ok(None);
            };
            let numbers = Numbers::of(&header);
            let name = || EntryName::new(&own_name(&header));
            match header.entry_type().as_byte() {
                b'L' => extension.path = Some(self.name_record(&header, numbers)?),
                b'K' => extension.link = Some(self.name_record(&header, numbers)?),
                // Solaris wrote X before POSIX introduced x.
                b'x' | b'X' => extension.pax = self.pax_record(&header, numbers)?,
                b'g' => {
                    self.global = self.pax_record(&header, numbers)?;
                    if self.global.repeats_one_member() {
                        let problem = "global pax records that would give every later member one name or size";
                        return Err(Refusal::Header { problem }.of(name()));
                    }
                    if std::mem::take(&mut self.global.label) {
                        self.remarks.add(Remark::VolumeLabel, name());
                    }
                    if self.global.continued {
                        return Err(Refusal::Continued.of(name()));
                    }
                    extension.pax = self.global.clone();
                    continue;
                }
                b'V' => {
                    self.skip_member(numbers)?;
                    self.remarks.add(Remark::VolumeLabel, name());
                    continue;
                }
                b'A' | b'E' => {
                    self.skip_member(numbers)?;
                    self.remarks.add(Remark::SolarisAttributes, name());
                    continue;
                }
                _ => return self.member(&header, numbers, extension).map(Some),
            }
            described = true;
        }
    }

    fn member(
        &mut self,
        header: &Header,
        numbers: Numbers,
        extension: Extension,
    ) -> Result<Member, UnpackError> {
        let Extension {
            path,
            link,
            mut pax,
        } = extension;
        let sparse = pax.sparse.take();
        let sparse_name = sparse.as_ref().and_then(|sparse| sparse.name.clone());
        let path = sparse_name
            .or(pax.path)
            .or(path)
            .unwrap_or_else(|| own_name(header));
        let name = EntryName::new(&path);
        self.last = Some(name.clone());
        let refuse = |refusal: Refusal| refusal.of(name.clone());
        if pax.attributes {
            self.remarks.add(Remark::Attributes, name.clone());
        }
        let (kind, known) = kind(header.entry_type(), &path).map_err(refuse)?;
        if !known {
            self.remarks.add(Remark::UnknownType, name.clone());
        }
        let number =
            |field: Option<i128>, problem| field.ok_or_else(|| refuse(Refusal::Header { problem }));
        let stored = pax
            .size
            .or(numbers.size)
            .filter(|size| (0..=i128::from(i64::MAX)).contains(size));
        let stored = number(stored, "its size is no number of bytes")? as u64;
        let seconds = numbers
            .modified
            .and_then(|seconds| i64::try_from(seconds).ok());
        let seconds = seconds.ok_or_else(|| {
            refuse(Refusal::Header {
                problem: "its time is no number of seconds",
            })
        })?;
        let dump = header.entry_type().as_byte() == b'D';
        let stored = match kind {
            Kind::File => stored,
            // A dump's list of the folder's names, which is skipped.
            Kind::Folder if dump => stored,
            // Some writers give the size of the folder or of the linked file; no reader expects
            // content to follow.
            Kind::Folder if header.entry_type() == EntryType::Directory => 0,
            Kind::HardLink => 0,
            _ if stored > 0 => return Err(refuse(Refusal::UnexpectedData { bytes: stored })),
            _ => 0,
        };
        self.begin_content(stored);
        let (size, segments) = match (kind, sparse) {
            (Kind::File, sparse) => self.holes(header, sparse, stored, &name)?,
            _ => (0, None),
        };
        Ok(Member {
            kind,
            size,
            segments,
            link: pax
                .link
                .or(link)
                .unwrap_or_else(|| text(&header.as_old().linkname).to_vec()),
            mode: (number(numbers.mode, "its mode is no number")? & 0o7777) as u32,
            user: number(pax.user.or(numbers.user), "its user number is no number")?,
            group: number(pax.group.or(numbers.group), "its group number is no number")?,
            user_name: pax
                .user_name
                .or_else(|| header.username_bytes().map(<[u8]>::to_vec))
                .unwrap_or_default(),
            group_name: pax
                .group_name
                .or_else(|| header.groupname_bytes().map(<[u8]>::to_vec))
                .unwrap_or_default(),
            modified: match pax.modified {
                Some(modified) => modified,
                None => (seconds, 0),
            },
            path,
        })
    }

    /// Returns the size of a file with `stored` bytes in the archive and, if it has holes, their
    /// places in the file.
    fn holes(
        &mut self,
        header: &Header,
        sparse: Option<sparse::Sparse>,
        stored: u64,
        name: &EntryName,
    ) -> Result<(u64, Option<Vec<Segment>>), UnpackError> {
        let refuse = |refusal: Refusal| refusal.of(name.clone());
        let (size, segments) = if header.entry_type() == EntryType::GNUSparse {
            let mut map = HeaderMap::of(header).map_err(refuse)?;
            while map.continues {
                // More of the map follows the header, and is not counted in the content's size.
                let block = self.whole_block()?;
                map.extend(&block).map_err(refuse)?;
            }
            (Some(map.size), map.segments)
        } else {
            match sparse {
                None => return Ok((stored, None)),
                Some(sparse) if sparse.map_in_content => {
                    let mut map = ContentMap::default();
                    let segments = loop {
                        if self.content < BLOCK as u64 {
                            return Err(refuse(sparse::CONTRADICTS));
                        }
                        let block = self.whole_block()?;
                        self.content -= BLOCK as u64;
                        if let Some(segments) = map.take(&block).map_err(refuse)? {
                            break segments;
                        }
                    };
                    (sparse.size, segments)
                }
                Some(sparse) => (sparse.size, sparse.segments().map_err(refuse)?),
            }
        };
        let size = size.ok_or_else(|| refuse(sparse::CONTRADICTS))?;
        let segments = sparse::check(segments, size, self.content).map_err(refuse)?;
        Ok((size, Some(segments)))
    }

    /// Reads a header block; `None` at the archive's end.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0; BLOCK];
        match self.read_block(&mut block)? {
            BLOCK => {}
            0 if self.compressed && self.last.is_some() => {
                let last = self.last.clone().unwrap_or_else(|| EntryName::new(b""));
                self.remarks.add(Remark::NoEndMarker, last);
                return Ok(None);
            }
            _ => return Err(self.truncated()),
        }
        if block.iter().all(|byte| *byte == 0) {
            self.finish()?;
            return Ok(None);
        }
        if !is_header(&block) {
            return Err(self.damaged("a header's checksum is wrong"));
        }
        Ok(Some(Header::from_byte_slice(&block).clone()))
    }

    /// Reads a record that describes another member.
    fn record(
        &mut self,
        header: &Header,
        numbers: Numbers,
        most: u64,
    ) -> Result<Vec<u8>, UnpackError> {
        let size = numbers
            .size
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size <= most);
        let Some(size) = size else {
            return Err(
                Refusal::RecordTooLarge { limit: most }.of(EntryName::new(&own_name(header)))
            );
        };
        self.begin_content(size);
        let mut record = Vec::new();
        let read = self.content().read_to_end(&mut record);
        read.map_err(|source| self.failed(source))?;
        if record.len() as u64 == size {
            Ok(record)
        } else {
            Err(self.truncated())
        }
    }

    /// A GNU long name, up to its NUL.
    fn name_record(&mut self, header: &Header, numbers: Numbers) -> Result<Vec<u8>, UnpackError> {
        let mut record = self.record(header, numbers, MAX_NAME_RECORD)?;
        record.truncate(text(&record).len());
        Ok(record)
    }

    fn pax_record(&mut self, header: &Header, numbers: Numbers) -> Result<Pax, UnpackError> {
        let record = self.record(header, numbers, MAX_PAX_RECORD)?;
        Pax::parse(&self.global, &record)
            .ok_or(Refusal::Header {
                problem: "its pax records are malformed",
            })
            .map_err(|refusal| refusal.of(EntryName::new(&own_name(header))))
    }

    /// Skips content that belongs to no member.
    fn skip_member(&mut self, numbers: Numbers) -> Result<(), UnpackError> {
        let size = numbers
            .size
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size <= MAX_PAX_RECORD);
        let size = size.ok_or_else(|| self.damaged("a header's size is out of range"))?;
        self.begin_content(size);
        Ok(())
    }

    /// Reads everything after the end marker, to the end of the stream; this also verifies the
    /// trailer of the compression. A block that another reader could take for a member is not
    /// padding.
    fn finish(&mut self) -> Result<(), UnpackError> {
        let mut block = [0; BLOCK];
        let mut left = MAX_PADDING;
        let mut other = false;
        loop {
            let count = self.read_block(&mut block)?;
            if count == 0 {
                break;
            }
            let few = left.checked_sub(count as u64);
            left = few
                .filter(|_| count < BLOCK || !is_header(&block))
                .ok_or_else(|| UnpackError::TrailingData {
                    kind: self.kind,
                    last: self.last.clone(),
                })?;
            other |= block[..count].iter().any(|byte| *byte != 0);
        }
        if other {
            self.remarks.add(
                Remark::BehindEnd,
                self.last.clone().unwrap_or_else(|| EntryName::new(b".")),
            );
        }
        Ok(())
    }

    fn begin_content(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), UnpackError> {
        let mut buffer = [0; BLOCK];
        while bytes > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(bytes).unwrap_or(usize::MAX));
            let count = self.read(&mut buffer[..want])?;
            if count == 0 {
                return Err(self.truncated());
            }
            bytes -= count as u64;
        }
        Ok(())
    }

    fn whole_block(&mut self) -> Result<[u8; BLOCK], UnpackError> {
        let mut block = [0; BLOCK];
        match self.read_block(&mut block)? {
            BLOCK => Ok(block),
            _ => Err(self.truncated()),
        }
    }

    /// Reads a block; a shorter one only at the end.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, UnpackError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.read(&mut block[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(|source| self.failed(source)),
            }
        }
    }

    fn truncated(&self) -> UnpackError {
        UnpackError::Truncated {
            kind: self.kind,
            last: self.last.clone(),
        }
    }

    fn failed(&self, source: io::Error) -> UnpackError {
        if let Some(problem) = StreamProblem::of(&source) {
            return UnpackError::Stream(problem);
        }
        match &self.last {
            _ if source.kind() == io::ErrorKind::UnexpectedEof => self.truncated(),
            Some(entry) => UnpackError::ReadEntry {
                entry: entry.clone(),
                source,
            },
            None => UnpackError::Read {
                kind: self.kind,
                source,
            },
        }
    }

    fn damaged(&self, problem: &str) -> UnpackError {
        self.failed(io::Error::new(io::ErrorKind::InvalidData, problem))
    }
}

/// The kind of a member of this type, and whether the type is known; every tar unpacks unknown
/// types as files.
fn kind(entry_type: EntryType, path: &[u8]) -> Result<(Kind, bool), Refusal> {
    match entry_type {
        // Archives older than POSIX mark folders by a slash alone.
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => {
            Ok((Kind::Folder, true))
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Ok((Kind::File, true)),
        EntryType::Directory => Ok((Kind::Folder, true)),
        EntryType::Symlink => Ok((Kind::Symlink, true)),
        EntryType::Link => Ok((Kind::HardLink, true)),
        EntryType::Char => Err(Refusal::Special {
            kind: "a character device",
        }),
        EntryType::Block => Err(Refusal::Special {
            kind: "a block device",
        }),
        EntryType::Fifo => Err(Refusal::Special { kind: "a FIFO" }),
        other => match other.as_byte() {
            b'D' => Ok((Kind::Folder, true)),
            b'M' => Err(Refusal::Continued),
            _ => Ok((Kind::File, false)),
        },
    }
}

struct Content<'a, 'b, R>(&'a mut Members<'b, R>);

impl<R: Read> Read for Content<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.0.content).unwrap_or(usize::MAX));
        let count = self.0.stream.read(&mut buffer[..want])?;
        self.0.content -= count as u64;
        Ok(count)
    }
}
