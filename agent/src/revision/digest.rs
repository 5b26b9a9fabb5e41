//! Digests of content, and those of files that were just written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};

const BUFFER: usize = 64 * 1024;

/// How a digest is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Earlier versions of this agent used it.
    Sha256,
    Blake3,
}

impl Algorithm {
    /// The digest of everything in `source`, in hexadecimal digits.
    pub(super) fn digest(self, mut source: impl Read, buffer: &mut [u8]) -> io::Result<String> {
        match self {
            Self::Sha256 => {
                let mut context = Context::new(&SHA256);
                each_part(&mut source, buffer, |part| context.update(part))?;
                Ok(hex::encode(context.finish()))
            }
            Self::Blake3 => {
                let mut running = Running::default();
                each_part(&mut source, buffer, |part| running.update(part))?;
                Ok(running.finish().to_hex())
            }
        }
    }

    /// The function that computes the digest of a file.
    pub(super) fn of_file(self) -> fn(File) -> io::Result<String> {
        match self {
            Self::Sha256 => |file| Self::Sha256.digest(file, &mut vec![0; BUFFER]),
            Self::Blake3 => |file| Self::Blake3.digest(file, &mut vec![0; BUFFER]),
        }
    }
}

fn each_part(
    source: &mut dyn Read,
    buffer: &mut [u8],
    mut tell: impl FnMut(&[u8]),
) -> io::Result<()> {
    loop {
        match source.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => tell(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The digest of content that is on its way to a file.
#[derive(Debug, Default)]
pub(super) struct Running(blake3::Hasher);

impl Running {
    pub(super) fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    pub(super) fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// A digest of [`Algorithm::Blake3`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// The digests of files that this process wrote, by their inode numbers on one file system: a new
/// name for a file changes nothing.
#[derive(Debug, Default)]
pub struct Digests(HashMap<u64, Digest>);

impl Digests {
    /// Keeps the digest of a new file. Without one, nothing is known of the file, and an earlier
    /// file with this number is gone.
    pub(super) fn set(&mut self, inode: u64, digest: Option<Digest>) {
        match digest {
            Some(digest) => drop(self.0.insert(inode, digest)),
            None => drop(self.0.remove(&inode)),
        }
    }

    pub(super) fn get(&self, inode: u64) -> Option<Digest> {
        self.0.get(&inode).copied()
    }
}
