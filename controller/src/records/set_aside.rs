//! Deployments with unreadable rows: each is ended in place, with readable rows. Damage in one
//! deployment must not affect others, and must not be found again with every read.

use codedeploy_api::codedeploy::{
    DeploymentStatus, Diagnostics, ErrorCode, ErrorInformation, LifecycleErrorCode, TargetLabel,
    Timestamp,
};
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_planner::deployment_state::{DeploymentState, Ending, Stage};
use codedeploy_planner::event_state::{EventInput, EventState};
use codedeploy_planner::health::MinimumHealthy;
use codedeploy_planner::plan::Class;
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy;
use codedeploy_planner::target_state::{Event, TargetState};

use super::definition::Stored;
use super::{Relations, health, state_changes};
use crate::records::columns::Column;
use crate::request::members::shorten;
use crate::store::{FromValue, Json, Row, SqlError, Tx, named};

/// Ends the deployment with an id, if it exists, because of the damage `found`. An ended one keeps
/// its ending.
pub(crate) fn set_aside(
    tx: &Tx<'_>,
    id: &str,
    found: &str,
    now: Timestamp,
) -> Result<(), SqlError> {
    let found = shorten(found);
    let message = format!(
        "The record of the deployment in the controller's database is damaged ({found}): it was set aside. Deploy again."
    );
    let read = tx.query_opt("SELECT * FROM deployments WHERE id = ?1", [id], |row| {
        Ok(Salvage::read(row, &message, now))
    })?;
    let Some(Salvage {
        was,
        was_over,
        progress,
        rules,
        snapshot,
        relations,
    }) = read
    else {
        return Ok(());
    };
    tx.execute(
        "UPDATE deployments SET status = :status, progress = :progress, rules = :rules, snapshot = :snapshot,
                relations = :relations, retire_at = :retire_at
         WHERE id = :id",
        named! {
            ":status": progress.status().as_str(),
            ":progress": Json(&progress),
            ":rules": Json(&rules),
            ":snapshot": Json(snapshot),
            ":relations": Json(relations),
            ":retire_at": progress.retire_at(),
            ":id": id,
        },
    )?;
    let status = progress.status();
    if was != status {
        state_changes::note_deployment(tx, id, &status, now)?;
    }
    end_targets(tx, id, &rules, &message, now)?;
    tx.execute(
        "UPDATE commands SET offered = 0 WHERE deployment_id = ?1 AND offered = 1",
        [id],
    )?;
    if was_over {
        tracing::error!(
            deployment_id = id,
            found,
            "the record of an ended deployment was damaged, and repaired"
        );
        return Ok(());
    }
    // The revision on its hosts is unknown.
    health::note_damage(tx, id)?;
    tracing::error!(
        deployment_id = id,
        found,
        "the record of a deployment is damaged: it was set aside, and has failed"
    );
    Ok(())
}

/// The readable parts of a row, with substitutes for the rest.
struct Salvage {
    was: DeploymentStatus,
    was_over: bool,
    progress: DeploymentState,
    rules: Rules,
    snapshot: Stored,
    relations: Relations,
}

impl Salvage {
    fn read(row: &Row<'_>, message: &str, now: Timestamp) -> Self {
        let progress: Option<DeploymentState> =
            column(row, "progress").map(|Json(progress)| progress);
        let was = DeploymentStatus::from(column::<String>(row, "status").unwrap_or_default());
        let error = ErrorInformation {
            code: Some(ErrorCode::InternalError),
            message: Some(message.to_owned()),
        };
        // If the progress is unreadable, the status shows the ending, if it had ended.
        let ending = match (&progress, &was) {
            (None, DeploymentStatus::Succeeded) => Some(Ending::Succeeded),
            (None, DeploymentStatus::Stopped) => Some(Ending::Stopped(error.clone())),
            (None, DeploymentStatus::Failed) => Some(Ending::Failed(error.clone())),
            _ => None,
        };
        let created = Timestamp::from_millis(column(row, "created").unwrap_or_default());
        let was_over = ending.is_some() || matches!(progress, Some(DeploymentState::Ended { .. }));
        let progress = match progress {
            Some(over @ DeploymentState::Ended { .. }) => over,
            other => DeploymentState::Ended {
                started: other.and_then(|progress| progress.started()),
                completed: if was_over { created } else { now },
                ending: ending.unwrap_or(Ending::Failed(error)),
                retire_at: None,
            },
        };
        Salvage {
            was,
            was_over,
            progress,
            rules: column(row, "rules")
                .map(|Json(rules)| rules)
                .unwrap_or_else(|| Rules {
                    minimum_healthy: MinimumHealthy::OneAtATime,
                    ignore_application_stop_failures: false,
                    strategy: Strategy::default(),
                    alarms: None,
                }),
            snapshot: column(row, "snapshot")
                .map(|Json(stored)| stored)
                .unwrap_or(Stored(None)),
            relations: column(row, "relations")
                .map(|Json(relations)| relations)
                .unwrap_or_default(),
        }
    }
}

/// Reads a column, if it is valid.
fn column<T: FromValue>(row: &Row<'_>, name: &str) -> Option<T> {
    row.get(name).ok()
}

/// Ends the targets that have not ended, and rewrites all of them.
fn end_targets(
    tx: &Tx<'_>,
    id: &str,
    rules: &Rules,
    message: &str,
    now: Timestamp,
) -> Result<(), SqlError> {
    let sql = "SELECT position, target_id, arn, status, label, events FROM targets WHERE deployment_id = ?1";
    let targets = tx.query_all(sql, [id], |row| {
        let label = column::<String>(row, "label").map(TargetLabel::from);
        let events = column(row, "events").map(|Json::<Vec<Event>>(events)| events);
        let [name, arn, status]: [Option<String>; 3] =
            ["target_id", "arn", "status"].map(|name| column(row, name));
        let position: i64 = row.get("position")?;
        Ok((
            position,
            (name, arn, status),
            label,
            events.filter(|events| !events.is_empty()),
        ))
    })?;
    for (position, (name, arn, was), label, events) in targets {
        let label = label.filter(TargetLabel::is_known);
        let state = TargetState {
            label,
            events: ended(events, message, now),
            departed: false,
            drained: false,
        };
        let status = state.status(rules);
        tx.execute(
            "UPDATE targets SET label = :label, events = :events, status = :status, class = :class,
                    stage = :stage, attempted = :attempted, deadline = NULL
             WHERE deployment_id = :deployment AND position = :position",
            named! {
                ":label": state.label.as_ref().map(TargetLabel::as_str),
                ":events": Json(&state.events),
                ":status": status.as_str(),
                ":class": Column(Class::of(&state, rules)),
                ":stage": Column(state.stage(rules)),
                ":attempted": state.was_attempted(),
                ":deployment": id,
                ":position": position,
            },
        )?;
        if let (Some(name), Some(arn)) = (&name, &arn)
            && was.as_deref() != Some(status.as_str())
        {
            state_changes::note_target(tx, id, (name, arn), &status, now)?;
        }
    }
    Ok(())
}

/// Returns the final events of a target without further work. If they are unreadable, one stands
/// for all.
fn ended(events: Option<Vec<Event>>, message: &str, now: Timestamp) -> Vec<Event> {
    let diagnostics = || Diagnostics {
        error_code: Some(LifecycleErrorCode::UnknownError),
        script_name: Some(String::new()),
        message: Some(message.to_owned()),
        log_tail: Some(String::new()),
    };
    let unknown = || {
        let state = EventState::Failed {
            started: None,
            ended: now,
            diagnostics: diagnostics(),
        };
        vec![Event {
            name: LifecycleEvent::ApplicationStop,
            stage: Stage::default(),
            state,
        }]
    };
    let mut events = events.unwrap_or_else(unknown);
    for event in &mut events {
        let input = match event.state {
            EventState::Pending => EventInput::Skip,
            _ => EventInput::Expire {
                diagnostics: diagnostics(),
            },
        };
        // An ended event accepts neither input.
        if let Ok(over) = event.state.next(input, now) {
            event.state = over;
        }
    }
    events
}
