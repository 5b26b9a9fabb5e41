//! Notifications of buckets: which new object they tell of, and the deployments that it asks for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tracing::Instrument as _;

use crate::config::events::{Events, Watch};
use crate::deployment::create;
use crate::deployment::effects::Effects;
use crate::error::{ApiError, ErrorName};
use crate::request::CreateDeployment;
use crate::revision::{Bundle, Revision, S3Object};
use crate::service::Service;
use crate::store::{Json, SqlError};
use crate::transaction::Context;

/// How soon it is tried again to start a deployment for whose group another one is active.
const RETRY: Duration = Duration::from_secs(5);

/// A version of an object that is new in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub bucket: String,
    pub key: String,
    pub etag: Option<String>,
    pub version: Option<String>,
    /// Hexadecimal digits that tell the order of notifications of one object.
    pub sequencer: Option<String>,
}

/// What a notification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Created(Vec<Created>),
    /// A topic asks whether it may send: someone has to open this URL.
    Confirm(String),
}

/// Reads a notification of S3: as it sends it itself, through EventBridge, or through a topic of SNS.
pub fn read(body: &[u8]) -> Option<Notice> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let body = match body["Type"].as_str() {
        Some("SubscriptionConfirmation") => {
            return Some(Notice::Confirm(body["SubscribeURL"].as_str()?.to_owned()));
        }
        Some("Notification") => serde_json::from_str(body["Message"].as_str()?).ok()?,
        _ => body,
    };
    if body["source"] == "aws.s3" {
        let detail = &body["detail"];
        let created = Created {
            bucket: text(&detail["bucket"]["name"])?,
            key: text(&detail["object"]["key"])?,
            etag: text(&detail["object"]["etag"]),
            version: text(&detail["object"]["version-id"]),
            sequencer: text(&detail["object"]["sequencer"]),
        };
        let new = body["detail-type"] == "Object Created";
        return Some(Notice::Created(new.then_some(created).into_iter().collect()));
    }
    if body["Event"] == "s3:TestEvent" {
        return Some(Notice::Created(Vec::new()));
    }
    let new = |record: &&Value| {
        let name = record["eventName"].as_str().unwrap_or_default();
        name.trim_start_matches("s3:").starts_with("ObjectCreated:")
    };
    let created = body["Records"].as_array()?.iter().filter(new).map(|record| {
        let object = &record["s3"]["object"];
        Some(Created {
            bucket: text(&record["s3"]["bucket"]["name"])?,
            key: form_decode(object["key"].as_str()?)?,
            etag: text(&object["eTag"]),
            version: text(&object["versionId"]),
            sequencer: text(&object["sequencer"]),
        })
    });
    created.collect::<Option<Vec<_>>>().map(Notice::Created)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(|text| text.trim_matches('"')).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Keys of S3's own notifications are encoded as forms are.
fn form_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                bytes.extend(hex::decode(digits).ok()?);
                rest = after;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

impl Watch {
    fn matches(&self, created: &Created) -> bool {
        self.bucket == created.bucket && created.key.starts_with(&self.key_prefix)
    }
}

/// The revision that an object is, as its name says.
fn revision(created: &Created) -> Option<Revision> {
    let kinds =
        [(".zip", Bundle::Zip), (".tar", Bundle::Tar), (".tgz", Bundle::Tgz), (".tar.gz", Bundle::Tgz)];
    let (_, bundle) = kinds.into_iter().find(|(ending, _)| created.key.ends_with(ending))?;
    Some(Revision::S3(S3Object {
        bucket: created.bucket.clone(),
        key: created.key.clone(),
        bundle,
        version: created.version.clone(),
        etag: created.etag.clone(),
    }))
}

/// Notes the deployments that new objects ask for; a newer object of the same group takes the place of an older one.
pub fn wish(context: &Context<'_>, events: &Events, created: &[Created]) -> Result<Wishes, ApiError> {
    let mut wishes = Wishes::default();
    for object in created {
        for watch in events.watches.iter().filter(|watch| watch.matches(object)) {
            wishes.watched += 1;
            let Some(revision) = revision(object) else {
                tracing::warn!(
                    key = object.key,
                    "a new object is watched, but its name ends with none of .zip, .tar, .tgz, .tar.gz"
                );
                continue;
            };
            if is_known(context, watch, object, &revision)? {
                let (application, group) = (&watch.application, &watch.deployment_group);
                tracing::info!(
                    application,
                    deployment_group = group,
                    key = object.key,
                    "the new object is known"
                );
                continue;
            }
            wishes.new += context.tx.execute(
                "INSERT INTO wishes (application, group_name, revision) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET revision = excluded.revision",
                (&watch.application, &watch.deployment_group, Json(revision)),
            )?;
        }
    }
    Ok(wishes)
}

/// What new objects ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// How often a watch looked for one of them.
    pub watched: usize,
    /// Deployments that are to be started.
    pub new: usize,
}

/// Notes what new objects ask for, on disk when this returns, and has it started.
pub async fn notice(service: &Arc<Service>, created: Vec<Created>) -> Result<Wishes, ApiError> {
    if service.settings.events.watches.is_empty() || created.is_empty() {
        return Ok(Wishes::default());
    }
    let wishes =
        service.transact(move |service, context| wish(context, &service.settings.events, &created)).await?;
    service.signals.wished.notify_one();
    Ok(wishes)
}

/// Starts what was wished for as soon as it can start. Never ends.
pub(super) async fn run(service: &Arc<Service>) {
    loop {
        let wishes = service.transact(|_, context| {
            let wishes = context.tx.query_all("SELECT application, group_name FROM wishes", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            Ok::<Vec<(String, String)>, ApiError>(wishes)
        });
        let wishes = wishes.await.inspect_err(|error| {
            tracing::error!(%error, "the deployments that are wished for could not be read; trying again");
        });
        let mut left = wishes.is_err();
        for (application, group) in wishes.unwrap_or_default() {
            let granted = service.change(move |_, context| grant(context, &application, &group));
            let granted = granted.instrument(tracing::info_span!("watch", by = "events.watches")).await;
            // What could not be looked at stays wished for.
            left |= !matches!(granted, Ok(true));
        }
        let again =
            async { if left { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
        tokio::select! {
            () = service.signals.wished.notified() => {}
            () = again => {}
        }
    }
}

/// Creates the deployment that is wished for; false while it has to wait.
fn grant(context: &Context<'_>, application: &str, group: &str) -> Result<(bool, Option<Effects>), ApiError> {
    let found = context.tx.query_opt(
        "SELECT revision FROM wishes WHERE application = ?1 AND group_name = ?2",
        [application, group],
        |row| row.get(0),
    )?;
    let Some(Json::<Revision>(revision)) = found else {
        return Ok((true, None));
    };
    let fulfil = || {
        let delete = "DELETE FROM wishes WHERE application = ?1 AND group_name = ?2";
        context.tx.execute(delete, [application, group]).map(|_| ())
    };
    let description = "Started by a notification of the revision's bucket";
    let request = CreateDeployment::of_revision(application, group, revision, description);
    match request.and_then(|request| create::create(context, request)) {
        Ok((_, outcome)) => {
            fulfil()?;
            Ok((true, Some(outcome)))
        }
        Err(error) if error.name == ErrorName::DeploymentLimitExceeded => Ok((false, None)),
        Err(error) if error.name == ErrorName::InternalFailure => Err(error),
        Err(error) => {
            tracing::error!(application, deployment_group = group, %error, "a new object cannot be deployed");
            fulfil()?;
            Ok((true, None))
        }
    }
}

/// How long the order of an object's notifications is remembered; none comes so late.
const MEMORY: Duration = Duration::from_secs(30 * 86_400);

/// Whether a notification says nothing new: they come more than once, and late. The same content may well come back, by
/// an upload of what was there before.
fn is_known(
    context: &Context<'_>,
    watch: &Watch,
    object: &Created,
    revision: &Revision,
) -> Result<bool, SqlError> {
    match object {
        Created { sequencer: Some(sequencer), .. } => is_passed(context, watch, object, sequencer),
        // A version comes once.
        Created { version: Some(_), .. } => was_deployed(context, watch, revision, false),
        Created { etag: Some(_), .. } => was_deployed(context, watch, revision, true),
        // Nothing tells one content from another.
        Created { .. } => Ok(false),
    }
}

/// Whether a notification that is at least as new came before; else this is the newest now.
fn is_passed(
    context: &Context<'_>,
    watch: &Watch,
    object: &Created,
    sequencer: &str,
) -> Result<bool, SqlError> {
    let place = (&watch.application, &watch.deployment_group, &object.bucket, &object.key);
    let newest: Option<String> = context
        .tx
        .query_opt("SELECT sequencer FROM notices WHERE application = ?1 AND group_name = ?2 AND bucket = ?3 AND key = ?4", place, |row| row.get(0))?;
    if newest.is_some_and(|newest| !follows(sequencer, &newest)) {
        return Ok(true);
    }
    let (application, group, bucket, key) = place;
    context.tx.execute(
        "INSERT INTO notices (application, group_name, bucket, key, sequencer, seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (application, group_name, bucket, key) DO UPDATE
                 SET sequencer = excluded.sequencer, seen = excluded.seen",
        (application, group, bucket, key, sequencer, context.now.millis()),
    )?;
    let forgotten = i64::try_from(MEMORY.as_millis()).unwrap_or(i64::MAX);
    context
        .tx
        .execute("DELETE FROM notices WHERE seen < ?1", [context.now.millis().saturating_sub(forgotten)])?;
    Ok(false)
}

/// As S3 documents it: the shorter one continues with zeros.
fn follows(sequencer: &str, earlier: &str) -> bool {
    let length = sequencer.len().max(earlier.len());
    let whole = |text: &str| format!("{text:0<length$}").to_ascii_uppercase();
    whole(sequencer) > whole(earlier)
}

/// Whether the group had a deployment of the revision: at any time, or as the last that it had.
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
         WHERE a.name = ?1 AND g.name = ?2 AND json_extract(d.snapshot, '$.revision') = json(?3)
           AND (NOT ?4 OR d.id = g.last_attempted) LIMIT 1",
        (&watch.application, &watch.deployment_group, Json(revision), last),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn created(body: &Value) -> Option<Vec<Created>> {
        match read(body.to_string().as_bytes())? {
            Notice::Created(created) => Some(created),
            Notice::Confirm(_) => None,
        }
    }

    #[test]
    fn notifications_of_every_form_name_the_same_object() {
        let object = Created {
            bucket: "revisions".into(),
            key: "shop/my app.zip".into(),
            etag: Some("d41d8c".into()),
            version: Some("3L4k".into()),
            sequencer: Some("0055AED6DCD90281E5".into()),
        };
        let own = json!({"Records": [
            {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {
                "bucket": {"name": "revisions"},
                "object": {"key": "shop/my+app.zip", "eTag": "d41d8c", "versionId": "3L4k",
                    "sequencer": "0055AED6DCD90281E5"}}},
            {"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete", "s3": {
                "bucket": {"name": "revisions"}, "object": {"key": "x"}}},
        ]});
        let event = json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {
            "bucket": {"name": "revisions"},
            "object": {"key": "shop/my app.zip", "etag": "d41d8c", "version-id": "3L4k",
                "sequencer": "0055AED6DCD90281E5"}}});
        for message in [own, event] {
            let wrapped = json!({"Type": "Notification", "Message": message.to_string()});
            assert_eq!(created(&message), Some(vec![object.clone()]));
            assert_eq!(created(&wrapped), Some(vec![object.clone()]));
        }
        let Some(Revision::S3(location)) = revision(&object) else { panic!("{object:?} is no revision") };
        assert_eq!((location.bundle, location.version), (Bundle::Zip, object.version));
    }

    #[test]
    fn what_is_no_notification_is_not_taken_for_one() {
        for body in [
            json!({}),
            json!([]),
            json!({"Records": [{"eventName": "ObjectCreated:Put"}]}),
            json!("x"),
            json!({"Type": "Notification", "Message": "hello"}),
            json!({"source": "aws.s3"}),
        ] {
            assert_eq!(created(&body), None, "{body}");
        }
        assert_eq!(read(&[0xff; 1000]), None);
        assert_eq!(created(&json!({"Event": "s3:TestEvent"})), Some(Vec::new()));
        let confirm = json!({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns/x"});
        assert_eq!(read(confirm.to_string().as_bytes()), Some(Notice::Confirm("https://sns/x".into())));
    }

    #[test]
    fn sequencers_tell_the_order_of_notifications() {
        for (later, earlier) in
            [("0A", "09"), ("0055AED6DCD90281E6", "0055AED6DCD90281E5"), ("0A1", "0a"), ("B", "0AFF")]
        {
            assert!(follows(later, earlier) && !follows(earlier, later), "{later} {earlier}");
        }
        assert!(!follows("0A", "0A") && !follows("0A", "0A00"));
    }
}
