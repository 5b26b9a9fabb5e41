//! A load balancer behind an HTTP webhook.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::deployment::traffic::{Job, Work};
use crate::outgoing::{self, Outgoing, OutgoingError};

/// A load balancer's address, and the requests in progress to it.
#[derive(Debug)]
pub(super) struct Webhook {
    url: String,
    calls: Semaphore,
}

/// The number of requests at a time.
const CALLS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookError {
    #[error(transparent)]
    Call(#[from] OutgoingError),
    #[error(
        "the load balancer {name:?} at {place} answered {status}: expected 200 or 204 when it is done, 202 when it is \
         under way"
    )]
    Refused {
        name: String,
        place: String,
        status: u16,
    },
}

/// The interval of repeated requests to one that is not done, or does not respond.
const AGAIN: Duration = Duration::from_secs(1);
/// The number of consecutive failures to respond.
const MAX_FAILURES: u32 = 5;

impl Webhook {
    pub(super) fn new(url: String) -> Self {
        Webhook {
            url,
            calls: Semaphore::new(CALLS),
        }
    }

    pub(super) async fn perform(
        &self,
        outgoing: &Outgoing,
        name: &str,
        job: &Job,
    ) -> Result<(), WebhookError> {
        let mut body = serde_json::json!({
            "action": job.direction,
            "loadBalancer": name,
            "instance": job.instance,
            "applicationName": job.application,
            "deploymentGroupName": job.group,
        });
        if let Work::Event { deployment_id, .. } = &job.work {
            body["deploymentId"] = deployment_id.as_str().into();
        }
        let mut failures = 0;
        loop {
            let answer = {
                let _call = self.calls.acquire().await;
                outgoing
                    .post(&self.url, "application/json", body.to_string().into_bytes())
                    .await
            };
            match answer {
                Ok(answer) => match answer.status {
                    200 | 204 => return Ok(()),
                    202 => failures = 0,
                    429 | 502..=504 if failures < MAX_FAILURES => failures += 1,
                    status => {
                        // It may contain text that users of the API must not read.
                        let text: String = answer.text().chars().take(200).collect();
                        tracing::info!(
                            load_balancer = name,
                            status,
                            text,
                            "a load balancer refused"
                        );
                        let (name, place) = (name.to_owned(), outgoing::place(&self.url));
                        return Err(WebhookError::Refused {
                            name,
                            place,
                            status,
                        });
                    }
                },
                Err(error) if failures >= MAX_FAILURES => return Err(error.into()),
                Err(_) => failures += 1,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
