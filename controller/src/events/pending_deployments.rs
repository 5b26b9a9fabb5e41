//! Deployments that a new object of a bucket asks for, until each can be started.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::bucket_notification::{Created, revision};
use crate::config::events::{Events, Watch};
use crate::credentials::Scopes;
use crate::deployment::create;
use crate::deployment::effects::Effects;
use crate::error::{ApiError, ErrorName};
use crate::request::CreateDeployment;
use crate::revision::Revision;
use crate::service::Service;
use crate::store::{Json, SqlError};
use crate::transaction::Context;

/// The interval of attempts to start a deployment while another one of its group is active.
const RETRY: Duration = Duration::from_secs(5);

impl Watch {
    fn matches(&self, created: &Created) -> bool {
        self.bucket == created.bucket && created.key.starts_with(&self.key_prefix)
    }
}

/// Stores the deployments that new objects trigger; a newer object of the same group replaces an
/// older one.
pub fn note(
    context: &Context<'_>,
    events: &Events,
    created: &[Created],
    uploader: &Scopes,
) -> Result<Noted, ApiError> {
    let mut noted = Noted::default();
    for object in created {
        for watch in events.watches.iter().filter(|watch| watch.matches(object)) {
            noted.watched += 1;
            let Some(revision) = revision(object) else {
                tracing::warn!(
                    key = object.key,
                    "a new object matches a watch, but its name does not end with .zip, .tar, .tgz or .tar.gz"
                );
                continue;
            };
            let (application, group) = (&watch.application, &watch.deployment_group);
            if !uploader.have_group(application, group) {
                tracing::warn!(
                    application,
                    deployment_group = group,
                    key = object.key,
                    "a new object is not deployed: the access key that uploaded it is not for the deployment group"
                );
                continue;
            }
            if is_known(context, watch, object, &revision)? {
                tracing::info!(
                    application,
                    deployment_group = group,
                    key = object.key,
                    "the new object is known"
                );
                continue;
            }
            noted.new += context.tx.execute(
                "INSERT INTO pending_deployments (application, group_name, revision) VALUES (?1, ?2, ?3)
                 ON CONFLICT (application, group_name) DO UPDATE SET revision = excluded.revision",
                (application, group, Json(revision)),
            )?;
        }
    }
    Ok(noted)
}

/// The deployments that new objects ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted {
    /// The number of watches that match the objects.
    pub watched: usize,
    /// The number of new pending deployments.
    pub new: usize,
}

/// Stores the deployments that new objects trigger, and has them started. An uploader with a limited
/// key triggers those in its scopes.
pub async fn accept(
    service: &Arc<Service>,
    created: Vec<Created>,
    uploader: Scopes,
) -> Result<Noted, ApiError> {
    if service.settings.events.watches.is_empty() || created.is_empty() {
        return Ok(Noted::default());
    }
    let noted = service
        .transact(move |service, context| {
            note(context, &service.settings.events, &created, &uploader)
        })
        .await?;
    service.signals.pending.notify_one();
    Ok(noted)
}

/// Starts each pending deployment as soon as it can start. Never ends.
pub(super) async fn run(service: &Arc<Service>) {
    loop {
        let pending = service.transact(|_, context| {
            let wishes = context.tx.query_all(
                "SELECT application, group_name FROM pending_deployments",
                (),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            Ok::<Vec<(String, String)>, ApiError>(wishes)
        });
        let pending = pending.await.inspect_err(|error| {
            tracing::error!(%error, "the pending deployments could not be read; trying again");
        });
        let mut left = pending.is_err();
        for (application, group) in pending.unwrap_or_default() {
            let started = service.change(move |_, context| start(context, &application, &group));
            let started = started
                .instrument(tracing::info_span!("watch", by = "events.watches"))
                .await;
            // A deployment that could not be examined stays pending.
            left |= !matches!(started, Ok(true));
        }
        let again = async {
            if left {
                tokio::time::sleep(RETRY).await
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = service.signals.pending.notified() => {}
            () = again => {}
        }
    }
}

/// Creates the deployment that is pending for a group. Returns false while it has to wait.
fn start(
    context: &Context<'_>,
    application: &str,
    group: &str,
) -> Result<(bool, Option<Effects>), ApiError> {
    let found = context.tx.query_opt(
        "SELECT revision FROM pending_deployments WHERE application = ?1 AND group_name = ?2",
        [application, group],
        |row| row.get(0),
    )?;
    let Some(Json::<Revision>(revision)) = found else {
        return Ok((true, None));
    };
    let forget = || {
        let delete = "DELETE FROM pending_deployments WHERE application = ?1 AND group_name = ?2";
        context.tx.execute(delete, [application, group]).map(|_| ())
    };
    let description = "Started by a notification of the revision's bucket";
    let request = CreateDeployment::of_revision(application, group, revision, description);
    match request.and_then(|request| create::create(context, request)) {
        Ok((_, effects)) => {
            forget()?;
            Ok((true, Some(effects)))
        }
        Err(error) if error.name == ErrorName::DeploymentLimitExceeded => Ok((false, None)),
        Err(error) if error.name == ErrorName::InternalFailure => Err(error),
        Err(error) => {
            tracing::error!(application, deployment_group = group, %error, "a new object cannot be deployed");
            forget()?;
            Ok((true, None))
        }
    }
}

/// The time for which the order of an object's notifications is remembered; none arrives later.
const MEMORY: Duration = Duration::from_secs(30 * 86_400);

/// Whether a notification is redundant: notifications arrive more than once, and late. The same
/// content may legitimately come back, by an upload of an earlier content.
fn is_known(
    context: &Context<'_>,
    watch: &Watch,
    object: &Created,
    revision: &Revision,
) -> Result<bool, SqlError> {
    match object {
        Created {
            sequencer: Some(sequencer),
            ..
        } => is_passed(context, watch, object, sequencer),
        // A version is new only once.
        Created {
            version: Some(_), ..
        } => was_deployed(context, watch, revision, false),
        Created { etag: Some(_), .. } => was_deployed(context, watch, revision, true),
        // Contents cannot be distinguished.
        Created { .. } => Ok(false),
    }
}

/// Whether a notification that is at least as new arrived before; otherwise this becomes the
/// newest.
fn is_passed(
    context: &Context<'_>,
    watch: &Watch,
    object: &Created,
    sequencer: &str,
) -> Result<bool, SqlError> {
    let place = (
        &watch.application,
        &watch.deployment_group,
        &object.bucket,
        &object.key,
    );
    let newest: Option<String> = context.tx.query_opt(
        "SELECT sequencer FROM bucket_notifications
         WHERE application = ?1 AND group_name = ?2 AND bucket = ?3 AND key = ?4",
        place,
        |row| row.get(0),
    )?;
    if newest.is_some_and(|newest| !follows(sequencer, &newest)) {
        return Ok(true);
    }
    let (application, group, bucket, key) = place;
    context.tx.execute(
        "INSERT INTO bucket_notifications (application, group_name, bucket, key, sequencer, seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (application, group_name, bucket, key) DO UPDATE
             SET sequencer = excluded.sequencer, seen = excluded.seen",
        (application, group, bucket, key, sequencer, context.now),
    )?;
    let forgotten = i64::try_from(MEMORY.as_millis()).unwrap_or(i64::MAX);
    context.tx.execute(
        "DELETE FROM bucket_notifications WHERE seen < ?1",
        [context.now.millis().saturating_sub(forgotten)],
    )?;
    Ok(false)
}

/// As S3 documents it: the shorter one is padded with zeros.
fn follows(sequencer: &str, earlier: &str) -> bool {
    let length = sequencer.len().max(earlier.len());
    let whole = |text: &str| format!("{text:0<length$}").to_ascii_uppercase();
    whole(sequencer) > whole(earlier)
}

/// Whether the group had a deployment of the revision: at any time, or as its last one.
fn was_deployed(
    context: &Context<'_>,
    watch: &Watch,
    revision: &Revision,
    last: bool,
) -> Result<bool, SqlError> {
    context.tx.exists(
        "SELECT 1 FROM deployments d
         JOIN deployment_groups g ON g.id = d.group_id
         JOIN applications a ON a.id = g.application_id
         WHERE a.name = ?1 AND g.name = ?2 AND d.revision = ?3
           AND (?4 = 0 OR d.id = g.last_attempted) LIMIT 1",
        (
            &watch.application,
            &watch.deployment_group,
            Json(revision),
            last,
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequencers_tell_the_order_of_notifications() {
        for (later, earlier) in [
            ("0A", "09"),
            ("0055AED6DCD90281E6", "0055AED6DCD90281E5"),
            ("0A1", "0a"),
            ("B", "0AFF"),
        ] {
            assert!(
                follows(later, earlier) && !follows(earlier, later),
                "{later} {earlier}"
            );
        }
        assert!(!follows("0A", "0A") && !follows("0A", "0A00"));
    }
}
