//! The deployments, the newest first.

use askama::Template;
use codedeploy_api::codedeploy::{DeploymentStatus, Timestamp};
use codedeploy_api::controller::{
    DeploymentSummary, ListDeploymentStatusesInput, ListDeploymentStatusesOutput,
};

use super::frame::Frame;
use super::page::Page;
use super::view::{Chip, When, deployment_path, segment};
use super::visit::Asked;
use crate::deployment::status::deployments;
use crate::error::ApiError;
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{request, words};

const PATH: &str = "/console/deployments";

/// A list of deployments.
#[derive(Template)]
#[template(path = "deployments.html")]
pub(super) struct Deployments {
    frame: Frame,
    found: ListDeploymentStatusesOutput,
    rows: Vec<Row>,
    filters: Vec<Filter>,
    next: Option<String>,
}

struct Filter {
    href: String,
    label: &'static str,
    is_current: bool,
}

struct Row {
    id: String,
    href: String,
    group: String,
    revision: String,
    state: Chip,
    created: Option<When>,
    by: String,
    counts: String,
}

impl Page for Deployments {
    type Document = ListDeploymentStatusesOutput;
    const NAME: &'static str = "Deployments";
    const OPERATIONS: &'static [&'static str] = &["ListDeploymentStatuses"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let (application, group) = (asked.get("application"), asked.get("group"));
        let status = asked.get("status");
        let input = ListDeploymentStatusesInput {
            application_name: application.clone(),
            deployment_group_name: group.clone(),
            include_only_statuses: status
                .clone()
                .map(|status| vec![DeploymentStatus::from(status)]),
            next_token: asked.get("next"),
        };
        let found = deployments::list(context, request::ListDeploymentStatuses::check(input)?)?;
        let list = found.deployments.as_deref().unwrap_or_default();
        let of_group = application.as_deref().zip(group.as_deref());
        let query = |status: Option<&str>, next: Option<&str>| {
            let group = of_group.map(|(application, group)| {
                format!(
                    "application={}&group={}",
                    segment(application),
                    segment(group)
                )
            });
            let parts = [
                group,
                status.map(|status| format!("status={}", segment(status))),
                next.map(|next| format!("next={}", segment(next))),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            match parts.is_empty() {
                true => PATH.to_owned(),
                false => format!("{PATH}?{}", parts.join("&")),
            }
        };
        let filter = |label, wanted: Option<&str>| Filter {
            href: query(wanted, None),
            label,
            is_current: wanted == status.as_deref(),
        };
        let mut command = "codedeploy-controller deployments".to_owned();
        if let Some((application, group)) = of_group {
            command += &format!(
                " {} {}",
                words::argument(application),
                words::argument(group)
            );
        }
        if let Some(status) = &status {
            command += &format!(" --status {}", words::argument(status));
        }
        let title = match of_group {
            Some((application, group)) => format!("Deployments of {application} · {group}"),
            None => "Deployments".to_owned(),
        };
        Ok(Deployments {
            frame: asked.frame(title, [command]).live(),
            rows: list
                .iter()
                .map(|deployment| row(deployment, context.now))
                .collect(),
            filters: vec![
                filter("All", None),
                filter("In progress", Some("InProgress")),
                filter("Waiting for you", Some("Ready")),
                filter("Failed", Some("Failed")),
                filter("Stopped", Some("Stopped")),
                filter("Succeeded", Some("Succeeded")),
            ],
            next: found
                .next_token
                .as_deref()
                .map(|next| query(status.as_deref(), Some(next))),
            found,
        })
    }

    fn document(&self) -> &ListDeploymentStatusesOutput {
        &self.found
    }
}

fn row(deployment: &DeploymentSummary, now: Timestamp) -> Row {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let id = text(&deployment.deployment_id);
    // What has ended is history: only what runs has a colour.
    let state = match Chip::of_status(deployment.status.as_ref()) {
        state if deployment.complete_time.is_some() => state.past(),
        state => state,
    };
    Row {
        href: deployment_path(&id),
        id,
        group: format!(
            "{} · {}",
            text(&deployment.application_name),
            text(&deployment.deployment_group_name)
        ),
        revision: words::short_revision(deployment.revision.as_ref()),
        state,
        created: deployment.create_time.map(|time| When::new(time, now)),
        by: words::creator(deployment),
        counts: words::overview(deployment.deployment_overview.as_ref()),
    }
}
