//! DrainHost and UndrainHost: a host leaves the traffic and the deployments, and returns.
//!
//! Unfinished deployments finish the command that the host performs and begin nothing more there
//! ([`TargetState::settle`](codedeploy_planner::target_state::TargetState::settle)); later ones
//! leave it out. The changes of its traffic are rows, which stay until they are made: the load
//! balancer task asks for the [due] ones, and records how each [ended].

use std::time::Duration;

use codedeploy_api::codedeploy::{Tag, Timestamp};
use codedeploy_api::controller::{
    DrainHostOutput, DrainTraffic, HostDrain, RevisionHealth, UndrainHostOutput,
};

use super::status::hosts;
use super::traffic::{Direction, Job, Work};
use crate::deployment::effects::Effects;
use crate::error::ApiError;
use crate::options::{LoadBalancers, Style};
use crate::records::{Target, health, state_changes};
use crate::registry::groups;
use crate::registry::instances;
use crate::request;
use crate::store::{Json, SqlError, Tx, named};
use crate::transaction::Context;

/// The pause before a failed change of traffic is retried.
const RETRY: Duration = Duration::from_secs(30);

/// A registered instance, as far as a drain concerns it.
struct Host {
    name: String,
    arn: String,
    principal: String,
    tags: Vec<Tag>,
    is_drained: bool,
}

fn find(context: &Context<'_>, name: &str) -> Result<Host, ApiError> {
    let found = context.tx.query_opt(
        "SELECT name, arn, principal, tags, drained FROM instances WHERE name = ?1 AND deregistered IS NULL",
        [name],
        |row| {
            Ok(Host {
                name: row.get("name")?,
                arn: row.get("arn")?,
                principal: row.get("principal")?,
                tags: row.get::<Json<_>>("tags")?.0,
                is_drained: row.get::<Option<Timestamp>>("drained")?.is_some(),
            })
        },
    )?;
    found.ok_or_else(|| instances::not_registered(name))
}

/// Takes a host out of traffic and of deployments. For a drained host, it takes the traffic out
/// once more, and replaces the reason if one is given.
pub fn drain(
    context: &Context<'_>,
    request: request::DrainHost,
) -> Result<(DrainHostOutput, Effects), ApiError> {
    let host = find(context, &request.instance_name)?;
    context.tx.execute(
        "UPDATE instances SET drained = coalesce(drained, :now), drained_by = coalesce(drained_by, :by),
             drain_reason = coalesce(:reason, drain_reason)
         WHERE arn = :arn",
        named! {
            ":arn": host.arn,
            ":now": context.now,
            ":by": context.caller.map(|caller| caller.arn.as_str()),
            ":reason": request.reason.map(|reason| reason.0),
        },
    )?;
    let behind_balancers = groups::after(
        context.tx,
        groups::Wanted::default(),
        ("", ""),
        usize::MAX >> 1,
    )?
    .into_iter()
    .filter(|(_, group)| {
        let settings = &group.settings;
        settings.style() != Style::InPlace
            && settings.load_balancers().is_some()
            && settings.membership().includes(&host.tags)
    });
    for (_, group) in behind_balancers {
        context.tx.execute(
            "INSERT INTO drain_traffic (arn, group_id, allow, done, due) VALUES (?1, ?2, 0, 0, 0)
             ON CONFLICT (arn, group_id) DO UPDATE SET allow = 0, done = 0, due = 0, problem = NULL",
            (&host.arn, &group.id),
        )?;
    }
    let recheck = Target::deployments_on(context.tx, &host.principal)?;
    if !host.is_drained {
        state_changes::note_host(context.tx, (&host.name, &host.arn), true, context.now)?;
        tracing::info!(host = host.name, "a host is drained");
    }
    Ok((
        DrainHostOutput {
            host: Some(hosts::by_name(context, &host.name)?),
        },
        Effects {
            recheck,
            traffic: true,
            ..Effects::default()
        },
    ))
}

/// Returns a drained host to traffic and deployments; a host that is not drained stays as it is.
/// Where its last deployment failed or was interrupted by the drain, it gets no traffic before the
/// next one succeeds.
pub fn undrain(
    context: &Context<'_>,
    request: request::UndrainHost,
) -> Result<(UndrainHostOutput, Effects), ApiError> {
    let host = find(context, &request.instance_name)?;
    let Host { name, arn, .. } = &host;
    context.tx.execute(
        "UPDATE instances SET drained = NULL, drained_by = NULL, drain_reason = NULL WHERE arn = ?1",
        [arn],
    )?;
    let left = health::of_instance(context.tx, name)?;
    let mut advice = Vec::new();
    for group_id in blocked_in(context.tx, arn)? {
        let is_unhealthy = left.get(&group_id).is_some_and(|left| !left.health.healthy);
        if host.is_drained && (is_unhealthy || Target::is_midway(context.tx, &group_id, name)?) {
            forget(context.tx, arn, &group_id)?;
            if let Some(group) = groups::by_id(context, &group_id)? {
                advice.push(format!(
                    "The last deployment to the group {} did not complete on {name}, so the load balancers send it no \
                     traffic before the next one succeeds.",
                    group.name
                ));
            }
        }
    }
    if host.is_drained {
        context.tx.execute(
            "UPDATE drain_traffic SET allow = 1, done = 0, due = 0, problem = NULL WHERE arn = ?1",
            [arn],
        )?;
        state_changes::note_host(context.tx, (name, arn), false, context.now)?;
        tracing::info!(host = name, "a host is no longer drained");
    }
    let status = hosts::by_name(context, name)?;
    for revision in status.revisions.iter().flatten() {
        let is_behind = revision.member == Some(true)
            && revision.revision_health != Some(RevisionHealth::Current);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (application, group) = (
            text(&revision.application_name),
            text(&revision.deployment_group_name),
        );
        if is_behind && revision.healthy.is_some() {
            advice.push(format!(
                "{name} lacks the revision of {application}/{group}: codedeploy-controller deploy {application} {group} \
                 REVISION --outdated-only"
            ));
        }
    }
    Ok((
        UndrainHostOutput {
            host: Some(status),
            advice: Some(advice),
        },
        Effects {
            traffic: true,
            ..Effects::default()
        },
    ))
}

/// The groups at whose load balancers a drain has asked for a change.
fn blocked_in(tx: &Tx<'_>, arn: &str) -> Result<Vec<String>, SqlError> {
    let sql = "SELECT group_id FROM drain_traffic WHERE arn = ?1 ORDER BY group_id";
    tx.query_all(sql, [arn], |row| row.get(0))
}

fn forget(tx: &Tx<'_>, arn: &str, group_id: &str) -> Result<(), SqlError> {
    tx.execute(
        "DELETE FROM drain_traffic WHERE arn = ?1 AND group_id = ?2",
        (arn, group_id),
    )?;
    Ok(())
}

/// The drain of an instance, in the view of operators.
pub(super) fn view(
    context: &Context<'_>,
    arn: &str,
    (since, by, reason): (Timestamp, Option<String>, Option<String>),
) -> Result<HostDrain, SqlError> {
    let sql =
        "SELECT count(*), count(CASE WHEN done = 0 THEN 1 END), min(problem) FROM drain_traffic
         WHERE arn = ?1 AND allow = 0";
    let (all, open, problem): (usize, usize, Option<String>) =
        context.tx.query_one(sql, [arn], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let traffic = match (all, open) {
        (0, _) => DrainTraffic::None,
        (_, 0) => DrainTraffic::Blocked,
        _ => DrainTraffic::Blocking,
    };
    Ok(HostDrain {
        since: Some(since),
        by,
        reason,
        traffic: Some(traffic),
        problem,
    })
}

/// Asks for the blocked traffic of all drained hosts once more: a load balancer may have lost its
/// state while the service was down.
pub fn resume(context: &Context<'_>) -> Result<(), ApiError> {
    context.tx.execute(
        "UPDATE drain_traffic SET done = 0, due = 0 WHERE allow = 0",
        (),
    )?;
    Ok(())
}

/// Returns the changes of traffic to make now.
pub fn due(context: &Context<'_>) -> Result<Vec<Job>, ApiError> {
    let rows = context.tx.query_all(
        "SELECT t.arn, t.group_id, t.allow, i.name, a.name
         FROM drain_traffic t
         JOIN instances i ON i.arn = t.arn
         JOIN deployment_groups g ON g.id = t.group_id
         JOIN applications a ON a.id = g.application_id
         WHERE t.done = 0 AND t.due <= ?1 AND i.deregistered IS NULL",
        [context.now],
        |row| {
            Ok((
                row.get::<String>(0)?,
                row.get::<String>(1)?,
                row.get::<bool>(2)?,
                row.get::<String>(3)?,
                row.get::<String>(4)?,
            ))
        },
    )?;
    let mut jobs = Vec::new();
    for (arn, group_id, allow, instance, application) in rows {
        let Some(group) = groups::by_id(context, &group_id)? else {
            continue;
        };
        let balancers = group.settings.load_balancers();
        jobs.push(Job {
            work: Work::Drain { arn, group_id },
            application,
            group: group.name,
            instance,
            direction: if allow {
                Direction::Allow
            } else {
                Direction::Block
            },
            balancers: balancers
                .as_ref()
                .map(LoadBalancers::names)
                .unwrap_or_default(),
            since: context.now,
        });
    }
    Ok(jobs)
}

/// Whether a change of traffic is still to be made. A host that is drained gets no traffic, and
/// one in the middle of a deployment gets it from that deployment.
pub fn is_wanted(context: &Context<'_>, job: &Job) -> Result<bool, ApiError> {
    let sql =
        "SELECT 1 FROM instances WHERE name = ?1 AND deregistered IS NULL AND drained IS NOT NULL";
    let is_drained = context.tx.exists(sql, [&job.instance])?;
    let allows = job.direction == Direction::Allow;
    match &job.work {
        Work::Event { .. } => Ok(!(allows && is_drained)),
        Work::Drain { arn, group_id } => Ok(is_asked(context, (arn, group_id), job.direction)?
            && allows != is_drained
            && !(allows && Target::is_midway(context.tx, group_id, &job.instance)?)),
    }
}

/// Whether a change of traffic has been asked for and not made.
pub fn is_asked(
    context: &Context<'_>,
    (arn, group_id): (&str, &str),
    direction: Direction,
) -> Result<bool, ApiError> {
    Ok(context.tx.exists(
        "SELECT 1 FROM drain_traffic WHERE arn = ?1 AND group_id = ?2 AND allow = ?3 AND done = 0",
        (arn, group_id, direction == Direction::Allow),
    )?)
}

/// Records the end of a change of traffic: with the reason of a failure, after which it is retried.
pub fn ended(
    context: &Context<'_>,
    (arn, group_id): (&str, &str),
    direction: Direction,
    result: Result<(), String>,
) -> Result<(), ApiError> {
    let allows = direction == Direction::Allow;
    let place = (arn, group_id, allows);
    match result {
        Ok(()) if allows => context.tx.execute(
            "DELETE FROM drain_traffic WHERE arn = ?1 AND group_id = ?2 AND allow = ?3",
            place,
        )?,
        Ok(()) => context.tx.execute(
            "UPDATE drain_traffic SET done = 1, problem = NULL WHERE arn = ?1 AND group_id = ?2 AND allow = ?3",
            place,
        )?,
        Err(problem) => context.tx.execute(
            "UPDATE drain_traffic SET due = ?4, problem = ?5 WHERE arn = ?1 AND group_id = ?2 AND allow = ?3",
            (arn, group_id, allows, context.now + RETRY, problem),
        )?,
    };
    Ok(())
}
