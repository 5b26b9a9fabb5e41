//! The effect of alarms on deployments.

use codedeploy_planner::deployment_state::{DeploymentState, Stop};
use codedeploy_planner::plan;
use codedeploy_planner::rules::MonitoredAlarms;

use super::{decide, intervene, start};
use crate::deployment::effects::Effects;
use crate::error::ApiError;
use crate::records::{Record, unfinished};
use crate::transaction::Context;

/// A deployment that its alarms can stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitored {
    pub deployment_id: String,
    pub alarms: MonitoredAlarms,
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
pub fn monitored(context: &Context<'_>) -> Result<Vec<Monitored>, ApiError> {
    let mut monitored = Vec::new();
    for id in unfinished::all(context.tx)? {
        // An unreadable one must not hide the alarms of others.
        let record = Record::load(context.tx, &id).unwrap_or_else(|error| {
            tracing::error!(deployment_id = id, %error, "the alarms of a deployment cannot be read");
            None
        });
        if let Some(record) = record
            && let Some(alarms) = record.rules.alarms
            && !matches!(record.progress, DeploymentState::Ended { .. })
        {
            monitored.push(Monitored {
                deployment_id: id,
                alarms,
            });
        }
    }
    Ok(monitored)
}

/// Handles a check of the alarms of a deployment: the first one lets it start, an active alarm
/// stops it.
pub fn report(context: &Context<'_>, id: &str, sight: Sight) -> Result<Effects, ApiError> {
    let mut effects = Effects::none(id);
    let Some(mut record) = Record::load(context.tx, id)? else {
        return Ok(effects);
    };
    match (sight, &record.progress) {
        (Sight::Active(message), _) => {
            intervene::end_early(context, &mut record, Stop::Alarm { message }, &mut effects)?;
        }
        (Sight::Quiet, DeploymentState::Created) => {
            start::start(context, &mut record, &mut effects)?;
            decide::advance(context, &mut record, &mut effects)?;
        }
        (Sight::Quiet, _) => {}
    }
    effects.look_again(plan::deadline(
        &record.rules,
        &record.progress,
        context.timers,
    ));
    Ok(effects)
}
