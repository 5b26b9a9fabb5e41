//! Everything that somebody should know of, on one page: running, waiting, failed since yesterday,
//! silent hosts, undelivered messages, keys and certificates near their end.

use std::collections::HashMap;
use std::time::Duration;

use askama::Template;
use codedeploy_api::codedeploy::{DeploymentStatus, Timestamp};
use codedeploy_api::controller::{
    DeploymentSummary, HostState, HostStatus, ListDeploymentStatusesInput, ListHostsInput,
};
use serde::Serialize;

use super::frame::Frame;
use super::hosts::{HostRow, row};
use super::page::Page;
use super::view::{Chip, When, deployment_path, group_path};
use super::visit::{Asked, Outside, Visit};
use crate::credentials::{self, Expiring};
use crate::deployment::status::{deployments, hosts};
use crate::error::ApiError;
use crate::events::outbox;
use crate::records::Record;
use crate::registry::{applications, groups};
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{outgoing, request, words};

/// Deployments that ended in this time are shown.
const YESTERDAY: Duration = Duration::from_secs(24 * 3600);

/// Keys that expire within this time are shown.
const KEYS_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate that expires within this time is shown.
const CERTIFICATE_WITHIN: Duration = Duration::from_secs(14 * 24 * 3600);

/// The number of hosts and keys that are shown.
const SHOWN: usize = 20;

/// The page.
#[derive(Template)]
#[template(path = "inbox.html")]
pub(super) struct Inbox {
    frame: Frame,
    found: Found,
    waiting: Vec<Item>,
    running: Vec<Item>,
    failed: Vec<Item>,
    hosts: Vec<HostRow>,
    messages: Vec<Messages>,
    keys: Vec<Key>,
    certificate: Option<When>,
    /// Whether the user sees only a part of the fleet, and so neither messages nor keys.
    is_limited: bool,
}

/// The content for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    waiting: Vec<DeploymentSummary>,
    running: Vec<DeploymentSummary>,
    failed: Vec<DeploymentSummary>,
    silent_hosts: Vec<HostStatus>,
    /// Whether there are more silent hosts than are listed.
    more_silent_hosts: bool,
    undelivered: Vec<Undelivered>,
    expiring_keys: Vec<Expiring>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_expires: Option<Timestamp>,
}

/// The messages that wait for a receiver.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Undelivered {
    receiver: String,
    messages: i64,
    oldest: Timestamp,
}

/// A deployment in a list.
struct Item {
    id: String,
    href: String,
    group: String,
    group_href: String,
    revision: String,
    state: Chip,
    when: Option<When>,
    by: String,
    words: String,
    until: Option<When>,
}

struct Messages {
    receiver: String,
    number: i64,
    oldest: When,
}

struct Key {
    id: String,
    role: String,
    who: String,
    expires: When,
}

impl Page for Inbox {
    type Document = Found;
    const NAME: &'static str = "Inbox";
    const OPERATIONS: &'static [&'static str] = &["ListDeploymentStatuses", "ListHosts"];

    async fn ask(visit: &Visit) -> Outside {
        let certificate = visit.console.service.certificate.get();
        let end = certificate.and_then(|present| present.not_after());
        let end = end.map(|end| Timestamp::from_millis(end.unix_timestamp().saturating_mul(1000)));
        Outside {
            certificate_expires: end,
            ..Outside::default()
        }
    }

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let now = context.now;
        let found = find(context, asked)?;
        let mut items = Items {
            context,
            good: HashMap::new(),
        };
        let commands = [
            "codedeploy-controller status",
            "codedeploy-controller deployments",
            "codedeploy-controller hosts --silent",
        ];
        let frame = asked.frame("Inbox", commands.map(str::to_owned)).live();
        let certificate = found.certificate_expires;
        Ok(Inbox {
            frame,
            waiting: items.of(&found.waiting)?,
            running: items.of(&found.running)?,
            failed: items.of(&found.failed)?,
            hosts: found
                .silent_hosts
                .iter()
                .map(|host| row(host, now))
                .collect(),
            messages: found
                .undelivered
                .iter()
                .map(|waiting| Messages {
                    receiver: waiting.receiver.clone(),
                    number: waiting.messages,
                    oldest: When::new(waiting.oldest, now),
                })
                .collect(),
            keys: found
                .expiring_keys
                .iter()
                .map(|key| Key {
                    id: key.access_key_id.clone(),
                    role: key.role.clone(),
                    who: words::who(&key.arn),
                    expires: When::new(key.expires, now),
                })
                .collect(),
            certificate: certificate.map(|end| When::new(end, now)),
            is_limited: asked.is_limited(),
            found,
        })
    }

    fn document(&self) -> &Found {
        &self.found
    }
}

fn find(context: &Context<'_>, asked: &Asked) -> Result<Found, ApiError> {
    let now = context.now;
    let list = |statuses: &[DeploymentStatus]| -> Result<Vec<DeploymentSummary>, ApiError> {
        let input = ListDeploymentStatusesInput {
            include_only_statuses: Some(statuses.to_vec()),
            ..Default::default()
        };
        let found = deployments::list(context, request::ListDeploymentStatuses::check(input)?)?;
        Ok(found.deployments.unwrap_or_default())
    };
    let unfinished = list(&[
        DeploymentStatus::Created,
        DeploymentStatus::InProgress,
        DeploymentStatus::Ready,
    ])?;
    let waits = |deployment: &DeploymentSummary| deployment.status == Some(DeploymentStatus::Ready);
    let (waiting, running) = unfinished.into_iter().partition(waits);
    let mut failed = list(&[DeploymentStatus::Failed, DeploymentStatus::Stopped])?;
    failed.retain(|deployment| {
        deployment
            .complete_time
            .is_some_and(|end| end + YESTERDAY >= now)
    });
    let input = ListHostsInput {
        silent_first: Some(true),
        ..Default::default()
    };
    let listed = hosts::list(context, request::ListHosts::check(input)?)?;
    let mut silent_hosts = listed.hosts.unwrap_or_default();
    silent_hosts.retain(|host| host.state != Some(HostState::Polling));
    let more_silent_hosts = silent_hosts.len() > SHOWN;
    silent_hosts.truncate(SHOWN);
    // These are of the whole fleet.
    let (undelivered, expiring_keys) = match asked.is_limited() {
        true => (Vec::new(), Vec::new()),
        false => (
            outbox::waiting(context.tx)?,
            credentials::expiring_soon(context.tx, now, KEYS_WITHIN, SHOWN)?,
        ),
    };
    let undelivered = undelivered
        .into_iter()
        .map(|(url, messages, oldest)| Undelivered {
            receiver: outgoing::place(&url),
            messages,
            oldest,
        });
    let certificate = asked.outside.certificate_expires;
    let is_near = |end: &Timestamp| *end <= now + CERTIFICATE_WITHIN;
    Ok(Found {
        waiting,
        running,
        failed,
        silent_hosts,
        more_silent_hosts,
        undelivered: undelivered.collect(),
        expiring_keys,
        certificate_expires: certificate.filter(|end| !asked.is_limited() && is_near(end)),
    })
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.attention() == 0 && self.running.is_empty()
    }

    /// The number of things that somebody should look at.
    fn attention(&self) -> usize {
        self.waiting.len()
            + self.failed.iter().filter(|item| item.is_present()).count()
            + self.hosts.len()
            + self.messages.len()
            + self.keys.len()
            + usize::from(self.certificate.is_some())
    }
}

impl Item {
    /// Whether it is not made good.
    fn is_present(&self) -> bool {
        self.state.tone != super::view::Tone::Past
    }
}

/// Makes items, and remembers the groups of others.
struct Items<'a> {
    context: &'a Context<'a>,
    /// The creation of the last good deployment of a group.
    good: HashMap<(String, String), Option<Timestamp>>,
}

impl Items<'_> {
    fn of(&mut self, list: &[DeploymentSummary]) -> Result<Vec<Item>, ApiError> {
        list.iter()
            .map(|deployment| self.item(deployment))
            .collect()
    }

    fn item(&mut self, deployment: &DeploymentSummary) -> Result<Item, ApiError> {
        let now = self.context.now;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (application, group) = (
            text(&deployment.application_name),
            text(&deployment.deployment_group_name),
        );
        let state = Chip::of_status(deployment.status.as_ref());
        let is_over = deployment.complete_time.is_some()
            && self.last_good(&application, &group)? > deployment.create_time;
        let id = text(&deployment.deployment_id);
        let words = match (&deployment.waits_for, &deployment.error_information) {
            (Some(event), _) => format!("Waits for {event}"),
            (None, Some(error)) => error.message.clone().unwrap_or_default(),
            (None, None) => words::overview(deployment.deployment_overview.as_ref()),
        };
        Ok(Item {
            href: deployment_path(&id),
            id,
            group_href: group_path(&application, &group),
            group: format!("{application} · {group}"),
            revision: words::short_revision(deployment.revision.as_ref()),
            state: if is_over { state.past() } else { state },
            when: deployment
                .complete_time
                .or(deployment.create_time)
                .map(|time| When::new(time, now)),
            by: words::creator(deployment),
            words,
            until: deployment.waits_until.map(|time| When::new(time, now)),
        })
    }

    /// The creation of the last good deployment of a group, if it has one.
    fn last_good(&mut self, application: &str, group: &str) -> Result<Option<Timestamp>, ApiError> {
        let key = (application.to_owned(), group.to_owned());
        if let Some(known) = self.good.get(&key) {
            return Ok(*known);
        }
        let application = applications::find(self.context, application)?;
        let group = groups::find(self.context, &application, group)?;
        let record = match &group.last_successful {
            Some(id) => Record::load(self.context.tx, id)?,
            None => None,
        };
        let created = record.map(|record| record.created);
        self.good.insert(key, created);
        Ok(created)
    }
}
