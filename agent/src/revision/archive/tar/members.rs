//! Reads the members of a tar stream: ustar, GNU and pax headers, one member at a time.
//!
//! The crate `tar` decodes header blocks; walking over them is done here, because its iterator splits pax records at
//! newlines, which their values may hold, and reads name records of any size into memory.

use std::io::{self, Read};

use ::tar::{EntryType, Header};

use super::super::BundleType;
use super::super::entry::EntryName;
use super::super::error::{Refusal, UnpackError};
use super::header::{Extension, Numbers, Pax};

const BLOCK: usize = 512;
/// Most bytes of a record that describes another member: pax records, GNU long names.
const MAX_RECORD: u64 = 1024 * 1024;
/// Most zeros behind the end marker: the padding of the largest blocking factor in use, generously.
const MAX_PADDING: u64 = 64 * 1024 * 1024;

/// What a member is; other types are refused while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
}

/// A member with everything that its headers say. Name and link target are not checked yet.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Target of a link, else empty.
    pub(super) link: Vec<u8>,
    /// Bytes of content.
    pub(super) size: u64,
    /// Permission bits, set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) user: i128,
    pub(super) group: i128,
    pub(super) user_name: Vec<u8>,
    pub(super) group_name: Vec<u8>,
    /// Seconds since the epoch, and nanoseconds.
    pub(super) modified: (i64, u32),
}

/// The members of a stream, in order.
#[derive(Debug)]
pub(super) struct Members<R> {
    stream: R,
    kind: BundleType,
    /// What is left of the current member's content, and of the padding behind it.
    content: u64,
    padding: u64,
    last: Option<EntryName>,
}

impl<R: Read> Members<R> {
    pub(super) fn new(stream: R, kind: BundleType) -> Self {
        Self { stream, kind, content: 0, padding: 0, last: None }
    }

    /// The content of the current member; ends early when the stream does.
    pub(super) fn content(&mut self) -> impl Read + '_ {
        Content(self)
    }

    /// The next member, or none after the end marker and nothing but zeros behind it.
    pub(super) fn next(&mut self) -> Result<Option<Member>, UnpackError> {
        let mut extension = Extension::default();
        loop {
            self.skip(self.content + self.padding)?;
            (self.content, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                if extension != Extension::default() {
                    return Err(self.damaged("name or pax records describe a member that does not follow"));
                }
                self.finish()?;
                return Ok(None);
            };
            let kind = header.entry_type();
            let numbers = Numbers::of(&header);
            match kind {
                EntryType::GNULongName => extension.path = Some(self.name_record(&header, numbers)?),
                EntryType::GNULongLink => extension.link = Some(self.name_record(&header, numbers)?),
                EntryType::XHeader => {
                    let record = self.record(&header, numbers)?;
                    extension.pax = self.pax(&header, &record)?;
                }
                EntryType::XGlobalHeader => {
                    let record = self.record(&header, numbers)?;
                    if self.pax(&header, &record)? != Pax::default() {
                        let problem = "global pax records that would change every later member";
                        return Err(Refusal::Header { problem }.of(EntryName::new(&header.path_bytes())));
                    }
                }
                _ => return self.member(&header, numbers, extension).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        numbers: Numbers,
        extension: Extension,
    ) -> Result<Member, UnpackError> {
        let Extension { path, link, pax } = extension;
        let path = path.or(pax.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let name = EntryName::new(&path);
        self.last = Some(name.clone());
        if pax.sparse {
            return Err(Refusal::Sparse.of(name));
        }
        let kind = kind(header.entry_type(), &path).map_err(|refusal| refusal.of(name.clone()))?;
        let number =
            |field: Option<i128>, problem| field.ok_or_else(|| Refusal::Header { problem }.of(name.clone()));
        let size = pax.size.or(numbers.size).filter(|size| (0..=i128::from(i64::MAX)).contains(size));
        let size = number(size, "its size is no number of bytes")? as u64;
        let seconds = numbers.modified.and_then(|seconds| i64::try_from(seconds).ok());
        let seconds = seconds.ok_or_else(|| {
            Refusal::Header { problem: "its time is no number of seconds" }.of(name.clone())
        })?;
        let member = Member {
            kind,
            size,
            link: link
                .or(pax.link)
                .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
                .unwrap_or_default(),
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
        };
        if kind != Kind::File && size > 0 {
            return Err(Refusal::UnexpectedData { bytes: size }.of(name));
        }
        self.begin_content(size);
        Ok(member)
    }

    /// Reads a header block; none at the end marker.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0; BLOCK];
        if !self.read_block(&mut block)? {
            return Err(UnpackError::Truncated { kind: self.kind, last: self.last.clone() });
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let checksum =
            block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
        if header.cksum().ok() != Some(checksum) {
            return Err(self.damaged("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// The whole of a record that describes another member.
    fn record(&mut self, header: &Header, numbers: Numbers) -> Result<Vec<u8>, UnpackError> {
        let name = EntryName::new(&header.path_bytes());
        let size = numbers.size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size <= MAX_RECORD);
        let Some(size) = size else {
            return Err(
                Refusal::Header { problem: "a record about another member is larger than 1 MiB" }.of(name)
            );
        };
        self.begin_content(size);
        let mut record = Vec::new();
        let read = self.content().read_to_end(&mut record);
        read.map_err(|source| self.failed(source))?;
        if record.len() as u64 != size {
            return Err(UnpackError::Truncated { kind: self.kind, last: self.last.clone() });
        }
        Ok(record)
    }

    /// A GNU long name, without the NUL that ends it.
    fn name_record(&mut self, header: &Header, numbers: Numbers) -> Result<Vec<u8>, UnpackError> {
        let mut record = self.record(header, numbers)?;
        if record.last() == Some(&0) {
            record.pop();
        }
        Ok(record)
    }

    fn pax(&self, header: &Header, record: &[u8]) -> Result<Pax, UnpackError> {
        Pax::parse(record)
            .ok_or(Refusal::Header { problem: "its pax records are malformed" })
            .map_err(|refusal| refusal.of(EntryName::new(&header.path_bytes())))
    }

    /// Reads to the end of the stream, which also checks what gzip appends.
    fn finish(&mut self) -> Result<(), UnpackError> {
        let mut buffer = [0; 16 * 1024];
        let mut left = MAX_PADDING;
        loop {
            let count = self.read(&mut buffer)?;
            let padding =
                left.checked_sub(count as u64).filter(|_| buffer[..count].iter().all(|byte| *byte == 0));
            left = padding
                .ok_or_else(|| UnpackError::TrailingData { kind: self.kind, last: self.last.clone() })?;
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn begin_content(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), UnpackError> {
        let mut buffer = [0; BLOCK];
        while bytes > 0 {
            let want = buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            let count = self.read(&mut buffer[..want])?;
            if count == 0 {
                return Err(UnpackError::Truncated { kind: self.kind, last: self.last.clone() });
            }
            bytes -= count as u64;
        }
        Ok(())
    }

    /// Whether a whole block was left; a part of one is a truncated archive.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, UnpackError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.read(&mut block[filled..])? {
                0 => return Ok(false),
                count => filled += count,
            }
        }
        Ok(true)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(|source| self.failed(source)),
            }
        }
    }

    fn failed(&self, source: io::Error) -> UnpackError {
        match &self.last {
            Some(entry) => UnpackError::ReadEntry { entry: entry.clone(), source },
            None => UnpackError::Read { kind: self.kind, source },
        }
    }

    fn damaged(&self, problem: &str) -> UnpackError {
        self.failed(io::Error::new(io::ErrorKind::InvalidData, problem))
    }
}

fn kind(entry_type: EntryType, path: &[u8]) -> Result<Kind, Refusal> {
    match entry_type {
        // Archives older than POSIX mark folders by a slash alone.
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Ok(Kind::Folder),
        EntryType::Regular | EntryType::Continuous => Ok(Kind::File),
        EntryType::Directory => Ok(Kind::Folder),
        EntryType::Symlink => Ok(Kind::Symlink),
        EntryType::Link => Ok(Kind::HardLink),
        EntryType::Char => Err(Refusal::Special { kind: "a character device" }),
        EntryType::Block => Err(Refusal::Special { kind: "a block device" }),
        EntryType::Fifo => Err(Refusal::Special { kind: "a FIFO" }),
        EntryType::GNUSparse => Err(Refusal::Sparse),
        other => Err(Refusal::UnknownType { code: other.as_byte().into() }),
    }
}

struct Content<'a, R>(&'a mut Members<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.0.content).unwrap_or(usize::MAX));
        let count = self.0.stream.read(&mut buffer[..want])?;
        self.0.content -= count as u64;
        Ok(count)
    }
}
