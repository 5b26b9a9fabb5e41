//! What deployment groups name and the settings do not: it has no effect, and nobody would notice.

use codedeploy_api::codedeploy::DeploymentGroupSettings;
use rusqlite::Transaction;

use crate::alarms::Alarms;
use crate::events::Events;
use crate::store::Json;

/// Warns of every alarm and topic of a deployment group that is not set up.
pub fn warn(tx: &Transaction<'_>, alarms: &Alarms, events: &Events) -> rusqlite::Result<()> {
    let mut statement = tx.prepare(
        "SELECT a.name AS application, g.name AS deployment_group, settings
         FROM deployment_groups g JOIN applications a ON a.id = g.application_id ORDER BY a.name, g.name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let application: String = row.get("application")?;
        let deployment_group: String = row.get("deployment_group")?;
        let Json(settings): Json<DeploymentGroupSettings> = row.get("settings")?;
        for alarm in alarm_names(&settings).filter(|name| !alarms.has(name)) {
            tracing::warn!(
                application,
                deployment_group,
                alarm,
                "an alarm that alarms does not name in the configuration is never active"
            );
        }
        for topic in topics(&settings).filter(|topic| !events.topics.contains_key(*topic)) {
            tracing::warn!(
                application,
                deployment_group,
                topic,
                "nobody is told what a trigger asks for: events.topics does not name its topic in the configuration"
            );
        }
    }
    Ok(())
}

fn alarm_names(settings: &DeploymentGroupSettings) -> impl Iterator<Item = &str> {
    let configuration = settings.alarm_configuration.as_ref().filter(|found| found.enabled == Some(true));
    let alarms = configuration.and_then(|configuration| configuration.alarms.as_ref());
    alarms.into_iter().flatten().filter_map(|alarm| alarm.name.as_deref())
}

fn topics(settings: &DeploymentGroupSettings) -> impl Iterator<Item = &str> {
    let triggers = settings.trigger_configurations.iter().flatten();
    triggers.filter_map(|trigger| trigger.trigger_target_arn.as_deref())
}
