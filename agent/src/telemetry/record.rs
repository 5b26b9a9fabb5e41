//! One line of a log, and its layouts. Characters that affect a terminal are never written raw.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::SystemTime;

use codedeploy_hooks::clock::LocalTime;
pub use codedeploy_support::plain::harmless;
use codedeploy_support::plain::is_hostile;
use codedeploy_support::timestamp::rfc3339;
use serde_json::Value;
use tracing::Level;

/// Fields that come first, in this order, regardless of the order in which they were recorded.
const FIRST: [&str; 7] = [
    "deployment_id",
    "deployment_group",
    "application",
    "lifecycle_event",
    "script",
    "command",
    "duration_ms",
];

/// Names that every line has.
const RESERVED: [&str; 4] = ["time", "level", "message", "target"];

/// The values of a line, each name once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<(Cow<'static, str>, Value)>);

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub time: SystemTime,
    pub level: Level,
    /// The module that wrote it.
    pub target: Cow<'static, str>,
    pub message: String,
    pub fields: Fields,
}

impl Fields {
    /// Sets `name`; a later value replaces an earlier one.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        let mut name = name.into();
        if RESERVED.contains(&name.as_ref()) {
            name = Cow::Owned(format!("{name}_"));
        }
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// Sets all fields of `others`.
    pub fn extend(&mut self, others: &Fields) {
        for (name, value) in &others.0 {
            self.set(name.clone(), value.clone());
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// Returns the text field `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// Returns all fields, the well-known ones first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let first = FIRST
            .iter()
            .filter_map(|name| Some((*name, self.get(name)?)));
        let others = self.0.iter().map(|(name, value)| (name.as_ref(), value));
        first.chain(others.filter(|(name, _)| !FIRST.contains(name)))
    }
}

impl Record {
    /// Formats a JSON object on one line, without its newline.
    pub fn json(&self) -> String {
        let mut line = format!(
            r#"{{"time":"{}","level":"{}","message":{}"#,
            rfc3339(self.time.into()),
            self.level,
            quoted(&self.message)
        );
        for (name, value) in self.fields.iter() {
            let value = match value {
                Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::String(text) => quoted(text),
                Value::Array(_) | Value::Object(_) => quoted(&value.to_string()),
            };
            let _ = write!(line, ",{}:{value}", quoted(name));
        }
        let _ = write!(line, r#","target":{}}}"#, quoted(&self.target));
        line
    }

    /// Formats a line in the layout of AWS's agent 1.8.1, without its newline: the host's time, the
    /// level, and the message.
    pub fn text(&self, program: &str, pid: u32) -> String {
        let time = LocalTime::of(self.time).seconds().replace(' ', "T");
        format!(
            "{time} {:<5} [{program}({pid})]: {}",
            self.level,
            self.sentence()
        )
    }

    /// The message and every field as `name=value`.
    pub fn sentence(&self) -> String {
        let mut sentence = harmless(&self.message).into_owned();
        for (name, value) in self.fields.iter() {
            let _ = write!(sentence, " {}={}", harmless(name), shown(value));
        }
        sentence
    }
}

/// Formats a value as a word, in quotes if necessary.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let apart = |c: char| c.is_whitespace() || c == '"' || c == '=';
            let text = harmless(text);
            if text.is_empty() || text.contains(apart) {
                format!("\"{}\"", text.replace('"', "\\\""))
            } else {
                text.into_owned()
            }
        }
        other => harmless(&other.to_string()).into_owned(),
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Each of them is one UTF-16 unit.
            c if is_hostile(c) => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn record(message: &str) -> Record {
        let mut fields = Fields::default();
        fields.set("bytes", 12.into());
        fields.set("deployment_id", "d-1".into());
        fields.set("key", "a b\"\u{1b}[31m".into());
        fields.set("level", "deep".into());
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_795_381_200_042),
            level: Level::INFO,
            target: "module".into(),
            message: message.into(),
            fields,
        }
    }

    #[test]
    fn json_has_stable_names_first_and_one_line() {
        assert_eq!(
            record("two\nlines \u{9b}31m \\").json(),
            r#"{"time":"2026-11-22T21:00:00.042Z","level":"INFO","message":"two\nlines \u009b31m \\","deployment_id":"d-1","bytes":12,"key":"a b\"\u001b[31m","level_":"deep","target":"module"}"#
        );
    }

    #[test]
    fn any_text_comes_back_from_json() {
        let message: String = (0..0x3000).filter_map(char::from_u32).collect();
        let read: Value = serde_json::from_str(&record(&message).json()).unwrap();
        assert_eq!(read["message"], message);
    }

    #[test]
    fn text_is_laid_out_as_the_official_agent_does_it() {
        let record = record("two\nlines");
        let time = LocalTime::of(record.time).seconds().replace(' ', "T");
        assert_eq!(
            record.text("codedeploy-agent", 7),
            format!(
                r#"{time} INFO  [codedeploy-agent(7)]: two\nlines deployment_id=d-1 bytes=12 key="a b\"\u{{1b}}[31m" level_=deep"#
            )
        );
    }
}
