//! Repairs YAML 1.1 that the official agents accept and the YAML 1.2 parser rejects: a tab behind
//! ':', and lines of a list in brackets that are indented less than the line that the list belongs
//! to.

use std::collections::HashSet;

use saphyr_parser::{Marker, ScanError};

use super::{Finding, Position};

/// The number of lines that are changed before the text is given up, which bounds how often it is
/// read again.
const MAX_CHANGES: usize = 1000;
const MAX_READ: usize = 16 * 1024 * 1024;

/// A text, changed until it could be read, with the positions of the changes.
#[derive(Debug, Default)]
pub(super) struct Relaxed {
    pub(super) text: String,
    /// The lines that got `padding` blanks in front.
    padded: HashSet<usize>,
    /// More than any line has.
    padding: usize,
    pub(super) warnings: Vec<Finding>,
}

impl Relaxed {
    pub(super) fn new(text: &str) -> Self {
        let indentation = text
            .lines()
            .map(|line| line.len() - line.trim_start().len());
        Self {
            text: text.to_owned(),
            padding: indentation.max().unwrap_or_default() + 1,
            ..Self::default()
        }
    }

    /// Converts a position into that of the original text.
    pub(super) fn position(&self, marker: Marker) -> Position {
        let line = marker.line().max(1);
        let padding = if self.padded.contains(&line) {
            self.padding
        } else {
            0
        };
        Position {
            line,
            column: (marker.col() + 1).saturating_sub(padding).max(1),
        }
    }

    /// Changes the line of `error`; returns false if that would not help.
    pub(super) fn change(&mut self, error: &ScanError) -> bool {
        let (marker, info) = (*error.marker(), error.info());
        let number = marker.line();
        let Some(start) = line_start(&self.text, number) else {
            return false;
        };
        if self.warnings.len() >= MAX_CHANGES.min(MAX_READ / self.text.len().max(1)) {
            return false;
        }
        let position = self.position(marker);
        if info == "invalid indentation" && self.padded.insert(number) {
            self.text.insert_str(start, &" ".repeat(self.padding));
            self.warn(
                position,
                "the line is indented less than the line that it belongs to; indent it",
            );
            return true;
        }
        let line = self.text[start..].lines().next().unwrap_or_default();
        let before = line
            .char_indices()
            .nth(marker.col())
            .map_or(line.len(), |(at, _)| at);
        let blanks = line[..before].trim_end_matches([' ', '\t']).len();
        if info.contains("must be followed by a valid YAML whitespace")
            && line[blanks..before].contains('\t')
        {
            self.text
                .replace_range(start + blanks..start + before, &" ".repeat(before - blanks));
            self.warn(position, "found a tab in front of the value; write a blank");
            return true;
        }
        false
    }

    fn warn(&mut self, position: Position, message: &str) {
        let finding = Finding {
            position: Some(position),
            path: String::new(),
            message: message.to_owned(),
        };
        self.warnings.push(finding);
    }
}

/// The byte at which line `number`, counted from 1, begins.
fn line_start(text: &str, number: usize) -> Option<usize> {
    let mut starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    starts.nth(number.checked_sub(1)?)
}
