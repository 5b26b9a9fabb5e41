//! Problems and warnings about a file, with their lines.

use std::fmt;

/// A problem that makes a file unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{what}")]
pub struct ReadError {
    pub(super) place: Position,
    pub(super) what: String,
}

/// Formats problems as a list, one on each line.
pub fn bullets(problems: &[ReadError]) -> String {
    problems
        .iter()
        .map(|problem| format!("  - {problem}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A fact about a file that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub(super) place: Position,
    pub(super) what: String,
}

impl Warning {
    /// A repeated key: AWS's agents silently take the last one.
    pub(super) fn repeated(text: &str, key: String) -> Self {
        let mut lines: Vec<_> = lines_of(text, &key).collect();
        let line = lines.pop();
        let mut what = "stands there more than once; the last one counts".to_owned();
        if !lines.is_empty() {
            let earlier: Vec<_> = lines.iter().map(|line| format!("line {line}")).collect();
            what = format!(
                "stands on {} already; this one, the last, counts",
                earlier.join(" and ")
            );
        }
        Self {
            place: Position {
                line,
                key: Some(key),
            },
            what,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.what)
    }
}

/// The line and the key, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: Option<usize>,
    pub(super) key: Option<String>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        Ok(())
    }
}

/// The line, counted from 1, of the last occurrence of `key` at the top level, which is the one
/// that counts.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    lines_of(text, key).last()
}

fn lines_of(text: &str, key: &str) -> impl Iterator<Item = usize> {
    let starts = move |line: &str| {
        let line = line.trim_start_matches(['"', '\'', ':']);
        let rest = line.strip_prefix(key)?;
        rest.trim_start_matches(['"', '\''])
            .trim_start()
            .starts_with(':')
            .then_some(())
    };
    text.lines()
        .zip(1..)
        .filter_map(move |(line, number)| starts(line).map(|()| number))
}
