//! The text of the configuration file: read so that one look finds every mistake, each with its line.

use std::ops::Range;
use std::path::Path;

use serde_yaml::Value;

use super::ConfigError;
use super::file::{File, KEYS, MAX_SIZE};

/// A file that was read: what it says where that can be understood, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) file: File,
    /// The whole of it, to tell what it says from what is a default.
    pub(super) value: Value,
    pub(super) problems: Vec<ConfigError>,
}

/// An empty file says nothing.
pub(super) fn read(path: &Path) -> Result<Read, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let wrong = |found: String| ConfigError::NotAFile { path: path.to_owned(), found };
    // What is not a file could keep a reader waiting for ever.
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if found.is_dir() {
        return Err(wrong("a directory".into()));
    }
    if !found.is_file() {
        return Err(wrong("neither a file nor a directory".into()));
    }
    if found.len() > MAX_SIZE {
        return Err(wrong(format!("{} KiB long", found.len() / 1024)));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let value: Value = serde_yaml::from_slice(&bytes)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
    understand(value, String::from_utf8_lossy(&bytes).into_owned())
}

fn understand(value: Value, mut text: String) -> Result<Read, ConfigError> {
    let keys: Vec<String> = match &value {
        Value::Null => Vec::new(),
        Value::Mapping(mapping) => mapping.keys().map(key_text).collect(),
        _ => return Err(ConfigError::NoKeys),
    };
    let unknown = |key: &String| {
        let line = line_of(&text, key);
        let hint = closest(key).map(|known| format!(": did you mean {known}?")).unwrap_or_default();
        ConfigError::UnknownKey { place: place(line), key: key.clone(), hint }
    };
    let mut problems: Vec<_> = keys.iter().filter(|key| !KEYS.contains(&key.as_str())).map(unknown).collect();
    if value.get("s3").is_some_and(Value::is_null) {
        problems.push(ConfigError::NullS3 { place: place(line_of(&text, "s3")) });
    }
    // A parser stops at the first mistake: the setting that has it is taken out, and the rest is read again.
    let file = loop {
        let error = match serde_yaml::from_str::<Option<File>>(&text) {
            Ok(file) => break file.unwrap_or_default(),
            Err(error) => error,
        };
        let line = error.location().map(|location| location.line());
        problems.push(ConfigError::Value { place: place(line), what: in_words(&error) });
        let Some(lines) = line.and_then(|line| setting_around(&text, line)) else { break File::default() };
        let kept = |(index, line)| if lines.contains(&index) { "" } else { line };
        text = text.lines().enumerate().map(kept).collect::<Vec<_>>().join("\n");
    };
    Ok(Read { file, value, problems })
}

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
    }
}

fn place(line: Option<usize>) -> String {
    line.map(|line| format!("line {line}: ")).unwrap_or_default()
}

fn closest(key: &str) -> Option<&'static str> {
    let near = KEYS.iter().map(|known| (strsim::damerau_levenshtein(known, key), *known));
    near.filter(|(far, _)| *far <= 2).min().map(|(_, known)| known)
}

/// Whether a line begins a setting of the top level.
fn begins(line: &str) -> bool {
    line.starts_with(|c: char| c.is_alphanumeric() || "_\"'".contains(c)) && line.contains(':')
}

/// The line, counted from 1, on which a setting begins.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let is_it = |line: &str| {
        let rest = line.trim_start_matches(['"', '\'']).strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.lines().position(|line| begins(line) && is_it(line)).map(|index| index + 1)
}

/// The lines, counted from 0, of the setting that has a line, counted from 1.
fn setting_around(text: &str, line: usize) -> Option<Range<usize>> {
    let lines: Vec<&str> = text.lines().collect();
    let start =
        (0..line.min(lines.len())).rev().find(|index| lines.get(*index).is_some_and(|l| begins(l)))?;
    let after = lines.iter().skip(start + 1).position(|line| begins(line));
    Some(start..after.map_or(lines.len(), |after| start + 1 + after))
}

/// What the parser says, in the words of an operator and without its place.
fn in_words(error: &serde_yaml::Error) -> String {
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    let kinds = if said.starts_with("alarms") { "prometheus or webhook" } else { "haproxy or webhook" };
    said.replace("invalid type: ", "found ")
        .replace("invalid value: ", "found ")
        .replace("unknown variant ", "found ")
        .replace("expected map with a single key", &format!("expected {kinds}"))
        .replace("expected f64", "expected a number")
        .replace("expected usize", "expected a whole number")
        .replace("expected a map", "expected names with their values")
}
