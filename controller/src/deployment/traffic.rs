//! The service's own hand in a deployment: lifecycle events that it performs at load balancers instead of a host.

use codedeploy_api::codedeploy::{Diagnostics, LifecycleErrorCode, Timestamp};
use codedeploy_api::lifecycle::LifecycleEvent;

use super::commands;
use super::decide::Outcome;
use super::records::Record;
use super::records::command::{Command, SERVICE};
use super::state::{EventInput, EventState};
use crate::error::ApiError;
use crate::registry::Context;
use crate::request::load_balancers;

/// Which way the traffic of an instance is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Direction {
    #[serde(rename = "BlockTraffic")]
    Block,
    #[serde(rename = "AllowTraffic")]
    Allow,
}

/// A lifecycle event that the service performs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Identifies the job towards [`complete`].
    pub command: String,
    pub deployment_id: String,
    pub application: String,
    pub group: String,
    /// The target's id.
    pub instance: String,
    pub direction: Direction,
    /// The load balancers of the deployment group, by name.
    pub balancers: Vec<String>,
    /// When it was begun, perhaps by an earlier run of the service.
    pub since: Timestamp,
}

/// Takes every job that is not done, those that an earlier run of the service left included.
pub fn take(context: &Context<'_>) -> Result<(Vec<Job>, Vec<Outcome>), ApiError> {
    let (mut jobs, mut outcomes) = (Vec::new(), Vec::new());
    for command in Command::of_service(context.tx)? {
        let (record, mut target) = commands::of(context, &command)?;
        let Some(event) = target.state.events.get(command.event) else {
            continue;
        };
        let direction = match event.name {
            LifecycleEvent::BlockTraffic => Direction::Block,
            _ => Direction::Allow,
        };
        let since = match event.state {
            EventState::Acknowledged { since, .. } => since,
            _ if event.state.is_offered() && !commands::is_over(context, &record, &target) => {
                let input = EventInput::Acknowledge;
                outcomes.push(commands::advance(context, &command, &record, &mut target, input)?);
                context.now
            }
            _ => continue,
        };
        jobs.push(Job {
            command: command.id,
            deployment_id: record.id.clone(),
            instance: target.member.name,
            direction,
            balancers: balancers(&record),
            application: record.application_name,
            group: record.group_name,
            since,
        });
    }
    Ok((jobs, outcomes))
}

fn balancers(record: &Record) -> Vec<String> {
    load_balancers(record.snapshot.load_balancer_info.as_ref())
}

/// Notes how a job ended: with a remark for those who look at the event, or with what went wrong.
pub fn complete(
    context: &Context<'_>,
    command: &str,
    result: Result<String, String>,
) -> Result<Outcome, ApiError> {
    let (succeeded, error_code, message) = match result {
        Ok(remark) => (true, LifecycleErrorCode::Success, remark),
        Err(reason) => (false, LifecycleErrorCode::UnknownError, reason),
    };
    let diagnostics = Diagnostics {
        error_code: Some(error_code),
        script_name: Some(String::new()),
        message: Some(message),
        log_tail: Some(String::new()),
    };
    commands::finish(context, SERVICE, command, succeeded, diagnostics)
}
