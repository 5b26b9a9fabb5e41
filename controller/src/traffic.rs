//! BlockTraffic and AllowTraffic: the lifecycle events that the service performs itself, at load
//! balancers.
//!
//! A job stays on disk until it is done. After a restart it begins again, so a provider may get the
//! same request twice, and must be idempotent.

mod haproxy;
mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_support::keyed_lock::KeyedLock;
use tokio::time::MissedTickBehavior;

use crate::config::load_balancers::{Balancers, Provider as Settings};
use crate::deployment::drain;
use crate::deployment::traffic::{self, Direction, Job, Taken, Work};
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
        service: &Arc<Service>,
        job: &Job,
        changes: &Changes,
    ) -> Result<String, TrafficError> {
        let timeout = service.settings.timers.traffic;
        let mut remarks = Vec::new();
        for name in &job.balancers {
            let provider = self
                .by_name
                .get(name)
                .ok_or_else(|| TrafficError::Unknown(name.clone()))?;
            let left = timeout.saturating_sub(Timestamp::now().since(job.since));
            let done = async {
                let _change = changes.lock((name.clone(), job.instance.clone())).await;
                // A drain takes precedence over whatever began before it.
                if is_wanted(service, job).await {
                    provider.perform(&service.outgoing, name, job).await
                } else {
                    Ok(Some(NOT_WANTED.to_owned()))
                }
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
/// The remark of a change of traffic that was not made.
const NOT_WANTED: &str = "The host is drained, so its traffic was left as it is.";

/// Whether a change is still to be made. If that cannot be read, it is: its deployment waits.
async fn is_wanted(service: &Arc<Service>, job: &Job) -> bool {
    let job = job.clone();
    let wanted = service.read(move |_, context| drain::is_wanted(context, &job));
    wanted.await.unwrap_or(true)
}

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
    if let Err(error) = service.transact(|_, context| drain::resume(context)).await {
        tracing::error!(%error, "the traffic of drained hosts could not be checked");
    }
    Box::pin(jobs.start_drains()).await;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = service.signals.traffic.notified() => {
                jobs.start(traffic::take).await;
                Box::pin(jobs.look()).await;
            }
            key = jobs.tasks.ended() => if key.is_drain() {
                Box::pin(jobs.look()).await;
            },
            _ = look.tick() => Box::pin(jobs.look()).await,
            _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
        }
    }
}

/// Identifies a running job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    work: Work,
    direction: Direction,
}

impl Key {
    fn of(job: &Job) -> Self {
        Key {
            work: job.work.clone(),
            direction: job.direction,
        }
    }

    fn is_drain(&self) -> bool {
        matches!(self.work, Work::Drain { .. })
    }
}

/// The running jobs.
struct Jobs {
    service: Arc<Service>,
    balancers: Arc<Connected>,
    changes: Changes,
    tasks: Tasks<Key>,
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
                    taken.jobs.into_iter().for_each(|job| self.begin(job));
                    next = taken.next;
                }
                Err(error) => {
                    tracing::error!(%error, "the jobs at load balancers could not be read; retrying");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn begin(&mut self, job: Job) {
        let (service, changes) = (Arc::clone(&self.service), self.changes.clone());
        let balancers = Arc::clone(&self.balancers);
        self.tasks
            .start(Key::of(&job), perform(service, balancers, changes, job));
    }

    /// Compares the running jobs with the wanted ones.
    async fn look(&mut self) {
        self.end_abandoned().await;
        self.start_drains().await;
    }

    /// Starts the changes that drained hosts need now.
    async fn start_drains(&mut self) {
        let due = self.service.read(|_, context| drain::due(context)).await;
        // Of an error, the log has the cause, and the next look comes.
        for job in due.into_iter().flatten() {
            self.begin(job);
        }
    }

    /// Aborts jobs that nobody waits for: they could undo a later decision.
    async fn end_abandoned(&mut self) {
        let under_way: Vec<Key> = self.tasks.keys().cloned().collect();
        if under_way.is_empty() {
            return;
        }
        let abandoned = move |context: &Context<'_>| {
            let (mut events, mut abandoned) = (HashMap::new(), Vec::new());
            for key in under_way {
                match &key.work {
                    Work::Event { command, .. } => {
                        events.insert(command.clone(), key);
                    }
                    Work::Drain { arn, group_id } => {
                        if !drain::is_asked(context, (arn, group_id), key.direction)? {
                            abandoned.push(key);
                        }
                    }
                }
            }
            let commands = traffic::abandoned(context, events.keys().cloned().collect())?;
            abandoned.extend(commands.iter().filter_map(|command| events.remove(command)));
            Ok(abandoned)
        };
        match self
            .service
            .transact(move |_, context| abandoned(context))
            .await
        {
            Ok(abandoned) => {
                for key in abandoned {
                    tracing::warn!(
                        work = ?key.work,
                        direction = ?key.direction,
                        "a change of traffic was cancelled: nobody waits for it"
                    );
                    self.tasks.abort(&key);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the jobs at load balancers could not be checked")
            }
        }
    }
}

async fn perform(service: Arc<Service>, connected: Arc<Connected>, changes: Changes, job: Job) {
    let (instance, direction) = (&job.instance, job.direction);
    let deployment_id = match &job.work {
        Work::Event { deployment_id, .. } => Some(deployment_id.as_str()),
        Work::Drain { .. } => None,
    };
    let balancers = job.balancers.join(", ");
    tracing::info!(
        deployment_id,
        host = instance,
        ?direction,
        balancers,
        "changing traffic"
    );
    let result = connected.perform(&service, &job, &changes).await;
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
        let (work, result) = (job.work.clone(), result.clone());
        let noted = service.change(move |_, context| match work {
            Work::Event { command, .. } => {
                Ok(((), Some(traffic::complete(context, &command, result)?)))
            }
            Work::Drain { arn, group_id } => {
                let result = result.map(drop);
                drain::ended(context, (&arn, &group_id), direction, result)?;
                Ok(((), None))
            }
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
