//! Sends messages to their receivers, one after the other for each; an unreachable receiver delays
//! no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use futures_util::future::join_all;
use tokio::sync::watch;

use super::outbox::{self, Message, Next, Reception};
use super::pending_deployments;
use codedeploy_support::metrics::Value;

use crate::config::events::Receiver;
use crate::error::{ApiError, chain};
use crate::outgoing;
use crate::service::Service;

/// The delay before a failed transaction is retried.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the service stops.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let made = watch::Sender::new(());
    service
        .transact(|service, context| outbox::listen(context, &service.settings.events))
        .await?;
    // A receiver that is configured twice counts once.
    let receivers: BTreeMap<_, _> = service
        .settings
        .events
        .receivers()
        .map(|receiver| (receiver.url.clone(), receiver.clone()))
        .collect();
    let deliveries = receivers
        .into_values()
        .map(|receiver| deliver(&service, receiver, made.subscribe()));
    let mut stop = service.stopping();
    tokio::select! {
        _ = join_all(deliveries.collect::<Vec<_>>()), if service.settings.events.receivers().next().is_some() => {}
        () = compose(&service, &made) => {}
        () = pending_deployments::run(&service) => {}
        _ = stop.wait_for(|stopping| *stopping) => {}
    }
    Ok(())
}

/// Creates messages whenever something has changed. Never ends.
async fn compose(service: &Arc<Service>, made: &watch::Sender<()>) {
    if service.settings.events.receivers().next().is_none() {
        return std::future::pending().await;
    }
    loop {
        let composed =
            service.transact(|service, context| outbox::compose(context, &service.settings.events));
        match composed.await {
            Ok(true) => {}
            Ok(false) => {
                made.send_replace(());
                service.signals.happened.notified().await;
            }
            Err(error) => {
                tracing::error!(%error, "messages about changes could not be created; retrying");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Never ends.
async fn deliver(service: &Arc<Service>, receiver: Receiver, mut made: watch::Receiver<()>) {
    loop {
        made.mark_unchanged();
        let url = receiver.url.clone();
        let message = match service
            .transact(move |_, context| outbox::first(context, &url))
            .await
        {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(%error, "messages could not be read; retrying");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let now = Timestamp::now();
        match message {
            Some(message) if message.is_due(now) => attempt(service, &receiver, message).await,
            Some(message) => {
                tokio::time::sleep(message.due.since(now) + Duration::from_millis(1)).await
            }
            // An error means that nobody creates messages any more, so there are none to wait for.
            None => {
                if made.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }
}

async fn attempt(service: &Arc<Service>, receiver: &Receiver, message: Message) {
    let mut headers = Vec::new();
    if let Some(secret) = &receiver.authorization {
        headers.push(("authorization", secret.0.as_str()));
    }
    let kind = match &message.topic {
        Some(topic) => {
            headers.push(("x-amz-sns-message-type", "Notification"));
            headers.push(("x-amz-sns-topic-arn", topic));
            "text/plain; charset=UTF-8"
        }
        None => "application/json",
    };
    let body = message.body.clone().into_bytes();
    let answer = service
        .outgoing
        .post_with(&receiver.url, kind, &headers, body)
        .await;
    let (reception, trouble) = match answer {
        Ok(answer) => (
            Reception::of(answer.status),
            format!("it answered {}", answer.status),
        ),
        Err(error) => (Reception::Away, chain(&error)),
    };
    let next = message.next(reception, Timestamp::now());
    let receiver = outgoing::place(&receiver.url);
    let outcome = match (reception, next) {
        (Reception::Taken, _) => "accepted",
        (_, Next::GiveUp) => "dropped",
        (_, _) => "delayed",
    };
    service.measure(|metrics| {
        let of = [receiver.clone().into(), Value::Borrowed(outcome)];
        metrics.messages.with(of).inc();
    });
    match (reception, next) {
        (Reception::Taken, _) => tracing::debug!(receiver, "a message was accepted"),
        (_, Next::GiveUp) => {
            let (attempts, text) = (message.attempts + 1, message.body);
            tracing::error!(
                receiver,
                error = trouble,
                attempts,
                message = text,
                "a message was dropped"
            );
        }
        (_, _) => {
            tracing::warn!(
                receiver,
                error = trouble,
                attempts = message.attempts + 1,
                "a message was not accepted"
            )
        }
    }
    let sequence = message.sequence;
    if let Err(error) = service
        .transact(move |_, context| outbox::settle(context, sequence, next))
        .await
    {
        // It is sent once more: receivers get every change at least once.
        tracing::error!(%error, "a sent message could not be recorded");
        tokio::time::sleep(RETRY).await;
    }
}
