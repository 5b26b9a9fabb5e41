//! The rows of targets.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::{DeploymentOverview, TargetLabel, TargetStatus, Timestamp};
use codedeploy_planner::Timers;
use codedeploy_planner::deployment_state::Stage;
use codedeploy_planner::plan::Class;
use codedeploy_planner::rules::Rules;
use codedeploy_planner::target_state::{Event, TargetState};

use super::columns::Column;
use super::{Record, set_aside};
use crate::fleet::Member;
use crate::store::{Json, Row, SqlError, Tx, named};

/// Selects targets, each with what became of its host.
macro_rules! targets {
    ($condition:literal) => {
        concat!(
            "SELECT *, EXISTS (SELECT 1 FROM instances i WHERE i.arn = targets.arn AND i.deregistered IS NOT NULL) \
             AS departed FROM targets ",
            $condition
        )
    };
}

/// Every target of a large fleet is a row with all its events: these find the few that matter without reading the
/// others. Left alone, SQLite may walk the primary key to save itself the sorting.
const WAITING: &str = targets!(
    "INDEXED BY targets_by_class WHERE deployment_id = ?1 AND class = ?2 AND stage = ?3 AND label IS ?4
     ORDER BY position LIMIT ?5"
);
const OPEN: &str = targets!(
    "INDEXED BY targets_by_class WHERE deployment_id = ?1 AND class IN (?2, ?3)
     ORDER BY class, stage, label, position LIMIT ?4"
);

/// One target of a deployment.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub deployment_id: String,
    pub position: usize,
    pub member: Member,
    pub updated: Timestamp,
    pub state: TargetState,
    pub status: TargetStatus,
}

impl Target {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        let label = row.get::<Option<String>>("label")?.map(TargetLabel::from);
        let Json(events): Json<Vec<Event>> = row.get("events")?;
        if events.is_empty() {
            return Err(SqlError::damaged("events", "found none, and every target has some"));
        }
        Ok(Target {
            deployment_id: row.get("deployment_id")?,
            position: row.get("position")?,
            member: Member { name: row.get("target_id")?, arn: row.get("arn")?, host: row.get("host")? },
            updated: row.get("updated")?,
            state: TargetState { label, events, departed: row.get("departed")? },
            status: TargetStatus::from(row.get::<String>("status")?),
        })
    }

    /// All targets of a deployment, in the order of attempt.
    pub(crate) fn load_all(tx: &Tx<'_>, deployment_id: &str) -> Result<Vec<Target>, SqlError> {
        tx.query_all(targets!("WHERE deployment_id = ?1 ORDER BY position"), [deployment_id], Target::read)
    }

    /// Whether a host was handed a command of the deployment.
    pub(crate) fn any_attempted(tx: &Tx<'_>, deployment_id: &str) -> Result<bool, SqlError> {
        tx.exists("SELECT 1 FROM targets WHERE deployment_id = ?1 AND attempted = 1 LIMIT 1", [deployment_id])
    }

    /// Makes the targets overdue whose hosts have commands and are registered no more. Gives their deployments.
    pub(crate) fn expire_departed(tx: &Tx<'_>) -> Result<BTreeSet<String>, SqlError> {
        let deployments = tx.query_all("UPDATE targets SET deadline = 0
             WHERE deadline > 0
               AND deployment_id IN (SELECT id FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready'))
               AND EXISTS (SELECT 1 FROM instances i WHERE i.arn = targets.arn AND i.deregistered IS NOT NULL)
             RETURNING deployment_id", (), |row| row.get(0))?;
        Ok(deployments.into_iter().collect())
    }

    /// Targets whose hosts were silent too long.
    pub(crate) fn overdue(
        tx: &Tx<'_>,
        deployment_id: &str,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Target>, SqlError> {
        tx.query_all(
            targets!("WHERE deployment_id = ?1 AND deadline <= ?2 LIMIT ?3"),
            (deployment_id, now.millis(), most),
            Target::read,
        )
    }

    /// Targets that wait to begin a stage, in the order of attempt.
    pub(crate) fn waiting(
        tx: &Tx<'_>,
        record: &Record,
        stage: Stage,
        most: usize,
    ) -> Result<Vec<Target>, SqlError> {
        let fleet = record.rules.strategy.fleet(stage);
        tx.query_all(
            WAITING,
            (
                &record.id,
                Column(Class::Waiting),
                Column(stage),
                fleet.as_ref().map(TargetLabel::as_str),
                most,
            ),
            Target::read,
        )
    }

    /// Targets that can be cut off: no host has acknowledged a command of theirs.
    pub(crate) fn open(tx: &Tx<'_>, deployment_id: &str, most: usize) -> Result<Vec<Target>, SqlError> {
        tx.query_all(
            OPEN,
            (deployment_id, Column(Class::Offered), Column(Class::Waiting), most),
            Target::read,
        )
    }

    pub(crate) fn at(tx: &Tx<'_>, deployment_id: &str, position: usize) -> Result<Option<Target>, SqlError> {
        tx.query_opt(
            targets!("WHERE deployment_id = ?1 AND position = ?2"),
            (deployment_id, position),
            Target::read,
        )
    }

    /// The target with an id or an ARN.
    pub(crate) fn named(tx: &Tx<'_>, deployment_id: &str, name: &str) -> Result<Option<Target>, SqlError> {
        // Ids are looked up by the hundred, and have an index.
        let by = if name.starts_with("arn:") {
            targets!("WHERE deployment_id = ?1 AND arn = ?2")
        } else {
            targets!("WHERE deployment_id = ?1 AND target_id = ?2")
        };
        let find = || tx.query_opt(by, (deployment_id, name), Target::read);
        match find() {
            Err(damage) if damage.is_damage() && !tx.is_readonly() => {
                set_aside(tx, deployment_id, &damage.to_string(), Timestamp::now())?;
                find()
            }
            found => found,
        }
    }

    pub(crate) fn insert(&self, tx: &Tx<'_>, rules: &Rules) -> Result<(), SqlError> {
        tx.execute("INSERT INTO targets
             (deployment_id, position, target_id, arn, host, status, updated, events, label, class, stage, attempted)
             VALUES
             (:deployment, :position, :name, :arn, :host, :status, :updated, :events, :label, :class, :stage, 0)", named! {
            ":deployment": self.deployment_id,
            ":position": self.position,
            ":name": self.member.name,
            ":arn": self.member.arn,
            ":host": self.member.host,
            ":status": self.status.as_str(),
            ":updated": self.updated,
            ":events": Json(&self.state.events),
            ":label": self.state.label.as_ref().map(TargetLabel::as_str),
            ":class": Column(Class::of(&self.state, rules)),
            ":stage": Column(self.state.stage(rules)),
        })?;
        Ok(())
    }

    /// Writes the events, what follows from them, and withdraws commands that are no longer offered.
    pub(crate) fn save(
        &mut self,
        tx: &Tx<'_>,
        rules: &Rules,
        timers: &Timers,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        self.status = self.state.status(rules);
        self.updated = now;
        tx.execute("UPDATE targets SET status = :status, updated = :updated, events = :events, class = :class, stage = :stage,
                    attempted = :attempted, deadline = :deadline
             WHERE deployment_id = :deployment AND position = :position", named! {
            ":deployment": self.deployment_id,
            ":position": self.position,
            ":status": self.status.as_str(),
            ":updated": now,
            ":events": Json(&self.state.events),
            ":class": Column(Class::of(&self.state, rules)),
            ":stage": Column(self.state.stage(rules)),
            ":attempted": self.state.was_attempted(),
            ":deadline": self.state.deadline(rules, timers).map(Timestamp::millis),
        })?;
        let offered = self.state.events.iter().position(|event| event.state.is_offered());
        tx.execute(
            "UPDATE commands SET offered = 0
             WHERE deployment_id = ?1 AND target = ?2 AND offered = 1 AND event IS DISTINCT FROM ?3",
            (&self.deployment_id, self.position, offered),
        )?;
        Ok(())
    }
}

/// Targets per status.
pub(crate) fn overview(tx: &Tx<'_>, deployment_id: &str) -> Result<DeploymentOverview, SqlError> {
    let mut overview = DeploymentOverview {
        pending: Some(0),
        in_progress: Some(0),
        succeeded: Some(0),
        failed: Some(0),
        skipped: Some(0),
        ready: Some(0),
    };
    let counts = tx.query_all(
        "SELECT status, count(*) FROM targets WHERE deployment_id = ?1 GROUP BY status",
        [deployment_id],
        |row| Ok((row.get::<String>(0)?, row.get(1)?)),
    )?;
    for (status, count) in counts {
        let count = Some(count);
        match TargetStatus::from(status) {
            TargetStatus::Pending => overview.pending = count,
            TargetStatus::InProgress => overview.in_progress = count,
            TargetStatus::Succeeded => overview.succeeded = count,
            TargetStatus::Failed => overview.failed = count,
            TargetStatus::Skipped => overview.skipped = count,
            TargetStatus::Ready => overview.ready = count,
            TargetStatus::Unknown | TargetStatus::Other(_) => {}
        }
    }
    Ok(overview)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn the_few_targets_that_matter_are_found_without_reading_or_sorting_the_others() {
        for (sql, by) in [
            (WAITING, "deployment_id=? AND class=? AND stage=? AND label=?"),
            (OPEN, "deployment_id=? AND class=?"),
        ] {
            let way = way_of(sql);
            assert!(way.contains(&format!("SEARCH targets USING INDEX targets_by_class ({by})")), "{way}");
            assert!(!way.contains("SCAN targets") && !way.contains("TEMP B-TREE"), "{way}");
        }
    }
}
