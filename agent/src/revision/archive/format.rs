//! Recognises a bundle's format by its first bytes, whatever the deployment names.

use std::io;

use super::compression::Compression;
use super::source::Source;
use super::tar::begins_with_header;

/// The number of bytes that decide: the first header block of a tar.
const START: usize = 512;

/// The format in the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Empty,
    Tar,
    Compressed(Compression),
    Zip,
    /// A known format that is no bundle, with its name in messages.
    Other(&'static str),
    Unknown,
}

impl Format {
    pub(super) fn of(bundle: &Source<'_>) -> io::Result<Self> {
        let mut start = [0; START];
        let length = bundle.peek(0, &mut start)?;
        Ok(Self::of_start(&start[..length]))
    }

    fn of_start(start: &[u8]) -> Self {
        if start.is_empty() {
            return Self::Empty;
        }
        // This comes before any magic number, because a tar begins with the name of its first
        // entry, which can be anything.
        if begins_with_header(start) {
            return Self::Tar;
        }
        if let Some(compression) = Compression::of(start) {
            return Self::Compressed(compression);
        }
        let known = MAGIC.iter().find(|(magic, _)| start.starts_with(magic));
        known.map_or(Self::Unknown, |(_, format)| *format)
    }

    /// The format's name in messages.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Empty => Some("empty"),
            Self::Tar => Some("a tar without compression"),
            Self::Compressed(compression) => Some(compression.described()),
            Self::Zip => Some("a zip"),
            Self::Other(name) => Some(name),
            Self::Unknown => None,
        }
    }
}

const MAGIC: [(&[u8], Format); 16] = [
    (b"PK\x03\x04", Format::Zip),
    (b"PK\x05\x06", Format::Zip),
    (b"PK\x07\x08", Format::Zip),
    (
        b"LZIP",
        Format::Other("compressed with lzip, which is not supported"),
    ),
    (
        b"\x04\x22\x4d\x18",
        Format::Other("compressed with lz4, which is not supported"),
    ),
    (
        b"\x02\x21\x4c\x18",
        Format::Other("compressed with lz4, which is not supported"),
    ),
    (
        b"\x89LZO",
        Format::Other("compressed with lzop, which is not supported"),
    ),
    (
        b"\x5d\0\0",
        Format::Other("compressed with lzma, which is not supported"),
    ),
    (
        b"\x1f\x9d",
        Format::Other("compressed with compress (.Z), which is not supported"),
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        Format::Other("a 7z archive, which is not supported"),
    ),
    (
        b"Rar!",
        Format::Other("a rar archive, which is not supported"),
    ),
    (
        b"07070",
        Format::Other("a cpio archive, which is not supported"),
    ),
    (
        b"!<arch>",
        Format::Other("an ar archive, such as a Debian package, which is not supported"),
    ),
    (
        b"\xed\xab\xee\xdb",
        Format::Other("an rpm package, which is not supported"),
    ),
    (b"<", Format::Other("an HTML or XML document")),
    (b"-----BEGIN ", Format::Other("encrypted or encoded text")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        for (start, name) in [
            (&b""[..], "empty"),
            (b"\x1f\x8b\x08\0", "compressed with gzip"),
            (b"BZh91AY&SY", "compressed with bzip2"),
            (b"\xfd7zXZ\0", "compressed with xz"),
            (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
            (b"\x5a\x2a\x4d\x18\x04", "compressed with zstd"),
            (b"LZIP\x01", "compressed with lzip, which is not supported"),
            (b"PK\x03\x04", "a zip"),
            (b"<!DOCTYPE html>", "an HTML or XML document"),
        ] {
            assert_eq!(Format::of_start(start).name(), Some(name));
        }
        assert_eq!(Format::of_start(b"BZhello"), Format::Unknown);
    }
}
