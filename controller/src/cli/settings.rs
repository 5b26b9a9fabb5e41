//! `config`: what the service would run with, or all that is wrong with it.

use serde_json::{Value, json};

use super::CliError;
use super::console;
use super::table::table;
use crate::config::show::{Line, show};
use crate::config::{Arguments, Settings};
use crate::tls;

pub(super) fn config(arguments: Arguments, json: bool) -> Result<(), CliError> {
    let lines = show(arguments.clone())?;
    tls::check(&Settings::load(arguments)?.tls)?;
    let shown = if json { format!("{:#}", json!(lines)) } else { as_table(&lines) };
    Ok(console::show(shown)?)
}

fn as_table(lines: &[Line]) -> String {
    let row = |line: &Line| {
        let value = match &line.value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.escape_debug().to_string(),
            other => other.to_string(),
        };
        [line.key.clone(), value, line.origin.clone()]
    };
    table(["KEY", "VALUE", "FROM"], &lines.iter().map(row).collect::<Vec<_>>())
}
