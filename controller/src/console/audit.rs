//! The changes: who, what, from where, when.

use std::time::Duration;

use askama::Template;
use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{AuditEntry, ListAuditEntriesInput, ListAuditEntriesOutput};

use super::frame::Frame;
use super::page::Page;
use super::view::{When, deployment_path, group_path, host_path};
use super::visit::Asked;
use crate::error::ApiError;
use crate::registry::audit;
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{request, words};

const DAY: u64 = 24 * 3600;

/// The periods to choose from, in seconds.
const PERIODS: &[(&str, &str, u64)] = &[
    ("1h", "the last hour", 3600),
    ("1d", "the last day", DAY),
    ("7d", "the last 7 days", 7 * DAY),
    ("30d", "the last 30 days", 30 * DAY),
    ("3650d", "all", 3650 * DAY),
];

/// The period of a page that names none.
const PERIOD: &str = "7d";

/// A list of changes.
#[derive(Template)]
#[template(path = "audit.html")]
pub(super) struct Audit {
    frame: Frame,
    found: ListAuditEntriesOutput,
    rows: Vec<Row>,
    periods: Vec<Period>,
    who: String,
    operation: String,
    name: String,
    next: Option<String>,
}

struct Period {
    value: &'static str,
    label: &'static str,
    is_chosen: bool,
}

/// A change.
struct Row {
    when: Option<When>,
    who: String,
    arn: String,
    key: String,
    operation: String,
    names: Vec<Name>,
    address: String,
    source: Option<String>,
    request: String,
}

/// A changed object.
struct Name {
    kind: String,
    name: String,
    href: Option<String>,
}

impl Page for Audit {
    type Document = ListAuditEntriesOutput;
    const NAME: &'static str = "Audit";
    const OPERATIONS: &'static [&'static str] = &["ListAuditEntries"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let wanted = asked.get("since");
        let wanted = wanted.as_deref().unwrap_or(PERIOD);
        let known = |(value, ..): &&(&str, &str, u64)| *value == wanted;
        let chosen = PERIODS.iter().find(known);
        let (period, age) = chosen.map_or((PERIOD, 7 * DAY), |(value, _, age)| (*value, *age));
        let age = i64::try_from(Duration::from_secs(age).as_millis()).unwrap_or(i64::MAX);
        let (who, operation, name) = (asked.get("who"), asked.get("operation"), asked.get("name"));
        let mut command = format!("codedeploy-controller audit --since {period}");
        for (option, value) in [("who", &who), ("operation", &operation), ("name", &name)] {
            if let Some(value) = value {
                command += &format!(" --{option} {}", words::argument(value));
            }
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let shown = (text(&who), text(&operation), text(&name));
        let since = Timestamp::from_millis(context.now.millis().saturating_sub(age));
        let input = ListAuditEntriesInput {
            // Later pages have tokens for the same time.
            since: Some(asked.get("from").and_then(moment).unwrap_or(since)),
            who,
            operation,
            name,
            next_token: asked.get("next"),
        };
        let from = input.since.map_or(0, Timestamp::millis);
        let found = audit::list(context, request::ListAuditEntries::check(input)?)?;
        let entries = found.entries.as_deref().unwrap_or_default();
        let next = asked.next(found.next_token.as_deref());
        Ok(Audit {
            frame: asked.frame("Audit", [command]),
            rows: entries
                .iter()
                .map(|entry| row(entry, context.now))
                .collect(),
            periods: PERIODS
                .iter()
                .map(|(value, label, _)| Period {
                    value,
                    label,
                    is_chosen: *value == period,
                })
                .collect(),
            who: shown.0,
            operation: shown.1,
            name: shown.2,
            next: next.map(|next| match asked.get("from") {
                Some(_) => next,
                None => format!("{next}&from={from}"),
            }),
            found,
        })
    }

    fn document(&self) -> &ListAuditEntriesOutput {
        &self.found
    }
}

fn moment(millis: String) -> Option<Timestamp> {
    millis.parse().ok().map(Timestamp::from_millis)
}

fn row(entry: &AuditEntry, now: Timestamp) -> Row {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let arn = text(&entry.who);
    let names = entry.names.clone().unwrap_or_default();
    let href = |kind: &str, name: &str| match kind {
        "deploymentId" => Some(deployment_path(name)),
        "deploymentGroup" => {
            let application = names.get("application")?;
            Some(group_path(application, name))
        }
        "instances" if !name.contains([',', ' ']) => Some(host_path(name)),
        _ => None,
    };
    let shown = names.iter().map(|(kind, name)| Name {
        href: href(kind, name),
        kind: label(kind),
        name: name.clone(),
    });
    Row {
        when: entry.time.map(|time| When::new(time, now)),
        who: words::who(&arn),
        arn,
        key: text(&entry.access_key_id),
        operation: text(&entry.operation),
        names: shown.collect(),
        address: text(&entry.address),
        source: entry.source.clone(),
        request: text(&entry.request_id),
    }
}

/// The kind of an object in words: `deployment group`.
fn label(kind: &str) -> String {
    let mut label = String::new();
    for letter in kind.chars() {
        if letter.is_ascii_uppercase() {
            label.push(' ');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}
