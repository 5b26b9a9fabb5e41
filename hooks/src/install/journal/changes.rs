//! The changes that a journal lists. They stay in the file, which is read again for each of them:
//! an Install may have a million.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::line::Line;
use super::{Record, parse};
use crate::install::step::Change;

/// Changes in the order in which they are made.
#[derive(Debug)]
pub(in crate::install) struct Changes {
    file: File,
    /// The offset at which the line of each change begins, and the offset at which the last line
    /// ends.
    starts: Vec<u64>,
}

impl Changes {
    pub(super) fn of(file: File, starts: Vec<u64>) -> Self {
        Self { file, starts }
    }

    pub(in crate::install) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    pub(in crate::install) fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = io::Result<Change>> + ExactSizeIterator {
        self.starts
            .windows(2)
            .map(|bounds| self.read(bounds[0], bounds[1]))
    }

    fn read(&self, start: u64, end: u64) -> io::Result<Change> {
        let mut line = vec![0; usize::try_from(end - start).unwrap_or_default()];
        self.file.read_exact_at(&mut line, start)?;
        // Without the end of the line.
        line.pop();
        let found = match Line::of(&mut line) {
            Line::Sealed(text) | Line::Bare(text) => parse(text),
            Line::Damaged => Err("it changed since it was read first".to_owned()),
        };
        match found {
            Ok(Record::Change(change)) => Ok(change),
            Ok(_) => Err(io::Error::other(
                "the line of a change of the journal has become another one",
            )),
            Err(problem) => Err(io::Error::other(format!(
                "the line of a change of the journal: {problem}"
            ))),
        }
    }
}
