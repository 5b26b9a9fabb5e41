//! The end of a deployment: what it means for its group, for later deployments, and whether it is rolled back.

use codedeploy_api::codedeploy::{
    AutoRollbackEvent, DeploymentCreator, DeploymentInfo, RollbackInfo, TargetLabel, Timestamp,
};
use codedeploy_planner::deployment_state::{DeploymentInput, DeploymentState, Ending, Stage, Stop};
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy;

use super::create::{last_successful_revision, new_deployment_id};
use super::removal;
use crate::deployment::effects::{Change, Effects};
use crate::error::ApiError;
use crate::records::columns::Column;
use crate::records::{Record, Relations, Target};
use crate::registry::{groups, revisions};
use crate::store::{Json, named};
use crate::transaction::Context;

/// Ends a deployment none of whose targets has anything left to do.
pub(super) fn end(
    context: &Context<'_>,
    record: &mut Record,
    ending: Ending,
    retire_at: Option<Timestamp>,
    outcome: &mut Effects,
) -> Result<(), ApiError> {
    let stop = match &record.progress {
        DeploymentState::InProgress { stop, .. } => stop.clone(),
        _ => None,
    };
    finish(context, record, ending, retire_at, outcome)?;
    let Some(group) = groups::by_id(context, &record.group_id)? else {
        return Ok(());
    };
    keep_health(context, record, &group)?;
    if record.progress.retire_at().is_some_and(|at| at <= context.now) {
        retire(context, record, outcome)?;
    }
    match stop {
        Some(stop) => roll_back(context, record, &stop, &group, outcome),
        None => Ok(()),
    }
}

/// Ends a deployment that never started.
pub(super) fn cancel(
    context: &Context<'_>,
    record: &mut Record,
    stop: &Stop,
    outcome: &mut Effects,
) -> Result<(), ApiError> {
    finish(context, record, stop.ending(), None, outcome)?;
    match groups::by_id(context, &record.group_id)? {
        Some(group) => roll_back(context, record, stop, &group, outcome),
        None => Ok(()),
    }
}

fn finish(
    context: &Context<'_>,
    record: &mut Record,
    ending: Ending,
    retire_at: Option<Timestamp>,
    outcome: &mut Effects,
) -> Result<(), ApiError> {
    let error = ending.error().and_then(|error| error.message.clone()).unwrap_or_default();
    record.step(context, DeploymentInput::End { ending, retire_at })?;
    let rolls_back = record.rolls_back();
    outcome.changes.push(Change::Ended { status: record.progress.status(), error, rolls_back });
    Ok(())
}

/// Notes how the deployment left the instances it attempted, and the group's revision.
fn keep_health(context: &Context<'_>, record: &Record, group: &groups::Group) -> Result<(), ApiError> {
    if record.rules.strategy != Strategy::BlueGreenRollback {
        // What is on a host after a failure is not known to be the group's revision any more.
        context.tx.execute(
            "INSERT INTO health (group_id, target_id, healthy, revision)
                 SELECT :group, target_id, class = 'succeeded', iif(class = 'succeeded', :revision, NULL)
                 FROM targets WHERE deployment_id = :deployment AND attempted = 1 AND label IS NOT 'Blue'
                 ON CONFLICT DO UPDATE SET healthy = excluded.healthy, revision =
                     CASE WHEN excluded.healthy THEN excluded.revision
                          WHEN health.revision IS :current THEN NULL
                          ELSE health.revision END",
            named! {
                ":group": record.group_id,
                ":deployment": record.id,
                ":revision": Json(record.revision()),
                ":current": last_successful_revision(context, group)?.map(Json),
            },
        )?;
    }
    let succeeded = matches!(record.progress, DeploymentState::Ended { ending: Ending::Succeeded, .. });
    // A rollback of a group's first deployment gave traffic back, and nothing else: its revision is the one undone.
    let has_revision =
        record.rules.strategy != Strategy::BlueGreenRollback || group.last_successful.is_some();
    if succeeded && has_revision {
        context.tx.execute(
            "UPDATE deployment_groups SET last_successful = ?2 WHERE id = ?1",
            (&record.group_id, &record.id),
        )?;
    }
    Ok(())
}

/// Deregisters the original instances of a blue/green deployment whose time is over. Those that a later deployment, of
/// whatever group, gave a revision or traffic are needed again, and stay.
pub(super) fn retire(
    context: &Context<'_>,
    record: &mut Record,
    outcome: &mut Effects,
) -> Result<(), ApiError> {
    let instances = context.tx.query_all("UPDATE instances SET deregistered = :now, tags = '[]' WHERE deregistered IS NULL AND arn IN
             (SELECT arn FROM targets original WHERE deployment_id = :deployment AND label = :blue AND NOT EXISTS
              (SELECT 1 FROM deployments later JOIN targets again ON again.deployment_id = later.id
               WHERE later.rowid > (SELECT rowid FROM deployments WHERE id = :deployment)
                 AND again.target_id = original.target_id AND again.arn = original.arn AND again.stage <> :block))
         RETURNING name", named! {
            ":now": context.now,
            ":deployment": record.id,
            ":blue": TargetLabel::Blue.as_str(),
            ":block": Column(Stage::Block),
        },
        |row| row.get(0),)?;
    outcome.recheck.extend(removal::give_up(context.tx)?.recheck);
    record.step(context, DeploymentInput::Retire)?;
    outcome.changes.push(Change::Retired { instances });
    Ok(())
}

/// Makes the deployment that undoes this one, if its ending and its settings ask for it.
fn roll_back(
    context: &Context<'_>,
    record: &mut Record,
    stop: &Stop,
    group: &groups::Group,
    outcome: &mut Effects,
) -> Result<(), ApiError> {
    if record.is_rollback() || !asks_for_rollback(record, stop) {
        return Ok(());
    }
    let message = match plan_rollback(context, record, group)? {
        Err(reason) => reason.to_owned(),
        Ok(mut rollback) => {
            let message =
                format!("Deployment {} is triggered to roll back deployment {}.", rollback.id, record.id);
            rollback.relations.rollback = Some(RollbackInfo {
                rollback_triggering_deployment_id: Some(record.id.clone()),
                rollback_message: Some(message.clone()),
                ..RollbackInfo::default()
            });
            rollback.insert(context.tx)?;
            revisions::mark_used(context, &group.application_id, &rollback.revision(), &rollback.id)?;
            context.tx.execute(
                "UPDATE deployment_groups SET target_revision = ?2, last_attempted = ?3 WHERE id = ?1",
                (&group.id, rollback.snapshot.previous_revision.clone().map(Json), &rollback.id),
            )?;
            outcome.recheck.push(rollback.id.clone());
            outcome
                .changes
                .push(Change::RollingBack { by: rollback.id.clone(), revision: rollback.revision() });
            record.relations.rollback = Some(RollbackInfo {
                rollback_deployment_id: Some(rollback.id),
                rollback_message: Some(message),
                ..RollbackInfo::default()
            });
            return Ok(record.save_progress(context.tx)?);
        }
    };
    record.relations.rollback =
        Some(RollbackInfo { rollback_message: Some(message), ..RollbackInfo::default() });
    Ok(record.save_progress(context.tx)?)
}

fn asks_for_rollback(record: &Record, stop: &Stop) -> bool {
    let configured = record.snapshot.auto_rollback_configuration.clone().unwrap_or_default();
    let on = |event: AutoRollbackEvent| {
        configured.enabled == Some(true) && configured.events.iter().flatten().any(|e| *e == event)
    };
    match stop {
        Stop::Failure(_) => on(AutoRollbackEvent::DeploymentFailure),
        Stop::Alarm { .. } => on(AutoRollbackEvent::DeploymentStopOnAlarm),
        Stop::Request { rollback: Some(wanted) } => *wanted,
        Stop::Request { rollback: None } => on(AutoRollbackEvent::DeploymentStopOnRequest),
        // The traffic is where it was.
        Stop::NotContinued => false,
    }
}

/// The deployment that undoes this one, or why there is nothing to undo.
fn plan_rollback(
    context: &Context<'_>,
    record: &Record,
    group: &groups::Group,
) -> Result<Result<Record, &'static str>, ApiError> {
    let good = match &group.last_successful {
        Some(id) => Record::load(context.tx, id)?,
        None => None,
    };
    let needs_token = good.as_ref().is_some_and(|good| good.relations.with_github_token);
    if let Some(reason) = nothing_to_undo(context, record)? {
        return Ok(Err(reason));
    }
    let (strategy, revision, behavior) = match record.rules.strategy {
        Strategy::BlueGreen { .. } | Strategy::BlueGreenRollback => {
            let revision = good.as_ref().map_or_else(|| record.revision(), Record::revision);
            (Strategy::BlueGreenRollback, revision, record.snapshot.file_exists_behavior.clone())
        }
        strategy @ (Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer) => match good {
            Some(good) => (strategy, good.revision(), good.snapshot.file_exists_behavior.clone()),
            None => {
                return Ok(Err(
                    "Nothing was rolled back: no earlier deployment of the deployment group has succeeded.",
                ));
            }
        },
    };
    let failed = &record.snapshot;
    // It only moves traffic back when the instances have kept the revision.
    let fetches = strategy != Strategy::BlueGreenRollback;
    let with_github_token = fetches && needs_token;
    Ok(Ok(Record {
        id: new_deployment_id(context)?,
        group_id: record.group_id.clone(),
        created: context.now,
        progress: DeploymentState::Created,
        // An alarm that is still active would stop this deployment as well.
        rules: Rules { strategy, alarms: None, ..record.rules.clone() },
        snapshot: DeploymentInfo {
            deployment_config_name: failed.deployment_config_name.clone(),
            previous_revision: last_successful_revision(context, group)?,
            revision: Some(revision),
            creator: Some(DeploymentCreator::CodeDeployRollback),
            ignore_application_stop_failures: failed.ignore_application_stop_failures,
            auto_rollback_configuration: failed.auto_rollback_configuration.clone(),
            update_outdated_instances_only: Some(false),
            deployment_style: failed.deployment_style.clone(),
            blue_green_deployment_configuration: failed.blue_green_deployment_configuration.clone(),
            load_balancer_info: failed.load_balancer_info.clone(),
            file_exists_behavior: behavior,
            compute_platform: failed.compute_platform.clone(),
            ..DeploymentInfo::default()
        },
        relations: Relations { with_github_token, ..Relations::default() },
        was_set_aside: false,
        application_name: record.application_name.clone(),
        group_name: record.group_name.clone(),
    }))
}

/// Why a deployment has left everything as it was, if it has.
fn nothing_to_undo(context: &Context<'_>, record: &Record) -> Result<Option<&'static str>, ApiError> {
    if !matches!(record.rules.strategy, Strategy::BlueGreen { .. }) {
        return Ok((!context.tx.exists(
            "SELECT 1 FROM targets WHERE deployment_id = ?1 AND attempted = 1 LIMIT 1",
            [&record.id],
        )?)
        .then_some("Nothing was rolled back: the deployment was not begun on any instance."));
    }
    let targets = Target::load_all(context.tx, &record.id)?;
    let original = |target: &Target| target.state.label == Some(TargetLabel::Blue);
    Ok(if !targets.iter().any(|target| target.state.was_given_traffic()) {
        Some("Nothing was rolled back: the original instances have kept their traffic.")
    } else if !targets.iter().any(original) {
        Some("Nothing was rolled back: the deployment had no original instances, which could serve again.")
    } else {
        None
    })
}
