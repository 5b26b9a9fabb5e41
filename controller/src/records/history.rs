//! The old deployments of a group, the oldest first, read from an index: the newer ones are not
//! read.

use crate::records::listing::Made;
use crate::store::{SqlError, Tx};

const GROUPS: &str = "SELECT id FROM deployment_groups ORDER BY id";

/// Returns the ids of all groups.
pub(crate) fn groups(tx: &Tx<'_>) -> Result<Vec<String>, SqlError> {
    tx.query_all(GROUPS, (), |row| row.get(0))
}

const NEWEST: &str = "SELECT created, sequence FROM deployments WHERE group_id = ?1
    ORDER BY created DESC, sequence DESC LIMIT 1 OFFSET ?2";

/// Returns the oldest of the newest deployments of a group, if it has that many; `number` is at
/// least 1.
pub(crate) fn nth_newest(
    tx: &Tx<'_>,
    group_id: &str,
    number: usize,
) -> Result<Option<Made>, SqlError> {
    let before = number.saturating_sub(1);
    tx.query_opt(NEWEST, (group_id, before), |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

const OLDEST: &str = "SELECT created, sequence, id FROM deployments
    WHERE group_id = ?1 AND created BETWEEN ?2 AND ?4
        AND (created, sequence) > (?2, ?3) AND (created, sequence) < (?4, ?5)
    ORDER BY created, sequence LIMIT ?6";

/// Returns the oldest deployments of a group that were created after one time and before another,
/// at most `most`.
pub(crate) fn oldest(
    tx: &Tx<'_>,
    group_id: &str,
    after: Made,
    before: Made,
    most: usize,
) -> Result<Vec<(Made, String)>, SqlError> {
    let params = (group_id, after.0, after.1, before.0, before.1, most);
    tx.query_all(OLDEST, params, |row| {
        Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
    })
}

const NAMED: &str = "SELECT last_attempted FROM deployment_groups
        WHERE id = ?1 AND last_attempted IS NOT NULL
    UNION SELECT last_successful FROM deployment_groups WHERE id = ?1 AND last_successful IS NOT NULL";

/// Returns the deployments that a group names: its last one, and its last successful one.
pub(crate) fn named_by_group(tx: &Tx<'_>, group_id: &str) -> Result<Vec<String>, SqlError> {
    tx.query_all(NAMED, [group_id], |row| row.get(0))
}

const ON_HOSTS: &str = "SELECT DISTINCT deployment_id FROM health
    WHERE group_id = ?1 AND deployment_id IS NOT NULL";

/// Returns the deployments of a group that were the last ones on one of its instances.
pub(crate) fn last_on_hosts(tx: &Tx<'_>, group_id: &str) -> Result<Vec<String>, SqlError> {
    tx.query_all(ON_HOSTS, [group_id], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn deployments_that_stay_are_not_read() {
        for sql in [NEWEST, OLDEST] {
            let way = way_of(sql);
            assert!(
                way.contains("COVERING INDEX deployments_of_group (group_id=?")
                    && !way.contains("TEMP B-TREE"),
                "{way}"
            );
        }
        assert!(way_of(ON_HOSTS).contains("PRIMARY KEY (group_id=?)"));
    }
}
