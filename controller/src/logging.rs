//! The log: on the standard error, one line for each event, with the fields of its request.

use std::ffi::OsStr;
use std::io::Write as _;

use codedeploy_support::fields::EachField;
use codedeploy_support::plain::harmless;
use codedeploy_support::timestamp::rfc3339;
use serde::{Deserialize, Serialize, Serializer as _};
use serde_json::Value;
use time::OffsetDateTime;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The threshold and the format of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logging {
    pub level: Threshold,
    pub format: Format,
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One object per line.
    #[default]
    Json,
    /// `TIME LEVEL message name=value …`
    Text,
}

impl Logging {
    /// Starts logging like this. A second call in one process has no effect.
    pub(crate) fn begin(self) {
        let level = match self.level {
            Threshold::Error => LevelFilter::ERROR,
            Threshold::Warn => LevelFilter::WARN,
            Threshold::Info => LevelFilter::INFO,
            Threshold::Debug => LevelFilter::DEBUG,
        };
        // `s3s` reports clients' mistakes as errors; its callers report the service's own.
        let targets = Targets::new()
            .with_default(level.min(LevelFilter::INFO))
            .with_target(env!("CARGO_CRATE_NAME"), level)
            .with_target("s3s", LevelFilter::OFF);
        let to_journal = is_journal(std::env::var_os("JOURNAL_STREAM").as_deref());
        let lines = Lines {
            format: self.format,
            to_journal,
        };
        let _ = tracing_subscriber::registry()
            .with(lines)
            .with(targets)
            .try_init();
    }
}

/// Writes events as lines.
struct Lines {
    format: Format,
    /// Whether the journal reads the lines, and takes their priority from the prefix
    /// (sd-daemon(3)).
    to_journal: bool,
}

impl Lines {
    fn priority(&self, level: Level) -> Vec<u8> {
        let priority = match level {
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            _ => "<7>",
        };
        if self.to_journal {
            priority.into()
        } else {
            Vec::new()
        }
    }
}

/// Whether the standard error is the journal, by device and inode in the environment.
fn is_journal(stream: Option<&OsStr>) -> bool {
    let found = rustix::fs::fstat(std::io::stderr()).ok();
    let found = found.map(|file| format!("{}:{}", file.st_dev, file.st_ino));
    stream.is_some_and(|stream| found.is_some_and(|found| *stream == *found))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields.reader());
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(&mut fields.reader());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields.reader());
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.inherit(outer);
            }
        }
        let mut line = self.priority(*event.metadata().level());
        line.extend(match self.format {
            Format::Json => json(event.metadata(), OffsetDateTime::now_utc(), &fields),
            Format::Text => text(event.metadata(), OffsetDateTime::now_utc(), &fields),
        });
        line.push(b'\n');
        // There is nobody to report to if the log cannot be written.
        let _ = std::io::stderr().lock().write_all(&line);
    }
}

/// The message and the non-empty fields, in order.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn reader(&mut self) -> EachField<impl FnMut(&Field, Value) + '_> {
        EachField(|field: &Field, value| self.note(field, value))
    }

    fn note(&mut self, field: &Field, value: Value) {
        let value = match value {
            Value::String(text) => Value::String(bounded(text)),
            other => other,
        };
        match (field.name(), value) {
            (_, Value::String(text)) if text.is_empty() => {}
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.retain(|(known, _)| *known != name);
                self.others.push((name, value));
            }
        }
    }

    /// Takes over the fields of an enclosing span; the inner value counts.
    fn inherit(&mut self, outer: &Fields) {
        for (name, value) in &outer.others {
            if self.others.iter().all(|(known, _)| known != name) {
                self.others.push((name, value.clone()));
            }
        }
    }
}

fn json(metadata: &Metadata<'_>, now: OffsetDateTime, fields: &Fields) -> Vec<u8> {
    let mut line = Vec::new();
    let own = [
        ("time", Value::from(rfc3339(now))),
        ("level", metadata.level().as_str().into()),
        ("message", harmless(&fields.message).into()),
    ];
    let others = fields.others.iter().map(|(name, value)| match value {
        Value::String(text) => (*name, harmless(text).into()),
        other => (*name, other.clone()),
    });
    let all = own
        .into_iter()
        .chain(others)
        .chain([("target", metadata.target().into())]);
    // Writing texts and numbers to memory cannot fail.
    let _ = serde_json::Serializer::new(&mut line).collect_map(all);
    line
}

fn text(metadata: &Metadata<'_>, now: OffsetDateTime, fields: &Fields) -> Vec<u8> {
    let level: &Level = metadata.level();
    let mut line = format!(
        "{} {:5} {}",
        rfc3339(now),
        level.as_str(),
        harmless(&fields.message)
    );
    for (name, value) in &fields.others {
        let value = match value {
            Value::String(text) if text.contains([' ', '"', '=']) => {
                format!("{:?}", harmless(text))
            }
            Value::String(text) => harmless(text).into_owned(),
            other => other.to_string(),
        };
        line.push_str(&format!(" {name}={value}"));
    }
    line.into_bytes()
}

/// The number of characters of one field: many contain clients' texts.
const MAX_FIELD: usize = 2000;

/// Cuts a text that would make a line too long.
fn bounded(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_FIELD) {
        let more = text.get(end..).map_or(0, |rest| rest.chars().count());
        text.truncate(end);
        text.push_str(&format!("… ({more} more characters)"));
    }
    text
}
