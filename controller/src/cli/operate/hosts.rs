//! `hosts`: the hosts, what is on them, and what they do.

use codedeploy_api::controller::{
    CommandState, DrainTraffic, GetHostStatusInput, GetHostStatusOutput, HostCommand, HostDrain,
    HostRevision, HostState, HostStatus, ListHostsInput, ListHostsOutput, RevisionHealth,
};

use super::connect::Session;
use super::{OperateError, update_agents, words};
use crate::cli::output;
use crate::cli::table::{table, when};
use crate::fleet::tag_filter;

/// The drift of a host on which the group's last deployment failed.
const FAILED: &str = "FAILED";

/// The hosts to show.
#[derive(Debug)]
pub(super) struct Only {
    /// An application and its group.
    pub(super) group: Option<(String, String)>,
    /// A part of the name.
    pub(super) contains: Option<String>,
    /// `KEY=VALUE` or `KEY`.
    pub(super) tag: Option<String>,
    pub(super) silent: bool,
    pub(super) behind: bool,
    pub(super) drained: bool,
}

impl Only {
    fn input(&self, next_token: Option<String>) -> ListHostsInput {
        let (application, group) = self.group.clone().unzip();
        ListHostsInput {
            application_name: application,
            deployment_group_name: group,
            silent_first: None,
            name_contains: self.contains.clone(),
            tag_filters: self.tag.as_deref().map(|tag| vec![tag_filter(tag)]),
            silent: self.silent.then_some(true),
            drained: self.drained.then_some(true),
            next_token,
        }
    }

    fn is_everything(&self) -> bool {
        let has_filter = self.group.is_some() || self.contains.is_some() || self.tag.is_some();
        !has_filter && !self.silent && !self.behind && !self.drained
    }

    fn includes(&self, host: &HostStatus) -> bool {
        let polls = host.state == Some(HostState::Polling);
        let behind = revisions(host).iter().any(is_behind);
        (!self.silent || !polls)
            && (!self.behind || behind)
            && (!self.drained || host.drain.is_some())
    }
}

fn revisions(host: &HostStatus) -> &[HostRevision] {
    host.revisions.as_deref().unwrap_or_default()
}

/// Whether a member of a group does not have the group's revision.
fn is_behind(revision: &HostRevision) -> bool {
    revision.member == Some(true) && revision.revision_health != Some(RevisionHealth::Current)
}

pub(super) async fn show(
    session: &mut Session,
    only: &Only,
    json: bool,
) -> Result<(), OperateError> {
    let mut hosts = Vec::new();
    let mut next_token = None;
    loop {
        let client = session.client()?;
        let page: ListHostsOutput = client
            .controller("ListHosts", &only.input(next_token))
            .await?;
        let listed = page.hosts.unwrap_or_default().into_iter();
        hosts.extend(listed.filter(|host| only.includes(host)));
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    if json {
        return Ok(output::show(words::json(&hosts))?);
    }
    if hosts.is_empty() {
        output::complain(match (only.is_everything(), session.is_local()) {
            (true, true) => "No host is registered yet: codedeploy-controller host add NAME",
            (true, false) => "There is no host that this access key is for.",
            (false, _) => "There is no such host.",
        });
        return Ok(());
    }
    let rows: Vec<_> = hosts.iter().flat_map(rows).collect();
    Ok(output::show(table(
        [
            "NAME", "STATE", "SEEN", "AGENT", "GROUP", "REVISION", "DRIFT", "NOW",
        ],
        &rows,
    ))?)
}

/// Returns a row for each group of a host; only the first has the host's own columns.
fn rows(host: &HostStatus) -> Vec<[String; 8]> {
    let now = match (commands(host).first(), &host.agent_update) {
        (Some(command), _) => brief(command),
        (None, Some(update)) => update_agents::brief(update).to_owned(),
        (None, None) => "idle".to_owned(),
    };
    let drained = if host.drain.is_some() {
        ", DRAINED"
    } else {
        ""
    };
    let own = [
        host.instance_name.clone().unwrap_or_default(),
        state(host.state.as_ref()) + drained,
        words::ago(host.last_seen),
        words::plain(host.agent_version.as_deref().unwrap_or("-")),
    ];
    let mut rows: Vec<[String; 8]> = revisions(host)
        .iter()
        .map(|revision| {
            let [name, state, seen, agent] = Default::default();
            let of = names(revision);
            let shown = words::short_revision(revision.revision.as_ref());
            [
                name,
                state,
                seen,
                agent,
                of,
                shown,
                drift(revision),
                String::new(),
            ]
        })
        .collect();
    if rows.is_empty() {
        let [name, state, seen, agent]: [String; 4] = Default::default();
        let none = || "-".to_owned();
        rows.push([
            name,
            state,
            seen,
            agent,
            none(),
            none(),
            none(),
            String::new(),
        ]);
    }
    if let Some([name, state, seen, agent, _, _, _, busy]) = rows.first_mut() {
        [*name, *state, *seen, *agent] = own;
        *busy = now;
    }
    rows
}

fn commands(host: &HostStatus) -> &[HostCommand] {
    host.commands.as_deref().unwrap_or_default()
}

fn names(revision: &HostRevision) -> String {
    format!(
        "{}/{}",
        revision.application_name.as_deref().unwrap_or_default(),
        revision
            .deployment_group_name
            .as_deref()
            .unwrap_or_default()
    )
}

fn state(state: Option<&HostState>) -> String {
    match state {
        Some(HostState::Polling) => "polling".into(),
        Some(HostState::Silent) => "SILENT".into(),
        Some(HostState::NeverSeen) => "NEVER SEEN".into(),
        Some(HostState::Other(other)) => words::plain(other),
        None => "-".into(),
    }
}

/// The difference of a host from its group.
fn drift(revision: &HostRevision) -> String {
    match (&revision.revision_health, revision.healthy, revision.member) {
        (_, _, Some(false)) => "not a member".into(),
        (_, Some(false), _) => FAILED.into(),
        (Some(RevisionHealth::Current), ..) => "-".into(),
        (Some(RevisionHealth::Old), ..) => "behind".into(),
        (_, None, _) => "not deployed".into(),
        _ => "unknown".into(),
    }
}

/// The traffic of a drained host.
pub(super) fn traffic(drain: &HostDrain) -> String {
    let problem = drain.problem.as_deref().map(words::plain);
    match (&drain.traffic, problem) {
        (Some(DrainTraffic::Blocked), _) => "it gets no traffic".into(),
        (Some(DrainTraffic::Blocking), Some(problem)) => {
            format!("its traffic cannot be blocked yet: {problem}")
        }
        (Some(DrainTraffic::Blocking), None) => "its traffic is being blocked".into(),
        _ => "no load balancer of the controller sends it traffic".into(),
    }
}

pub(super) fn brief(command: &HostCommand) -> String {
    let (verb, since) = match &command.state {
        Some(CommandState::Offered) => ("has not fetched", "offered"),
        Some(CommandState::Fetched) => ("has fetched", "fetched"),
        _ => ("runs", "begun"),
    };
    format!(
        "{verb} {} of {}, {since} {}",
        words::plain(command.lifecycle_event_name.as_deref().unwrap_or_default()),
        command.deployment_id.as_deref().unwrap_or_default(),
        words::ago(command.since)
    )
}

/// Shows everything about one host.
pub(super) async fn show_one(
    session: &mut Session,
    name: String,
    json: bool,
) -> Result<(), OperateError> {
    let input = GetHostStatusInput {
        instance_name: Some(name),
    };
    let client = session.client()?;
    let output: GetHostStatusOutput = client.controller("GetHostStatus", &input).await?;
    let host = output.host.unwrap_or_default();
    if json {
        return Ok(output::show(words::json(&host))?);
    }
    Ok(output::show(page(&host))?)
}

fn page(host: &HostStatus) -> String {
    let text = |text: &Option<String>| words::plain(text.as_deref().unwrap_or("-"));
    let tags = host.tags.iter().flatten().map(|tag| {
        let half = |half: &Option<String>| half.clone().unwrap_or_default();
        format!("{}={}", half(&tag.key), half(&tag.value))
    });
    let mut page = format!("{}\n", text(&host.instance_name));
    let seen = match host.last_seen {
        Some(_) => format!(
            "{}, last seen {}",
            state(host.state.as_ref()),
            words::ago(host.last_seen)
        ),
        None => state(host.state.as_ref()),
    };
    let version = match &host.agent_version {
        Some(version) => format!(", version {}", words::plain(version)),
        None => String::new(),
    };
    let updates = match host.can_update {
        Some(true) => "; update-agents can update it",
        _ => "",
    };
    for (name, value) in [
        ("agent", format!("{seen}{version}{updates}")),
        ("tags", words::plain(&tags.collect::<Vec<_>>().join(" "))),
        ("identity", text(&host.host_identifier)),
        ("registered", when(host.register_time)),
    ] {
        page += &format!("  {name:<12}{value}\n");
    }
    if let Some(drain) = &host.drain {
        let by = drain.by.as_deref().unwrap_or("-");
        let reason = drain.reason.as_deref().map(|reason| format!(": {reason}"));
        let drained = format!(
            "{} by {by}{}",
            words::ago(drain.since),
            reason.unwrap_or_default()
        );
        page += &format!(
            "  {:<12}{}; {}\n",
            "drained",
            words::plain(&drained),
            traffic(drain)
        );
    }
    for revision in revisions(host) {
        page += &format!("\n{}\n", names(revision));
        let drift = match drift(revision).as_str() {
            "-" => "the revision of the group".to_owned(),
            other => other.to_owned(),
        };
        let last = match &revision.deployment_id {
            Some(id) => format!("{id}, ended {}", words::ago(revision.since)),
            None => "-".into(),
        };
        for (name, value) in [
            ("revision", words::revision(revision.revision.as_ref())),
            ("state", drift),
            ("deployment", last),
        ] {
            page += &format!("  {name:<12}{value}\n");
        }
    }
    for command in commands(host) {
        page += &format!("\nnow          {}\n", brief(command));
        if let Some(expires) = command.expires {
            page += &format!("             given up {}\n", words::until(expires));
        }
    }
    if let Some(update) = &host.agent_update {
        let brief = update_agents::brief(update);
        page += &format!(
            "\nnow          {brief}, since {}\n",
            words::ago(update.since)
        );
    }
    page += &words::steps(&advice(host));
    page
}

/// The next steps for a host with a problem.
fn advice(host: &HostStatus) -> Vec<String> {
    let name = words::plain(host.instance_name.as_deref().unwrap_or("-"));
    let mut advice = match host.state {
        Some(HostState::Polling) => Vec::new(),
        Some(HostState::NeverSeen) => vec![
            "Put the files of `codedeploy-controller host add` on the host, and start its agent."
                .to_owned(),
            "If that does not help, on the host: codedeploy-agent doctor".to_owned(),
        ],
        _ => vec![
            "On the host: systemctl status codedeploy-agent, then codedeploy-agent doctor"
                .to_owned(),
            format!("If it is lost for good: codedeploy-controller host remove {name}"),
        ],
    };
    let failed = revisions(host)
        .iter()
        .filter(|revision| drift(revision) == FAILED);
    advice.extend(failed.filter_map(|revision| {
        let id = words::plain(revision.deployment_id.as_deref()?);
        Some(format!(
            "Find out why it failed: codedeploy-controller why {id}"
        ))
    }));
    advice
}
