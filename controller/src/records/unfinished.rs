//! The unfinished deployments, found by their status: there may be any number of finished ones.

use codedeploy_api::codedeploy::Timestamp;

use crate::store::{SqlError, Tx};

/// Includes those whose original instances are still to be deregistered.
const ALL: &str = "SELECT id FROM (
        SELECT id, created, sequence FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready')
        UNION ALL SELECT id, created, sequence FROM deployments
        WHERE retire_at IS NOT NULL AND status NOT IN ('Created', 'InProgress', 'Ready')) AS unfinished
    ORDER BY created, sequence";

/// Between the known statuses, so that the index has few of them.
const STRANGE: &str = "SELECT id FROM deployments WHERE status < 'Created'
    UNION ALL SELECT id FROM deployments WHERE status > 'Created' AND status < 'Failed'
    UNION ALL SELECT id FROM deployments WHERE status > 'Failed' AND status < 'InProgress'
    UNION ALL SELECT id FROM deployments WHERE status > 'InProgress' AND status < 'Ready'
    UNION ALL SELECT id FROM deployments WHERE status > 'Ready' AND status < 'Stopped'
    UNION ALL SELECT id FROM deployments WHERE status > 'Stopped' AND status < 'Succeeded'
    UNION ALL SELECT id FROM deployments WHERE status > 'Succeeded'";

/// Returns the unfinished deployments, the oldest first: the service continues them after a
/// restart.
pub fn all(tx: &Tx<'_>) -> Result<Vec<String>, SqlError> {
    tx.query_all(ALL, (), |row| row.get(0))
}

/// Returns the deployments with an unknown status: they may be finished or not.
pub fn strange(tx: &Tx<'_>) -> Result<Vec<String>, SqlError> {
    tx.query_all(STRANGE, (), |row| row.get(0))
}

/// Returns the deployments in which a command has waited too long.
pub fn overdue(tx: &Tx<'_>, now: Timestamp) -> Result<Vec<String>, SqlError> {
    tx.query_all(
        "SELECT id FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready')
         AND EXISTS (SELECT 1 FROM targets WHERE deployment_id = deployments.id AND deadline <= ?1)",
        [now],
        |row| row.get(0),
    )
}

/// Returns the active deployment of a group.
pub fn of_group(tx: &Tx<'_>, group_id: &str) -> Result<Option<String>, SqlError> {
    tx.query_opt(
        "SELECT id FROM deployments
         WHERE group_id = ?1 AND status IN ('Created', 'InProgress', 'Ready') LIMIT 1",
        [group_id],
        |row| row.get(0),
    )
}

/// Counts the active deployments.
pub fn count(tx: &Tx<'_>) -> Result<usize, SqlError> {
    let sql = "SELECT count(*) FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready')";
    tx.query_one(sql, (), |row| row.get(0))
}

const BY_STATUS: &str = "SELECT status, count(*) FROM deployments
    WHERE status IN ('Created', 'InProgress', 'Ready') GROUP BY status";

const TARGETS_BY_STATUS: &str =
    "SELECT t.status, count(*) FROM deployments d JOIN targets t ON t.deployment_id = d.id
    WHERE d.status IN ('Created', 'InProgress', 'Ready') GROUP BY t.status";

/// Counts the active deployments by their status.
pub fn by_status(tx: &Tx<'_>) -> Result<Vec<(String, i64)>, SqlError> {
    tx.query_all(BY_STATUS, (), |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Counts the targets of the active deployments by their status.
pub fn targets_by_status(tx: &Tx<'_>) -> Result<Vec<(String, i64)>, SqlError> {
    tx.query_all(TARGETS_BY_STATUS, (), |row| Ok((row.get(0)?, row.get(1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn no_deployment_that_is_over_is_looked_at_to_find_those_that_are_not() {
        let way = way_of(ALL);
        for index in ["deployments_by_status (status=?)", "deployments_retiring"] {
            assert!(
                way.contains(index) && !way.contains("SCAN deployments"),
                "{way}"
            );
        }
        for (counted, index) in [(BY_STATUS, ""), (TARGETS_BY_STATUS, "targets_by_status")] {
            let way = way_of(counted);
            assert!(
                way.contains("deployments_by_status (status=?)")
                    && way.contains(index)
                    && !way.contains("SCAN"),
                "{way}"
            );
        }
        let way = way_of(STRANGE);
        assert!(
            way.contains("deployments_by_status (status>? AND status<?)") && !way.contains("SCAN"),
            "{way}"
        );
    }
}
