//! A host: what is on it, what it does, and its history.

use askama::Template;
use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{GetHostStatusInput, GetHostStatusOutput, HostDeployment};

use super::frame::Frame;
use super::hosts::{HostRow, row};
use super::page::Page;
use super::target::target_chip;
use super::view::{Chip, Tone, When, target_path};
use super::visit::Asked;
use crate::deployment::status::hosts;
use crate::error::ApiError;
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{request, words};

/// One host.
#[derive(Template)]
#[template(path = "host.html")]
pub(super) struct HostPage {
    frame: Frame,
    found: GetHostStatusOutput,
    host: HostRow,
    tags: Vec<String>,
    identifier: String,
    registered: Option<When>,
    drained: Option<Drained>,
    /// Whether a revision on it is not its group's.
    has_drift: bool,
    history: Vec<Past>,
}

/// The drain of a host.
struct Drained {
    since: Option<When>,
    by: String,
    reason: Option<String>,
}

/// A deployment in the history of a host.
struct Past {
    id: String,
    href: String,
    group: String,
    revision: String,
    state: Chip,
    when: Option<When>,
    by: String,
}

impl Page for HostPage {
    type Document = GetHostStatusOutput;
    const NAME: &'static str = "Host";
    const OPERATIONS: &'static [&'static str] = &["GetHostStatus"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let input = GetHostStatusInput {
            instance_name: asked.get("name"),
        };
        let found = hosts::get(context, request::GetHostStatus::check(input)?)?;
        let host = found.host.clone().unwrap_or_default();
        let tags = host.tags.iter().flatten().map(|tag| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}={}", text(&tag.key), text(&tag.value))
        });
        let shown = row(&host, context.now);
        let name = words::argument(&shown.name);
        let commands = [
            format!("codedeploy-controller hosts {name}"),
            format!("aws deploy get-on-premises-instance --instance-name {name}"),
        ];
        Ok(HostPage {
            frame: asked.frame(shown.name.clone(), commands).live(),
            tags: tags.collect(),
            identifier: host.host_identifier.clone().unwrap_or_default(),
            registered: host.register_time.map(|time| When::new(time, context.now)),
            drained: host.drain.as_ref().map(|drain| Drained {
                since: drain.since.map(|time| When::new(time, context.now)),
                by: drain.by.as_deref().map_or_else(|| "-".into(), words::who),
                reason: drain.reason.clone(),
            }),
            has_drift: shown
                .revisions
                .iter()
                .any(|revision| matches!(revision.state.tone, Tone::Bad | Tone::Waits)),
            history: found
                .deployments
                .iter()
                .flatten()
                .map(|deployment| past(deployment, &shown.name, context.now))
                .collect(),
            host: shown,
            found,
        })
    }

    fn document(&self) -> &GetHostStatusOutput {
        &self.found
    }
}

fn past(deployment: &HostDeployment, host: &str, now: Timestamp) -> Past {
    let summary = deployment.deployment.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let id = text(&summary.deployment_id);
    let state = target_chip(deployment.status.as_ref());
    Past {
        href: target_path(&id, host),
        id,
        group: format!(
            "{} · {}",
            text(&summary.application_name),
            text(&summary.deployment_group_name)
        ),
        revision: words::short_revision(summary.revision.as_ref()),
        // Only a deployment that has not ended is the present.
        state: match summary.complete_time {
            Some(_) => state.past(),
            None => state,
        },
        when: deployment.update_time.map(|time| When::new(time, now)),
        by: words::creator(&summary),
    }
}
