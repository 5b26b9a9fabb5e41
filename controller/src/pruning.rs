//! Deletes old versions from the folder of revisions, by its settings, except those that a
//! deployment may need again, and the old part of the [`history`].

mod history;

use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;

use crate::error::{ApiError, chain};
use crate::objects::{ObjectError, Objects, Retention};
use crate::registry::revisions;
use crate::service::Service;

/// The interval of searches.
const EVERY: Duration = Duration::from_secs(3600);

/// Searches for versions to delete at once and then every hour, until the service stops.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let mut stop = service.stopping();
    let retention = retention(&service);
    let objects = service.objects.clone().filter(|_| !retention.is_endless());
    loop {
        let round = async {
            if let Some(objects) = &objects {
                prune(&service, objects, retention).await;
            }
            history::prune(&service).await;
            tokio::time::sleep(EVERY).await;
        };
        tokio::select! {
            () = round => {}
            _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
        }
    }
}

async fn prune(service: &Arc<Service>, objects: &Arc<Objects>, retention: Retention) {
    let expired = on_disk(objects, move |objects| {
        objects.expired(retention, Timestamp::now())
    })
    .await;
    for (bucket, key) in expired.unwrap_or_default() {
        prune_object(service, objects, retention, &bucket, &key).await;
    }
}

fn retention(service: &Service) -> Retention {
    let s3 = service.settings.s3.as_ref();
    s3.map(|s3| s3.retention).unwrap_or_default()
}

/// Deletes old versions of an object that has got a new one.
pub async fn replaced(service: &Arc<Service>, bucket: &str, key: &str) {
    let retention = retention(service);
    if let Some(objects) = service.objects.as_ref().filter(|_| !retention.is_endless()) {
        prune_object(service, objects, retention, bucket, key).await;
    }
}

async fn prune_object(
    service: &Arc<Service>,
    objects: &Arc<Objects>,
    retention: Retention,
    bucket: &str,
    key: &str,
) {
    let (named, of) = (bucket.to_owned(), key.to_owned());
    let needed = service
        .transact(move |_, context| revisions::needed(context, &named, &of))
        .await;
    let Ok(needed) = needed else {
        // The log has the cause, and the next round comes.
        return;
    };
    let (named, of) = (bucket.to_owned(), key.to_owned());
    let deleted = on_disk(objects, move |objects| {
        objects.prune(&named, &of, retention, Timestamp::now(), |version| {
            needed.contains(&version.id)
        })
    });
    for version in deleted.await.unwrap_or_default() {
        tracing::info!(
            bucket,
            key,
            version = version.id,
            bytes = version.size,
            "an old version was deleted"
        );
    }
}

/// Runs disk work on a thread that may block.
async fn on_disk<T: Send + 'static>(
    objects: &Arc<Objects>,
    work: impl FnOnce(&Objects) -> Result<T, ObjectError> + Send + 'static,
) -> Option<T> {
    let objects = Arc::clone(objects);
    match tokio::task::spawn_blocking(move || work(&objects))
        .await
        .ok()?
    {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::error!(error = chain(&error), "old versions could not be deleted");
            None
        }
    }
}
