//! One deployment, live: what failed, why it waits, a square for each host, and the buttons.

use askama::Template;
use axum::body::Body;
use axum::http::Response;
use codedeploy_api::codedeploy::{
    ContinueDeploymentInput, DeploymentStatus, DeploymentWaitType, Nothing, StopDeploymentInput,
    StopDeploymentOutput, Timestamp,
};
use codedeploy_api::controller::{
    CommandState, GetDeploymentStatusInput, GetDeploymentStatusOutput, HostCommand,
};
use codedeploy_planner::deployment_state::{DeploymentState, Stage};
use codedeploy_planner::strategy::Strategy;

use super::board::{self, Wave};
use super::failure::{self, Failure};
use super::frame::Frame;
use super::page::Page;
use super::response::{Refused, see_other};
use super::view::{Bar, Chip, Tone, When, deployment_path, group_path, segment};
use super::visit::{Asked, Posted};
use super::waiting::{self, Situation};
use crate::deployment::queries;
use crate::deployment::status::deployments;
use crate::error::ApiError;
use crate::records::{Record, squares};
use crate::registry::groups;
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{request, words};

/// A deployment.
#[derive(Template)]
#[template(path = "deployment.html")]
pub(super) struct Deployment {
    frame: Frame,
    found: GetDeploymentStatusOutput,
    id: String,
    path: String,
    application: String,
    application_href: String,
    group_href: String,
    group: String,
    state: Chip,
    revision: String,
    previous: Option<String>,
    description: Option<String>,
    by: String,
    config: Option<String>,
    created: When,
    completed: Option<When>,
    took: Option<String>,
    /// The reason of a bad end.
    reason: Option<String>,
    /// The sentences about what it waits for.
    waits: Vec<String>,
    until: Option<When>,
    left: Option<String>,
    counts: String,
    bar: Bar,
    rolls_back: Option<String>,
    rolled_back_by: Option<String>,
    later: Option<String>,
    failures: Vec<Failure>,
    more_failures: usize,
    commands: Vec<Command>,
    advice: Vec<String>,
    stages: Vec<StageView>,
    events: Vec<Reached>,
    waves: Vec<Wave>,
    hosts: board::Hosts,
    can_stop: bool,
    can_continue: Option<&'static str>,
    back: Option<String>,
}

/// A command that has not ended.
struct Command {
    host: String,
    event: String,
    state: &'static str,
    since: Option<When>,
    expires: Option<When>,
}

/// A stage of a deployment that moves traffic.
struct StageView {
    name: &'static str,
    state: Chip,
}

/// A lifecycle event, and the number of hosts that have begun it.
struct Reached {
    name: String,
    number: usize,
    bar: Bar,
}

impl Page for Deployment {
    type Document = GetDeploymentStatusOutput;
    const NAME: &'static str = "Deployment";
    const OPERATIONS: &'static [&'static str] = &["GetDeploymentStatus", "ListDeploymentTargets"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let input = GetDeploymentStatusInput {
            deployment_id: asked.get("id"),
        };
        let found = deployments::get(context, request::GetDeploymentStatus::check(input)?)?;
        let summary = found.deployment.clone().unwrap_or_default();
        let id = summary.deployment_id.clone().unwrap_or_default();
        let record = queries::find(context, &id)?;
        let all = squares::all(context.tx, &id, board::NAMED)?;
        let group = groups::by_id(context, &record.group_id)?;
        let last = group.as_ref().and_then(|group| group.last_attempted());
        let is_over = record.is_over();
        let is_history = is_over && last != Some(id.as_str());
        let now = context.now;
        let when = |time: Option<Timestamp>| time.map(|time| When::new(time, now));
        let state = match Chip::of_status(summary.status.as_ref()) {
            state if is_history => state.past(),
            state => state,
        };
        let situation = Situation::new(&record, &found, &all, context);
        let error = record.error();
        let definition = record.definition.as_ref();
        let (application, name) = (record.application_name.clone(), record.group_name.clone());
        let failures = found.failures.as_deref().unwrap_or_default();
        let failed = summary
            .deployment_overview
            .as_ref()
            .and_then(|counts| usize::try_from(counts.failed?).ok())
            .unwrap_or_default();
        let can_go_back = is_over
            && !is_history
            && group
                .as_ref()
                .is_some_and(|group| group.last_successful.is_some())
            && asked.may("RollBackDeploymentGroup");
        let command = match is_over {
            true => format!("codedeploy-controller why {id}"),
            false => format!("codedeploy-controller follow {id}"),
        };
        let aws = format!("aws deploy get-deployment --deployment-id {id}");
        let path = deployment_path(&id);
        Ok(Deployment {
            frame: asked
                .frame(format!("{application} · {name} · {id}"), [command, aws])
                .live(),
            state,
            revision: words::revision(summary.revision.as_ref()),
            previous: definition
                .and_then(|definition| definition.previous_revision.clone())
                .map(|revision| words::revision(Some(&revision.into()))),
            description: summary.description.clone(),
            by: words::creator(&summary),
            config: definition.map(|definition| definition.config_name.clone()),
            created: When::new(record.created, now),
            completed: when(record.progress.completed()),
            took: took(&record),
            reason: error.map(words::error),
            waits: waiting::sentences(&situation),
            until: when(summary.waits_until.or_else(|| situation.limit())),
            left: waiting::left(&situation).map(words::span),
            counts: words::overview(summary.deployment_overview.as_ref()),
            bar: board::bar(&all, &record),
            rolls_back: summary.rolls_back.clone(),
            rolled_back_by: summary.rolled_back_by.clone(),
            later: last.filter(|_| is_history).map(str::to_owned),
            more_failures: failed.saturating_sub(failure::SHOWN.min(failures.len())),
            failures: failures
                .iter()
                .take(failure::SHOWN)
                .map(|failure| Failure::new(failure, &id, now))
                .collect(),
            commands: found
                .commands
                .iter()
                .flatten()
                .map(|command| self::command(command, now))
                .collect(),
            advice: found.advice.clone().unwrap_or_default(),
            stages: stages(&record),
            events: events(context, &record, all.len())?,
            waves: board::waves(&all, &record),
            hosts: board::Hosts::read(context, asked, &record)?,
            can_stop: !is_over && asked.may("StopDeployment"),
            can_continue: continues(&record).filter(|_| asked.may("ContinueDeployment")),
            back: can_go_back.then(|| format!("{}/rollback", group_path(&application, &name))),
            id,
            path,
            application_href: format!("/console/?application={}", segment(&application)),
            group_href: group_path(&application, &name),
            application,
            group: name,
            found,
        })
    }

    fn document(&self) -> &GetDeploymentStatusOutput {
        &self.found
    }
}

fn took(record: &Record) -> Option<String> {
    let (started, completed) = (record.progress.started()?, record.progress.completed()?);
    Some(words::span(completed.since(started)))
}

/// The words on the button that ends a wait.
fn continues(record: &Record) -> Option<&'static str> {
    match &record.progress {
        DeploymentState::Ready { .. } => Some("Continue: move the traffic"),
        DeploymentState::Ended {
            retire_at: Some(_), ..
        } => Some("Deregister the original instances now"),
        _ => None,
    }
}

fn command(command: &HostCommand, now: Timestamp) -> Command {
    Command {
        host: command.instance_name.clone().unwrap_or_default(),
        event: command.lifecycle_event_name.clone().unwrap_or_default(),
        state: match command.state {
            Some(CommandState::Offered) => "not fetched",
            Some(CommandState::Fetched) => "fetched",
            _ => "running",
        },
        since: command.since.map(|time| When::new(time, now)),
        expires: command.expires.map(|time| When::new(time, now)),
    }
}

/// The stages of a deployment that moves traffic; a deployment in place has one, which needs no
/// words.
fn stages(record: &Record) -> Vec<StageView> {
    let strategy = record.rules.strategy;
    if matches!(
        strategy,
        Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer
    ) {
        return Vec::new();
    }
    let first = strategy.first_stage();
    let stages = std::iter::successors(Some(first), |stage| strategy.stage_after(*stage));
    let present = match &record.progress {
        DeploymentState::Created => None,
        DeploymentState::InProgress { stage, .. } => Some(*stage),
        // The replacement instances have the revision, and no traffic.
        DeploymentState::Ready { .. } => Some(Stage::Allow),
        DeploymentState::Ended { .. } => None,
    };
    let succeeded = record.progress.status() == DeploymentStatus::Succeeded;
    let view = |stage: Stage| StageView {
        name: match stage {
            Stage::Deploy => "Deploy to the replacement instances",
            Stage::Allow => "Allow traffic",
            Stage::Block => "Block traffic",
        },
        state: match present {
            Some(present) if stage < present => Chip::new(Tone::Good, "Done"),
            Some(present) if stage == present => match record.progress {
                DeploymentState::Ready { .. } => Chip::new(Tone::Waits, "Waits"),
                _ => Chip::new(Tone::Busy, "Now"),
            },
            None if succeeded => Chip::new(Tone::Good, "Done"),
            _ => Chip::new(Tone::Calm, "Not yet"),
        },
    };
    stages.map(view).collect()
}

/// The events of a deployment in place, whose targets all have the same.
fn events(context: &Context<'_>, record: &Record, all: usize) -> Result<Vec<Reached>, ApiError> {
    let strategy = record.rules.strategy;
    if !matches!(
        strategy,
        Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer
    ) || all == 0
    {
        return Ok(Vec::new());
    }
    let tone = if record.is_over() {
        Tone::Past
    } else {
        Tone::Busy
    };
    let numbers = squares::reached(context.tx, &record.id)?;
    let events = strategy.events(None).into_iter().enumerate();
    let events = events.map(|(place, (_, name))| {
        let number = numbers.iter().find(|(event, _)| *event == place);
        let number = number.map_or(0, |(_, number)| *number).min(all);
        Reached {
            name: name.name().to_owned(),
            number,
            bar: Bar::new(&[(tone, number), (Tone::Calm, all - number)]),
        }
    });
    Ok(events.collect())
}

pub(super) async fn stop(posted: Posted) -> Result<Response<Body>, Refused> {
    let visit = &posted.visit;
    let id = visit.asked.get("id");
    let input = StopDeploymentInput {
        deployment_id: id.clone(),
        auto_rollback_enabled: posted.get("rollback").map(|wish| wish == "yes"),
    };
    let _: StopDeploymentOutput = visit.perform("StopDeployment", &input).await?;
    Ok(see_other(&deployment_path(&id.unwrap_or_default())))
}

pub(super) async fn proceed(posted: Posted) -> Result<Response<Body>, Refused> {
    let visit = &posted.visit;
    let id = visit.asked.get("id");
    let input = GetDeploymentStatusInput {
        deployment_id: id.clone(),
    };
    let found: GetDeploymentStatusOutput = visit.perform("GetDeploymentStatus", &input).await?;
    let status = found.deployment.and_then(|deployment| deployment.status);
    let wait = match status {
        Some(DeploymentStatus::Succeeded) => DeploymentWaitType::TerminationWait,
        _ => DeploymentWaitType::ReadyWait,
    };
    let input = ContinueDeploymentInput {
        deployment_id: id.clone(),
        deployment_wait_type: Some(wait),
    };
    let Nothing {} = visit.perform("ContinueDeployment", &input).await?;
    Ok(see_other(&deployment_path(&id.unwrap_or_default())))
}
