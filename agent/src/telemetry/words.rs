//! Records as text for people, in colour on a terminal.

use std::fmt::Write;

use codedeploy_hooks::clock::LocalTime;
use serde_json::Value;
use tracing::Level;

use super::record::{Record, harmless, shown};

/// The contents of a line for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    pub colour: bool,
    /// Show the time of day first.
    pub time: bool,
    /// Leave out the deployment's names, because they are shown elsewhere.
    pub in_deployment: bool,
}

/// The fields that name a line's deployment, and those that a line shows in another way.
const OF_DEPLOYMENT: [&str; 3] = ["deployment_id", "deployment_group", "application"];
const SHOWN_APART: [&str; 4] = ["lifecycle_event", "script", "duration_ms", "command"];

/// One of the terminal's colours, or none.
#[derive(Debug, Clone, Copy)]
pub enum Colour {
    Dim,
    Red,
    Yellow,
    Cyan,
    Bold,
}

impl Style {
    /// Returns `text` in `colour`, if colours are on.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Formats `record` as one line, or as several if its message has them; without the last
    /// newline.
    pub fn words(self, record: &Record) -> String {
        let mut line = String::new();
        if self.time {
            let time = LocalTime::of(record.time).milliseconds();
            line += &self.paint(Colour::Dim, &time);
            line.push(' ');
        }
        let level = format!("{:<5}", record.level);
        line += &match record.level {
            Level::ERROR => self.paint(Colour::Red, &level),
            Level::WARN => self.paint(Colour::Yellow, &level),
            Level::INFO => level,
            _ => self.paint(Colour::Dim, &level),
        };
        let message: Vec<_> = record.message.lines().map(harmless).collect();
        let message = message.join("\n    ");
        let place = ["lifecycle_event", "script"]
            .into_iter()
            .filter_map(|name| record.fields.text(name));
        for part in place.filter(|part| !message.starts_with(part)) {
            let _ = write!(line, " {}:", self.paint(Colour::Cyan, &harmless(part)));
        }
        let _ = write!(line, " {message}");
        if let Some(milliseconds) = record.fields.get("duration_ms").and_then(Value::as_u64) {
            let _ = write!(
                line,
                " {}",
                self.paint(Colour::Bold, &duration(milliseconds))
            );
        }
        for (name, value) in record.fields.iter() {
            let left_out = self.in_deployment && OF_DEPLOYMENT.contains(&name);
            if !left_out && !SHOWN_APART.contains(&name) {
                let text = format!("{}={}", harmless(name), shown(value));
                let _ = write!(line, " {}", self.paint(Colour::Dim, &text));
            }
        }
        line
    }
}

fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("({milliseconds} ms)"),
        1000..60_000 => format!("({}.{} s)", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!(
            "({} min {} s)",
            milliseconds / 60_000,
            milliseconds % 60_000 / 1000
        ),
    }
}
