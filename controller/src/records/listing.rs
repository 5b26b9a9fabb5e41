//! Lists of deployments, the newest first, read from an index: unlisted rows are not read.

use codedeploy_api::codedeploy::DeploymentStatus;

use crate::store::{Row, SqlError, Tx};

/// The time at which a deployment was created. Among those of the same millisecond, the last one
/// has the highest sequence number.
pub(crate) type Made = (i64, i64);

/// The deployments to list.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The ids of their groups; all groups if `None`.
    pub(crate) groups: Option<&'a [String]>,
    /// All statuses if empty.
    pub(crate) statuses: &'a [DeploymentStatus],
    /// The range of creation times.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// They were created before this.
    pub(crate) before: Made,
}

/// Selects the deployments of one kind and one page, in their order. An index contains every
/// column.
macro_rules! newest {
    ($condition:literal) => {
        concat!(
            "SELECT created, sequence, id FROM deployments WHERE ",
            $condition,
            "created BETWEEN ?1 AND ?2 AND (created, sequence) < (?3, ?4)
             ORDER BY created DESC, sequence DESC LIMIT ?5"
        )
    };
}

const ALL: &str = newest!("");
const OF_GROUP: &str = newest!("group_id = ?6 AND ");
const BY_STATUS: &str = newest!("status = ?6 AND ");
const OF_GROUP_BY_STATUS: &str = newest!("group_id = ?6 AND status = ?7 AND ");

/// Returns the newest of the wanted deployments, at most `most`.
pub(crate) fn newest(
    tx: &Tx<'_>,
    wanted: &Wanted<'_>,
    most: usize,
) -> Result<Vec<(Made, String)>, SqlError> {
    let Wanted {
        groups,
        statuses,
        start,
        end,
        before: (created, sequence),
    } = *wanted;
    let read = |row: &Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
    // An index orders the deployments of one group and one status, but not those of several.
    let each_group: Vec<Option<&String>> = match groups {
        Some(groups) => groups.iter().map(Some).collect(),
        None => vec![None],
    };
    let each_status: Vec<Option<&str>> = if statuses.is_empty() {
        vec![None]
    } else {
        statuses
            .iter()
            .map(|status| Some(status.as_str()))
            .collect()
    };
    let mut found: Vec<(Made, String)> = Vec::new();
    for group in each_group {
        for status in &each_status {
            found.extend(match (group, *status) {
                (None, None) => tx.query_all(ALL, (start, end, created, sequence, most), read)?,
                (Some(group), None) => {
                    let params = (start, end, created, sequence, most, group);
                    tx.query_all(OF_GROUP, params, read)?
                }
                (None, Some(status)) => {
                    let params = (start, end, created, sequence, most, status);
                    tx.query_all(BY_STATUS, params, read)?
                }
                (Some(group), Some(status)) => {
                    let params = (start, end, created, sequence, most, group, status);
                    tx.query_all(OF_GROUP_BY_STATUS, params, read)?
                }
            });
        }
        keep_newest(&mut found, most);
    }
    Ok(found)
}

fn keep_newest(found: &mut Vec<(Made, String)>, most: usize) {
    found.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
    found.truncate(most);
}

const LAST_ON_HOST: &str = "SELECT id FROM deployments
    WHERE group_id = ?1 AND EXISTS (
        SELECT 1 FROM targets WHERE deployment_id = deployments.id AND attempted = 1 AND position IN (
            SELECT position FROM targets WHERE deployment_id = deployments.id AND host = ?2))
    ORDER BY created DESC LIMIT 1";

/// Returns the last deployment of a group that began on a host.
pub(crate) fn last_on_host(
    tx: &Tx<'_>,
    group_id: &str,
    host: &str,
) -> Result<Option<String>, SqlError> {
    tx.query_opt(LAST_ON_HOST, (group_id, host), |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn the_last_deployment_of_a_host_is_found_without_reading_other_hosts() {
        let way = way_of(LAST_ON_HOST);
        assert!(
            way.contains("COVERING INDEX targets_by_host (deployment_id=? AND host=?)"),
            "{way}"
        );
    }

    #[test]
    fn what_is_not_listed_is_neither_read_nor_sorted() {
        for (sql, index) in [
            (
                ALL,
                "COVERING INDEX deployments_by_time (created>? AND created<?)",
            ),
            (
                OF_GROUP,
                "COVERING INDEX deployments_of_group (group_id=? AND created>? AND created<?)",
            ),
            (
                BY_STATUS,
                "COVERING INDEX deployments_by_status (status=? AND created>? AND created<?)",
            ),
            (
                OF_GROUP_BY_STATUS,
                "COVERING INDEX deployments_of_group_by_status (group_id=? AND status=? AND created>? AND created<?)",
            ),
        ] {
            let way = way_of(sql);
            assert!(way.contains(index) && !way.contains("TEMP B-TREE"), "{way}");
        }
    }
}
