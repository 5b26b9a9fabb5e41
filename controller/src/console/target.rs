//! A host in a deployment: its lifecycle events, and the output of its scripts.

use askama::Template;
use codedeploy_api::codedeploy::{
    Diagnostics, GetDeploymentTargetInput, GetDeploymentTargetOutput, LifecycleEventStatus,
    TargetStatus,
};
use codedeploy_api::controller::{GetScriptLogInput, ScriptLogState};

use super::frame::Frame;
use super::page::Page;
use super::view::{Chip, Tone, When, deployment_path, segment, target_path};
use super::visit::Asked;
use crate::deployment::{queries, script_logs, targets};
use crate::error::ApiError;
use crate::registry::groups;
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{request, words};

/// A host in a deployment.
#[derive(Template)]
#[template(path = "target.html")]
pub(super) struct TargetPage {
    frame: Frame,
    found: GetDeploymentTargetOutput,
    id: String,
    host: String,
    deployment: String,
    state: Chip,
    events: Vec<EventRow>,
    /// The event whose output is shown.
    shown: Option<Shown>,
    /// Whether a later deployment of the group came after this one.
    is_history: bool,
}

/// A lifecycle event.
struct EventRow {
    name: String,
    href: String,
    state: Chip,
    began: Option<When>,
    took: Option<String>,
}

/// The output of an event.
struct Shown {
    event: String,
    script: Option<String>,
    message: Option<String>,
    log: Option<String>,
    is_whole: bool,
}

impl Page for TargetPage {
    type Document = GetDeploymentTargetOutput;
    const NAME: &'static str = "DeploymentHost";
    const OPERATIONS: &'static [&'static str] = &["GetDeploymentTarget", "GetScriptLog"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let input = GetDeploymentTargetInput {
            deployment_id: asked.get("id"),
            target_id: asked.get("host"),
        };
        let found = targets::get(context, request::GetDeploymentTarget::check(input)?)?;
        let target = found.deployment_target.clone().unwrap_or_default();
        let target = target.instance_target.unwrap_or_default();
        let (id, host) = (
            target.deployment_id.clone().unwrap_or_default(),
            target.target_id.clone().unwrap_or_default(),
        );
        let input = GetScriptLogInput {
            deployment_id: Some(id.clone()),
            instance_name: Some(host.clone()),
            lifecycle_event_name: asked.get("event"),
        };
        let log = script_logs::get(context, request::GetScriptLog::check(input)?)?;
        let record = queries::find(context, &id)?;
        let group = groups::by_id(context, &record.group_id)?;
        let last = group.as_ref().and_then(|group| group.last_attempted());
        let events = target.lifecycle_events.as_deref().unwrap_or_default();
        let rows = events.iter().map(|event| {
            let name = event.lifecycle_event_name.clone().unwrap_or_default();
            let began = event.start_time.map(|time| When::new(time, context.now));
            let times = event.start_time.zip(event.end_time);
            EventRow {
                href: format!(
                    "{}?event={}#output",
                    target_path(&id, &host),
                    segment(&name)
                ),
                name,
                state: event_chip(event.status.as_ref()),
                began,
                took: times.map(|(began, ended)| words::span(ended.since(began))),
            }
        });
        let shown = log.lifecycle_event_name.clone().map(|event| {
            let diagnostics = events
                .iter()
                .find(|found| found.lifecycle_event_name.as_ref() == Some(&event))
                .and_then(|event| event.diagnostics.as_ref());
            Shown {
                script: log.script_name.clone(),
                message: diagnostics.and_then(message),
                log: log.log.as_deref().map(|log| log.trim_end().to_owned()),
                is_whole: log.log_state == Some(ScriptLogState::Whole),
                event,
            }
        });
        let command = format!(
            "codedeploy-controller why {id} --log --host {}",
            words::argument(&host)
        );
        let aws = format!(
            "aws deploy get-deployment-target --deployment-id {id} --target-id {}",
            words::argument(&host)
        );
        Ok(TargetPage {
            frame: asked.frame(format!("{host} · {id}"), [command, aws]).live(),
            state: target_chip(target.status.as_ref()),
            events: rows.collect(),
            deployment: deployment_path(&id),
            is_history: record.is_over() && last != Some(id.as_str()),
            shown,
            id,
            host,
            found,
        })
    }

    fn document(&self) -> &GetDeploymentTargetOutput {
        &self.found
    }
}

fn message(diagnostics: &Diagnostics) -> Option<String> {
    diagnostics
        .message
        .clone()
        .filter(|message| !message.is_empty())
}

fn event_chip(status: Option<&LifecycleEventStatus>) -> Chip {
    match status {
        Some(LifecycleEventStatus::Succeeded) => Chip::new(Tone::Good, "Succeeded"),
        Some(LifecycleEventStatus::Failed) => Chip::new(Tone::Bad, "Failed"),
        Some(LifecycleEventStatus::InProgress) => Chip::new(Tone::Busy, "In progress"),
        Some(LifecycleEventStatus::Skipped) => Chip::new(Tone::Past, "Skipped"),
        _ => Chip::new(Tone::Calm, "Pending"),
    }
}

pub(super) fn target_chip(status: Option<&TargetStatus>) -> Chip {
    match status {
        Some(TargetStatus::Succeeded) => Chip::new(Tone::Good, "Succeeded"),
        Some(TargetStatus::Failed) => Chip::new(Tone::Bad, "Failed"),
        Some(TargetStatus::InProgress) => Chip::new(Tone::Busy, "In progress"),
        Some(TargetStatus::Ready) => Chip::new(Tone::Waits, "Ready"),
        Some(TargetStatus::Skipped) => Chip::new(Tone::Past, "Skipped"),
        _ => Chip::new(Tone::Calm, "Pending"),
    }
}
