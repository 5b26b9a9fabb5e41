//! Changes of state that have no message yet. The transaction that makes a change notes it if there
//! are receivers of events.

use codedeploy_api::codedeploy::{DeploymentStatus, TargetStatus, Timestamp};

use crate::store::{SqlError, Tx};

/// A recorded change of a status.
#[derive(Debug)]
pub(crate) struct StateChange {
    pub(crate) sequence: i64,
    /// Empty for a change of a host.
    pub(crate) deployment_id: String,
    /// Without a target, it belongs to the deployment.
    pub(crate) target: Option<ChangedTarget>,
    pub(crate) status: String,
    pub(crate) time: Timestamp,
}

#[derive(Debug)]
pub(crate) struct ChangedTarget {
    pub(crate) id: String,
    pub(crate) arn: String,
}

/// Turns the noting of changes on or off.
pub(crate) fn listen(tx: &Tx<'_>, wanted: bool) -> Result<(), SqlError> {
    if wanted {
        tx.execute(
            "INSERT INTO event_listeners (id) VALUES (1) ON CONFLICT DO NOTHING",
            (),
        )?;
    } else {
        tx.execute("DELETE FROM event_listeners", ())?;
        tx.execute("DELETE FROM state_changes", ())?;
    }
    Ok(())
}

fn is_wanted(tx: &Tx<'_>) -> Result<bool, SqlError> {
    tx.exists("SELECT 1 FROM event_listeners", ())
}

/// Notes the current status of a deployment if receivers are to be notified.
pub(crate) fn note_deployment(
    tx: &Tx<'_>,
    id: &str,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Result<(), SqlError> {
    use DeploymentStatus::{Created, Failed, Ready, Stopped, Succeeded};
    if !matches!(status, Created | Ready | Succeeded | Failed | Stopped) || !is_wanted(tx)? {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO state_changes (deployment_id, status, time) VALUES (?1, ?2, ?3)",
        (id, status.as_str(), now),
    )?;
    Ok(())
}

/// Notes the current status of a target if receivers are to be notified.
pub(crate) fn note_target(
    tx: &Tx<'_>,
    deployment_id: &str,
    (id, arn): (&str, &str),
    status: &TargetStatus,
    now: Timestamp,
) -> Result<(), SqlError> {
    use TargetStatus::{Failed, InProgress, Ready, Succeeded};
    if !matches!(status, InProgress | Ready | Succeeded | Failed) || !is_wanted(tx)? {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO state_changes (deployment_id, target_id, target_arn, status, time)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        (deployment_id, id, arn, status.as_str(), now),
    )?;
    Ok(())
}

/// The status of a host that was drained, in [`StateChange`].
pub(crate) const DRAINED: &str = "Drained";
/// The same of one that was undrained.
pub(crate) const UNDRAINED: &str = "Undrained";

/// Notes that a host was drained or undrained if receivers are to be notified.
pub(crate) fn note_host(
    tx: &Tx<'_>,
    (name, arn): (&str, &str),
    drained: bool,
    now: Timestamp,
) -> Result<(), SqlError> {
    if !is_wanted(tx)? {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO state_changes (deployment_id, target_id, target_arn, status, time)
         VALUES ('', ?1, ?2, ?3, ?4)",
        (name, arn, if drained { DRAINED } else { UNDRAINED }, now),
    )?;
    Ok(())
}

/// Returns the oldest changes in their order.
pub(crate) fn oldest(tx: &Tx<'_>, most: usize) -> Result<Vec<StateChange>, SqlError> {
    tx.query_all(
        "SELECT * FROM state_changes ORDER BY sequence LIMIT ?1",
        [most],
        |row| {
            let id: Option<String> = row.get("target_id")?;
            let target = id
                .zip(row.get("target_arn")?)
                .map(|(id, arn)| ChangedTarget { id, arn });
            Ok(StateChange {
                sequence: row.get("sequence")?,
                deployment_id: row.get("deployment_id")?,
                target,
                status: row.get("status")?,
                time: row.get("time")?,
            })
        },
    )
}

/// Drops a change and all earlier ones.
pub(crate) fn drop_until(tx: &Tx<'_>, sequence: i64) -> Result<(), SqlError> {
    tx.execute("DELETE FROM state_changes WHERE sequence <= ?1", [sequence])
        .map(drop)
}

/// Whether a deployment has changes without a message.
pub(crate) fn are_pending(tx: &Tx<'_>, deployment_id: &str) -> Result<bool, SqlError> {
    let sql = "SELECT 1 FROM state_changes WHERE deployment_id = ?1";
    tx.exists(sql, [deployment_id])
}
