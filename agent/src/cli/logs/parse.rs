//! Parses lines of logs: the agent's in both layouts, including those of AWS's agents, and script
//! output.
//!
//! No line is lost: an unrecognised line belongs to the line before it.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use codedeploy_hooks::clock::LocalTime;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::Level;

use crate::telemetry::record::{Fields, Record};

/// The name of the field that tells whether a line of script output came from `stdout` or `stderr`.
pub(super) const STREAM: &str = "stream";

/// The target of every line of a script log.
pub(super) const SCRIPT_LOG: &str = "script_log";

/// The number of deployments whose place in their lifecycle is remembered.
const MAX_PLACES: usize = 1000;

/// The log that a line belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Agent,
    /// The script output of all deployments.
    Deployments,
    /// The script output of one deployment.
    Scripts {
        deployment_id: String,
    },
}

/// Reads one log, line by line.
#[derive(Debug)]
pub(super) struct Parser {
    kind: Kind,
    last: Option<Record>,
    /// The lifecycle event and the script that each deployment's output belongs to.
    places: HashMap<String, (Option<String>, Option<String>)>,
}

impl Parser {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            last: None,
            places: HashMap::new(),
        }
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Record {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        let read = match &self.kind {
            Kind::Agent if line.starts_with('{') => agent_json(line),
            Kind::Agent => agent_text(line),
            Kind::Deployments => deployments_entry(line)
                .map(|(time, deployment_id, entry)| self.output(time, deployment_id, entry)),
            Kind::Scripts { deployment_id } => {
                let deployment_id = deployment_id.clone();
                scripts_entry(line).map(|(time, entry)| self.output(time, &deployment_id, entry))
            }
        };
        let record = read.unwrap_or_else(|| self.continued(line));
        self.last = Some(record.clone());
        record
    }

    fn output(&mut self, time: SystemTime, deployment_id: &str, entry: &str) -> Record {
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
        let place = self.places.entry(deployment_id.to_owned()).or_default();
        let mut message = entry;
        let mut stream = None;
        if let Some(event) = entry.strip_prefix("LifecycleEvent - ") {
            *place = (Some(event.to_owned()), None);
        } else if let Some(script) = entry.strip_prefix("Script - ") {
            place.1 = Some(script.to_owned());
        } else {
            for name in ["stdout", "stderr"] {
                if let Some(line) = entry
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_prefix(name)?.strip_prefix(']'))
                {
                    (message, stream) = (line, Some(name));
                }
            }
        }
        let mut fields = Fields::default();
        fields.set("deployment_id", deployment_id.into());
        let named = [
            ("lifecycle_event", place.0.clone()),
            ("script", place.1.clone()),
        ];
        for (name, value) in named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
        {
            fields.set(name, value.into());
        }
        if let Some(stream) = stream {
            fields.set(STREAM, stream.into());
        }
        Record {
            time,
            level: Level::INFO,
            target: SCRIPT_LOG.into(),
            message: message.to_owned(),
            fields,
        }
    }

    fn continued(&self, line: &str) -> Record {
        let mut fields = Fields::default();
        let last = self.last.as_ref();
        for name in ["deployment_id", "lifecycle_event", "script", STREAM] {
            if let Some(value) = last.and_then(|last| last.fields.get(name)) {
                fields.set(name, value.clone());
            }
        }
        Record {
            time: last.map_or(UNIX_EPOCH, |last| last.time),
            level: last.map_or(Level::INFO, |last| last.level),
            target: last.map_or("".into(), |last| last.target.clone()),
            message: line.to_owned(),
            fields,
        }
    }
}

fn agent_json(line: &str) -> Option<Record> {
    let Ok(Value::Object(object)) = serde_json::from_str(line) else {
        return None;
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let time = OffsetDateTime::parse(text("time")?, &Rfc3339).ok()?.into();
    let level = text("level")?.parse().ok()?;
    let message = text("message").unwrap_or_default().to_owned();
    let target = text("target").unwrap_or_default().to_owned().into();
    let mut fields = Fields::default();
    for (name, value) in object {
        if !["time", "level", "message", "target"].contains(&name.as_str()) {
            fields.set(name, value);
        }
    }
    Some(Record {
        time,
        level,
        target,
        message,
        fields,
    })
}

/// `YYYY-MM-DDTHH:MM:SS LEVEL [program(pid)]: message`; AWS's agents before 1.3 have a space
/// instead of the T.
fn agent_text(line: &str) -> Option<Record> {
    let (time, rest) = line.split_at_checked(19)?;
    let time = LocalTime::parse(time)?;
    let (level, rest) = rest
        .strip_prefix(' ')?
        .split_once(" [")
        .or_else(|| rest.trim_start().split_once(' '))?;
    let level = match level.trim() {
        "FATAL" => Level::ERROR,
        other => other.parse().ok()?,
    };
    let message = rest.split_once("]: ").map_or(rest, |(_, message)| message);
    let mut fields = Fields::default();
    let id = message
        .split(' ')
        .rev()
        .find_map(|word| word.strip_prefix("deployment_id="));
    if let Some(id) = id.filter(|id| !id.starts_with('"')) {
        fields.set("deployment_id", id.into());
    }
    Some(Record {
        time,
        level,
        target: "".into(),
        message: message.to_owned(),
        fields,
    })
}

/// `[YYYY-MM-DD HH:MM:SS.mmm] [<deployment-id>]<entry>`
pub(super) fn deployments_entry(line: &str) -> Option<(SystemTime, &str, &str)> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] [")?;
    let (deployment_id, entry) = rest.split_once(']')?;
    Some((LocalTime::parse(time)?, deployment_id, entry))
}

/// `YYYY-MM-DD HH:MM:SS <entry>`
fn scripts_entry(line: &str) -> Option<(SystemTime, &str)> {
    let (time, entry) = line.split_at_checked(19)?;
    Some((LocalTime::parse(time)?, entry.strip_prefix(' ')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_layouts_and_of_the_official_agents_are_read() {
        let mut parser = Parser::new(Kind::Agent);
        let json = parser.line(
            br#"{"time":"2026-11-22T21:00:00.042Z","level":"WARN","message":"m","deployment_id":"d-1","bytes":3,"target":"t"}"#,
        );
        assert_eq!((json.level, json.message.as_str()), (Level::WARN, "m"));
        assert_eq!(json.fields.get("bytes"), Some(&3.into()));
        let text = parser.line(json.text("codedeploy-agent", 7).as_bytes());
        assert_eq!(text.fields.text("deployment_id"), Some("d-1"));
        assert_eq!(
            (text.level, text.message.as_str()),
            (Level::WARN, "m deployment_id=d-1 bytes=3")
        );
        let old =
            parser.line(b"2018-03-07 12:10:00 INFO  [codedeploy-agent(1025)]: Version file found");
        assert_eq!(old.message, "Version file found");
    }

    #[test]
    fn output_knows_its_event_and_its_script() {
        let mut parser = Parser::new(Kind::Deployments);
        let mut line =
            |entry: &str| parser.line(format!("[2026-11-22 21:00:00.001] [d-1]{entry}").as_bytes());
        line("LifecycleEvent - ApplicationStart");
        line("Script - start.sh");
        let record = line("[stderr]oops [stdout]");
        assert_eq!(record.message, "oops [stdout]");
        let names = ["deployment_id", "lifecycle_event", "script", STREAM];
        assert_eq!(
            names.map(|name| record.fields.text(name).unwrap()),
            ["d-1", "ApplicationStart", "start.sh", "stderr"]
        );
    }

    #[test]
    fn what_means_nothing_belongs_to_the_line_before() {
        for kind in [
            Kind::Agent,
            Kind::Deployments,
            Kind::Scripts {
                deployment_id: "d-1".into(),
            },
        ] {
            let mut parser = Parser::new(kind);
            for line in [
                &b""[..],
                b"\xff\xfe",
                b"{",
                b"{}",
                b"[",
                b"2026-11-22T21:00:00",
                "2026-11-22 21:00:0é x".as_bytes(),
            ] {
                let record = parser.line(line);
                assert_eq!(record.time, UNIX_EPOCH);
                assert_eq!(record.message, String::from_utf8_lossy(line));
            }
        }
    }
}
