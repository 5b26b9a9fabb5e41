//! The state in which deployments left the instances of a group: the rows that a later deployment
//! begins with.

use std::collections::HashMap;
use std::ops::ControlFlow;

use codedeploy_api::codedeploy::{RevisionLocation, Timestamp};

use crate::revision::Revision;
use crate::store::{Json, SqlError, Tx, named};

/// An instance in the state in which the last deployment left it.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) healthy: bool,
    /// `None` if its revision is unknown.
    pub(crate) revision: Option<Revision>,
}

/// Returns the health of a group's instances by name.
pub(crate) fn of_group(tx: &Tx<'_>, group_id: &str) -> Result<HashMap<String, Health>, SqlError> {
    let sql = "SELECT target_id, healthy, revision FROM health WHERE group_id = ?1";
    let rows = tx.query_all(sql, [group_id], |row| {
        let revision: Option<Json<RevisionLocation>> = row.get(2)?;
        let revision = revision.and_then(|Json(location)| Revision::try_from(location).ok());
        Ok((
            row.get(0)?,
            Health {
                healthy: row.get(1)?,
                revision,
            },
        ))
    })?;
    Ok(rows.into_iter().collect())
}

/// An instance of a group, compared with the group's revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compared<'a> {
    pub(crate) name: &'a str,
    pub(crate) healthy: bool,
    pub(crate) is_current: bool,
}

const COMPARED: &str = "SELECT target_id, healthy, coalesce(revision = ?2, 0) FROM health
    WHERE group_id = ?1 ORDER BY target_id";

/// Compares the instances of a group with a revision, and passes them in the order of names.
pub(crate) fn compare(
    tx: &Tx<'_>,
    group_id: &str,
    current: Option<&Revision>,
    mut look: impl FnMut(Compared<'_>),
) -> Result<(), SqlError> {
    tx.query_while(COMPARED, (group_id, current.map(Json)), |row| {
        let (healthy, is_current) = (row.get(1)?, row.get(2)?);
        row.text(0, |name| {
            look(Compared {
                name,
                healthy,
                is_current,
            })
        })?;
        Ok(ControlFlow::Continue(()))
    })
}

/// The state in which the last deployment of a group left an instance.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) health: Health,
    /// Absent if an earlier version of this program noted the state.
    pub(crate) deployment_id: Option<String>,
    pub(crate) changed: Option<Timestamp>,
}

const OF_INSTANCE: &str = "SELECT group_id, healthy, revision, deployment_id, changed FROM health
    WHERE target_id = ?1";

/// Returns the states of an instance by the ids of groups.
pub(crate) fn of_instance(tx: &Tx<'_>, target_id: &str) -> Result<HashMap<String, Left>, SqlError> {
    let rows = tx.query_all(OF_INSTANCE, [target_id], |row| {
        let revision: Option<Json<RevisionLocation>> = row.get("revision")?;
        let left = Left {
            health: Health {
                healthy: row.get("healthy")?,
                revision: revision.and_then(|Json(location)| Revision::try_from(location).ok()),
            },
            deployment_id: row.get("deployment_id")?,
            changed: row.get("changed")?,
        };
        Ok((row.get("group_id")?, left))
    })?;
    Ok(rows.into_iter().collect())
}

/// Notes the state in which a deployment of a revision left the instances that it attempted. After
/// a failure, the revision of an instance is no longer known if it was the group's `current` one.
pub(crate) fn note_end(
    tx: &Tx<'_>,
    group_id: &str,
    deployment_id: &str,
    revision: Option<&Revision>,
    current: Option<&Revision>,
    now: Timestamp,
) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO health (group_id, target_id, healthy, revision, deployment_id, changed)
         SELECT :group, target_id, CASE WHEN class = 'succeeded' THEN 1 ELSE 0 END,
             CASE WHEN class = 'succeeded' THEN :revision ELSE NULL END, :deployment, :now
         FROM targets WHERE deployment_id = :deployment AND attempted = 1 AND label IS DISTINCT FROM 'Blue'
         ON CONFLICT (group_id, target_id) DO UPDATE SET healthy = excluded.healthy,
             deployment_id = excluded.deployment_id, changed = excluded.changed, revision =
             CASE WHEN excluded.healthy = 1 THEN excluded.revision
                  WHEN health.revision IS NOT DISTINCT FROM :current THEN NULL
                  ELSE health.revision END",
        named! {
            ":group": group_id,
            ":deployment": deployment_id,
            ":revision": revision.map(Json),
            ":current": current.map(Json),
            ":now": now,
        },
    )?;
    Ok(())
}

/// Notes that the state of the instances that a damaged deployment attempted is unknown.
pub(super) fn note_damage(tx: &Tx<'_>, deployment_id: &str) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO health (group_id, target_id, healthy, revision, deployment_id)
         SELECT d.group_id, t.target_id, 0, NULL, d.id FROM targets t JOIN deployments d ON d.id = t.deployment_id
         WHERE t.deployment_id = ?1 AND t.attempted = 1
             AND EXISTS (SELECT 1 FROM deployment_groups g WHERE g.id = d.group_id)
         ON CONFLICT (group_id, target_id) DO UPDATE SET healthy = 0, revision = NULL,
             deployment_id = excluded.deployment_id",
        [deployment_id],
    )?;
    Ok(())
}

/// Notes the revision that an instance has after its deployment was taken back.
pub(crate) fn note_revision(
    tx: &Tx<'_>,
    group_id: &str,
    target_id: &str,
    revision: Option<&Revision>,
) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE health SET revision = ?3 WHERE group_id = ?1 AND target_id = ?2",
        (group_id, target_id, revision.map(Json)),
    )?;
    Ok(())
}

/// Drops the health of an instance of this name: the name now belongs to another instance.
pub(crate) fn forget(tx: &Tx<'_>, target_id: &str) -> Result<(), SqlError> {
    tx.execute(
        "DELETE FROM health WHERE group_id IN (SELECT id FROM deployment_groups) AND target_id = ?1",
        [target_id],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn the_instances_of_a_group_and_the_groups_of_an_instance_are_found_in_indexes() {
        let way = way_of(COMPARED);
        assert!(
            way.contains("PRIMARY KEY (group_id=?)") && !way.contains("TEMP B-TREE"),
            "{way}"
        );
        let way = way_of(OF_INSTANCE);
        assert!(
            way.contains("INDEX health_by_instance (target_id=?)"),
            "{way}"
        );
    }
}
