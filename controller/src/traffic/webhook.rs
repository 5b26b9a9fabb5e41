//! A load balancer that something else speaks to, asked by HTTP.

use std::time::Duration;

use serde::Deserialize;

use crate::deployment::traffic::Job;
use crate::outgoing::{self, OutgoingError};

/// Answers 200 or 204 when the instance has, or has no more, traffic; 202 when it shall be asked again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    url: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookError {
    #[error(transparent)]
    Call(#[from] OutgoingError),
    #[error(
        "{url} answered {status}: expected 200 or 204 when it is done, 202 when it is under way; it said {text:?}"
    )]
    Refused { url: String, status: u16, text: String },
}

/// How often one that is not done, or does not answer, is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often in a row it may give no answer.
const PATIENCE: u32 = 5;

impl Webhook {
    /// What is wrong with the settings.
    pub(super) fn mistake(&self) -> Option<String> {
        let url = &self.url;
        (!outgoing::is_url(url)).then(|| {
            format!("webhook.url is {url:?}, which is not a URL such as https://lb.example.com/traffic")
        })
    }

    pub(super) async fn perform(&self, name: &str, job: &Job) -> Result<(), WebhookError> {
        let body = serde_json::json!({
            "action": job.direction,
            "loadBalancer": name,
            "instance": job.instance,
            "deploymentId": job.deployment_id,
            "applicationName": job.application,
            "deploymentGroupName": job.group,
        });
        let mut failures = 0;
        loop {
            match outgoing::post(&self.url, "application/json", body.to_string().into_bytes()).await {
                Ok(answer) => match answer.status {
                    200 | 204 => return Ok(()),
                    202 => failures = 0,
                    429 | 502..=504 if failures < PATIENCE => failures += 1,
                    status => {
                        let text = answer.text().chars().take(200).collect();
                        return Err(WebhookError::Refused { url: self.url.clone(), status, text });
                    }
                },
                Err(error) if failures >= PATIENCE => return Err(error.into()),
                Err(_) => failures += 1,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
