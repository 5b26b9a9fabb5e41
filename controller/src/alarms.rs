//! The alarms of deployments: reads their states, and stops deployments when an alarm is active.
//!
//! An alarm that is missing from the configuration is never active.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use codedeploy_planner::rules::MonitoredAlarms;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use futures_util::stream::FuturesUnordered;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::config::alarms::{Prometheus, Source};
use crate::deployment::alarm::{self, Monitored, Sight};
use crate::error::{ApiError, chain};
use crate::metrics::Metrics;
use crate::outgoing::{self, Outgoing, OutgoingError};
use crate::service::Service;
use crate::tasks::Tasks;

/// The reason why the state of an alarm is unknown. Users of the API read it, so it contains
/// neither paths nor responses, which may hold secrets.
#[derive(Debug, thiserror::Error)]
enum AlarmError {
    #[error(transparent)]
    Call(#[from] OutgoingError),
    #[error("{place} answered {status}: expected 200")]
    Status { place: String, status: u16 },
    #[error("the answer of {place} is not {expected}")]
    Form {
        place: String,
        expected: &'static str,
    },
}

/// The state of an alarm: whether it is active, or why that is unknown.
type Found = Result<bool, String>;

/// A query of an alarm, shared by everyone who waits for its result.
type Question = Shared<BoxFuture<'static, Found>>;

/// The queries in progress, by the names of alarms: concurrent callers share one result.
#[derive(Debug, Default)]
struct Questions {
    under_way: HashMap<String, WeakShared<BoxFuture<'static, Found>>>,
}

impl Questions {
    /// Queries the alarms of a deployment, all at once: the first active one is reported without
    /// waiting for others.
    fn look(
        &mut self,
        service: &Service,
        monitored: &MonitoredAlarms,
    ) -> impl Future<Output = Sight> + Send + use<> {
        self.under_way
            .retain(|_, question| question.upgrade().is_some());
        let ask = |name: &String| {
            let question = self.ask(service, name)?;
            let name = name.clone();
            Some(question.map(|found| (name, found)))
        };
        let mut answers: FuturesUnordered<_> = monitored.names.iter().filter_map(ask).collect();
        let ignore_poll_failure = monitored.ignore_poll_failure;
        async move {
            while let Some((name, found)) = answers.next().await {
                match found {
                    Ok(true) => return Sight::Active(format!("The alarm {name} is active.")),
                    Err(reason) if !ignore_poll_failure => {
                        return Sight::Active(format!(
                            "The state of the alarm {name} cannot be read: {reason}."
                        ));
                    }
                    Ok(false) | Err(_) => {}
                }
            }
            Sight::Quiet
        }
    }

    fn ask(&mut self, service: &Service, name: &str) -> Option<Question> {
        if let Some(question) = self.under_way.get(name).and_then(WeakShared::upgrade) {
            return Some(question);
        }
        let source = service.settings.alarms.source(name)?.clone();
        let asked = name.to_owned();
        let outgoing = Arc::clone(&service.outgoing);
        let metrics = service.metrics.clone();
        let question = async move {
            let found = source.state(&outgoing, &asked).await;
            if let Some(metrics) = &metrics {
                note(metrics, &asked, &found);
            }
            found
        }
        .boxed()
        .shared();
        self.under_way.extend(
            question
                .downgrade()
                .map(|question| (name.to_owned(), question)),
        );
        Some(question)
    }
}

fn note(metrics: &Metrics, name: &str, found: &Found) {
    let errors = metrics.alarm_read_errors.with([name.to_owned()]);
    match found {
        Ok(active) => {
            let active = i64::from(*active);
            metrics.alarm_active.with([name.to_owned()]).set(active);
        }
        Err(_) => {
            errors.inc();
        }
    }
}

impl Source {
    /// Retries a failed request once: one lost packet should not end a deployment.
    async fn state(&self, outgoing: &Outgoing, name: &str) -> Found {
        let found = match self.ask(outgoing, name).await {
            Ok(active) => Ok(active),
            Err(_) => self.ask(outgoing, name).await,
        };
        found.map_err(|error| {
            let reason = chain(&error);
            tracing::warn!(alarm = name, error = reason, "an alarm cannot be read");
            reason
        })
    }

    async fn ask(&self, outgoing: &Outgoing, name: &str) -> Result<bool, AlarmError> {
        let url = match self {
            Source::Webhook(webhook) => webhook.url.clone(),
            Source::Prometheus(prometheus) => prometheus.request(name),
        };
        let answer = outgoing.get(&url).await?;
        let place = outgoing::place(&url);
        let remark = || {
            let text: String = answer.text().chars().take(200).collect();
            tracing::info!(
                alarm = name,
                status = answer.status,
                text,
                "a response about an alarm is unusable"
            );
        };
        if answer.status != 200 {
            remark();
            return Err(AlarmError::Status {
                place,
                status: answer.status,
            });
        }
        let (found, expected) = match self {
            Source::Webhook(_) => (
                read_state(&answer.body),
                "a state such as {\"state\": \"OK\"}",
            ),
            Source::Prometheus(_) => (
                read_result(&answer.body),
                "the result of an instant query of Prometheus",
            ),
        };
        found.ok_or_else(|| {
            remark();
            AlarmError::Form { place, expected }
        })
    }
}

impl Prometheus {
    fn request(&self, name: &str) -> String {
        let alert = || {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}")
        };
        let query = self.query.clone().unwrap_or_else(alert);
        format!(
            "{}/api/v1/query?query={}",
            self.url.trim_end_matches('/'),
            utf8_percent_encode(&query, ESCAPED)
        )
    }
}

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

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
    let data = answer
        .get("data")
        .filter(|_| answer["status"] == "success")?;
    let result = data["result"].as_array()?;
    match data["resultType"].as_str()? {
        "vector" | "matrix" => Some(!result.is_empty()),
        "scalar" => {
            let value: f64 = result.get(1)?.as_str()?.parse().ok()?;
            // Without data, such as a ratio of nothing, it is not active.
            Some(value != 0.0 && !value.is_nan())
        }
        _ => None,
    }
}

/// The state of an alarm for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    pub(crate) name: String,
    /// Unknown if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_active: Option<bool>,
    /// The reason why it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// The longest time that a page waits for the states of its alarms.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads the states of alarms at present, all at once.
pub(crate) async fn look_at(service: &Service, names: &[String]) -> Vec<Shown> {
    let shown = names.iter().map(async |name| {
        let found = match service.settings.alarms.source(name) {
            Some(source) => {
                let asked = source.ask(&service.outgoing, name);
                match tokio::time::timeout(PATIENCE, asked).await {
                    Ok(found) => found.map_err(|error| chain(&error)),
                    Err(_) => Err("its source does not respond".to_owned()),
                }
            }
            None => Err("the controller's configuration has no such alarm".to_owned()),
        };
        Shown {
            name: name.clone(),
            is_active: found.as_ref().ok().copied(),
            reason: found.err(),
        }
    });
    futures_util::future::join_all(shown).await
}

/// The delay before a failed transaction is retried.
const RETRY: Duration = Duration::from_secs(1);

/// Checks the alarms of active deployments until the service stops. A deployment with slow alarms
/// delays no other.
pub async fn run(service: Arc<Service>) -> Result<(), ApiError> {
    let mut stop = service.stopping();
    let mut questions = Questions::default();
    let mut looks: Tasks<String> = Tasks::default();
    loop {
        let pause = match service
            .transact(|_, context| alarm::monitored(context))
            .await
        {
            Ok(monitored) => {
                let pause = (!monitored.is_empty()).then_some(service.settings.timers.alarms);
                for Monitored {
                    deployment_id,
                    alarms,
                } in monitored
                {
                    if !looks.is_under_way(&deployment_id) {
                        let sight = questions.look(&service, &alarms);
                        looks.start(
                            deployment_id.clone(),
                            look(Arc::clone(&service), deployment_id, sight),
                        );
                    }
                }
                pause
            }
            Err(error) => {
                tracing::error!(%error, "the deployments with alarms could not be read; trying again");
                Some(RETRY)
            }
        };
        let mut again = std::pin::pin!(async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        });
        loop {
            tokio::select! {
                () = service.signals.alarms.notified() => break,
                () = &mut again => break,
                _ = looks.ended() => {}
                _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
            }
        }
    }
}

async fn look(service: Arc<Service>, deployment_id: String, sight: impl Future<Output = Sight>) {
    let sight = sight.await;
    let id = deployment_id.clone();
    let reported =
        service.change(move |_, context| Ok(((), Some(alarm::report(context, &id, sight)?))));
    if let Err(error) = reported.await {
        tracing::error!(deployment_id, %error, "the state of alarms could not be recorded");
        // The next check comes soon.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_active_as_an_alerting_rule_is() {
        for (answer, active) in [
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
                Some(false),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0"]}]}}"#,
                Some(true),
            ),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0"]}}"#,
                Some(false),
            ),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2.5"]}}"#,
                Some(true),
            ),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}"#,
                Some(false),
            ),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}"#,
                Some(true),
            ),
            (
                r#"{"status":"error","data":{"resultType":"vector","result":[]}}"#,
                None,
            ),
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
        let prometheus = Prometheus {
            url: "http://localhost:9090/".into(),
            query: None,
        };
        let expected = "http://localhost:9090/api/v1/query?query=ALERTS%7Balertname%3D%22too%20hot%22%2Calertstate%3D%22firing%22%7D";
        assert_eq!(prometheus.request("too hot"), expected);
    }
}
