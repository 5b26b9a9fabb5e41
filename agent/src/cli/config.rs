//! `codedeploy-agent config`: the effective settings and the origin of each.

use std::io::{self, Write};
use std::path::Path;

use codedeploy_support::plain::harmless_json;
use serde_json::{Value, json};

use crate::config::reader::without_password;
use crate::config::{ConfigError, DEFAULT_FILE, Environment, Loaded, Settings, TRUST_VARIABLES};

/// Environment variables that affect the settings, besides [`TRUST_VARIABLES`].
const VARIABLES: [&str; 3] = [
    "AWS_REGION",
    "AWS_HOST_IDENTIFIER",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

/// The arguments of `codedeploy-agent config`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print JSON: a list of key, value and origin.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot write the settings")]
    Write(#[source] io::Error),
}

/// One line of the output.
struct Line {
    key: String,
    value: Value,
    origin: String,
}

/// Prints the settings from `file` and `environment` to `out`, and warnings to `complaints`.
/// Secrets are hidden.
pub fn show(
    arguments: &Arguments,
    file: Option<&Path>,
    environment: &Environment,
    out: &mut impl Write,
    complaints: &mut impl Write,
) -> Result<(), ShowError> {
    let loaded = Settings::read(file, environment)?;
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    for warning in &loaded.warnings {
        writeln!(complaints, "warning: {}: {warning}", file.display()).map_err(ShowError::Write)?;
    }
    let lines = lines(&loaded, file, environment);
    let written = if arguments.json {
        as_json(&lines, out)
    } else {
        as_table(&lines, out)
    };
    match written {
        // The reader has closed the pipe because it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(ShowError::Write),
    }
}

fn lines(loaded: &Loaded, file: &Path, environment: &Environment) -> Vec<Line> {
    let settings = loaded.effective.iter().map(|setting| Line {
        key: setting.key.to_owned(),
        value: setting.value.clone(),
        origin: match setting.line {
            Some(line) => format!("{}:{line}", file.display()),
            None if setting.value.is_null() => "not set".into(),
            None => "default".into(),
        },
    });
    let variables = VARIABLES
        .into_iter()
        .chain(TRUST_VARIABLES)
        .filter_map(|name| {
            let value = without_password(environment.text(name)?).into();
            Some(Line {
                key: name.into(),
                value,
                origin: "environment".into(),
            })
        });
    settings.chain(variables).collect()
}

fn as_json(lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    let list: Vec<Value> = lines
        .iter()
        .map(|Line { key, value, origin }| json!({"key": key, "value": value, "origin": origin}))
        .collect();
    writeln!(
        out,
        "{}",
        harmless_json(&format!("{:#}", Value::Array(list)))
    )
}

fn as_table(lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<(&str, String, &str)> = lines
        .iter()
        .map(|Line { key, value, origin }| {
            let value = match value {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.escape_debug().to_string(),
                other => other.to_string(),
            };
            (key.as_str(), value, origin.as_str())
        })
        .collect();
    let wide = |column: fn(&(&str, String, &str)) -> usize| {
        rows.iter().map(column).max().unwrap_or_default()
    };
    let (keys, values) = (wide(|row| row.0.len()), wide(|row| row.1.chars().count()));
    rows.iter().try_for_each(|(key, value, origin)| {
        writeln!(out, "{key:keys$}  {value:values$}  {origin}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_shown_with_its_origin_and_no_password() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "# fleet\n:verbose: true\nproxy_uri: http://me:hush@proxy:3128\nmax_revision: 3\n";
        std::fs::write(file.path(), text).unwrap();
        let environment = Environment::new([("AWS_REGION".into(), "eu-west-1".into())]);
        let run = |json| {
            let (mut out, mut complaints) = (Vec::new(), Vec::new());
            show(
                &Arguments { json },
                Some(file.path()),
                &environment,
                &mut out,
                &mut complaints,
            )
            .unwrap();
            (
                String::from_utf8(out).unwrap(),
                String::from_utf8(complaints).unwrap(),
            )
        };
        let (table, complaints) = run(false);
        let row = |key: &str| {
            let row = table
                .lines()
                .find(|line| line.split_whitespace().next() == Some(key))
                .unwrap();
            row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        let at = file.path().display();
        assert_eq!(row("verbose"), format!("true {at}:2"));
        assert_eq!(
            row("proxy_uri"),
            format!("http://me:(hidden)@proxy:3128 {at}:3")
        );
        assert_eq!(row("max_revisions"), "5 default");
        assert_eq!(
            row("root_dir"),
            "/opt/codedeploy-agent/deployment-root default"
        );
        assert_eq!(row("s3_endpoint_override"), "- not set");
        assert_eq!(row("AWS_REGION"), "eu-west-1 environment");
        assert!(
            complaints.contains("line 4: max_revision: unknown key"),
            "{complaints}"
        );
        let (json, _) = run(true);
        let list: Vec<Value> = serde_json::from_str(&json).unwrap();
        let verbose = list.iter().find(|entry| entry["key"] == "verbose").unwrap();
        assert_eq!(
            (&verbose["value"], &verbose["origin"]),
            (&json!(true), &json!(format!("{at}:2")))
        );
        assert!(!table.contains("hush") && !json.contains("hush"));
    }
}
