//! Sends a trace of each deployment that has ended to a collector, if one is configured: spans of
//! the deployment, its hosts, their lifecycle events and scripts.
//!
//! Traces are for looking at; nothing waits for them. They are made from the database when a
//! deployment has ended, and dropped if the collector is away for longer than a few attempts.

mod spans;

use std::sync::Arc;
use std::time::Duration;

use crate::config::traces::Traces;
use crate::error::{ApiError, chain};
use crate::outgoing;
use crate::service::Service;
use spans::Position;

/// The pauses between attempts to send a part of a trace.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
];

/// Runs until the service stops.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let mut stop = service.stopping();
    let exports = async {
        let Some(collector) = service.settings.traces.clone() else {
            return std::future::pending().await;
        };
        loop {
            let id = service.signals.traced.next().await;
            export(&service, &collector, &id).await;
        }
    };
    tokio::select! {
        () = exports => {}
        _ = stop.wait_for(|stopping| *stopping) => {}
    }
    Ok(())
}

/// Sends the trace of a deployment, part by part.
async fn export(service: &Arc<Service>, collector: &Traces, id: &str) {
    let mut next = Some(Position::default());
    while let Some(position) = next {
        let deployment = id.to_owned();
        let part = service.read(move |_, context| spans::part(context, &deployment, position));
        let sent = match part.await {
            Ok(part) => {
                next = part.next;
                send(service, collector, &part.spans).await
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            let receiver = outgoing::place(&collector.url());
            tracing::warn!(deployment = id, receiver, error, "a trace was dropped");
            count(service, "dropped");
            return;
        }
    }
    count(service, "sent");
}

fn count(service: &Service, outcome: &'static str) {
    service.measure(|metrics| {
        metrics.traces.with([outcome]).inc();
    });
}

/// Sends spans, with a few attempts.
async fn send(
    service: &Service,
    collector: &Traces,
    spans: &[serde_json::Value],
) -> Result<(), String> {
    let body = spans::document(spans).to_string().into_bytes();
    let headers: Vec<(&str, &str)> = collector
        .headers
        .iter()
        .map(|(name, secret)| (name.as_str(), secret.0.as_str()))
        .collect();
    let url = collector.url();
    let mut pauses = PAUSES.into_iter();
    loop {
        let answer = service
            .outgoing
            .post_with(&url, "application/json", &headers, body.clone())
            .await;
        let (trouble, is_final) = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => return Ok(()),
            Ok(answer) => {
                let may_change = matches!(answer.status, 408 | 429 | 502 | 503 | 504);
                (format!("it answered {}", answer.status), !may_change)
            }
            Err(error) => (chain(&error), false),
        };
        match pauses.next().filter(|_| !is_final) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(trouble),
        }
    }
}
