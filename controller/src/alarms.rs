//! Owns the alarms of deployments: where their states are read, and what an active one does.
//!
//! An alarm that the configuration does not name is never active.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::deployment::alarm::{self, Sight, Watched};
use crate::deployment::plan::Watch;
use crate::error::{ApiError, chain};
use crate::outgoing::{Outgoing, OutgoingError};
use crate::service::Service;

/// Where the states of alarms are read, by the names that deployment groups give them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Alarms {
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    by_name: BTreeMap<String, Source>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Prometheus(Prometheus),
    Webhook(Webhook),
}

/// A server that answers instant queries as Prometheus does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prometheus {
    /// Without the path of the query.
    url: String,
    /// Active while its result has any element, as an alerting rule's; a scalar, while it is not zero. Without one, the
    /// alert of the alarm's name.
    query: Option<String>,
}

/// Something that answers `{"state": "OK"}`, `"ALARM"` or `"INSUFFICIENT_DATA"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    url: String,
}

/// Why the state of an alarm is not known.
#[derive(Debug, thiserror::Error)]
enum AlarmError {
    #[error(transparent)]
    Call(#[from] OutgoingError),
    #[error("{url} answered {status}: {text:?}")]
    Status { url: String, status: u16, text: String },
    #[error("the answer of {url} is not {expected}: {text:?}")]
    Form { url: String, expected: &'static str, text: String },
}

impl Alarms {
    /// Looks at the alarms of a deployment.
    async fn look(&self, outgoing: &Outgoing, watch: &Watch) -> Sight {
        for name in &watch.names {
            let Some(source) = self.by_name.get(name) else {
                continue;
            };
            match source.is_active(outgoing, name).await {
                Ok(false) => {}
                Ok(true) => return Sight::Active(format!("The alarm {name} is active.")),
                Err(error) => {
                    let reason = chain(&error);
                    tracing::warn!(alarm = name, error = reason, "an alarm cannot be read");
                    if !watch.ignore_poll_failure {
                        return Sight::Active(format!(
                            "The state of the alarm {name} cannot be read: {reason}."
                        ));
                    }
                }
            }
        }
        Sight::Quiet
    }
}

impl Source {
    /// A request that fails is made once more: a deployment should not end for one lost packet.
    async fn is_active(&self, outgoing: &Outgoing, name: &str) -> Result<bool, AlarmError> {
        match self.ask(outgoing, name).await {
            Ok(active) => Ok(active),
            Err(_) => self.ask(outgoing, name).await,
        }
    }

    async fn ask(&self, outgoing: &Outgoing, name: &str) -> Result<bool, AlarmError> {
        let url = match self {
            Source::Webhook(webhook) => webhook.url.clone(),
            Source::Prometheus(prometheus) => prometheus.request(name),
        };
        let answer = outgoing.get(&url).await?;
        let text: String = answer.text().chars().take(200).collect();
        if answer.status != 200 {
            return Err(AlarmError::Status { url, status: answer.status, text });
        }
        let (found, expected) = match self {
            Source::Webhook(_) => (read_state(&answer.body), "a state such as {\"state\": \"OK\"}"),
            Source::Prometheus(_) => {
                (read_result(&answer.body), "the result of an instant query of Prometheus")
            }
        };
        found.ok_or(AlarmError::Form { url, expected, text })
    }
}

impl Prometheus {
    fn request(&self, name: &str) -> String {
        let alert = || {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}")
        };
        let query = self.query.clone().unwrap_or_else(alert);
        format!("{}/api/v1/query?query={}", self.url.trim_end_matches('/'), percent_encode(&query))
    }
}

/// RFC 3986, section 2.1: everything but unreserved characters.
fn percent_encode(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode =
        |byte: u8| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

fn read_state(body: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Answer {
        state: State,
    }
    #[derive(Deserialize, PartialEq)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum State {
        Ok,
        Alarm,
        InsufficientData,
    }
    Some(serde_json::from_slice::<Answer>(body).ok()?.state == State::Alarm)
}

fn read_result(body: &[u8]) -> Option<bool> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let data = answer.get("data").filter(|_| answer["status"] == "success")?;
    let result = data["result"].as_array()?;
    match data["resultType"].as_str()? {
        "vector" | "matrix" => Some(!result.is_empty()),
        "scalar" => Some(result.get(1)?.as_str()?.parse::<f64>().ok()? != 0.0),
        _ => None,
    }
}

/// How soon a transaction that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Looks at the alarms of active deployments until the service is asked to stop.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let mut stop = service.stopping();
    loop {
        let pause = match service.transact(|_, context| alarm::watched(context)).await {
            Ok(watched) => {
                let pause = (!watched.is_empty()).then_some(service.settings.timers.alarms);
                let looks = watched.into_iter().map(|watched| look(&service, watched));
                futures_util::future::join_all(looks).await;
                pause
            }
            Err(error) => {
                tracing::error!(%error, "the deployments with alarms could not be read; trying again");
                Some(RETRY)
            }
        };
        let pause = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = service.signals.alarms.notified() => {}
            () = pause => {}
            _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
        }
    }
}

async fn look(service: &Arc<Service>, watched: Watched) {
    let sight = service.settings.alarms.look(&service.outgoing, &watched.watch).await;
    let id = watched.deployment_id.clone();
    let reported = service.change(move |_, context| Ok(((), Some(alarm::report(context, &id, sight)?))));
    if let Err(error) = reported.await {
        tracing::error!(deployment_id = watched.deployment_id, %error, "the state of alarms could not be noted");
        // The next look comes soon.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_active_as_an_alerting_rule_is() {
        for (answer, active) in [
            (r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#, Some(false)),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0"]}]}}"#,
                Some(true),
            ),
            (r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0"]}}"#, Some(false)),
            (r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2.5"]}}"#, Some(true)),
            (r#"{"status":"error","data":{"resultType":"vector","result":[]}}"#, None),
            ("{}", None),
            ("<html>", None),
        ] {
            assert_eq!(read_result(answer.as_bytes()), active, "{answer}");
        }
    }

    #[test]
    fn a_webhook_says_its_state() {
        for (answer, active) in [
            (r#"{"state":"OK"}"#, Some(false)),
            (r#"{"state":"INSUFFICIENT_DATA"}"#, Some(false)),
            (r#"{"state":"ALARM","since":1}"#, Some(true)),
            (r#"{"state":"fine"}"#, None),
            ("[]", None),
        ] {
            assert_eq!(read_state(answer.as_bytes()), active, "{answer}");
        }
    }

    #[test]
    fn an_alert_is_asked_for_by_the_name_of_the_alarm() {
        let prometheus = Prometheus { url: "http://localhost:9090/".into(), query: None };
        let expected = "http://localhost:9090/api/v1/query?query=ALERTS%7Balertname%3D%22too%20hot%22%2Calertstate%3D%22firing%22%7D";
        assert_eq!(prometheus.request("too hot"), expected);
    }
}
