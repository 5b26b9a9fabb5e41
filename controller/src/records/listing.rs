//! Lists of deployments, the newest first, read off an index: what is not listed is not looked at.

use codedeploy_api::codedeploy::DeploymentStatus;

use crate::store::{SqlError, Tx, named};

/// When a deployment was made. Of those made in the same millisecond, the one made last has the highest row id.
pub(crate) type Made = (i64, i64);

/// Which deployments are listed.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// All groups where none is named.
    pub(crate) group_id: Option<&'a str>,
    /// All statuses where none is named.
    pub(crate) statuses: &'a [DeploymentStatus],
    /// From and to when they were made.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// They were made before this.
    pub(crate) before: Made,
}

/// Selects deployments of one kind.
macro_rules! newest {
    ($index:literal $condition:literal) => {
        concat!(
            "SELECT created, rowid, id FROM deployments INDEXED BY ",
            $index,
            " WHERE ",
            $condition,
            " AND created BETWEEN :start AND :end AND (created, rowid) < (:created, :number) \
             ORDER BY created DESC, rowid DESC LIMIT :most"
        )
    };
}

const ALL: &str = newest!("deployments_by_time" ":group IS NULL AND :status IS NULL");
const OF_GROUP: &str = newest!("deployments_of_group" "group_id = :group AND :status IS NULL");
const BY_STATUS: &str = newest!("deployments_by_status" "status = :status AND :group IS NULL");
const OF_GROUP_BY_STATUS: &str =
    newest!("deployments_of_group_by_status" "group_id = :group AND status = :status");

/// The newest of the wanted deployments, at most so many.
pub(crate) fn newest(tx: &Tx<'_>, wanted: &Wanted<'_>, most: usize) -> Result<Vec<(Made, String)>, SqlError> {
    let mut found = Vec::new();
    let mut find = |sql: &str, status: Option<&str>| -> Result<(), SqlError> {
        let rows = tx.query_all(
            sql,
            named! {
                ":group": wanted.group_id,
                ":status": status,
                ":start": wanted.start,
                ":end": wanted.end,
                ":created": wanted.before.0,
                ":number": wanted.before.1,
                ":most": most,
            },
            |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)),
        )?;
        found.extend(rows);
        Ok(())
    };
    let (all, by_status) = match wanted.group_id {
        Some(_) => (OF_GROUP, OF_GROUP_BY_STATUS),
        None => (ALL, BY_STATUS),
    };
    if wanted.statuses.is_empty() {
        find(all, None)?;
    }
    // An index has those of one status in their order, and not those of several.
    for status in wanted.statuses {
        find(by_status, Some(status.as_str()))?;
    }
    found.sort_unstable_by(|(one, _): &(Made, String), (other, _)| other.cmp(one));
    found.truncate(most);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn what_is_not_listed_is_neither_read_nor_sorted() {
        for (sql, index) in [
            (ALL, "deployments_by_time (created>? AND created<?)"),
            (OF_GROUP, "deployments_of_group (group_id=? AND created>? AND created<?)"),
            (BY_STATUS, "deployments_by_status (status=? AND created>? AND created<?)"),
            (
                OF_GROUP_BY_STATUS,
                "deployments_of_group_by_status (group_id=? AND status=? AND created>? AND created<?)",
            ),
        ] {
            let way = way_of(sql);
            assert!(way.contains(index) && !way.contains("TEMP B-TREE"), "{way}");
        }
    }
}
