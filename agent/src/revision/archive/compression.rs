//! Decompresses a tar: gzip, bzip2, xz and zstd; several streams in a row count as one.
//!
//! Zeros may follow the last stream, as tapes, `dd` and some uploaders leave them, but nothing
//! else. Decoders and their memory exist only while a bundle of their kind is unpacked; a bundle
//! that needs more than [`MAX_WINDOW`] for its history is rejected.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, FrameHeaderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::source::Source;

/// The largest history that is kept in memory: the default limit of `zstd -d`, and twice what
/// `xz -9` needs.
const MAX_WINDOW: u64 = 128 * 1024 * 1024;
/// The memory of xz in addition to its dictionary, in KiB, with a margin.
const XZ_OVERHEAD: u32 = 1024;
/// The longest magic number, in bytes.
const MAGIC: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    pub(super) fn described(self) -> &'static str {
        match self {
            Self::Gzip => "compressed with gzip",
            Self::Bzip2 => "compressed with bzip2",
            Self::Xz => "compressed with xz",
            Self::Zstd => "compressed with zstd",
        }
    }
}

/// A problem of a compressed bundle other than damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamProblem {
    #[error(
        "the bundle's {0} stream needs more than {limit} MiB of memory; compress it without --long, --ultra or a larger \
         dictionary than that of xz -9",
        limit = MAX_WINDOW >> 20
    )]
    Window(&'static str),
    #[error(
        "the bundle holds other bytes than zeros behind its {0} stream, which would be dropped; build it as one archive"
    )]
    Behind(&'static str),
    #[error(
        "the bundle's zstd stream needs a dictionary that is not in it; compress it without --dict"
    )]
    Dictionary,
}

impl StreamProblem {
    /// Returns the problem that `error` carries, if it is one of these.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

type Input<'a> = BufReader<Source<'a>>;

/// The contents of a bundle's compressed streams, concatenated.
pub(super) struct Decompressed<'a> {
    compression: Compression,
    state: State<'a>,
}

enum State<'a> {
    /// At the beginning, or after a stream.
    Between(Input<'a>),
    Gzip(Box<GzDecoder<Input<'a>>>),
    Bzip2(BzDecoder<Input<'a>>),
    Xz(Box<XzReader<Input<'a>>>),
    Zstd(Box<Zstd<'a>>),
    /// At the end, or after an error.
    Ended,
}

impl<'a> Decompressed<'a> {
    /// `input` begins with a stream of `compression`.
    pub(super) fn new(compression: Compression, input: Input<'a>) -> Self {
        Self {
            compression,
            state: State::Between(input),
        }
    }

    /// Returns the decoder of the next stream; none if only zeros follow.
    fn next(&self, mut input: Input<'a>) -> io::Result<State<'a>> {
        let mut start = [0; MAGIC];
        // The buffer may end within the magic number, so the file is read directly.
        let length = input.get_ref().peek(input.buffer().len(), &mut start)?;
        let start = &start[..length];
        if Compression::of(start) != Some(self.compression) {
            if only_zeros(&mut input)? {
                return Ok(State::Ended);
            }
            return Err(io::Error::other(StreamProblem::Behind(
                self.compression.name(),
            )));
        }
        Ok(match self.compression {
            Compression::Gzip => State::Gzip(Box::new(GzDecoder::new(input))),
            Compression::Bzip2 => State::Bzip2(BzDecoder::new(input)),
            Compression::Xz => {
                let limit = (MAX_WINDOW >> 10) as u32 + XZ_OVERHEAD;
                State::Xz(Box::new(XzReader::new_mem_limit(input, false, limit)))
            }
            Compression::Zstd => State::Zstd(Box::new(Zstd::new(input))),
        })
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.state {
                State::Between(_) => 0,
                State::Gzip(decoder) => decoder.read(buffer)?,
                State::Bzip2(decoder) => decoder.read(buffer)?,
                State::Xz(decoder) => decoder.read(buffer).map_err(xz_problem)?,
                State::Zstd(decoder) => decoder.read(buffer)?,
                State::Ended => return Ok(0),
            };
            if count > 0 {
                return Ok(count);
            }
            let input = match std::mem::replace(&mut self.state, State::Ended) {
                State::Between(input) => input,
                State::Gzip(decoder) => decoder.into_inner(),
                State::Bzip2(decoder) => decoder.into_inner(),
                State::Xz(decoder) => decoder.into_inner(),
                State::Zstd(decoder) => decoder.input,
                State::Ended => return Ok(0),
            };
            self.state = self.next(input)?;
        }
    }
}

fn xz_problem(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::OutOfMemory => io::Error::other(StreamProblem::Window("xz")),
        _ => error,
    }
}

/// One frame of zstd; frames without content are skipped.
struct Zstd<'a> {
    input: Input<'a>,
    decoder: FrameDecoder,
    begun: bool,
}

impl<'a> Zstd<'a> {
    fn new(input: Input<'a>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self {
            input,
            decoder,
            begun: false,
        }
    }

    /// Reads the frame's header; returns whether it has content.
    fn begin(&mut self) -> io::Result<bool> {
        use FrameDecoderError as Error;
        match self.decoder.reset(&mut self.input) {
            Ok(()) => Ok(true),
            Err(Error::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = u64::from(length);
                if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(false)
            }
            Err(
                Error::WindowSizeTooBig { .. }
                | Error::FrameHeaderError(FrameHeaderError::WindowTooBig { .. }),
            ) => Err(io::Error::other(StreamProblem::Window("zstd"))),
            Err(Error::DictNotProvided { .. }) => Err(io::Error::other(StreamProblem::Dictionary)),
            Err(error) => Err(zstd_error(error)),
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.decoder.get_checksum_from_data() {
            Some(found) if self.decoder.get_calculated_checksum() != Some(found) => {
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a zstd frame's checksum is wrong",
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Read for Zstd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            self.begun = true;
            if !self.begin()? {
                return Ok(0);
            }
        }
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
            self.decoder
                .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(zstd_error)?;
        }
        let count = self.decoder.read(buffer)?;
        if count == 0 {
            self.check()?;
        }
        Ok(count)
    }
}

/// Keeps the kind of the input's error, so that a truncated stream can be reported as such.
fn zstd_error(error: FrameDecoderError) -> io::Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut kind = io::ErrorKind::InvalidData;
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            kind = cause.kind();
        }
        source = cause.source();
    }
    io::Error::new(kind, error)
}

fn only_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        match available.len() {
            0 => return Ok(true),
            length => input.consume(length),
        }
    }
}
