//! Reads a bundle through its handle at a position of its own, so that several readers share one
//! open file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// A reader over a whole open file. The file is never opened again by its path, so the checked
/// bytes are the ones that are read.
#[derive(Debug, Clone)]
pub(super) struct Source<'a> {
    file: &'a File,
    position: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, position: 0 }
    }

    pub(super) fn at(file: &'a File, position: u64) -> Self {
        Self { file, position }
    }

    /// Reads without moving, beginning `back` bytes before the position; returns the number of
    /// bytes.
    pub(super) fn peek(&self, back: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let from = self.position.saturating_sub(back as u64);
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], from + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
            SeekFrom::End(delta) => self.file.metadata()?.len().checked_add_signed(delta),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
