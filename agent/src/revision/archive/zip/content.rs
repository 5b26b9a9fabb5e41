//! The content of one entry: decompressed, and verified against its checksum at its end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};

use bzip2::bufread::BzDecoder;
use deflate64::Deflate64Decoder;
use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::super::source::Source;
use super::directory::DirectoryEntry;

const BUFFER: usize = 32 * 1024;

/// The supported compression methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflate,
    Deflate64,
    Bzip2,
}

impl Method {
    /// Returns the method of this number, or the name of an unsupported one.
    pub(super) fn of(number: u16) -> Result<Self, String> {
        Err(match number {
            0 => return Ok(Self::Stored),
            8 => return Ok(Self::Deflate),
            9 => return Ok(Self::Deflate64),
            12 => return Ok(Self::Bzip2),
            1 => "shrink".to_owned(),
            2..=5 => "reduce".to_owned(),
            6 => "implode".to_owned(),
            14 => "LZMA".to_owned(),
            20 | 93 => "zstd".to_owned(),
            94 => "MP3".to_owned(),
            95 => "xz".to_owned(),
            96 => "JPEG".to_owned(),
            97 => "WavPack".to_owned(),
            98 => "PPMd".to_owned(),
            99 => "AES encryption".to_owned(),
            other => format!("method {other}, which this agent does not know"),
        })
    }
}

type Packed<'a> = BufReader<Take<Source<'a>>>;

pub(super) struct Content<'a> {
    decoder: Decoder<'a>,
    expected: u32,
    crc: Crc,
}

enum Decoder<'a> {
    Stored(Packed<'a>),
    Deflate(DeflateDecoder<Packed<'a>>),
    Deflate64(Deflate64Decoder<Packed<'a>>),
    Bzip2(BzDecoder<Packed<'a>>),
}

impl<'a> Content<'a> {
    /// The content of `entry`, which begins at `position`.
    pub(super) fn open(
        bundle: &'a File,
        entry: &DirectoryEntry<'_>,
        method: Method,
        position: u64,
    ) -> Self {
        let capacity = BUFFER
            .min(usize::try_from(entry.packed).unwrap_or(BUFFER))
            .max(1);
        let packed =
            BufReader::with_capacity(capacity, Source::at(bundle, position).take(entry.packed));
        let decoder = match method {
            Method::Stored => Decoder::Stored(packed),
            Method::Deflate => Decoder::Deflate(DeflateDecoder::new(packed)),
            Method::Deflate64 => Decoder::Deflate64(Deflate64Decoder::with_buffer(packed)),
            Method::Bzip2 => Decoder::Bzip2(BzDecoder::new(packed)),
        };
        Self {
            decoder,
            expected: entry.crc,
            crc: Crc::new(),
        }
    }

    /// Fails if there is more content, or if the content differs from the original.
    fn finish(&mut self) -> io::Result<()> {
        let packed = match &mut self.decoder {
            Decoder::Stored(packed) => packed,
            Decoder::Deflate(decoder) => decoder.get_mut(),
            Decoder::Deflate64(decoder) => decoder.get_mut(),
            Decoder::Bzip2(decoder) => decoder.get_mut(),
        };
        let invalid = |problem| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        if !packed.fill_buf()?.is_empty() {
            return invalid("bytes follow its compressed content, which would be dropped");
        }
        if self.crc.sum() == self.expected {
            Ok(())
        } else {
            invalid("its checksum is wrong")
        }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.decoder {
            Decoder::Stored(packed) => packed.read(buffer),
            Decoder::Deflate(decoder) => decoder.read(buffer),
            Decoder::Deflate64(decoder) => decoder.read(buffer),
            Decoder::Bzip2(decoder) => decoder.read(buffer),
        }?;
        if count == 0 && !buffer.is_empty() {
            self.finish()?;
        }
        self.crc.update(&buffer[..count]);
        Ok(count)
    }
}
