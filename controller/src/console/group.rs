//! A deployment group: its state, its settings as they count, its alarms, its hosts, its history.

use askama::Template;
use codedeploy_api::codedeploy::{
    DeploymentConfigInfo, DeploymentGroupInfo, GetDeploymentConfigInput, GetDeploymentGroupInput,
    Timestamp,
};
use codedeploy_api::controller::{
    DeploymentSummary, GetFleetStatusInput, GroupStatus, ListDeploymentStatusesInput,
    ListHostsInput,
};
use serde::Serialize;

use super::frame::Frame;
use super::hosts::{HostRow, row};
use super::matrix::{May, Tile, tile};
use super::page::Page;
use super::settings::{Setting, settings};
use super::view::{Chip, Tone, When, deployment_path, segment};
use super::visit::{Asked, Outside, Visit};
use crate::deployment::status;
use crate::error::ApiError;
use crate::registry::{configs, groups};
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{alarms, request, words};

/// The number of hosts and of deployments that are shown.
const SHOWN: usize = 20;

/// The page.
#[derive(Template)]
#[template(path = "group.html")]
pub(super) struct GroupPage {
    frame: Frame,
    found: Found,
    application: String,
    group: String,
    tile: Tile,
    settings: Vec<Setting>,
    alarms: Vec<AlarmRow>,
    hosts: Vec<HostRow>,
    has_more_hosts: bool,
    history: Vec<Past>,
    has_more_history: bool,
}

/// The content for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    status: GroupStatus,
    settings: DeploymentGroupInfo,
    deployment_config: Option<DeploymentConfigInfo>,
    alarms: Vec<alarms::Shown>,
    deployments: Vec<DeploymentSummary>,
}

struct AlarmRow {
    name: String,
    state: Chip,
    reason: String,
}

/// A deployment of the group.
struct Past {
    id: String,
    href: String,
    revision: String,
    state: Chip,
    when: Option<When>,
    took: String,
    by: String,
    hosts: String,
}

const OPERATIONS: &[&str] = &[
    "GetFleetStatus",
    "GetDeploymentGroup",
    "GetDeploymentConfig",
    "ListHosts",
    "ListDeploymentStatuses",
];

fn info(context: &Context<'_>, asked: &Asked) -> Result<DeploymentGroupInfo, ApiError> {
    let input = GetDeploymentGroupInput {
        application_name: asked.get("application"),
        deployment_group_name: asked.get("group"),
    };
    let found = groups::get(context, request::GetDeploymentGroup::check(input)?)?;
    Ok(found.deployment_group_info.unwrap_or_default())
}

/// The names of a group's alarms, in their order.
fn names(info: &DeploymentGroupInfo) -> Vec<String> {
    let alarms = info.alarm_configuration.iter();
    let alarms = alarms.flat_map(|configuration| configuration.alarms.iter().flatten());
    alarms.filter_map(|alarm| alarm.name.clone()).collect()
}

impl Page for GroupPage {
    type Document = Found;
    const NAME: &'static str = "Group";
    const OPERATIONS: &'static [&'static str] = OPERATIONS;

    async fn ask(visit: &Visit) -> Outside {
        let asked = visit.read(OPERATIONS, |context, asked| {
            Ok(names(&info(context, asked)?))
        });
        // The page itself reports an error.
        let names = asked.await.unwrap_or_default();
        Outside {
            alarms: alarms::look_at(&visit.console.service, &names).await,
            ..Outside::default()
        }
    }

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let info = info(context, asked)?;
        let (application, group) = (asked.get("application"), asked.get("group"));
        let input = GetFleetStatusInput {
            application_name: application.clone(),
            deployment_group_name: group.clone(),
            next_token: None,
        };
        let found = status::groups::list(context, request::GetFleetStatus::check(input)?)?;
        let status = found.groups.unwrap_or_default().pop().unwrap_or_default();
        let config = info.deployment_config_name.clone();
        let input = GetDeploymentConfigInput {
            deployment_config_name: config,
        };
        let config = configs::get(context, request::GetDeploymentConfig::check(input)?)?;
        let config = config.deployment_config_info;
        let input = ListHostsInput {
            application_name: application.clone(),
            deployment_group_name: group.clone(),
            silent_first: Some(true),
            ..ListHostsInput::default()
        };
        let hosts = status::hosts::list(context, request::ListHosts::check(input)?)?;
        let hosts = hosts.hosts.unwrap_or_default();
        let input = ListDeploymentStatusesInput {
            application_name: application.clone(),
            deployment_group_name: group.clone(),
            ..Default::default()
        };
        let listed =
            status::deployments::list(context, request::ListDeploymentStatuses::check(input)?)?;
        let mut deployments = listed.deployments.unwrap_or_default();
        let has_more_history = deployments.len() > SHOWN || listed.next_token.is_some();
        deployments.truncate(SHOWN);
        let text = |text: Option<String>| text.unwrap_or_default();
        let (application, group) = (text(application), text(group));
        let (one, two) = (words::argument(&application), words::argument(&group));
        let commands = [
            format!("codedeploy-controller status {one} {two}"),
            format!(
                "aws deploy get-deployment-group --application-name {one} --deployment-group-name {two}"
            ),
        ];
        let now = context.now;
        Ok(GroupPage {
            frame: asked
                .frame(format!("{application} · {group}"), commands)
                .live(),
            tile: tile(&status, now, &May::of(asked)),
            settings: settings(&info, config.as_ref()),
            alarms: asked.outside.alarms.iter().map(alarm).collect(),
            has_more_hosts: hosts.len() > SHOWN,
            hosts: hosts
                .iter()
                .take(SHOWN)
                .map(|host| row(host, now))
                .collect(),
            history: deployments
                .iter()
                .map(|deployment| past(deployment, now))
                .collect(),
            has_more_history,
            found: Found {
                status,
                settings: info,
                deployment_config: config,
                alarms: asked.outside.alarms.clone(),
                deployments,
            },
            application,
            group,
        })
    }

    fn document(&self) -> &Found {
        &self.found
    }
}

impl GroupPage {
    fn application_segment(&self) -> String {
        segment(&self.application)
    }

    fn query(&self) -> String {
        format!(
            "application={}&group={}",
            segment(&self.application),
            segment(&self.group)
        )
    }
}

fn alarm(alarm: &alarms::Shown) -> AlarmRow {
    AlarmRow {
        name: alarm.name.clone(),
        state: match alarm.is_active {
            Some(true) => Chip::new(Tone::Bad, "Active"),
            Some(false) => Chip::new(Tone::Good, "Quiet"),
            None => Chip::new(Tone::Waits, "Unknown"),
        },
        reason: alarm.reason.clone().unwrap_or_default(),
    }
}

fn past(deployment: &DeploymentSummary, now: Timestamp) -> Past {
    let id = deployment.deployment_id.clone().unwrap_or_default();
    let times = deployment
        .start_time
        .or(deployment.create_time)
        .zip(deployment.complete_time);
    Past {
        href: deployment_path(&id),
        id,
        revision: words::short_revision(deployment.revision.as_ref()),
        state: match Chip::of_status(deployment.status.as_ref()) {
            state if deployment.complete_time.is_some() => state.past(),
            state => state,
        },
        when: deployment.create_time.map(|time| When::new(time, now)),
        took: times.map_or_else(String::new, |(began, ended)| {
            words::span(ended.since(began))
        }),
        by: words::creator(deployment),
        hosts: words::overview(deployment.deployment_overview.as_ref()),
    }
}
