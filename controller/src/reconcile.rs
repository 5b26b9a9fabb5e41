//! Keeps deployments going: decides about one when something happened to it, and when a timer of it runs out.
//!
//! Nothing is remembered that is not on disk. At start, every active deployment is decided about, and what the decisions
//! answer gives the timers back.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use tokio::sync::Notify;

use crate::deployment::decide::{self, Outcome};
use crate::error::ApiError;
use crate::service::Service;

/// Who waits for what: the reconciler for deployments that something happened to, polls for their hosts' commands.
#[derive(Debug, Default)]
pub struct Signals {
    changed: Mutex<BTreeSet<String>>,
    change: Notify,
    hosts: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Signals {
    /// Says that a deployment should be decided about.
    pub fn deployment_changed(&self, id: &str) {
        lock(&self.changed).insert(id.to_owned());
        self.change.notify_one();
    }

    /// What a poll of a host waits on. Enable the wait before looking for a command, and none is missed.
    pub fn of_host(&self, host: &str) -> Arc<Notify> {
        lock(&self.hosts).entry(host.to_owned()).or_default().clone()
    }

    fn wake_hosts(&self, hosts: &[String]) {
        let waiting = lock(&self.hosts);
        for notify in hosts.iter().filter_map(|host| waiting.get(host)) {
            notify.notify_waiters();
        }
    }

    /// Acts on what a decision did, once it is on disk.
    pub fn announce(&self, outcome: &Outcome) {
        outcome.log();
        self.wake_hosts(&outcome.hosts);
    }
}

/// A poisoned lock guards plain data that no panic leaves half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How soon a decision that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the service is asked to stop.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let active = service.transact(|_, context| decide::active(context)).await?;
    tracing::info!(deployments = active.len(), "going on with active deployments");
    let mut timers: HashMap<String, Timestamp> = HashMap::new();
    for id in active {
        service.signals.deployment_changed(&id);
    }
    let mut stop = service.stopping();
    loop {
        let now = Timestamp::now();
        let mut due = std::mem::take(&mut *lock(&service.signals.changed));
        due.extend(timers.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()));
        for id in due {
            let decided = {
                let id = id.clone();
                service
                    .transact(move |service, context| decide::decide(context, &service.settings.timers, &id))
            };
            let again_at = match decided.await {
                Ok(outcome) => {
                    service.signals.announce(&outcome);
                    outcome.again_at
                }
                Err(error) => {
                    tracing::error!(deployment_id = id, %error, "a deployment could not be decided about; trying again");
                    Some(Timestamp::now() + RETRY)
                }
            };
            match again_at {
                Some(at) => timers.insert(id, at),
                None => timers.remove(&id),
            };
        }
        let next = timers.values().min().map(|at| at.since(Timestamp::now()));
        tokio::select! {
            () = service.signals.change.notified() => {}
            () = sleep(next) => {}
            _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
        }
    }
}

/// Without a duration, for ever.
async fn sleep(duration: Option<Duration>) {
    match duration {
        // A timer's millisecond has passed when it is looked at, not just begun.
        Some(duration) => tokio::time::sleep(duration + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
