//! The rows of targets.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::{DeploymentOverview, TargetLabel, TargetStatus, Timestamp};
use codedeploy_planner::Timers;
use codedeploy_planner::deployment_state::Stage;
use codedeploy_planner::plan::Class;
use codedeploy_planner::rules::Rules;
use codedeploy_planner::target_state::{Event, TargetState};

use super::{Record, set_aside};
use crate::fleet::Member;
use crate::records::columns::Column;
use crate::store::{Json, Row, SqlError, Tx, named};

/// Selects targets, each with the state of its host.
macro_rules! targets {
    ($condition:literal) => {
        concat!(
            "SELECT *, EXISTS (SELECT 1 FROM instances i WHERE i.arn = targets.arn AND i.deregistered IS NOT NULL) \
             AS departed, EXISTS (SELECT 1 FROM instances i WHERE i.arn = targets.arn AND i.drained IS NOT NULL) \
             AS drained FROM targets ",
            $condition
        )
    };
}

/// Every target of a large fleet is a row with all its events: these statements find the relevant
/// few in an index, without reading the others.
const WAITING: &str = targets!(
    "WHERE deployment_id = ?1 AND position IN (
         SELECT position FROM targets
         WHERE deployment_id = ?1 AND class = ?2 AND stage = ?3 AND label IS NOT DISTINCT FROM ?4
         ORDER BY position LIMIT ?5)
     ORDER BY position"
);
const OPEN: &str = targets!(
    "WHERE deployment_id = ?1 AND class IN (?2, ?3) ORDER BY class, stage, label, position LIMIT ?4"
);
/// The index of hosts has all that this needs; every host asks at each event.
const IS_HOST: &str = "SELECT 1 FROM targets WHERE deployment_id = ?1 AND host = ?2";
const ID_OF_HOST: &str = "SELECT target_id FROM targets WHERE deployment_id = ?1 AND position IN (
        SELECT position FROM targets WHERE deployment_id = ?1 AND host = ?2)";

const FAILED: &str = targets!(
    "WHERE deployment_id = ?1 AND position IN (
         SELECT position FROM targets WHERE deployment_id = ?1 AND status = ?2 ORDER BY position LIMIT ?3)
     ORDER BY position"
);
const BUSY: &str = targets!(
    "WHERE deployment_id = ?1 AND deadline IS NOT NULL AND class IN (?2, ?3) ORDER BY deadline LIMIT ?4"
);
/// By way of the active deployments: there may be any number of older ones.
const BUSY_OF_HOST: &str = targets!(
    "WHERE (deployment_id, position) IN (
         SELECT t.deployment_id, t.position FROM deployments d JOIN targets t ON t.deployment_id = d.id
         WHERE d.status IN ('Created', 'InProgress', 'Ready') AND t.host = ?1)
       AND class IN (?2, ?3)"
);

const DEPLOYMENTS_ON: &str = "SELECT DISTINCT t.deployment_id
     FROM deployments d JOIN targets t ON t.deployment_id = d.id
     WHERE d.status IN ('Created', 'InProgress', 'Ready') AND t.host = ?1";
/// By way of the drained instances, which are few; `CROSS JOIN` keeps that order.
const DRAINED: &str = targets!(
    "WHERE deployment_id = ?1 AND position IN (
         SELECT t.position FROM instances i CROSS JOIN targets t
         WHERE i.drained IS NOT NULL AND t.deployment_id = ?1 AND t.host = i.principal)
       AND EXISTS (SELECT 1 FROM instances i WHERE i.arn = targets.arn AND i.drained IS NOT NULL)
       AND class IN (?2, ?3) ORDER BY position LIMIT ?4"
);
const IS_MIDWAY: &str = "SELECT 1 FROM targets
     WHERE deployment_id IN (
         SELECT id FROM deployments WHERE group_id = ?1 AND status IN ('Created', 'InProgress', 'Ready'))
       AND target_id = ?2 AND attempted = 1 AND class <> 'succeeded'";

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
            return Err(SqlError::damaged(
                "events",
                "found none, and every target has some",
            ));
        }
        Ok(Target {
            deployment_id: row.get("deployment_id")?,
            position: row.get("position")?,
            member: Member {
                name: row.get("target_id")?,
                arn: row.get("arn")?,
                host: row.get("host")?,
            },
            updated: row.get("updated")?,
            state: TargetState {
                label,
                events,
                departed: row.get("departed")?,
                drained: row.get("drained")?,
            },
            status: TargetStatus::from(row.get::<String>("status")?),
        })
    }

    /// Returns all targets of a deployment, in the order of attempt.
    pub(crate) fn load_all(tx: &Tx<'_>, deployment_id: &str) -> Result<Vec<Target>, SqlError> {
        tx.query_all(
            targets!("WHERE deployment_id = ?1 ORDER BY position"),
            [deployment_id],
            Target::read,
        )
    }

    /// Returns some targets of a deployment, from a position on, in the order of attempt.
    pub(crate) fn load_some(
        tx: &Tx<'_>,
        deployment_id: &str,
        from: usize,
        most: usize,
    ) -> Result<Vec<Target>, SqlError> {
        tx.query_all(
            targets!("WHERE deployment_id = ?1 AND position >= ?2 ORDER BY position LIMIT ?3"),
            (deployment_id, from, most),
            Target::read,
        )
    }

    /// Whether a host is a target of a deployment.
    pub(crate) fn is_host_of(
        tx: &Tx<'_>,
        deployment_id: &str,
        host: &str,
    ) -> Result<bool, SqlError> {
        tx.exists(IS_HOST, (deployment_id, host))
    }

    /// Returns the id of the target that stands for a host.
    pub(crate) fn id_of_host(
        tx: &Tx<'_>,
        deployment_id: &str,
        host: &str,
    ) -> Result<Option<String>, SqlError> {
        tx.query_opt(ID_OF_HOST, (deployment_id, host), |row| row.get(0))
    }

    /// Whether any host got a command of the deployment.
    pub(crate) fn any_attempted(tx: &Tx<'_>, deployment_id: &str) -> Result<bool, SqlError> {
        tx.exists(
            "SELECT 1 FROM targets WHERE deployment_id = ?1 AND attempted = 1 LIMIT 1",
            [deployment_id],
        )
    }

    /// Deletes the first targets of a deployment with their commands, and returns their number.
    pub(crate) fn delete(tx: &Tx<'_>, deployment_id: &str, most: usize) -> Result<usize, SqlError> {
        tx.execute(
            "DELETE FROM targets WHERE deployment_id = ?1 AND position IN (
                 SELECT position FROM targets WHERE deployment_id = ?1 ORDER BY position LIMIT ?2)",
            (deployment_id, most),
        )
    }

    /// Deregisters the original instances of a blue/green deployment and returns their names.
    /// Instances that received a revision or traffic from a later deployment of any group are
    /// needed again, and stay.
    pub(crate) fn deregister_originals(
        tx: &Tx<'_>,
        deployment_id: &str,
        now: Timestamp,
    ) -> Result<Vec<String>, SqlError> {
        tx.query_all(
            "UPDATE instances SET deregistered = :now, tags = '[]'
             WHERE deregistered IS NULL AND arn IN (
                 SELECT arn FROM targets original
                 WHERE deployment_id = :deployment AND label = :blue AND NOT EXISTS (
                     SELECT 1 FROM deployments later JOIN targets again ON again.deployment_id = later.id
                     WHERE later.sequence > (SELECT sequence FROM deployments WHERE id = :deployment)
                       AND again.target_id = original.target_id AND again.arn = original.arn
                       AND again.stage <> :block))
             RETURNING name",
            named! {
                ":now": now,
                ":deployment": deployment_id,
                ":blue": TargetLabel::Blue.as_str(),
                ":block": Column(Stage::Block),
            },
            |row| row.get(0),
        )
    }

    /// Makes targets with commands overdue if their hosts are deregistered. Returns their
    /// deployments.
    pub(crate) fn expire_departed(tx: &Tx<'_>) -> Result<BTreeSet<String>, SqlError> {
        let deployments = tx.query_all(
            "UPDATE targets SET deadline = 0
             WHERE deadline > 0
               AND deployment_id IN (
                   SELECT id FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready'))
               AND EXISTS (
                   SELECT 1 FROM instances i WHERE i.arn = targets.arn AND i.deregistered IS NOT NULL)
             RETURNING deployment_id",
            (),
            |row| row.get(0),
        )?;
        Ok(deployments.into_iter().collect())
    }

    /// Returns the unfinished deployments with a target on an instance.
    pub(crate) fn deployments_on(tx: &Tx<'_>, host: &str) -> Result<Vec<String>, SqlError> {
        tx.query_all(DEPLOYMENTS_ON, [host], |row| row.get(0))
    }

    /// Returns targets on drained hosts without a command that their host has acknowledged.
    pub(crate) fn drained(
        tx: &Tx<'_>,
        deployment_id: &str,
        most: usize,
    ) -> Result<Vec<Target>, SqlError> {
        let (waiting, offered) = (Column(Class::Waiting), Column(Class::Offered));
        let wanted = (deployment_id, waiting, offered, most);
        tx.query_all(DRAINED, wanted, Target::read)
    }

    /// Whether the instance of a name has begun an unfinished deployment of a group, and has not
    /// completed it.
    pub(crate) fn is_midway(tx: &Tx<'_>, group_id: &str, name: &str) -> Result<bool, SqlError> {
        tx.exists(IS_MIDWAY, (group_id, name))
    }

    /// Returns targets whose hosts were silent too long.
    pub(crate) fn overdue(
        tx: &Tx<'_>,
        deployment_id: &str,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Target>, SqlError> {
        tx.query_all(
            targets!("WHERE deployment_id = ?1 AND deadline <= ?2 LIMIT ?3"),
            (deployment_id, now, most),
            Target::read,
        )
    }

    /// Returns targets that wait to begin a stage, in the order of attempt.
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

    /// Returns targets that can be cut off: no host has acknowledged a command of theirs.
    pub(crate) fn open(
        tx: &Tx<'_>,
        deployment_id: &str,
        most: usize,
    ) -> Result<Vec<Target>, SqlError> {
        tx.query_all(
            OPEN,
            (
                deployment_id,
                Column(Class::Offered),
                Column(Class::Waiting),
                most,
            ),
            Target::read,
        )
    }

    /// Returns targets that failed, in the order of attempt.
    pub(crate) fn failed(
        tx: &Tx<'_>,
        deployment_id: &str,
        most: usize,
    ) -> Result<Vec<Target>, SqlError> {
        let failed = TargetStatus::Failed;
        tx.query_all(FAILED, (deployment_id, failed.as_str(), most), Target::read)
    }

    /// Returns targets with a command that has not ended, and the time at which each is given up,
    /// the first before the others.
    pub(crate) fn busy(
        tx: &Tx<'_>,
        deployment_id: &str,
        most: usize,
    ) -> Result<Vec<(Target, Option<Timestamp>)>, SqlError> {
        let (offered, performing) = (Column(Class::Offered), Column(Class::Performing));
        tx.query_all(
            BUSY,
            (deployment_id, offered, performing, most),
            Target::read_busy,
        )
    }

    /// Returns the targets with a command that has not ended on a host.
    pub(crate) fn busy_of_host(
        tx: &Tx<'_>,
        host: &str,
    ) -> Result<Vec<(Target, Option<Timestamp>)>, SqlError> {
        let (offered, performing) = (Column(Class::Offered), Column(Class::Performing));
        tx.query_all(BUSY_OF_HOST, (host, offered, performing), Target::read_busy)
    }

    fn read_busy(row: &Row<'_>) -> Result<(Target, Option<Timestamp>), SqlError> {
        Ok((Target::read(row)?, row.get("deadline")?))
    }

    pub(crate) fn at(
        tx: &Tx<'_>,
        deployment_id: &str,
        position: usize,
    ) -> Result<Option<Target>, SqlError> {
        tx.query_opt(
            targets!("WHERE deployment_id = ?1 AND position = ?2"),
            (deployment_id, position),
            Target::read,
        )
    }

    /// Returns the target with an id or an ARN.
    pub(crate) fn named(
        tx: &Tx<'_>,
        deployment_id: &str,
        name: &str,
    ) -> Result<Option<Target>, SqlError> {
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
        tx.execute(
            "INSERT INTO targets
             (deployment_id, position, target_id, arn, host, status, updated, events,
              label, class, stage, attempted)
             VALUES
             (:deployment, :position, :name, :arn, :host, :status, :updated, :events,
              :label, :class, :stage, 0)",
            named! {
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
            },
        )?;
        Ok(())
    }

    /// Stores the events and their consequences, and withdraws commands that are no longer offered;
    /// its state was `before`.
    pub(crate) fn save(
        &mut self,
        tx: &Tx<'_>,
        before: &TargetState,
        rules: &Rules,
        timers: &Timers,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        self.status = self.state.status(rules);
        self.updated = now;
        tx.execute(
            "UPDATE targets SET status = :status, updated = :updated, events = :events, class = :class,
                    stage = :stage, attempted = :attempted, deadline = :deadline
             WHERE deployment_id = :deployment AND position = :position",
            named! {
                ":deployment": self.deployment_id,
                ":position": self.position,
                ":status": self.status.as_str(),
                ":updated": now,
                ":events": Json(&self.state.events),
                ":class": Column(Class::of(&self.state, rules)),
                ":stage": Column(self.state.stage(rules)),
                ":attempted": self.state.was_attempted(),
                ":deadline": self.state.deadline(rules, timers),
            },
        )?;
        let offered = |state: &TargetState| {
            let mut events = state.events.iter();
            events.position(|event| event.state.is_offered())
        };
        let (was_offered, offered) = (offered(before), offered(&self.state));
        if was_offered.is_none() || was_offered == offered {
            return Ok(());
        }
        tx.execute(
            "UPDATE commands SET offered = 0
             WHERE deployment_id = ?1 AND target = ?2 AND offered = 1 AND event IS DISTINCT FROM ?3",
            (&self.deployment_id, self.position, offered),
        )?;
        Ok(())
    }
}

/// Counts targets per status.
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
    fn a_host_is_found_without_reading_the_other_hosts_of_its_deployment() {
        for sql in [IS_HOST, ID_OF_HOST] {
            let way = way_of(sql);
            assert!(
                way.contains("COVERING INDEX targets_by_host (deployment_id=? AND host=?)"),
                "{way}"
            );
        }
    }

    #[test]
    fn failed_and_busy_targets_are_found_without_reading_the_others() {
        for (sql, index) in [
            (FAILED, "targets_by_status (deployment_id=? AND status=?"),
            (BUSY, "targets_by_deadline (deployment_id=?"),
            (BUSY_OF_HOST, "targets_by_host (deployment_id=? AND host=?)"),
            (DRAINED, "INDEX instances_drained"),
            (DRAINED, "targets_by_host (deployment_id=? AND host=?)"),
        ] {
            let way = way_of(sql);
            assert!(
                way.contains(index) && !way.contains("SCAN targets"),
                "{way}"
            );
        }
    }

    #[test]
    fn the_few_targets_that_matter_are_found_without_reading_or_sorting_the_others() {
        for (sql, by) in [
            (
                WAITING,
                "deployment_id=? AND class=? AND stage=? AND label=?",
            ),
            (OPEN, "deployment_id=? AND class=?"),
        ] {
            let way = way_of(sql);
            assert!(
                way.contains(&format!("INDEX targets_by_class ({by})")),
                "{way}"
            );
            assert!(
                !way.contains("SCAN targets") && !way.contains("TEMP B-TREE"),
                "{way}"
            );
        }
    }
}
