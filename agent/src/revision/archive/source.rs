//! Reads a bundle through its handle at a position of its own, so that several readers share one
//! open file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::arrival::Arrival;

/// A bundle's open file, complete or on its way.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub(super) file: Arc<File>,
    arrival: Option<Arc<Arrival>>,
}

impl Bundle {
    /// A file that is read behind the streams that fill it.
    pub(in super::super) fn arriving(file: Arc<File>, arrival: Arc<Arrival>) -> Self {
        Self {
            file,
            arrival: Some(arrival),
        }
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source {
            file: &self.file,
            arrival: self.arrival.as_deref(),
            position: 0,
        }
    }
}

impl From<File> for Bundle {
    fn from(whole: File) -> Self {
        Self {
            file: Arc::new(whole),
            arrival: None,
        }
    }
}

/// A reader over an open file. The file is never opened again by its path, so the checked bytes are
/// the ones that are read.
#[derive(Debug, Clone)]
pub(super) struct Source<'a> {
    file: &'a File,
    arrival: Option<&'a Arrival>,
    position: u64,
}

impl<'a> Source<'a> {
    /// A reader over a complete file.
    pub(super) fn at(file: &'a File, position: u64) -> Self {
        Self {
            file,
            arrival: None,
            position,
        }
    }

    /// Reads what is there; nothing only at the end of the complete file.
    fn read_from(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = match self.arrival {
            Some(arrival) => arrival.wait(position)?.saturating_sub(position),
            None => u64::MAX,
        };
        let fits = usize::try_from(ready).map_or(buffer.len(), |ready| ready.min(buffer.len()));
        self.file.read_at(&mut buffer[..fits], position)
    }

    /// Reads without moving, beginning `back` bytes before the position; returns the number of
    /// bytes.
    pub(super) fn peek(&self, back: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let from = self.position.saturating_sub(back as u64);
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_from(from + filled as u64, &mut buffer[filled..]) {
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
        let count = self.read_from(self.position, buffer)?;
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
