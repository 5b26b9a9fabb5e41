//! The hosts, the silent ones first.

use askama::Template;
use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{
    CommandState, HostCommand, HostRevision, HostState, HostStatus, ListHostsInput,
    ListHostsOutput, RevisionHealth,
};

use super::frame::Frame;
use super::page::Page;
use super::view::{Chip, Tone, When, deployment_path, group_path, host_path};
use super::visit::Asked;
use crate::deployment::status::hosts;
use crate::error::ApiError;
use crate::fleet::tag_filter;
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{request, words};

/// A list of hosts.
#[derive(Template)]
#[template(path = "hosts.html")]
pub(super) struct Hosts {
    frame: Frame,
    found: ListHostsOutput,
    rows: Vec<HostRow>,
    /// The group whose hosts these are, and its page.
    of_group: Option<(String, String)>,
    search: Search,
    /// The first page of the list, unless this is it.
    first: Option<String>,
    next: Option<String>,
}

/// The fields of the search.
struct Search {
    /// Those of the group, if these are its hosts.
    application: String,
    group: String,
    /// A part of the name.
    name: String,
    /// `KEY=VALUE` or `KEY`.
    tag: String,
    /// One of [`STATES`].
    state: String,
}

/// The values of the field `state`, and their words.
const STATES: [(&str, &str); 3] = [
    ("", "All hosts"),
    ("silent", "Silent or never seen"),
    ("drained", "Drained"),
];

impl Search {
    fn read(asked: &Asked) -> Self {
        let field = |name: &str| asked.get(name).unwrap_or_default().trim().to_owned();
        Search {
            application: field("application"),
            group: field("group"),
            name: field("name"),
            tag: field("tag"),
            state: field("state"),
        }
    }

    fn states(&self) -> Vec<(&'static str, &'static str, bool)> {
        let states = STATES.into_iter();
        let states = states.map(|(value, words)| (value, words, value == self.state));
        states.collect()
    }

    fn is_empty(&self) -> bool {
        self.name.is_empty() && self.tag.is_empty() && self.state.is_empty()
    }

    fn input(&self, next_token: Option<String>) -> ListHostsInput {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ListHostsInput {
            application_name: given(&self.application),
            deployment_group_name: given(&self.group),
            silent_first: Some(true),
            name_contains: given(&self.name),
            tag_filters: given(&self.tag).map(|tag| vec![tag_filter(&tag)]),
            silent: (self.state == "silent").then_some(true),
            drained: (self.state == "drained").then_some(true),
            next_token,
        }
    }

    /// The command that lists the same.
    fn command(&self) -> String {
        let mut command = "codedeploy-controller hosts".to_owned();
        for (option, value) in [
            ("application", &self.application),
            ("group", &self.group),
            ("contains", &self.name),
            ("tag", &self.tag),
        ] {
            if !value.is_empty() {
                command += &format!(" --{option} {}", words::argument(value));
            }
        }
        if STATES.iter().any(|(state, _)| *state == self.state) && !self.state.is_empty() {
            command += &format!(" --{}", self.state);
        }
        command
    }
}

/// A host in a list.
pub(super) struct HostRow {
    pub(super) name: String,
    pub(super) href: String,
    pub(super) state: Chip,
    pub(super) seen: Option<When>,
    pub(super) agent: String,
    pub(super) revisions: Vec<RevisionRow>,
    pub(super) commands: Vec<CommandRow>,
}

/// A host as a member of a group.
pub(super) struct RevisionRow {
    pub(super) group: String,
    pub(super) href: String,
    pub(super) revision: String,
    pub(super) state: Chip,
    pub(super) since: Option<When>,
    /// The deployment that it is from.
    pub(super) deployment: Option<(String, String)>,
}

/// A command that is out.
pub(super) struct CommandRow {
    pub(super) event: String,
    pub(super) deployment: String,
    pub(super) href: String,
    pub(super) state: Chip,
    pub(super) since: Option<When>,
    pub(super) expires: Option<When>,
}

impl Page for Hosts {
    type Document = ListHostsOutput;
    const NAME: &'static str = "Hosts";
    const OPERATIONS: &'static [&'static str] = &["ListHosts"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let search = Search::read(asked);
        let next = asked.get("next");
        let is_first = next.is_none();
        let found = hosts::list(context, request::ListHosts::check(search.input(next))?)?;
        let list = found.hosts.as_deref().unwrap_or_default();
        let (application, group) = (&search.application, &search.group);
        let of_group = (!group.is_empty()).then(|| {
            (
                format!("{application} · {group}"),
                group_path(application, group),
            )
        });
        Ok(Hosts {
            frame: asked.frame("Hosts", [search.command()]).live(),
            rows: list.iter().map(|host| row(host, context.now)).collect(),
            of_group,
            first: (!is_first).then(|| asked.first()),
            next: asked.next(found.next_token.as_deref()),
            search,
            found,
        })
    }

    fn document(&self) -> &ListHostsOutput {
        &self.found
    }
}

pub(super) fn row(host: &HostStatus, now: Timestamp) -> HostRow {
    let name = host.instance_name.clone().unwrap_or_default();
    let revisions = host.revisions.iter().flatten();
    let commands = host.commands.iter().flatten();
    HostRow {
        href: host_path(&name),
        name,
        state: match (&host.drain, host.state.as_ref()) {
            // Its silence is of interest all the same.
            (Some(_), Some(HostState::Polling)) => Chip::new(Tone::Calm, "Drained"),
            (_, polls) => state(polls),
        },
        seen: host.last_seen.map(|time| When::new(time, now)),
        agent: host.agent_version.clone().unwrap_or_else(|| "-".into()),
        revisions: revisions
            .map(|revision| self::revision(revision, now))
            .collect(),
        commands: commands
            .map(|command| self::command(command, now))
            .collect(),
    }
}

pub(super) fn state(state: Option<&HostState>) -> Chip {
    match state {
        Some(HostState::Polling) => Chip::new(Tone::Good, "Polling"),
        Some(HostState::Silent) => Chip::new(Tone::Bad, "Silent"),
        Some(HostState::NeverSeen) => Chip::new(Tone::Waits, "Never seen"),
        _ => Chip::new(Tone::Calm, "Unknown"),
    }
}

fn revision(revision: &HostRevision, now: Timestamp) -> RevisionRow {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (application, group) = (
        text(&revision.application_name),
        text(&revision.deployment_group_name),
    );
    let state = match (&revision.revision_health, revision.healthy) {
        _ if revision.member == Some(false) => Chip::new(Tone::Past, "Left the group"),
        (_, Some(false)) => Chip::new(Tone::Bad, "Failed"),
        (Some(RevisionHealth::Current), _) => Chip::new(Tone::Good, "Current"),
        (Some(RevisionHealth::Old), _) => Chip::new(Tone::Waits, "Behind"),
        (_, None) => Chip::new(Tone::Calm, "Never deployed"),
        (_, Some(true)) => Chip::new(Tone::Calm, "Unknown"),
    };
    RevisionRow {
        href: group_path(&application, &group),
        group: format!("{application} · {group}"),
        revision: words::short_revision(revision.revision.as_ref()),
        state,
        since: revision.since.map(|time| When::new(time, now)),
        deployment: revision
            .deployment_id
            .clone()
            .map(|id| (deployment_path(&id), id)),
    }
}

fn command(command: &HostCommand, now: Timestamp) -> CommandRow {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let id = text(&command.deployment_id);
    CommandRow {
        event: text(&command.lifecycle_event_name),
        href: deployment_path(&id),
        deployment: id,
        state: match command.state {
            Some(CommandState::Running) => Chip::new(Tone::Busy, "Running"),
            Some(CommandState::Fetched) => Chip::new(Tone::Busy, "Fetched"),
            _ => Chip::new(Tone::Waits, "Not fetched yet"),
        },
        since: command.since.map(|time| When::new(time, now)),
        expires: command.expires.map(|time| When::new(time, now)),
    }
}
