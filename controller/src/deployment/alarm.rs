//! The effect of alarms on deployments.

use codedeploy_planner::deployment_state::{DeploymentState, Stop};
use codedeploy_planner::plan;
use codedeploy_planner::rules::Watch;

use super::{decide, intervene, start};
use crate::deployment::effects::Effects;
use crate::error::ApiError;
use crate::records::{Record, unfinished};
use crate::transaction::Context;

/// A deployment that its alarms can stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    pub deployment_id: String,
    pub watch: Watch,
}

/// The result of a check of a deployment's alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// None is active.
    Quiet,
    /// One is active, or cannot be read; the text names it.
    Active(String),
}

/// Returns the deployments whose alarms matter now.
pub fn watched(context: &Context<'_>) -> Result<Vec<Watched>, ApiError> {
    let mut watched = Vec::new();
    for id in unfinished::all(context.tx)? {
        // An unreadable one must not hide the alarms of others.
        let record = Record::load(context.tx, &id).unwrap_or_else(|error| {
            tracing::error!(deployment_id = id, %error, "the alarms of a deployment cannot be read");
            None
        });
        if let Some(record) = record
            && let Some(watch) = record.rules.alarms
            && !matches!(record.progress, DeploymentState::Ended { .. })
        {
            watched.push(Watched {
                deployment_id: id,
                watch,
            });
        }
    }
    Ok(watched)
}

/// Handles a check of the alarms of a deployment: the first one lets it start, an active alarm stops it.
pub fn report(context: &Context<'_>, id: &str, sight: Sight) -> Result<Effects, ApiError> {
    let mut outcome = Effects::none(id);
    let Some(mut record) = Record::load(context.tx, id)? else {
        return Ok(outcome);
    };
    match (sight, &record.progress) {
        (Sight::Active(message), _) => {
            intervene::end_early(context, &mut record, Stop::Alarm { message }, &mut outcome)?;
        }
        (Sight::Quiet, DeploymentState::Created) => {
            start::start(context, &mut record, &mut outcome)?;
            decide::advance(context, &mut record, &mut outcome)?;
        }
        (Sight::Quiet, _) => {}
    }
    outcome.look_again(plan::deadline(
        &record.rules,
        &record.progress,
        context.timers,
    ));
    Ok(outcome)
}
