//! The rollback of a deployment: another deployment, which undoes this one.

use codedeploy_api::codedeploy::{RollbackInfo, TargetLabel};
use codedeploy_planner::deployment_state::{DeploymentState, Stop};
use codedeploy_planner::rollback::{Rollback, Stopped};
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy;

use super::create::{new_deployment_id, publish};
use crate::deployment::effects::{Change, Effects};
use crate::error::ApiError;
use crate::records::definition::{Creator, Definition};
use crate::records::{Record, Relations, Target};
use crate::registry::groups::Group;
use crate::transaction::Context;

/// Creates the rollback of a stopped deployment, if its options or its user ask for it.
pub(super) fn roll_back(
    context: &Context<'_>,
    record: &mut Record,
    stop: &Stop,
    group: &Group,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    let definition = record.definition()?.clone();
    if record.is_rollback() || !definition.auto_rollback.endings().asks_after(stop) {
        return Ok(());
    }
    let good = last_successful(context, group)?;
    let rollback = match stopped(context, record, good.is_some())?.rollback() {
        Rollback::Needless(reason) => {
            record.relations.rollback = Some(RollbackInfo {
                rollback_message: Some(reason.to_owned()),
                ..RollbackInfo::default()
            });
            return Ok(record.save_progress(context.tx)?);
        }
        Rollback::Redeploy(strategy) => deployment(context, record, &definition, strategy, good)?,
        Rollback::ReturnTraffic => deployment(
            context,
            record,
            &definition,
            Strategy::BlueGreenRollback,
            good,
        )?,
    };
    begin(context, record, rollback, group, effects)
}

/// Returns the last successful deployment of a group, and its definition.
fn last_successful(
    context: &Context<'_>,
    group: &Group,
) -> Result<Option<(Record, Definition)>, ApiError> {
    let Some(id) = &group.last_successful else {
        return Ok(None);
    };
    let record = Record::load(context.tx, id)?;
    Ok(record.and_then(|record| {
        record
            .definition
            .clone()
            .map(|definition| (record, definition))
    }))
}

/// Collects the facts for the decision.
fn stopped(
    context: &Context<'_>,
    record: &Record,
    has_predecessor: bool,
) -> Result<Stopped, ApiError> {
    let moves_traffic = matches!(record.rules.strategy, Strategy::BlueGreen { .. });
    let targets = if moves_traffic {
        Target::load_all(context.tx, &record.id)?
    } else {
        Vec::new()
    };
    Ok(Stopped {
        strategy: record.rules.strategy,
        was_attempted: Target::any_attempted(context.tx, &record.id)?,
        gave_traffic: targets
            .iter()
            .any(|target| target.state.was_given_traffic()),
        has_original_instances: targets
            .iter()
            .any(|target| target.state.label == Some(TargetLabel::Blue)),
        has_predecessor,
    })
}

/// Returns the deployment that undoes another one.
fn deployment(
    context: &Context<'_>,
    record: &Record,
    undone: &Definition,
    strategy: Strategy,
    good: Option<(Record, Definition)>,
) -> Result<Record, ApiError> {
    let fetches = strategy != Strategy::BlueGreenRollback;
    let with_github_token = fetches
        && good
            .as_ref()
            .is_some_and(|(record, _)| record.relations.with_github_token);
    let good = good.map(|(_, definition)| definition);
    // Instances that only get their traffic back are treated as the deployment treated them.
    let file_exists = good
        .as_ref()
        .filter(|_| fetches)
        .map_or(undone.file_exists, |good| good.file_exists);
    let previous_revision = good.map(|good| good.revision);
    Ok(Record {
        id: new_deployment_id(context)?,
        group_id: record.group_id.clone(),
        created: context.now,
        created_by: None,
        progress: DeploymentState::Created,
        // An alarm that is still active would stop the rollback as well.
        rules: Rules {
            strategy,
            alarms: None,
            ..record.rules.clone()
        },
        definition: Some(Definition {
            revision: previous_revision
                .clone()
                .unwrap_or_else(|| undone.revision.clone()),
            previous_revision,
            description: None,
            creator: Creator::Rollback,
            restarts: false,
            file_exists,
            update_outdated_only: false,
            replacement: None,
            override_alarms: None,
            ec2_options: None,
            messages: Vec::new(),
            ..undone.clone()
        }),
        relations: Relations {
            with_github_token,
            ..Relations::default()
        },
        was_set_aside: false,
        application_name: record.application_name.clone(),
        group_name: record.group_name.clone(),
    })
}

/// Stores the rollback, with references in both deployments.
fn begin(
    context: &Context<'_>,
    record: &mut Record,
    mut rollback: Record,
    group: &Group,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    let message = format!(
        "Deployment {} is triggered to roll back deployment {}.",
        rollback.id, record.id
    );
    rollback.relations.rollback = Some(RollbackInfo {
        rollback_triggering_deployment_id: Some(record.id.clone()),
        rollback_message: Some(message.clone()),
        ..RollbackInfo::default()
    });
    let definition = rollback.definition()?;
    let revision = definition.revision.clone();
    publish(
        context,
        group,
        &rollback,
        definition.previous_revision.as_ref(),
    )?;
    effects.recheck.push(rollback.id.clone());
    effects.note(
        context,
        Change::RollingBack {
            by: rollback.id.clone(),
            revision,
        },
    )?;
    record.relations.rollback = Some(RollbackInfo {
        rollback_deployment_id: Some(rollback.id),
        rollback_message: Some(message),
        ..RollbackInfo::default()
    });
    Ok(record.save_progress(context.tx)?)
}
