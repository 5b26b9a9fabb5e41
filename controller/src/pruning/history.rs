//! Deletes finished deployments, script output and entries of the audit that are old, in small
//! transactions: other requests wait for one of them at most.

use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;

use crate::deployment::{retention, script_logs};
use crate::error::ApiError;
use crate::registry::audit;
use crate::service::Service;

/// The number of entries of the audit that one transaction deletes.
const ENTRIES: usize = 1000;

/// Deletes everything that is old by the settings. The log has the cause of an error, and the next
/// round comes.
pub(super) async fn prune(service: &Arc<Service>) {
    let settings = service.settings.retention;
    if let Some(age) = settings.audit {
        let _ = forget(service, age).await;
    }
    if let Some(age) = settings.script_logs {
        let _ = prune_script_logs(service, age).await;
    }
    if !settings.deployments.is_endless() {
        let _ = prune_deployments(service).await;
    }
}

/// Returns the time before which something is old.
fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.millis().saturating_sub(age))
}

/// Counts deleted records of one kind.
fn count(service: &Service, kind: &'static str, number: usize) {
    service.measure(|metrics| {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        metrics.deleted_records.with([kind]).inc_by(number);
    });
}

/// Deletes the entries of the audit of this age and older.
async fn forget(service: &Arc<Service>, age: Duration) -> Result<(), ApiError> {
    let mut entries = 0;
    loop {
        let deleted = service.transact(move |_, context| {
            Ok(audit::forget(
                context.tx,
                before(context.now, age),
                ENTRIES,
            )?)
        });
        let deleted = deleted.await?;
        count(service, "audit_entry", deleted);
        entries += deleted;
        if deleted < ENTRIES {
            break;
        }
    }
    if entries > 0 {
        tracing::info!(entries, "old entries of the audit were deleted");
    }
    Ok(())
}

/// Deletes the script output of deployments that ended this long ago.
async fn prune_script_logs(service: &Arc<Service>, age: Duration) -> Result<(), ApiError> {
    let (mut logs, mut after) = (0, Some(String::new()));
    while let Some(last) = after {
        let pruned = service.transact(move |_, context| {
            script_logs::prune(context, before(context.now, age), &last)
        });
        let (deleted, next) = pruned.await?;
        count(service, "script_log", deleted);
        logs += deleted;
        after = next;
    }
    if logs > 0 {
        tracing::info!(logs, "old script output was deleted");
    }
    Ok(())
}

async fn prune_deployments(service: &Arc<Service>) -> Result<(), ApiError> {
    let groups = service
        .read(|_, context| retention::groups(context))
        .await?;
    let mut deployments = 0;
    for group in groups {
        let work = service.read(move |service, context| {
            let settings = service.settings.retention.deployments;
            retention::work(context, settings, &group)
        });
        let mut work = work.await?;
        while let Some(rest) = work {
            let pruned = service
                .transact(move |_, context| rest.prune(context))
                .await?;
            count(service, "deployment", pruned.deployments);
            deployments += pruned.deployments;
            work = pruned.rest;
        }
    }
    if deployments > 0 {
        tracing::info!(deployments, "old deployments were deleted");
    }
    Ok(())
}
