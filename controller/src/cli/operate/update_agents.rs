//! `update-agents`: the agents of hosts, updated by their operators' own commands, stage by stage.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::RangedU64ValueParser;
use codedeploy_api::codedeploy::{Tag, TagFilter, TagFilterType, Timestamp};
use codedeploy_api::controller::{
    AgentUpdate, AgentUpdateHost, AgentUpdateHostStatus, AgentUpdateStatus, GetAgentUpdateInput,
    GetAgentUpdateOutput, StopAgentUpdateInput, StopAgentUpdateOutput, UpdateAgentsInput,
    UpdateAgentsOutput,
};

use super::connect::{Access, Connection, Session};
use super::follow::{ask_patiently, left};
use super::{FAILED, OperateError, Patience, STOPPED, UNFINISHED, words};
use crate::cli::output::{self, OutputError};
use crate::cli::table::{table, when};

/// The interval of looks at an update.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of hosts that are named on one line.
const NAMED: usize = 3;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("meant").args(["hosts", "application", "tags", "all"]).multiple(true))]
pub(in crate::cli) struct UpdateAgents {
    /// The hosts' names [default: none; the last update is shown].
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// The hosts of a deployment group of this application.
    #[arg(long, requires = "group", conflicts_with_all = ["hosts", "tags", "all"])]
    application: Option<String>,
    /// The deployment group.
    #[arg(long, requires = "application")]
    group: Option<String>,
    /// The hosts with this tag, as key=value; can be given more than once, for hosts with any of them.
    #[arg(long = "tag", value_parser = crate::cli::tag, value_name = "KEY=VALUE", conflicts_with_all = ["hosts", "all"])]
    tags: Vec<Tag>,
    /// All hosts.
    #[arg(long, conflicts_with = "hosts")]
    all: bool,
    /// The number of hosts in one stage; the next stage begins when all of them have reported a
    /// success.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "meant", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    at_a_time: usize,
    /// Stop the update in progress: hosts that perform it finish it, and no other begins.
    #[arg(long, conflicts_with = "meant")]
    stop: bool,
    /// Follow the update until it ends; the exit code is its outcome.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: UpdateAgents) -> Result<ExitCode, OperateError> {
    let json = command.connection.json;
    let is_meant = !command.hosts.is_empty()
        || command.application.is_some()
        || !command.tags.is_empty()
        || command.all;
    let access = match is_meant || command.stop {
        true => Access::Changes,
        false => Access::Reads,
    };
    let mut session = command.connection.open(access)?;
    let waiting = command.wait.then_some(command.patience.timeout);
    let update = if is_meant {
        begin(&mut session, command).await?
    } else {
        let found = ask(&mut session, None).await?;
        let Some(update) = found.agent_update.clone() else {
            if json {
                output::show(words::json(&found))?;
            } else {
                output::complain(
                    "No agents were updated yet: codedeploy-controller update-agents HOST",
                );
            }
            return Ok(ExitCode::SUCCESS);
        };
        match command.stop {
            true => stop(&mut session, update).await?,
            false => update,
        }
    };
    if let Some(patience) = waiting {
        return follow(&mut session, update, patience, json).await;
    }
    if json {
        show_json(update)?;
    } else {
        output::show(page(&update))?;
        if is_meant {
            output::remark("codedeploy-controller update-agents --wait");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn begin(session: &mut Session, command: UpdateAgents) -> Result<AgentUpdate, OperateError> {
    let filter = |tag: Tag| TagFilter {
        key: tag.key,
        value: tag.value,
        kind: Some(TagFilterType::KeyAndValue),
    };
    let input = UpdateAgentsInput {
        instance_names: Some(command.hosts),
        application_name: command.application,
        deployment_group_name: command.group,
        tag_filters: Some(command.tags.into_iter().map(filter).collect()),
        all_hosts: Some(command.all),
        at_a_time: Some(command.at_a_time),
    };
    let client = session.client()?;
    let output: UpdateAgentsOutput = client.controller("UpdateAgents", &input).await?;
    for host in output.left_out.iter().flatten() {
        output::complain(format_args!(
            "{} is left out: {}",
            text(host.instance_name.as_ref()),
            text(host.reason.as_ref())
        ));
    }
    Ok(output.agent_update.unwrap_or_default())
}

async fn stop(session: &mut Session, update: AgentUpdate) -> Result<AgentUpdate, OperateError> {
    let input = StopAgentUpdateInput {
        agent_update_id: update.agent_update_id,
    };
    let client = session.client()?;
    let output: StopAgentUpdateOutput = client.controller("StopAgentUpdate", &input).await?;
    Ok(output.agent_update.unwrap_or_default())
}

async fn ask(
    session: &mut Session,
    id: Option<String>,
) -> Result<GetAgentUpdateOutput, OperateError> {
    let input = GetAgentUpdateInput {
        agent_update_id: id,
    };
    let client = session.client()?;
    Ok(client.controller("GetAgentUpdate", &input).await?)
}

/// Follows an update to its end, or for `patience`; a controller that restarts is waited for.
async fn follow(
    session: &mut Session,
    mut update: AgentUpdate,
    patience: Option<Duration>,
    json: bool,
) -> Result<ExitCode, OperateError> {
    let until = patience.map(|patience| Instant::now() + patience);
    let id = update.agent_update_id.clone();
    let mut told = String::new();
    loop {
        let line = progress(&update);
        if line != told && !json {
            let now = when(Some(Timestamp::now()));
            output::show(format_args!("{} {line}", now.get(11..).unwrap_or_default()))?;
            told = line;
        }
        let ended = outcome(&update);
        let is_late = left(until).is_zero();
        if ended.is_some() || is_late {
            if json {
                show_json(update)?;
            } else if ended.is_some_and(|code| code != ExitCode::SUCCESS) {
                output::show(format_args!("\n{}", page(&update)))?;
            }
            return Ok(ended.unwrap_or_else(unfinished));
        }
        tokio::time::sleep(INTERVAL.min(left(until))).await;
        let asked = ask_patiently(until, async || ask(session, id.clone()).await).await?;
        let Some(found) = asked else {
            return Ok(unfinished());
        };
        update = found.agent_update.unwrap_or_default();
    }
}

/// The same document, whether the update has just begun or is looked at.
fn show_json(update: AgentUpdate) -> Result<(), OutputError> {
    let shown = GetAgentUpdateOutput {
        agent_update: Some(update),
    };
    output::show(words::json(&shown))
}

fn unfinished() -> ExitCode {
    output::complain("The update continues: codedeploy-controller update-agents --wait");
    ExitCode::from(UNFINISHED)
}

fn outcome(update: &AgentUpdate) -> Option<ExitCode> {
    match update.status.as_ref()? {
        AgentUpdateStatus::Succeeded => Some(ExitCode::SUCCESS),
        AgentUpdateStatus::Failed => Some(ExitCode::from(FAILED)),
        AgentUpdateStatus::Stopped => Some(ExitCode::from(STOPPED)),
        AgentUpdateStatus::InProgress | AgentUpdateStatus::Other(_) => None,
    }
}

fn text(text: Option<&String>) -> String {
    text.map_or_else(|| "-".into(), |text| words::plain(text))
}

fn hosts(update: &AgentUpdate) -> &[AgentUpdateHost] {
    update.hosts.as_deref().unwrap_or_default()
}

/// `u-A1B2C3D4E in progress: stage 2 of 5, 3 of 10 hosts updated; box4 updates its agent`
fn progress(update: &AgentUpdate) -> String {
    let hosts = hosts(update);
    let of = |wanted: AgentUpdateHostStatus| {
        let found = hosts
            .iter()
            .filter(move |host| host.status == Some(wanted.clone()));
        found.count()
    };
    let open: Vec<&AgentUpdateHost> = hosts.iter().filter(|host| is_open(host)).collect();
    let stages = hosts.iter().filter_map(|host| host.stage).max();
    let stage = open.iter().filter_map(|host| host.stage).max();
    let mut line = format!(
        "{} {}: ",
        text(update.agent_update_id.as_ref()),
        status(update)
    );
    if let (Some(stage), Some(stages)) = (stage, stages) {
        line += &format!("stage {stage} of {stages}, ");
    }
    line += &format!(
        "{} of {} updated",
        of(AgentUpdateHostStatus::Succeeded),
        words::number(hosts.len(), "host", "hosts")
    );
    match of(AgentUpdateHostStatus::Failed) {
        0 => {}
        failed => line += &format!(", {failed} failed"),
    }
    let busy = open
        .iter()
        .take(NAMED)
        .map(|host| format!("{} {}", text(host.instance_name.as_ref()), brief(host)));
    let busy: Vec<String> = busy.collect();
    if !busy.is_empty() {
        let more = if open.len() > NAMED { ", …" } else { "" };
        line += &format!("; {}{more}", busy.join(", "));
    }
    line
}

fn is_open(host: &AgentUpdateHost) -> bool {
    matches!(
        host.status,
        Some(
            AgentUpdateHostStatus::Offered
                | AgentUpdateHostStatus::Fetched
                | AgentUpdateHostStatus::Running
        )
    )
}

/// The progress of the update on one host, after its name.
pub(super) fn brief(host: &AgentUpdateHost) -> &'static str {
    match host.status {
        Some(AgentUpdateHostStatus::Offered) => "has not fetched the update",
        Some(AgentUpdateHostStatus::Fetched) => "has fetched the update",
        _ => "updates its agent",
    }
}

fn status(update: &AgentUpdate) -> &'static str {
    match (&update.status, update.stopped) {
        (Some(AgentUpdateStatus::InProgress), Some(true)) => "is being stopped",
        (Some(AgentUpdateStatus::InProgress), _) => "in progress",
        (Some(AgentUpdateStatus::Succeeded), _) => "succeeded",
        (Some(AgentUpdateStatus::Failed), _) => "FAILED",
        (Some(AgentUpdateStatus::Stopped), _) => "stopped",
        _ => "unknown",
    }
}

fn page(update: &AgentUpdate) -> String {
    let mut page = progress(update);
    if let Some(who) = &update.created_by {
        page += &format!(
            "\nbegun {} by {}",
            words::ago(update.create_time),
            words::who(who)
        );
    }
    page.push('\n');
    let rows: Vec<_> = hosts(update).iter().map(row).collect();
    page += &table(["HOST", "STAGE", "STATE", "SINCE", "AGENT"], &rows);
    let failed = |host: &&AgentUpdateHost| host.status == Some(AgentUpdateHostStatus::Failed);
    for host in hosts(update).iter().filter(failed) {
        let name = text(host.instance_name.as_ref());
        page += &format!("\n{name}: {}\n", text(host.message.as_ref()));
        for line in host.log.iter().flat_map(|log| log.lines()) {
            page += &format!("    {}\n", words::plain(line));
        }
    }
    page.trim_end().to_owned()
}

fn row(host: &AgentUpdateHost) -> [String; 5] {
    let state = match &host.status {
        Some(AgentUpdateHostStatus::Waiting) => "waits for its stage",
        Some(AgentUpdateHostStatus::Succeeded) => "updated",
        Some(AgentUpdateHostStatus::Failed) => "FAILED",
        Some(AgentUpdateHostStatus::Skipped) => "left as it is",
        _ => brief(host),
    };
    let agent = match (&host.version_before, &host.version_after) {
        (Some(before), Some(after)) if before != after => format!("{before} → {after}"),
        (before, after) => after
            .clone()
            .or_else(|| before.clone())
            .unwrap_or_else(|| "-".into()),
    };
    [
        host.instance_name.clone().unwrap_or_default(),
        host.stage
            .map_or_else(|| "-".into(), |stage| stage.to_string()),
        state.into(),
        words::ago(host.since),
        agent,
    ]
}
