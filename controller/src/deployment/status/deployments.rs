//! ListDeploymentStatuses and GetDeploymentStatus: deployments on one line each, and one with its
//! failures and commands.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{
    GetDeploymentStatusOutput, HostFailure, ListDeploymentStatusesOutput,
};
use codedeploy_planner::event_state::EventState;

use super::advice::{Situation, advise};
use super::hosts::command;
use super::summary::counted;
use crate::deployment::queries::find;
use crate::deployment::script_logs;
use crate::error::ApiError;
use crate::pagination::PAGE;
use crate::records::listing::{Made, Wanted, newest};
use crate::records::{Record, Target, unfinished};
use crate::registry::groups::{self, Group};
use crate::request;
use crate::transaction::Context;

/// The number of hosts in a list of GetDeploymentStatus.
const SHOWN: usize = 20;

/// The newest first.
pub fn list(
    context: &Context<'_>,
    request: request::ListDeploymentStatuses,
) -> Result<ListDeploymentStatusesOutput, ApiError> {
    let groups = groups::listed(context, request.group.as_ref())?;
    let statuses = request.include_only_statuses;
    let name = format!("deployment statuses of {:?} {statuses:?}", request.group);
    let listing = context
        .pages
        .listing::<Made>(name, request.next_token.as_deref())?;
    let wanted = Wanted {
        groups: groups.as_deref(),
        statuses: &statuses,
        start: i64::MIN,
        end: i64::MAX,
        before: listing.after().copied().unwrap_or((i64::MAX, i64::MAX)),
    };
    // One more than a page shows whether there is another page.
    let found = newest(context.tx, &wanted, PAGE + 1)?;
    let (ids, next_token) = listing.page(found.into_iter().map(Ok::<_, ApiError>))?;
    let mut deployments = Vec::new();
    for id in ids {
        if let Some(record) = Record::load(context.tx, &id)? {
            deployments.push(counted(context, &record)?);
        }
    }
    Ok(ListDeploymentStatusesOutput {
        deployments: Some(deployments),
        next_token,
    })
}

pub fn get(
    context: &Context<'_>,
    request: request::GetDeploymentStatus,
) -> Result<GetDeploymentStatusOutput, ApiError> {
    let record = find(context, &request.deployment_id)?;
    let failed = Target::failed(context.tx, &record.id, SHOWN)?;
    let mut failures = Vec::new();
    for target in &failed {
        failures.extend(failure(context, &record, target)?);
    }
    // The first failure is often the cause of the others.
    failures.sort_by_key(|failure| failure.end_time.map(Timestamp::millis));
    let busy = Target::busy(context.tx, &record.id, SHOWN)?;
    let commands: Vec<_> = busy
        .iter()
        .filter_map(|(target, deadline)| command(target, *deadline))
        .collect();
    let group = groups::by_id(context, &record.group_id)?;
    let later = later(context, &record, group.as_ref())?;
    let situation = Situation {
        record: &record,
        failures: &failures,
        commands: &commands,
        later: later.as_ref(),
        can_go_back: group.is_some_and(|group| group.last_successful.is_some()),
    };
    let advice = advise(&situation);
    Ok(GetDeploymentStatusOutput {
        deployment: Some(counted(context, &record)?),
        failures: Some(failures),
        commands: Some(commands),
        advice: Some(advice),
    })
}

/// Returns the later deployment of the group that matters most: one in progress, else the last that
/// succeeded, else the last.
fn later(
    context: &Context<'_>,
    record: &Record,
    group: Option<&Group>,
) -> Result<Option<Record>, ApiError> {
    let Some(group) = group.filter(|group| group.last_attempted() != Some(&record.id)) else {
        return Ok(None);
    };
    let running = unfinished::of_group(context.tx, &group.id)?;
    let ids = [
        running.as_deref(),
        group.last_successful.as_deref(),
        group.last_attempted(),
    ];
    for id in ids.into_iter().flatten() {
        let found = Record::load(context.tx, id)?;
        let found = found.filter(|found| found.id != record.id && found.created >= record.created);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Returns the position of the lifecycle event with which a target failed.
pub(crate) fn failed_event(record: &Record, target: &Target) -> Option<usize> {
    target.state.events.iter().position(|event| {
        matches!(event.state, EventState::Failed { .. }) && !record.rules.ignores(&event.name)
    })
}

/// Returns the failure of a target.
fn failure(
    context: &Context<'_>,
    record: &Record,
    target: &Target,
) -> Result<Option<HostFailure>, ApiError> {
    let position = failed_event(record, target);
    let Some((position, event)) =
        position.and_then(|position| Some((position, target.state.events.get(position)?)))
    else {
        return Ok(None);
    };
    let log_state = script_logs::state(context, target, position)?;
    let diagnostics = event.state.diagnostics();
    let message = diagnostics.and_then(|diagnostics| diagnostics.message.clone());
    let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    Ok(Some(HostFailure {
        instance_name: Some(target.member.name.clone()),
        status: Some(target.status.clone()),
        lifecycle_event_name: Some(event.name.name().to_owned()),
        end_time: event.state.ended(),
        error_code: diagnostics.and_then(|diagnostics| diagnostics.error_code.clone()),
        script_name: diagnostics.and_then(|diagnostics| given(diagnostics.script_name.as_ref())),
        exit_code: message.as_deref().and_then(exit_code),
        message,
        log_tail: diagnostics.and_then(|diagnostics| given(diagnostics.log_tail.as_ref())),
        log_state: Some(log_state),
    }))
}

/// Returns the exit code in the message of an agent, of AWS's or this project's: `… failed with
/// exit code 3`.
fn exit_code(message: &str) -> Option<i64> {
    let (_, rest) = message.rsplit_once("failed with exit code ")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit() && c != '-')
        .map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_read_from_the_messages_of_agents() {
        let begin = "Script at specified location: scripts/after.sh run as user root";
        for (message, code) in [
            (format!("{begin} failed with exit code 3"), Some(3)),
            (
                format!("{begin} failed with exit code 127; write #!"),
                Some(127),
            ),
            (format!("{begin} failed to complete in 5 seconds"), None),
            ("failed with exit code ".to_owned(), None),
        ] {
            assert_eq!(exit_code(&message), code, "{message}");
        }
    }
}
