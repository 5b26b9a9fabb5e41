//! Reads a YAML mapping of settings key by key: keys with or without a leading colon, every problem
//! with its line, and a warning for every key that nobody asked for.

mod entries;
mod problem;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use codedeploy_hooks::appspec::closest;
use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use entries::Entries;
use problem::{Position, line_of};
pub use problem::{ReadError, Warning, bullets};

/// An effective setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    pub key: &'static str,
    /// `null` if it is not set and has no default; a password in a URL is hidden.
    pub value: Json,
    /// Its line in the file; `None` for a default.
    pub line: Option<usize>,
}

/// Reads one file. Ask for every known key, then call [`Reader::finish`].
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    mapping: Mapping,
    asked: BTreeSet<&'static str>,
    /// Keys that were set by their earlier names.
    renamed: HashMap<&'static str, &'static str>,
    effective: Vec<Effective>,
    problems: Vec<ReadError>,
    warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8]) -> Result<Self, ReadError> {
        let whole = |line, what: String| ReadError {
            place: Position { line, key: None },
            what,
        };
        let text = std::str::from_utf8(text).map_err(|error| {
            let line = text[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            whole(Some(line), "is not UTF-8 text".into())
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let Entries(entries) = match serde_yaml::from_str(text) {
            Ok(entries) => entries,
            Err(_) => match serde_yaml::from_str::<Value>(text) {
                Ok(Value::Null) => Entries(Vec::new()),
                Ok(other) => {
                    let found = describe(&other);
                    return Err(whole(
                        None,
                        format!("found {found}; expected `key: value` lines"),
                    ));
                }
                Err(error) => {
                    let line = error.location().map(|at| at.line());
                    return Err(whole(line, format!("is not YAML: {error}")));
                }
            },
        };
        let mut mapping = Mapping::new();
        let mut repeated = BTreeSet::new();
        for (key, value) in entries {
            let key = match key {
                Value::String(text) => text.strip_prefix(':').unwrap_or(&text).into(),
                other => other,
            };
            if mapping.insert(key.clone(), value).is_some() {
                repeated.insert(key_text(&key));
            }
        }
        let warnings = repeated
            .into_iter()
            .map(|key| Warning::repeated(text, key))
            .collect();
        let (asked, renamed, effective, problems) = Default::default();
        Ok(Self {
            text,
            mapping,
            asked,
            renamed,
            effective,
            problems,
            warnings,
        })
    }

    /// A text; numbers and booleans count as the text that they are written as.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::Number(number) => Some(number.to_string()),
            other => self.wrong(key, &other, "a text"),
        }
    }

    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        match self.take(key)? {
            Value::String(text) if text.starts_with('/') => Some(PathBuf::from(text)),
            other => self.wrong(key, &other, "an absolute path"),
        }
    }

    pub fn text_or(&mut self, key: &'static str, default: &str) -> String {
        let found = self.text(key);
        found.unwrap_or_else(|| self.default(key, default.to_owned()))
    }

    pub fn path_or(&mut self, key: &'static str, default: &str) -> PathBuf {
        let found = self.path(key);
        found.unwrap_or_else(|| PathBuf::from(self.default(key, default.to_owned())))
    }

    pub fn folder_name_or(&mut self, key: &'static str, default: &str) -> String {
        let found = self.folder_name(key);
        found.unwrap_or_else(|| self.default(key, default.to_owned()))
    }

    /// The name of one folder, not a path.
    pub fn folder_name(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text)
                if !text.is_empty()
                    && text != "."
                    && text != ".."
                    && !text.contains(['/', '\0']) =>
            {
                Some(text)
            }
            other => self.wrong(key, &other, "the name of a folder, without '/'"),
        }
    }

    pub fn url(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) if is_url(&text) => Some(text.trim_end_matches('/').to_owned()),
            Value::String(text) => {
                let found = Value::String(without_password(&text));
                self.wrong(key, &found, "a URL that begins with https:// or http://")
            }
            other => self.wrong(key, &other, "a URL that begins with https:// or http://"),
        }
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.take(key) else {
            return self.default(key, default);
        };
        match &value {
            Value::Bool(flag) => *flag,
            Value::String(text)
                if ["true", "yes", "on"].contains(&text.to_ascii_lowercase().as_str()) =>
            {
                true
            }
            Value::String(text)
                if ["false", "no", "off"].contains(&text.to_ascii_lowercase().as_str()) =>
            {
                false
            }
            other => self.wrong(key, other, "true or false").unwrap_or(default),
        }
    }

    pub fn seconds(&mut self, key: &'static str, default: u64) -> Duration {
        let expected = "a number of seconds, 0 or more";
        let Some(value) = self.take(key) else {
            return Duration::from_secs(self.default(key, default));
        };
        let seconds = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse::<f64>().ok(),
            _ => None,
        };
        // 10,000 days: far beyond any use, far below what timers can hold.
        match seconds.filter(|seconds| (0.0..864_000_000.0).contains(seconds)) {
            Some(seconds) => Duration::from_secs_f64(seconds),
            None => self.wrong(key, &value, expected).unwrap_or_default(),
        }
    }

    pub fn at_least_one(&mut self, key: &'static str, default: usize) -> usize {
        let Some(value) = self.take(key) else {
            return self.default(key, default);
        };
        let number = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match number
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| *number >= 1)
        {
            Some(number) => number,
            None => self
                .wrong(key, &value, "a whole number, at least 1")
                .unwrap_or(default),
        }
    }

    /// A value that `parse` accepts; `expected` describes it.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let text = match &value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        text.as_deref()
            .and_then(parse)
            .or_else(|| self.wrong(key, &value, expected))
    }

    /// The same with a default for an absent key: its value, and its form in a file.
    pub fn parsed_or<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        (value, written): (T, &str),
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let found = self.parsed(key, expected, parse);
        found.unwrap_or_else(|| {
            self.default(key, written.to_owned());
            value
        })
    }

    /// Uses the value under a key's earlier name, if the key itself is absent.
    pub fn renamed(&mut self, earlier: &'static str, key: &'static str) -> &mut Self {
        let spellings = |key: &str| [key.to_owned(), format!(":{key}")];
        let is_there = spellings(key)
            .iter()
            .any(|key| self.mapping.contains_key(key.as_str()));
        for spelling in spellings(earlier) {
            if let Some(value) = self.mapping.remove(spelling.as_str()).filter(|_| !is_there) {
                self.mapping.insert(key.into(), value);
                self.renamed.insert(key, earlier);
            }
        }
        self
    }

    /// A known key that asks for normal behaviour: silently accepted.
    pub fn ignored(&mut self, key: &'static str, _why: &str) {
        self.remove(key);
    }

    /// A key that must be absent.
    pub fn refused(&mut self, key: &'static str, why: &str) {
        if self.remove(key).is_some() {
            self.problem(key, why.to_owned());
        }
    }

    /// Two keys that exclude each other.
    pub fn conflict(&mut self, key: &'static str, other: &'static str) {
        self.problem(
            key,
            format!("found together with {other}; only one of the two can apply: remove the other"),
        );
    }

    /// A key that the rest of the file requires.
    pub fn missing(&mut self, key: &'static str, why: &str) {
        self.problems.push(ReadError {
            place: Position {
                line: None,
                key: Some(key.into()),
            },
            what: why.to_owned(),
        });
    }

    /// Every key that was asked for, in that order, with its value; keys without an effect are left
    /// out.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Ends the reading: returns every problem in the order of the file, or else the warnings.
    pub fn finish(mut self) -> Result<Vec<Warning>, Vec<ReadError>> {
        let left: Vec<String> = self.mapping.keys().map(key_text).collect();
        for key in left {
            let hint = closest(&key, self.asked.iter().copied())
                .map(|known| format!("; did you mean {known}?"))
                .unwrap_or_default();
            let place = Position {
                line: line_of(self.text, &key),
                key: Some(key),
            };
            self.warnings.push(Warning {
                place,
                what: format!("unknown key, ignored{hint}"),
            });
        }
        self.problems.sort_by_key(|problem| problem.place.line);
        if self.problems.is_empty() {
            Ok(self.warnings)
        } else {
            Err(self.problems)
        }
    }

    /// Takes the value of `key` in either spelling; null counts as absent.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        let value = self.remove(key);
        let line = value.as_ref().and_then(|_| self.line_of(key));
        let shown = value.as_ref().map_or(Json::Null, shown);
        self.effective.push(Effective {
            key,
            value: shown,
            line,
        });
        value
    }

    /// Notes that `key` has its default.
    fn default<T: Into<Json> + Clone>(&mut self, key: &'static str, default: T) -> T {
        if let Some(effective) = self
            .effective
            .iter_mut()
            .rfind(|effective| effective.key == key)
        {
            effective.value = default.clone().into();
        }
        default
    }

    fn remove(&mut self, key: &'static str) -> Option<Value> {
        self.asked.insert(key);
        self.mapping.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn wrong<T>(&mut self, key: &str, found: &Value, expected: &str) -> Option<T> {
        self.problem(
            key,
            format!("found {}; expected {expected}", describe(found)),
        );
        None
    }

    fn problem(&mut self, key: &str, what: String) {
        let place = self.place(key);
        self.problems.push(ReadError { place, what });
    }

    fn place(&self, key: &str) -> Position {
        Position {
            line: self.line_of(key),
            key: Some(key.to_owned()),
        }
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        line_of(self.text, self.renamed.get(key).copied().unwrap_or(key))
    }
}

fn is_url(text: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| {
        text.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty())
    }) && !text.contains(char::is_whitespace)
}

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.trim_start_matches(':').to_owned(),
        other => describe(other),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let text = without_password(text);
            let short: String = text.chars().take(80).collect();
            format!(
                "{short:?}{}",
                if short.len() < text.len() { "…" } else { "" }
            )
        }
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(_) => "a tagged value".into(),
    }
}

/// A value in the form for people.
fn shown(value: &Value) -> Json {
    match value {
        Value::String(text) => without_password(text).into(),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

/// Returns `text` without the password before the host of a URL; a part that cannot be parsed is
/// hidden, too.
pub fn without_password(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    let start = before.find("//").map_or(0, |slashes| slashes + 2);
    match before[start..].split_once(':') {
        Some((user, _)) => format!("{}{user}:(hidden)@{host}", &before[..start]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_key_that_stands_there_more_than_once_the_last_one_counts_and_a_warning_says_so() {
        let text =
            b"# fleet\n:verbose: true\nroot_dir: /a\nverbose: true\n\"root_dir\": /b\n:verbose: false\n";
        let mut reader = Reader::new(text).unwrap();
        assert!(!reader.flag("verbose", true));
        assert_eq!(reader.path("root_dir"), Some("/b".into()));
        let lines: Vec<_> = reader
            .effective()
            .iter()
            .map(|setting| setting.line)
            .collect();
        assert_eq!(lines, [Some(6), Some(5)]);
        let warnings: Vec<_> = reader
            .finish()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            warnings,
            [
                "line 5: root_dir: stands on line 3 already; this one, the last, counts",
                "line 6: verbose: stands on line 2 and line 4 already; this one, the last, counts",
            ]
        );
        let mut flow = Reader::new(b"{verbose: true, verbose: false}").unwrap();
        assert!(!flow.flag("verbose", true));
        assert_eq!(flow.finish().unwrap().len(), 1);
    }
}
