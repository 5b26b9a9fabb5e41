//! Wakes the tasks that wait for a stored change.

pub mod agenda;
pub mod traced;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::deployment::effects::Effects;
use crate::metrics::{Ended, Metrics};
use agenda::Agenda;
use traced::Traced;

/// The waiting tasks: the reconciler for changed or due deployments, polls for their hosts'
/// commands, the load balancer task for the service's own commands, the alarm task for a deployment
/// that waits for its alarms.
#[derive(Debug, Default)]
pub struct Signals {
    pub(crate) agenda: Mutex<Agenda>,
    /// The agenda has an earlier item than before.
    pub(crate) earlier: Notify,
    hosts: Mutex<HashMap<String, Arc<Notify>>>,
    pub traffic: Notify,
    pub alarms: Notify,
    /// Something has changed that receivers may get.
    pub happened: Notify,
    /// A deployment is pending.
    pub pending: Notify,
    /// Counts the announced effects, so that open pages notice them.
    pub news: watch::Sender<u64>,
    /// The deployments whose traces are to be sent.
    pub traced: Traced,
    /// Whether traces are sent.
    is_tracing: bool,
    /// Counts announced effects, if anyone wants to know.
    metrics: Option<Arc<Metrics>>,
}

impl Signals {
    /// With `is_tracing`, deployments that end are [`traced`](Self::traced).
    pub fn new(metrics: Option<Arc<Metrics>>, is_tracing: bool) -> Self {
        Signals {
            metrics,
            is_tracing,
            ..Signals::default()
        }
    }

    /// Requests a decision about a deployment.
    pub fn deployment_changed(&self, id: &str) {
        if lock(&self.agenda).look_now(id) {
            self.earlier.notify_one();
        }
    }

    /// Returns the signal for a host's polls. Enable the wait before looking for a command, so that
    /// none is missed.
    pub fn of_host(&self, host: &str) -> Arc<Notify> {
        lock(&self.hosts)
            .entry(host.to_owned())
            .or_default()
            .clone()
    }

    fn wake_hosts(&self, hosts: &[String]) {
        let waiting = lock(&self.hosts);
        for notify in hosts.iter().filter_map(|host| waiting.get(host)) {
            notify.notify_waiters();
        }
    }

    /// Announces the effects of a decision, once it is on disk.
    pub fn announce(&self, effects: &Effects) {
        effects.log();
        self.news.send_modify(|count| *count += 1);
        self.measure(effects);
        self.trace(effects);
        self.wake_hosts(&effects.hosts);
        self.happened.notify_one();
        if effects.traffic {
            self.traffic.notify_one();
        }
        if effects.alarms {
            self.alarms.notify_one();
        }
        if lock(&self.agenda).hear(effects) {
            self.earlier.notify_one();
        }
    }

    fn trace(&self, effects: &Effects) {
        if !self.is_tracing || effects.ended.is_none() || self.traced.add(&effects.deployment_id) {
            return;
        }
        if let Some(metrics) = &self.metrics {
            metrics.traces.with(["dropped"]).inc();
        }
    }

    fn measure(&self, outcome: &Effects) {
        let Some(metrics) = &self.metrics else { return };
        if let Some(time) = outcome.picked_up_after {
            metrics.pickup_seconds.observe(time.as_secs_f64());
        }
        if let Some(ended) = &outcome.ended {
            metrics.note_end(&Ended {
                application: &ended.application,
                group: &ended.group,
                creator: ended.creator.as_str(),
                outcome: ended.status.as_str(),
                took: ended.took,
                lead: ended.lead,
                restored_after: ended.restored_after,
            });
        }
    }
}

/// A poisoned lock guards plain data that no panic leaves half written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
