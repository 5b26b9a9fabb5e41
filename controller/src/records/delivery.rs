//! The measures of a deployment that has ended: how long it took, and how long its group waited for
//! it.

use std::time::Duration;

use codedeploy_api::codedeploy::{DeploymentCreator, DeploymentStatus, Timestamp};

use crate::records::Record;
use crate::store::{Json, SqlError, Tx};

/// A deployment that has ended.
#[derive(Debug)]
pub struct Delivery {
    pub application: String,
    pub group: String,
    pub creator: DeploymentCreator,
    pub status: DeploymentStatus,
    /// The time from its creation to its end.
    pub took: Duration,
    /// The time from the registration of its revision, if the group got the revision for the first
    /// time.
    pub lead: Option<Duration>,
    /// The time from the first failure since the group's last success, if there was one.
    pub restored_after: Option<Duration>,
}

const FIRST_FAILURE: &str = "SELECT id FROM deployments
    WHERE group_id = ?1 AND status = 'Failed' AND created > coalesce(
        (SELECT max(created) FROM deployments WHERE group_id = ?1 AND status = 'Succeeded' AND id <> ?2), 0)
    ORDER BY created LIMIT 1";

impl Delivery {
    /// Measures a deployment that ended in this transaction.
    pub(crate) fn of(tx: &Tx<'_>, record: &Record, now: Timestamp) -> Result<Self, SqlError> {
        let status = record.progress.status();
        let has_succeeded = status == DeploymentStatus::Succeeded;
        let creator = if record.is_rollback() {
            DeploymentCreator::CodeDeployRollback
        } else {
            DeploymentCreator::User
        };
        Ok(Delivery {
            application: record.application_name.clone(),
            group: record.group_name.clone(),
            creator,
            took: now.since(record.created),
            lead: has_succeeded
                .then(|| registration(tx, record))
                .transpose()?
                .flatten()
                .map(|registered| now.since(registered)),
            restored_after: has_succeeded
                .then(|| first_failure(tx, record))
                .transpose()?
                .flatten()
                .map(|failed| now.since(failed)),
            status,
        })
    }
}

/// Returns the time at which a revision was registered, unless an earlier deployment brought it to
/// the group.
fn registration(tx: &Tx<'_>, record: &Record) -> Result<Option<Timestamp>, SqlError> {
    let revision = record.revision().map(Json);
    let was_there = tx.exists(
        "SELECT 1 FROM deployments WHERE group_id = ?1 AND status = 'Succeeded' AND revision = ?2 AND id <> ?3",
        (&record.group_id, &revision, &record.id),
    )?;
    if was_there {
        return Ok(None);
    }
    tx.query_opt(
        "SELECT r.registered FROM revisions r JOIN deployment_groups g ON g.application_id = r.application_id
         WHERE g.id = ?1 AND r.location = ?2",
        (&record.group_id, &revision),
        |row| row.get(0),
    )
}

/// Returns the end of the first failed deployment since the last successful one of the group.
fn first_failure(tx: &Tx<'_>, record: &Record) -> Result<Option<Timestamp>, SqlError> {
    let failed: Option<String> =
        tx.query_opt(FIRST_FAILURE, (&record.group_id, &record.id), |row| {
            row.get(0)
        })?;
    let failed = failed
        .map(|id| Record::load(tx, &id))
        .transpose()?
        .flatten();
    Ok(failed.and_then(|failed| failed.progress.completed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn a_failure_is_found_without_reading_the_history() {
        let way = way_of(FIRST_FAILURE);
        assert!(
            way.matches("deployments_of_group_by_status (group_id=? AND status=?")
                .count()
                == 2
                && !way.contains("TEMP B-TREE"),
            "{way}"
        );
    }
}
