//! The first page: every deployment group with its revision, its hosts, and what happens now.

use std::collections::BTreeMap;

use askama::Template;
use codedeploy_api::codedeploy::{DeploymentStatus, Timestamp};
use codedeploy_api::controller::{
    DeploymentSummary, GetFleetStatusInput, GetFleetStatusOutput, GroupStatus,
};

use super::frame::Frame;
use super::page::Page;
use super::view::{Bar, Chip, Tone, When, deployment_path, group_path, segment};
use super::visit::Asked;
use crate::deployment::status::groups;
use crate::error::ApiError;
use crate::request::Request as _;
use crate::transaction::Context;
use crate::{request, words};

/// The applications and their groups.
#[derive(Template)]
#[template(path = "matrix.html")]
pub(super) struct Matrix {
    frame: Frame,
    found: GetFleetStatusOutput,
    rows: Vec<Row>,
    /// The numbers of groups that need somebody, and of those with a running deployment.
    waiting: usize,
    running: usize,
    /// The only application that is shown.
    only: Option<String>,
    /// The address of the next groups.
    next: Option<String>,
}

/// An application.
struct Row {
    application: String,
    href: String,
    tiles: Vec<Tile>,
}

/// A deployment group.
pub(super) struct Tile {
    pub(super) group: String,
    pub(super) group_href: String,
    pub(super) state: Chip,
    pub(super) revision: Option<String>,
    /// The address of the deployment that brought it.
    pub(super) href: String,
    pub(super) since: Option<When>,
    pub(super) by: String,
    pub(super) total: usize,
    pub(super) healthy: usize,
    pub(super) behind: usize,
    pub(super) silent: usize,
    pub(super) bar: Bar,
    pub(super) running: Option<Running>,
    pub(super) waiting: Option<String>,
    pub(super) failure: Option<Failure>,
    /// The address of the form, for those who may deploy.
    pub(super) deploy: Option<String>,
    /// The address of the way back, for those who may take it.
    pub(super) back: Option<String>,
}

/// A running deployment.
pub(super) struct Running {
    pub(super) id: String,
    pub(super) href: String,
    pub(super) revision: String,
    pub(super) done: i64,
    pub(super) failed: i64,
    pub(super) total: i64,
    pub(super) waits_for: Option<String>,
    pub(super) until: Option<When>,
}

/// The last deployment that failed.
pub(super) struct Failure {
    pub(super) id: String,
    pub(super) href: String,
    pub(super) when: Option<When>,
    pub(super) state: Chip,
    /// Whether no later one succeeded.
    pub(super) is_fresh: bool,
}

impl Page for Matrix {
    type Document = GetFleetStatusOutput;
    const NAME: &'static str = "Fleet";
    const OPERATIONS: &'static [&'static str] = &["GetFleetStatus"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let only = asked.get("application");
        let input = GetFleetStatusInput {
            application_name: only.clone(),
            deployment_group_name: None,
            next_token: asked.get("next"),
        };
        let found = groups::list(context, request::GetFleetStatus::check(input)?)?;
        let groups = found.groups.as_deref().unwrap_or_default();
        let may = May::of(asked);
        let mut rows = BTreeMap::<&str, Vec<Tile>>::new();
        for group in groups {
            let name = group.application_name.as_deref().unwrap_or_default();
            rows.entry(name)
                .or_default()
                .push(tile(group, context.now, &may));
        }
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|(application, tiles)| Row {
                href: format!("/console/?application={}", segment(application)),
                application: application.to_owned(),
                tiles,
            })
            .collect();
        let tiles = || rows.iter().flat_map(|row| &row.tiles);
        let needs = |tile: &&Tile| matches!(tile.state.tone, Tone::Bad | Tone::Waits);
        let next = found.next_token.as_deref().map(|token| {
            let only = only
                .as_deref()
                .map(|name| format!("application={}&", segment(name)));
            format!(
                "/console/?{}next={}",
                only.unwrap_or_default(),
                segment(token)
            )
        });
        let command = match &only {
            Some(name) => format!("codedeploy-controller status {}", words::argument(name)),
            None => "codedeploy-controller status".to_owned(),
        };
        Ok(Matrix {
            frame: asked.frame("Fleet", [command]).live(),
            waiting: tiles().filter(needs).count(),
            running: tiles().filter(|tile| tile.running.is_some()).count(),
            rows,
            only,
            next,
            found,
        })
    }

    fn document(&self) -> &GetFleetStatusOutput {
        &self.found
    }
}

/// What the user may do.
pub(super) struct May {
    deploy: bool,
    go_back: bool,
}

impl May {
    pub(super) fn of(asked: &Asked) -> Self {
        May {
            deploy: asked.may("CreateDeployment"),
            go_back: asked.may("RollBackDeploymentGroup"),
        }
    }
}

pub(super) fn tile(group: &GroupStatus, now: Timestamp, may: &May) -> Tile {
    let hosts = group.hosts.clone().unwrap_or_default();
    let count = |count: Option<usize>| count.unwrap_or_default();
    let (total, healthy, behind) = (
        count(hosts.total),
        count(hosts.healthy),
        count(hosts.behind),
    );
    let current = group.current_deployment.as_ref();
    let fresh = words::fresh_failure(group).is_some();
    let failure = group.last_failure.as_ref();
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let (application, group_name) = (
        name(&group.application_name),
        name(&group.deployment_group_name),
    );
    let can_go_back = current.is_some() && group.running_deployment.is_none();
    let path = group_path(&application, &group_name);
    Tile {
        deploy: (may.deploy && group.running_deployment.is_none())
            .then(|| format!("{path}/deploy")),
        back: (may.go_back && can_go_back).then(|| format!("{path}/rollback")),
        group_href: path,
        group: group_name,
        state: state(group, fresh, behind),
        revision: current.map(|current| words::short_revision(current.revision.as_ref())),
        href: current.map_or_else(String::new, |current| {
            deployment_path(current.deployment_id.as_deref().unwrap_or_default())
        }),
        since: current
            .and_then(|current| current.complete_time)
            .map(|time| When::new(time, now)),
        by: current.map(words::creator).unwrap_or_default(),
        total,
        healthy,
        behind,
        silent: count(hosts.silent),
        bar: Bar::new(&[
            (Tone::Good, healthy),
            (Tone::Calm, total.saturating_sub(healthy)),
        ]),
        running: group
            .running_deployment
            .as_ref()
            .map(|running| self::running(running, now)),
        waiting: group
            .waiting_revision
            .as_ref()
            .map(|revision| words::short_revision(Some(revision))),
        failure: failure.map(|failure| Failure {
            state: match Chip::of_status(failure.status.as_ref()) {
                present if fresh => present,
                history => history.past(),
            },
            id: name(&failure.deployment_id),
            href: deployment_path(&name(&failure.deployment_id)),
            when: failure.complete_time.map(|time| When::new(time, now)),
            is_fresh: fresh,
        }),
    }
}

/// The state of a group at present.
fn state(group: &GroupStatus, fresh_failure: bool, behind: usize) -> Chip {
    match &group.running_deployment {
        Some(running) => Chip::of_status(running.status.as_ref()),
        None if fresh_failure => {
            let failure = group.last_failure.as_ref();
            let status = failure.and_then(|failure| failure.status.as_ref());
            Chip::of_status(status.or(Some(&DeploymentStatus::Failed)))
        }
        None if group.current_deployment.is_none() => Chip::new(Tone::Calm, "Never deployed"),
        None if behind > 0 => Chip::new(Tone::Waits, "Behind"),
        None => Chip::new(Tone::Good, "Up to date"),
    }
}

fn running(running: &DeploymentSummary, now: Timestamp) -> Running {
    let counts = running.deployment_overview.clone().unwrap_or_default();
    let id = running.deployment_id.clone().unwrap_or_default();
    Running {
        href: deployment_path(&id),
        id,
        revision: words::short_revision(running.revision.as_ref()),
        done: counts.succeeded.unwrap_or_default(),
        failed: counts.failed.unwrap_or_default(),
        total: words::total(&counts),
        waits_for: running.waits_for.clone(),
        until: running.waits_until.map(|time| When::new(time, now)),
    }
}
