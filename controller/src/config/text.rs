//! Reads the text of the configuration file, and finds every mistake at once, each with its line.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::ConfigError;
use super::file::{File, KEYS, MAX_SIZE};

/// A file that was read: the settings that were understood, and the problems.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) file: File,
    /// The whole file, to tell its settings from defaults.
    pub(super) value: Value,
    pub(super) problems: Vec<ConfigError>,
}

/// An empty file has no settings.
pub(super) fn read(path: &Path) -> Result<Read, ConfigError> {
    let unreadable = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let wrong = |found: String| ConfigError::NotAFile {
        path: path.to_owned(),
        found,
    };
    // Reading something other than a file could block for ever.
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
    let value: Value = serde_yaml::from_slice(&bytes).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source,
    })?;
    understand(value, &String::from_utf8_lossy(&bytes))
}

/// Settings that contain others, each of which is read separately: a mistake in one hides none in
/// another.
const SECTIONS: [&str; 11] = [
    "tls",
    "s3",
    "timers",
    "quotas",
    "load_balancers",
    "alarms",
    "events",
    "events.topics",
    "identity_providers",
    "metrics",
    "console",
];
const LISTS: [&str; 2] = ["events.webhooks", "events.watches"];

fn understand(value: Value, text: &str) -> Result<Read, ConfigError> {
    let settings = match &value {
        Value::Null => Mapping::new(),
        Value::Mapping(mapping) => mapping.clone(),
        _ => return Err(ConfigError::NoKeys),
    };
    let mut sieve = Sieve {
        text,
        problems: Vec::new(),
    };
    let mut kept = Mapping::new();
    for (key, value) in settings {
        let key = key_text(&key);
        let path = [Step::Key(key.clone())];
        if !KEYS.contains(&key.as_str()) {
            sieve.unknown(&path, &KEYS);
        } else if key == "s3" && value.is_null() {
            let place = sieve.place(&path);
            sieve.problems.push(ConfigError::NullS3 { place });
        } else if key == "metrics" && value.is_null() {
            let place = sieve.place(&path);
            sieve.problems.push(ConfigError::NullMetrics { place });
        } else if key == "console" && value.is_null() {
            let place = sieve.place(&path);
            sieve.problems.push(ConfigError::NullConsole { place });
        } else if let Some(value) = sieve.sift(&path, value) {
            kept.insert(key.into(), value);
        }
    }
    let file = serde_yaml::from_value(Value::Mapping(kept)).unwrap_or_else(|error| {
        let what = in_words(&error, "");
        sieve.problems.push(ConfigError::Value {
            place: String::new(),
            what,
        });
        File::default()
    });
    Ok(Read {
        file,
        problems: sieve.problems,
        value,
    })
}

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other)
            .unwrap_or_default()
            .trim()
            .to_owned(),
    }
}

/// One step of a path into the settings.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Item(usize),
}

/// The path of a setting, such as `events.webhooks[0].url`.
fn named(path: &[Step]) -> String {
    let mut name = String::new();
    for step in path {
        match step {
            Step::Key(key) if name.is_empty() => name.push_str(key),
            Step::Key(key) => name.push_str(&format!(".{key}")),
            Step::Item(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}

/// Reads a value at its place, on its own.
fn attempt(path: &[Step], value: &Value) -> Result<(), serde_yaml::Error> {
    let around = |value: Value, step: &Step| match step {
        Step::Key(key) => Value::Mapping([(key.as_str().into(), value)].into_iter().collect()),
        Step::Item(_) => Value::Sequence(vec![value]),
    };
    serde_yaml::from_value::<File>(path.iter().rev().fold(value.clone(), around)).map(drop)
}

/// Removes the parts of the settings that cannot be understood.
struct Sieve<'a> {
    text: &'a str,
    problems: Vec<ConfigError>,
}

impl Sieve<'_> {
    /// Returns the part of a value that can be understood. Everything else is a problem.
    fn sift(&mut self, path: &[Step], mut value: Value) -> Option<Value> {
        let mut has_unknown = false;
        loop {
            let error = match attempt(path, &value) {
                Ok(()) => return Some(value),
                Err(error) => error,
            };
            let name = named(path);
            value = match value {
                Value::Mapping(parts) if SECTIONS.contains(&name.as_str()) => {
                    return Some(self.sift_parts(path, parts));
                }
                Value::Sequence(items) if LISTS.contains(&name.as_str()) => {
                    return Some(self.sift_items(path, items));
                }
                other => other,
            };
            let said = error.to_string();
            let unknown = said
                .strip_prefix("unknown field `")
                .and_then(|rest| rest.split_once('`'));
            if let Some((key, rest)) = unknown {
                let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
                if matches!(path.last(), Some(Step::Key(last)) if last == key) {
                    self.unknown(path, &known);
                    return None;
                }
                if remove(&mut value, key) {
                    self.unknown(&[path, &[Step::Key(key.to_owned())]].concat(), &known);
                    has_unknown = true;
                    continue;
                }
            }
            // A misspelt key also makes the right one seem missing.
            if !(has_unknown && said.starts_with("missing field")) {
                let (place, what) = (
                    self.place(path),
                    format!("{name}: {}", in_words(&error, &name)),
                );
                self.problems.push(ConfigError::Value { place, what });
            }
            return None;
        }
    }

    fn sift_parts(&mut self, path: &[Step], parts: Mapping) -> Value {
        let mut kept = Mapping::new();
        for (key, value) in parts {
            let below = [path, &[Step::Key(key_text(&key))]].concat();
            if let Some(value) = self.sift(&below, value) {
                kept.insert(key, value);
            }
        }
        Value::Mapping(kept)
    }

    fn sift_items(&mut self, path: &[Step], items: Vec<Value>) -> Value {
        let mut kept = Vec::new();
        for (index, value) in items.into_iter().enumerate() {
            kept.extend(self.sift(&[path, &[Step::Item(index)]].concat(), value));
        }
        Value::Sequence(kept)
    }

    fn unknown(&mut self, path: &[Step], known: &[&str]) {
        let key = named(path);
        let hint = match path.last() {
            Some(Step::Key(last)) => closest(last, known),
            _ => None,
        };
        let hint = hint
            .map(|known| format!(": did you mean {known}?"))
            .unwrap_or_default();
        let place = self.place(path);
        self.problems
            .push(ConfigError::UnknownKey { place, key, hint });
    }

    /// The line of a setting, or of the setting that contains it.
    fn place(&self, path: &[Step]) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut keys = path.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item(_) => None,
        });
        let begins =
            |line: &&str| line.starts_with(|c: char| c.is_alphanumeric() || "_\"'{".contains(c));
        let first = keys.next().unwrap_or_default();
        let of_key = |line: &&str| begins(line) && has_key(line, first);
        let Some(mut line) = lines.iter().position(of_key) else {
            return String::new();
        };
        let end = lines
            .iter()
            .skip(line + 1)
            .position(begins)
            .map_or(lines.len(), |after| line + 1 + after);
        for key in keys {
            let rest = lines.get(line..end).unwrap_or_default();
            match rest.iter().position(|text| has_key(text, key)) {
                Some(after) => line += after,
                None => break,
            }
        }
        format!("line {}: ", line + 1)
    }
}

/// Whether a line has this key, and not one that ends in it.
fn has_key(line: &str, key: &str) -> bool {
    line.match_indices(key).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        let after = line.get(at + key.len()..).unwrap_or_default();
        let is_word = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        !before.is_some_and(is_word)
            && after
                .trim_start_matches(['"', '\''])
                .trim_start()
                .starts_with(':')
    })
}

/// Removes a key from a value at any depth; returns whether it was there.
fn remove(value: &mut Value, key: &str) -> bool {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Mapping(mapping) => {
                if mapping.remove(key).is_some() {
                    return true;
                }
                left.extend(mapping.values_mut());
            }
            Value::Sequence(items) => left.extend(items),
            Value::Tagged(tagged) => left.push(&mut tagged.value),
            _ => {}
        }
    }
    false
}

fn closest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, key), *known));
    near.filter(|(far, _)| *far <= 2)
        .min()
        .map(|(_, known)| known)
}

/// The parser's message about the named setting, in an operator's words and without its position.
fn in_words(error: &serde_yaml::Error, name: &str) -> String {
    let said = error.to_string();
    let said = said
        .rsplit_once(" at line ")
        .map_or(said.as_str(), |(said, _)| said);
    let kinds = if name.starts_with("alarms") {
        "prometheus or webhook"
    } else {
        "haproxy or webhook"
    };
    said.replace("invalid type: ", "found ")
        .replace("invalid value: ", "found ")
        .replace("unknown variant ", "found ")
        .replace(
            "expected map with a single key",
            &format!("expected {kinds}"),
        )
        .replace("expected f64", "expected a number")
        .replace("expected usize", "expected a whole number")
        .replace("expected a map", "expected names with their values")
}
