//! Owns BlockTraffic and AllowTraffic: the lifecycle events that the service performs itself, at load balancers.
//!
//! A job is on disk until it is done: after a restart it is begun again, so a provider is told the same thing twice, and
//! must make nothing of it.

mod haproxy;
mod webhook;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::deployment::traffic::{self, Job};
use crate::error::{ApiError, chain};
use crate::service::Service;
use haproxy::Haproxy;
use webhook::Webhook;

/// The load balancers that the service is connected to, by the names that deployment groups give them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Balancers {
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    by_name: BTreeMap<String, Provider>,
}

/// How a load balancer is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Provider {
    Haproxy(Haproxy),
    Webhook(Webhook),
}

/// Why a load balancer did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum TrafficError {
    #[error(
        "the service is connected to no load balancer {0:?}: add it to load_balancers in its configuration"
    )]
    Unknown(String),
    #[error(transparent)]
    Haproxy(#[from] Arc<haproxy::HaproxyError>),
    #[error(transparent)]
    Webhook(#[from] webhook::WebhookError),
    #[error("the load balancer {name:?} was not done after {} s", patience.as_secs())]
    Late { name: String, patience: Duration },
}

impl Balancers {
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The names, for a message.
    pub fn list(&self) -> String {
        if self.by_name.is_empty() {
            return "none".into();
        }
        self.by_name.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// What is wrong with them.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let wrong = |(name, provider): (&String, &Provider)| {
            let mistake = match provider {
                Provider::Haproxy(haproxy) => haproxy.mistake(),
                Provider::Webhook(webhook) => webhook.mistake(),
            };
            mistake.map(|mistake| format!("load_balancers.{name}: {mistake}"))
        };
        self.by_name.iter().filter_map(wrong).collect()
    }

    /// Has every load balancer of a job do it, and gives what there is to remark.
    async fn perform(&self, job: &Job, patience: Duration) -> Result<String, TrafficError> {
        let mut remarks = Vec::new();
        for name in &job.balancers {
            let provider = self.by_name.get(name).ok_or_else(|| TrafficError::Unknown(name.clone()))?;
            let left = patience.saturating_sub(Timestamp::now().since(job.since));
            let done = tokio::time::timeout(left, provider.perform(name, job)).await;
            let remark = done.map_err(|_| TrafficError::Late { name: name.clone(), patience })??;
            remarks.extend(remark);
        }
        Ok(if remarks.is_empty() { "Succeeded".into() } else { remarks.join(" ") })
    }
}

impl Provider {
    async fn perform(&self, name: &str, job: &Job) -> Result<Option<String>, TrafficError> {
        match self {
            Provider::Haproxy(haproxy) => Ok(haproxy.perform(job.direction, &job.instance).await?),
            Provider::Webhook(webhook) => {
                webhook.perform(name, job).await?;
                Ok(None)
            }
        }
    }
}

/// How soon a transaction that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Performs jobs until the service is asked to stop; those under way are begun again by its next run.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let mut stop = service.stopping();
    let mut under_way: HashSet<String> = HashSet::new();
    let mut tasks: JoinSet<String> = JoinSet::new();
    loop {
        match service.transact(|_, context| traffic::take(context)).await {
            Ok((jobs, outcomes)) => {
                outcomes.iter().for_each(|outcome| service.signals.announce(outcome));
                for job in jobs {
                    if under_way.insert(job.command.clone()) {
                        tasks.spawn(perform(Arc::clone(&service), job));
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the jobs at load balancers could not be read; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        loop {
            tokio::select! {
                () = service.signals.traffic.notified() => break,
                Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(command) = done {
                        under_way.remove(&command);
                    }
                }
                _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
            }
        }
    }
}

async fn perform(service: Arc<Service>, job: Job) -> String {
    let (deployment_id, instance, direction) = (&job.deployment_id, &job.instance, job.direction);
    tracing::info!(deployment_id, host = instance, ?direction, balancers = ?job.balancers, "changing traffic");
    let result = service.settings.balancers.perform(&job, service.settings.timers.traffic).await;
    let result = result.map_err(|error| {
        let reason = chain(&error);
        tracing::warn!(
            deployment_id,
            host = instance,
            ?direction,
            error = reason,
            "traffic could not be changed"
        );
        reason
    });
    loop {
        let (command, result) = (job.command.clone(), result.clone());
        let noted =
            service.change(move |_, context| Ok(((), Some(traffic::complete(context, &command, result)?))));
        match noted.await {
            Ok(()) => return job.command,
            // The deployment is gone, with its application or its group.
            Err(error) if error.name == crate::error::ErrorName::Client => return job.command,
            Err(error) => {
                tracing::error!(deployment_id, %error, "the end of a change of traffic could not be noted; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
