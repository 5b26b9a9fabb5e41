//! Advances deployments: decides about one when something happens to it, and when one of its timers
//! expires.
//!
//! All state is on disk. At the start, the service decides about every active deployment, and these
//! decisions set the timers again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codedeploy_api::codedeploy::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::deployment::resume::resume;
use crate::deployment::{agent_updates, decide};
use crate::error::{ApiError, ErrorName};
use crate::records::unfinished;
use crate::registry::audit;
use crate::service::Service;
use crate::signals::lock;

/// The first and the longest delay before a failed decision is retried.
const RETRY: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(60);

/// The interval of checks of the database and the clock: another process may have deregistered a
/// host.
const LOOK: Duration = Duration::from_secs(1);
/// The time without a check after which the service counts as having been down: it stood still, or
/// the clock was set forward.
const ABSENCE: Duration = Duration::from_secs(60);

/// Extends the timeouts of every host with a command by the downtime of the service. Call this
/// before any host is served and anything is decided.
pub async fn give_time(service: &Arc<Service>) -> Result<(), ApiError> {
    let back = Timestamp::now();
    let doubtful = service.transact(move |_, context| {
        agent_updates::resume(context, back)?;
        let (active, strange) = (
            unfinished::all(context.tx)?,
            unfinished::strange(context.tx)?,
        );
        Ok(active.into_iter().chain(strange).collect::<Vec<_>>())
    });
    for deployment_id in doubtful.await? {
        loop {
            let id = deployment_id.clone();
            let given = service.change(move |_, context| {
                let (more, effects) = resume(context, &id, back)?;
                Ok((more, Some(effects)))
            });
            match given.await {
                Ok(true) => {}
                Ok(false) => break,
                // Nothing will be decided about it, which is reported.
                Err(error) if error.name == ErrorName::DamagedRecord => break,
                Err(error) => {
                    tracing::error!(deployment_id, %error, "hosts could not be given time to answer");
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Runs until the service stops.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let active = service
        .transact(|_, context| Ok(unfinished::all(context.tx)?))
        .await?;
    tracing::info!(
        deployments = active.len(),
        "going on with active deployments"
    );
    for id in active {
        service.signals.deployment_changed(&id);
    }
    let mut stop = service.stopping();
    let mut troubles = Troubles::default();
    let mut seen = Timestamp::now();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let away = Timestamp::now().since(seen);
        if away > ABSENCE {
            tracing::warn!(
                seconds = away.as_secs(),
                "the service stood still, or the clock was set forward: hosts get time to answer"
            );
            if let Err(error) = give_time(&service).await {
                tracing::error!(%error, "hosts could not be given time to answer; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        seen = Timestamp::now();
        let due = lock(&service.signals.agenda).due(Timestamp::now());
        for id in due {
            let began = Instant::now();
            let decided = {
                let id = id.clone();
                service.transact(move |_, context| decide::decide(context, &id))
            };
            let decided = decided.await;
            service.measure(|metrics| {
                metrics
                    .decision_seconds
                    .observe(began.elapsed().as_secs_f64());
            });
            match decided {
                Ok(effects) => {
                    troubles.0.remove(&id);
                    service.signals.announce(&effects);
                }
                Err(error) if error.name == ErrorName::DamagedRecord => {
                    give_up(&service, &id, error, &mut troubles).await
                }
                Err(error) => troubles.note(&service, &id, &error),
            }
        }
        let next = lock(&service.signals.agenda).idle(Timestamp::now());
        let mut look = false;
        tokio::select! {
            () = service.signals.earlier.notified() => {}
            () = sleep(next.unwrap_or(LOOK)) => {}
            _ = looks.tick() => look = true,
            _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
        }
        if look {
            look_for_overdue(&service).await;
            advance_agent_updates(&service).await;
            tell_of_administration(&service).await;
        }
    }
}

/// The deployments without a possible decision, and the delay of each before the next attempt.
#[derive(Debug, Default)]
struct Troubles(HashMap<String, Duration>);

impl Troubles {
    /// Retries a deployment later, with growing delays, so that it does not flood the log.
    fn note(&mut self, service: &Service, id: &str, error: &ApiError) {
        let wait = self
            .0
            .get(id)
            .map_or(RETRY, |before| (*before * 2).min(SELDOM));
        let seconds = wait.as_secs();
        tracing::error!(deployment_id = id, %error, seconds, "a deployment could not be decided about; trying again");
        self.0.insert(id.to_owned(), wait);
        lock(&service.signals.agenda).look_at(id, Timestamp::now() + wait);
    }
}

/// Ends a deployment whose rows make a decision impossible.
async fn give_up(service: &Arc<Service>, id: &str, found: ApiError, troubles: &mut Troubles) {
    let of = id.to_owned();
    match service
        .transact(move |_, context| decide::give_up(context, &of, &found.message))
        .await
    {
        Ok(effects) => service.signals.announce(&effects),
        Err(error) => troubles.note(service, id, &error),
    }
}

/// Timers report overdue commands; but another process may have made one overdue.
async fn look_for_overdue(service: &Arc<Service>) {
    match service
        .transact(|_, context| Ok(unfinished::overdue(context.tx, context.now)?))
        .await
    {
        Ok(overdue) => {
            let mut agenda = lock(&service.signals.agenda);
            for id in overdue {
                agenda.look_now(&id);
            }
        }
        Err(error) => {
            tracing::error!(%error, "overdue commands could not be looked for; trying again")
        }
    }
}

/// Hosts that do not report, and those that another process has deregistered, end an update.
async fn advance_agent_updates(service: &Arc<Service>) {
    let decided = service.change(|_, context| Ok(((), agent_updates::decide(context)?)));
    if let Err(error) = decided.await {
        tracing::error!(%error, "the update of agents cannot be advanced; trying again");
    }
}

/// Logs the changes of other processes.
async fn tell_of_administration(service: &Arc<Service>) {
    match service.transact(|_, context| audit::take(context)).await {
        Ok(entries) => entries.iter().for_each(audit::AuditEntry::log),
        Err(error) => {
            tracing::error!(%error, "changes of the command line could not be read; trying again")
        }
    }
}

/// A timer's millisecond must be over when it is checked.
async fn sleep(duration: Duration) {
    tokio::time::sleep(duration + Duration::from_millis(1)).await;
}
