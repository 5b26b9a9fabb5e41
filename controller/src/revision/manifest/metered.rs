//! A reader that returns an error after a number of bytes, for libraries that keep in memory all that
//! an archive tells them to keep.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// A reader with a [`Meter`].
#[derive(Debug)]
pub(super) struct Metered<R> {
    inner: R,
    meter: Rc<Meter>,
}

/// The number of bytes that may still be read.
#[derive(Debug)]
pub(super) struct Meter(Cell<u64>);

impl Meter {
    /// Allows this number of bytes from now on.
    pub(super) fn allow(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

impl<R> Metered<R> {
    /// A reader that returns nothing until its meter allows it.
    pub(super) fn new(inner: R) -> (Self, Rc<Meter>) {
        let meter = Rc::new(Meter(Cell::new(0)));
        let metered = Metered {
            inner,
            meter: Rc::clone(&meter),
        };
        (metered, meter)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.0.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("a header in it is too long"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let length = buffer.len().min(most);
        let read = self
            .inner
            .read(buffer.get_mut(..length).unwrap_or_default())?;
        self.meter.0.set(left - read as u64);
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
