//! Typed access to the tree: reading a value either returns it or adds a finding to the report.

use std::collections::HashMap;
use std::fmt::Display;

use codedeploy_api::lifecycle::LifecycleEvent;

use super::raw::{Node, Value};
use super::{AppSpec, Finding, Invalid, Parsed, Position, scalar};

/// The keys of the document itself.
pub(super) const TOP_LEVEL: [&str; 7] = [
    "version",
    "os",
    "files",
    "file_exists_behavior",
    "permissions",
    "hooks",
    "strategy",
];

/// The number of characters of a found text that a message quotes.
const QUOTED_CHARS: usize = 60;

/// All findings about a file, in the order in which they are made.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    pub(super) notes: Vec<Finding>,
    /// The file belongs to a revision that was deployed before. Values that official agents misread
    /// are read as those agents read them.
    pub(super) earlier: bool,
}

impl Report {
    /// Finishes the reading of `text`: the result is valid only if there was no problem. `entries`
    /// are the entry numbers of its permissions.
    pub(super) fn finish(
        mut self,
        read: Option<(AppSpec, Vec<usize>)>,
        text: &[u8],
    ) -> Result<Parsed, Invalid> {
        self.problems.sort_by_key(|finding| finding.position);
        self.warnings.sort_by_key(|finding| finding.position);
        let warnings = self.warnings;
        match read {
            Some((appspec, entries)) if self.problems.is_empty() => Ok(Parsed {
                appspec,
                warnings,
                notes: self.notes,
                entries,
                text: text.to_vec(),
            }),
            _ => Err(Invalid {
                problems: self.problems,
                warnings,
            }),
        }
    }
}

/// A value, and the path that leads to it.
#[derive(Debug)]
pub(super) struct Place<'t> {
    pub(super) node: &'t Node,
    path: String,
}

/// One key of a mapping whose keys are not known in advance.
#[derive(Debug)]
pub(super) struct Entry<'t> {
    pub(super) key: &'t str,
    pub(super) key_position: Position,
    pub(super) value: Place<'t>,
}

/// The meaning of a repeated key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeated {
    /// It is a problem.
    Refused,
    /// The last one counts; the warning ends in this hint.
    LastCounts(&'static str),
}

impl Repeated {
    /// For a mapping in a list: a forgotten '-' often turns two entries into one.
    pub(super) const IN_ENTRY: Self =
        Self::LastCounts("if two entries are meant, begin the second with '-'");
}

/// A mapping with known keys.
#[derive(Debug)]
pub(super) struct Fields<'t> {
    place: Place<'t>,
    values: Vec<Entry<'t>>,
}

impl<'t> Place<'t> {
    pub(super) fn root(node: &'t Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    pub(super) fn problem(&self, report: &mut Report, message: impl Display) {
        report.problems.push(self.finding(message));
    }

    pub(super) fn warning(&self, report: &mut Report, message: impl Display) {
        report.warnings.push(self.finding(message));
    }

    pub(super) fn finding(&self, message: impl Display) -> Finding {
        Finding {
            position: Some(self.node.position),
            path: self.path.clone(),
            message: message.to_string(),
        }
    }

    /// Reports a value that an official agent reads as `reading`, against its plain meaning. This
    /// is a problem; in an earlier revision, which ran with that reading, it is a warning.
    pub(super) fn misleads<T>(
        &self,
        report: &mut Report,
        message: impl Display,
        reading: T,
    ) -> Option<T> {
        if report.earlier {
            self.warning(report, message);
            return Some(reading);
        }
        self.problem(report, message);
        None
    }

    /// Adds the problem that every wrong value ends in.
    pub(super) fn unexpected(&self, report: &mut Report, expected: impl Display) {
        self.problem(
            report,
            format_args!("found {}; expected {expected}", self.found()),
        );
    }

    /// Describes the value that stands here.
    pub(super) fn found(&self) -> String {
        match &self.node.value {
            _ if self.node.is_null() => "nothing".to_owned(),
            Value::Scalar { text, .. } => quoted(text),
            Value::Sequence(items) if items.is_empty() => "an empty list".to_owned(),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(pairs) if pairs.is_empty() => "an empty mapping".to_owned(),
            Value::Mapping(_) => "a mapping (key: value)".to_owned(),
        }
    }

    /// The text as written, and whether it is plain; `None` for null and collections.
    pub(super) fn scalar(&self) -> Option<(&'t str, bool)> {
        match &self.node.value {
            Value::Scalar { text, plain } if !self.node.is_null() => Some((text, *plain)),
            _ => None,
        }
    }

    /// Whether this is an unquoted boolean that means false. The official agents treat it as absent
    /// in most places.
    pub(super) fn is_false(&self) -> bool {
        matches!(self.scalar(), Some((text, true)) if scalar::boolean(text) == Some(false))
    }

    /// Whether this is an empty text, list or mapping.
    pub(super) fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::Scalar { text, .. } => text.trim().is_empty(),
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(pairs) => pairs.is_empty(),
        }
    }

    /// Whether the value counts as absent. Unless it is YAML's null, a warning is added.
    pub(super) fn is_nothing(&self, report: &mut Report) -> bool {
        if self.node.is_null() {
            return true;
        }
        let nothing = self.is_empty() || self.is_false();
        if nothing {
            self.warning(
                report,
                format_args!("found {}, which counts as absent", self.found()),
            );
        }
        nothing
    }

    /// The same for a place where a mapping belongs, and may be empty.
    pub(super) fn is_nothing_but_mapping(&self, report: &mut Report) -> bool {
        !matches!(self.node.value, Value::Mapping(_)) && self.is_nothing(report)
    }

    /// A non-blank text, trimmed. Numbers and the like count as the text that they are written as.
    pub(super) fn text(&self, report: &mut Report, expected: impl Display) -> Option<&'t str> {
        let text = self
            .scalar()
            .map(|(text, _)| text.trim())
            .filter(|text| !text.is_empty());
        if text.is_none() {
            self.unexpected(report, expected);
        }
        text
    }

    /// The items of a list; an absent value is an empty list.
    pub(super) fn items(&self, report: &mut Report, expected: impl Display) -> Vec<Place<'t>> {
        match &self.node.value {
            Value::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(index, node)| Place {
                    node,
                    path: format!("{}[{index}]", self.path),
                })
                .collect(),
            _ => {
                if !self.is_nothing(report) {
                    self.unexpected(report, expected);
                }
                Vec::new()
            }
        }
    }

    /// The entries of a mapping by key, each key once; `None` if this is no mapping.
    pub(super) fn entries(
        &self,
        report: &mut Report,
        repeated: Repeated,
        expected: impl Display,
    ) -> Option<Vec<Entry<'t>>> {
        let Value::Mapping(pairs) = &self.node.value else {
            self.unexpected(report, expected);
            return None;
        };
        let mut entries: Vec<Option<Entry<'t>>> = Vec::with_capacity(pairs.len());
        let mut indices: HashMap<&str, usize> = HashMap::with_capacity(pairs.len());
        for (key, value) in pairs {
            let Value::Scalar { text, .. } = &key.value else {
                let found = Place {
                    node: key,
                    path: self.path.clone(),
                };
                found.warning(
                    report,
                    "found a list or mapping as the key, ignored; put a key with '[' or '{' in quotes",
                );
                continue;
            };
            let entry = Entry {
                key: text,
                key_position: key.position,
                value: Place {
                    node: value,
                    path: self.path_of(text),
                },
            };
            if let Some(earlier) = indices
                .insert(text, entries.len())
                .and_then(|at| entries[at].take())
            {
                entry.repeats(&earlier, report, repeated);
            }
            entries.push(Some(entry));
        }
        Some(entries.into_iter().flatten().collect())
    }

    /// The entries of a mapping with known keys, with a warning for every other key. `None` if this
    /// is no mapping.
    pub(super) fn fields(
        &self,
        report: &mut Report,
        known: &[&str],
        repeated: Repeated,
        expected: impl Display,
    ) -> Option<Fields<'t>> {
        let mut values = self.entries(report, repeated, expected)?;
        values.retain(|entry| {
            let is_known = known.contains(&entry.key);
            if entry.key == "<<" {
                let message = "ignored: merges something that is not a mapping; expected an alias of a mapping, or a list of such aliases";
                entry.value.warning(report, message);
            } else if !is_known {
                entry.warning(report, unknown_key(entry.key, known, self.path.is_empty()));
            }
            is_known
        });
        let place = Place {
            node: self.node,
            path: self.path.clone(),
        };
        Some(Fields { place, values })
    }

    fn path_of(&self, key: &str) -> String {
        let is_simple = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = if !key.is_empty() && key.len() <= 128 && key.chars().all(is_simple) {
            key.to_owned()
        } else {
            quoted(key)
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

impl Entry<'_> {
    pub(super) fn problem(&self, report: &mut Report, message: impl Display) {
        report.problems.push(self.finding(message));
    }

    pub(super) fn warning(&self, report: &mut Report, message: impl Display) {
        report.warnings.push(self.finding(message));
    }

    /// A finding about the key, not about its value.
    fn finding(&self, message: impl Display) -> Finding {
        Finding {
            position: Some(self.key_position),
            ..self.value.finding(message)
        }
    }

    fn repeats(&self, earlier: &Self, report: &mut Report, repeated: Repeated) {
        let line = earlier.key_position.line;
        match repeated {
            Repeated::Refused if !report.earlier => self.problem(
                report,
                format_args!(
                    "the key stands in line {line} already; write it once, with everything below it (AWS's agents take only the last)"
                ),
            ),
            Repeated::Refused => self.warning(
                report,
                format_args!("the key stands in line {line} already; only this last one counts"),
            ),
            Repeated::LastCounts(hint) => self.warning(
                report,
                format_args!("the key stands in line {line} already; only this last one counts; {hint}"),
            ),
        }
    }
}

impl<'t> Fields<'t> {
    /// Returns the value of `name`; `None` if it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&Place<'t>> {
        let entry = self.values.iter().find(|entry| entry.key == name)?;
        (!entry.value.node.is_null()).then_some(&entry.value)
    }

    /// Returns the value of `name`; reports a problem if it is absent or null.
    pub(super) fn require(
        &self,
        report: &mut Report,
        name: &str,
        expected: impl Display,
    ) -> Option<&Place<'t>> {
        if let Some(entry) = self.values.iter().find(|entry| entry.key == name) {
            if entry.value.node.is_null() {
                entry.value.unexpected(report, expected);
                return None;
            }
            return Some(&entry.value);
        }
        let missing = Place {
            node: self.place.node,
            path: self.place.path_of(name),
        };
        missing.problem(report, format_args!("missing; expected {expected}"));
        None
    }
}

/// Quotes `text`, without control characters, and cuts it if it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn unknown_key(key: &str, known: &[&str], at_top: bool) -> String {
    if !at_top && TOP_LEVEL.contains(&key) {
        return "ignored here; this key belongs at the top level of the file, without indentation"
            .to_owned();
    }
    if at_top && LifecycleEvent::standard().any(|event| event.name() == key) {
        return "ignored here; a lifecycle event belongs below 'hooks', indented".to_owned();
    }
    match closest(key, known.iter().copied()) {
        Some(meant) => format!("unknown key, ignored; did you mean {meant:?}?"),
        None => format!("unknown key, ignored; known here: {}", known.join(", ")),
    }
}

/// Returns the candidate that `word` most likely misspells.
pub fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= if candidate.len() < 6 { 1 } else { 2 })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of characters to insert, remove, replace or swap with their neighbour to turn `a`
/// into `b`. Words of very different length count as far apart without being compared.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Each row holds the distances from one prefix of `a` to every prefix of `b`.
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut two_above = above.clone();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = above[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(two_above[j - 1] + 1);
            }
            row.push(least);
        }
        two_above = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
