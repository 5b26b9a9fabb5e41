//! `audit`: the changes, the newest last.

use std::time::Duration;

use clap::Args;
use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{AuditEntry, ListAuditEntriesInput, ListAuditEntriesOutput};

use super::connect::Session;
use super::{OperateError, words};
use crate::cli::output;
use crate::cli::table::{table, when};

/// The changes to show.
#[derive(Debug, Args)]
pub(in crate::cli) struct Only {
    /// Only changes by users whose ARN contains this text.
    #[arg(long, value_name = "TEXT")]
    who: Option<String>,
    /// Only operations whose name contains this text, such as Deployment.
    #[arg(long, value_name = "TEXT")]
    operation: Option<String>,
    /// Only changes of objects whose name contains this text, such as an application or a host.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

pub(super) async fn show(
    session: &mut Session,
    since: Duration,
    only: Only,
    json: bool,
) -> Result<(), OperateError> {
    let age = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let since = Timestamp::from_millis(Timestamp::now().millis().saturating_sub(age));
    let mut entries = Vec::new();
    let mut next_token = None;
    loop {
        let input = ListAuditEntriesInput {
            since: Some(since),
            who: only.who.clone(),
            operation: only.operation.clone(),
            name: only.name.clone(),
            next_token,
        };
        let client = session.client()?;
        let page: ListAuditEntriesOutput = client.controller("ListAuditEntries", &input).await?;
        entries.extend(page.entries.unwrap_or_default());
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    entries.reverse();
    if json {
        return Ok(output::show(words::json(&entries))?);
    }
    if entries.is_empty() {
        output::complain("There was no change.");
        return Ok(());
    }
    let rows: Vec<_> = entries.iter().map(row).collect();
    Ok(output::show(table(
        ["TIME", "WHO", "FROM", "OPERATION", "WHAT"],
        &rows,
    ))?)
}

fn row(entry: &AuditEntry) -> [String; 5] {
    let text = |text: &Option<String>| words::plain(text.as_deref().unwrap_or("-"));
    let names = entry.names.iter().flatten();
    let names: Vec<String> = names
        .map(|(kind, name)| match kind.as_str() {
            "resource" => words::plain(name),
            kind => format!("{kind}={}", words::plain(name)),
        })
        .collect();
    [
        when(entry.time),
        entry.who.as_deref().map_or("-".into(), words::who),
        match &entry.source {
            Some(source) => format!("{} ({})", text(&entry.address), words::plain(source)),
            None => text(&entry.address),
        },
        text(&entry.operation),
        names.join(" "),
    ]
}
