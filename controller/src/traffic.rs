//! BlockTraffic and AllowTraffic: the lifecycle events that the service performs itself, at load
//! balancers.
//!
//! A job stays on disk until it is done. After a restart it begins again, so a provider may get the
//! same request twice, and must be idempotent.

mod haproxy;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_support::keyed_lock::KeyedLock;
use tokio::time::MissedTickBehavior;

use crate::config::load_balancers::{Balancers, Provider as Settings};
use crate::deployment::traffic::{self, Job, Taken};
use crate::error::{ApiError, chain};
use crate::outgoing::Outgoing;
use crate::service::Service;
use crate::tasks::Tasks;
use crate::transaction::Context;
use haproxy::Haproxy;
use webhook::Webhook;

/// The reason why a load balancer did not carry out a request.
#[derive(Debug, thiserror::Error)]
enum TrafficError {
    #[error(
        "the service has no load balancer {0:?}: add it to load_balancers in its configuration"
    )]
    Unknown(String),
    #[error(transparent)]
    Haproxy(#[from] Arc<haproxy::HaproxyError>),
    #[error(transparent)]
    Webhook(#[from] webhook::WebhookError),
    #[error("the load balancer {name:?} had not finished after {} s", timeout.as_secs())]
    Late { name: String, timeout: Duration },
}

/// The way to reach a load balancer.
#[derive(Debug)]
enum Provider {
    Haproxy(Haproxy),
    Webhook(Webhook),
}

/// The configured load balancers, each with its state between two calls.
#[derive(Debug)]
struct Connected {
    by_name: BTreeMap<String, Provider>,
}

impl Connected {
    fn to(balancers: &Balancers) -> Self {
        let connect = |(name, settings): (&String, &Settings)| {
            let provider = match settings {
                Settings::Haproxy(haproxy) => Provider::Haproxy(Haproxy::new(haproxy.clone())),
                Settings::Webhook(webhook) => Provider::Webhook(Webhook::new(webhook.url.clone())),
            };
            (name.clone(), provider)
        };
        Connected {
            by_name: balancers.by_name().iter().map(connect).collect(),
        }
    }

    /// Performs a job at all its load balancers, and returns a remark if there is one.
    async fn perform(
        &self,
        outgoing: &Outgoing,
        job: &Job,
        changes: &Changes,
        timeout: Duration,
    ) -> Result<String, TrafficError> {
        let mut remarks = Vec::new();
        for name in &job.balancers {
            let provider = self
                .by_name
                .get(name)
                .ok_or_else(|| TrafficError::Unknown(name.clone()))?;
            let left = timeout.saturating_sub(Timestamp::now().since(job.since));
            let done = async {
                let _change = changes.lock((name.clone(), job.instance.clone())).await;
                provider.perform(outgoing, name, job).await
            };
            let remark = tokio::time::timeout(left, done).await;
            let remark = remark.map_err(|_| TrafficError::Late {
                name: name.clone(),
                timeout,
            })??;
            remarks.extend(remark);
        }
        Ok(if remarks.is_empty() {
            "Succeeded".into()
        } else {
            remarks.join(" ")
        })
    }
}

impl Provider {
    async fn perform(
        &self,
        outgoing: &Outgoing,
        name: &str,
        job: &Job,
    ) -> Result<Option<String>, TrafficError> {
        match self {
            Provider::Haproxy(haproxy) => Ok(haproxy.perform(job.direction, &job.instance).await?),
            Provider::Webhook(webhook) => {
                webhook.perform(outgoing, name, job).await?;
                Ok(None)
            }
        }
    }
}

/// Allows one change at a time of an instance at a load balancer. Two deployments can request
/// opposite changes, for example a failed one and its rollback.
type Changes = KeyedLock<(String, String)>;

/// The pause before a failed transaction is retried.
const RETRY: Duration = Duration::from_secs(1);
/// The interval at which the service checks whether someone still waits for the current jobs.
const LOOK: Duration = Duration::from_secs(5);

/// Performs jobs until the service stops; its next run begins unfinished jobs again.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let mut stop = service.stopping();
    let balancers = Arc::new(Connected::to(&service.settings.balancers));
    let mut jobs = Jobs {
        service: Arc::clone(&service),
        balancers,
        changes: Changes::default(),
        tasks: Tasks::default(),
    };
    jobs.start(traffic::begun).await;
    jobs.start(traffic::take).await;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = service.signals.traffic.notified() => jobs.start(traffic::take).await,
            _ = jobs.tasks.ended() => {}
            _ = look.tick() => jobs.end_abandoned().await,
            _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
        }
    }
}

/// The running jobs, by their commands.
struct Jobs {
    service: Arc<Service>,
    balancers: Arc<Connected>,
    changes: Changes,
    tasks: Tasks<String>,
}

impl Jobs {
    /// Starts every job that `take` returns.
    async fn start(&mut self, take: fn(&Context<'_>, i64) -> Result<Taken, ApiError>) {
        let mut next = Some(0);
        while let Some(after) = next {
            match self
                .service
                .transact(move |_, context| take(context, after))
                .await
            {
                Ok(taken) => {
                    taken
                        .effects
                        .iter()
                        .for_each(|effects| self.service.signals.announce(effects));
                    for job in taken.jobs {
                        let (service, changes) = (Arc::clone(&self.service), self.changes.clone());
                        let balancers = Arc::clone(&self.balancers);
                        self.tasks.start(
                            job.command.clone(),
                            perform(service, balancers, changes, job),
                        );
                    }
                    next = taken.next;
                }
                Err(error) => {
                    tracing::error!(%error, "the jobs at load balancers could not be read; retrying");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Aborts jobs that nobody waits for: they could undo a later decision.
    async fn end_abandoned(&mut self) {
        let under_way: Vec<_> = self.tasks.keys().cloned().collect();
        if under_way.is_empty() {
            return;
        }
        match self
            .service
            .transact(move |_, context| traffic::abandoned(context, under_way))
            .await
        {
            Ok(abandoned) => {
                for command in abandoned {
                    tracing::warn!(
                        command,
                        "a change of traffic was cancelled: its deployment does not wait for it"
                    );
                    self.tasks.abort(&command);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the jobs at load balancers could not be checked")
            }
        }
    }
}

async fn perform(service: Arc<Service>, connected: Arc<Connected>, changes: Changes, job: Job) {
    let (deployment_id, instance, direction) = (&job.deployment_id, &job.instance, job.direction);
    let balancers = job.balancers.join(", ");
    tracing::info!(
        deployment_id,
        host = instance,
        ?direction,
        balancers,
        "changing traffic"
    );
    let timeout = service.settings.timers.traffic;
    let result = connected
        .perform(&service.outgoing, &job, &changes, timeout)
        .await;
    let outcome = if result.is_ok() {
        "succeeded"
    } else {
        "failed"
    };
    service.measure(|metrics| {
        metrics.traffic_changes.with([outcome]).inc();
    });
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
        let noted = service.change(move |_, context| {
            Ok(((), Some(traffic::complete(context, &command, result)?)))
        });
        match noted.await {
            Ok(()) => return,
            // The deployment is gone, with its application or its group.
            Err(error) if error.name == crate::error::ErrorName::Client => return,
            Err(error) => {
                tracing::error!(deployment_id, %error, "the end of a change of traffic could not be recorded; retrying");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
