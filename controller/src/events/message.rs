//! Notifications of state changes, in the formats of EventBridge and SNS. Pure.

use codedeploy_api::codedeploy::{DeploymentOverview, ErrorCode, ErrorInformation, Timestamp};
use codedeploy_planner::target_state::Event;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::config::Partition;
use crate::error::ApiError;
use crate::records::state_changes::{ChangedTarget, StateChange};

/// The notification of a state change of a deployment, or of one of its targets.
#[derive(Debug, Clone)]
pub struct Notification {
    /// Unique, and the same for every repetition.
    pub id: String,
    pub time: Timestamp,
    pub state: State,
    pub target: Option<NotifiedTarget>,
    pub deployment: Deployment,
}

/// The deployment of a notification.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub id: String,
    pub application: String,
    pub group: String,
    pub group_id: String,
    pub created: Timestamp,
    pub completed: Option<Timestamp>,
    /// The number of its targets per status, once it has targets.
    pub overview: Option<DeploymentOverview>,
    pub error: Option<ErrorInformation>,
    pub undoes: Option<Undoes>,
}

/// The deployment that a rollback undoes.
#[derive(Debug, Clone)]
pub struct Undoes {
    pub id: String,
    pub message: Option<String>,
}

/// The target of a notification.
#[derive(Debug, Clone)]
pub struct NotifiedTarget {
    pub id: String,
    pub arn: String,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Start,
    Ready,
    Success,
    Failure,
    Stop,
}

impl State {
    /// Returns the state that a status of a deployment or a target begins.
    pub fn of(status: &str) -> Option<Self> {
        Some(match status {
            "Created" | "InProgress" => State::Start,
            "Ready" => State::Ready,
            "Succeeded" => State::Success,
            "Failed" => State::Failure,
            "Stopped" => State::Stop,
            _ => return None,
        })
    }

    fn of_event_bridge(self) -> &'static str {
        match self {
            State::Start => "START",
            State::Ready => "READY",
            State::Success => "SUCCESS",
            State::Failure => "FAILURE",
            State::Stop => "STOP",
        }
    }

    fn of_sns(self) -> &'static str {
        match self {
            State::Start => "CREATED",
            State::Ready => "READY",
            State::Success => "SUCCEEDED",
            State::Failure => "FAILED",
            State::Stop => "STOPPED",
        }
    }
}

/// Formats the change of a host that was drained or undrained, for webhooks. AWS has no such event,
/// so its source is not AWS's.
pub(super) fn of_host(
    partition: &Partition,
    change: &StateChange,
    host: &ChangedTarget,
) -> Result<String, ApiError> {
    let Partition { region, account_id } = partition;
    Ok(serde_json::json!({
        "version": "0",
        "id": crate::ids::new_id()?,
        "detail-type": "CodeDeploy Host Drain-state-change Notification",
        "source": "codedeploy-controller",
        "account": account_id,
        "time": iso(change.time),
        "region": region,
        "resources": [host.arn],
        "detail": {
            "region": region,
            "instanceId": host.id,
            "state": change.status.to_uppercase(),
        },
    })
    .to_string())
}

impl Notification {
    /// The trigger types for it.
    pub fn trigger_events(&self) -> Vec<&'static str> {
        match (&self.target, self.state) {
            (Some(_), State::Start) => vec!["InstanceStart"],
            (Some(_), State::Ready) => vec!["InstanceReady"],
            (Some(_), State::Success) => vec!["InstanceSuccess"],
            (Some(_), State::Failure) => vec!["InstanceFailure"],
            (Some(_), State::Stop) => Vec::new(),
            (None, State::Start) if self.deployment.undoes.is_some() => {
                vec!["DeploymentStart", "DeploymentRollback"]
            }
            (None, State::Start) => vec!["DeploymentStart"],
            (None, State::Ready) => vec!["DeploymentReady"],
            (None, State::Success) => vec!["DeploymentSuccess"],
            (None, State::Failure) => vec!["DeploymentFailure"],
            (None, State::Stop) => vec!["DeploymentStop"],
        }
    }

    /// Formats the event for EventBridge, as JSON.
    pub fn event_bridge(&self, partition: &Partition) -> String {
        let Partition { region, account_id } = partition;
        let Deployment {
            id,
            application,
            group,
            group_id,
            ..
        } = &self.deployment;
        let arn = |resource: String| format!("arn:aws:codedeploy:{region}:{account_id}:{resource}");
        let of_application = arn(format!("application:{application}"));
        let of_group = arn(format!("deploymentgroup:{application}/{group}"));
        let of_instance = self.target.iter().map(|target| target.arn.clone());
        let kind = if self.target.is_some() {
            "Instance"
        } else {
            "Deployment"
        };
        to_json(&EventBridgeEvent {
            version: "0",
            id: &self.id,
            detail_type: format!("CodeDeploy {kind} State-change Notification"),
            source: "aws.codedeploy",
            account: account_id,
            time: iso(self.time),
            region,
            resources: of_instance.chain([of_application, of_group]).collect(),
            detail: Detail {
                instance_group_id: group_id,
                region,
                application,
                deployment_id: id,
                state: self.state.of_event_bridge(),
                deployment_group: group,
                instance_id: self.target.as_ref().map(|target| target.id.as_str()),
            },
        })
    }

    /// Formats the notification for a topic's subscriber, as JSON.
    pub fn sns(&self, partition: &Partition, topic: &str, trigger: &str) -> String {
        to_json(&SnsNotification {
            kind: "Notification",
            message_id: &self.id,
            topic_arn: topic,
            subject: self.subject(partition),
            message: match &self.target {
                Some(target) => to_json(&self.of_instance(partition, trigger, target)),
                None => to_json(&self.of_deployment(partition, trigger)),
            },
            timestamp: iso(self.time),
        })
    }

    fn subject(&self, partition: &Partition) -> String {
        let Deployment {
            id, application, ..
        } = &self.deployment;
        let place = format!("{id} in {} to {application}", partition.region);
        match &self.target {
            Some(target) => {
                let state = if self.state == State::Start {
                    "IN_PROGRESS"
                } else {
                    self.state.of_sns()
                };
                format!("{state}: AWS CodeDeploy instance {} of {place}", target.id)
            }
            None => format!("{}: AWS CodeDeploy {place}", self.state.of_sns()),
        }
    }

    /// In the format of the live service; members with JSON are texts there.
    fn of_deployment<'a>(&'a self, partition: &'a Partition, trigger: &'a str) -> OfDeployment<'a> {
        let deployment = &self.deployment;
        let count = |count: Option<i64>| count.unwrap_or(0);
        let rollback = deployment.undoes.as_ref().map(|undoes| Rollback {
            rollback_message: undoes.message.as_deref(),
            rollback_triggering_deployment_id: &undoes.id,
        });
        let none = (self.state == State::Failure).then(|| "{}".to_owned());
        OfDeployment {
            region: &partition.region,
            account_id: &partition.account_id,
            event_trigger_name: trigger,
            application_name: &deployment.application,
            deployment_id: &deployment.id,
            deployment_group_name: &deployment.group,
            create_time: spoken(deployment.created),
            complete_time: deployment.completed.map(spoken),
            deployment_overview: deployment.overview.as_ref().map(|overview| {
                to_json(&Overview {
                    succeeded: count(overview.succeeded),
                    failed: count(overview.failed),
                    skipped: count(overview.skipped),
                    in_progress: count(overview.in_progress),
                    pending: count(overview.pending),
                })
            }),
            status: self.state.of_sns(),
            error_information: deployment.error.as_ref().map(|error| {
                let code = error.code.as_ref().map(ErrorCode::as_str);
                to_json(&ErrorOf {
                    error_code: code,
                    error_message: error.message.as_deref(),
                })
            }),
            rollback_information: rollback.as_ref().map(to_json).or(none),
        }
    }

    fn of_instance<'a>(
        &'a self,
        partition: &'a Partition,
        trigger: &'a str,
        target: &'a NotifiedTarget,
    ) -> OfInstance<'a> {
        OfInstance {
            region: &partition.region,
            account_id: &partition.account_id,
            event_trigger_name: trigger,
            deployment_id: &self.deployment.id,
            instance_id: &target.arn,
            last_updated_at: seconds(self.time),
            instance_status: match self.state {
                State::Start => "InProgress",
                State::Ready => "Ready",
                State::Success => "Succeeded",
                State::Failure | State::Stop => "Failed",
            },
            lifecycle_events: target.events.iter().map(OfEvent::new).collect(),
        }
    }
}

/// Structures of messages, with their members in AWS's order, for receivers that parse the text.
macro_rules! told {
    ($case:literal: $($name:ident { $($(#[$attribute:meta])* $member:ident: $type:ty,)* })*) => {$(
        #[derive(Serialize)]
        #[serde(rename_all = $case)]
        struct $name<'a> {
            $($(#[$attribute])* $member: $type,)*
        }
    )*};
}

told! { "PascalCase":
    SnsNotification {
        #[serde(rename = "Type")]
        kind: &'a str,
        message_id: &'a str,
        topic_arn: &'a str,
        subject: String,
        message: String,
        timestamp: String,
    }
    ErrorOf { error_code: Option<&'a str>, error_message: Option<&'a str>, }
    Rollback { rollback_message: Option<&'a str>, rollback_triggering_deployment_id: &'a str, }
    OfEvent {
        lifecycle_event: &'a str,
        lifecycle_event_status: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        start_time: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        end_time: Option<String>,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Overview {
    succeeded: i64,
    failed: i64,
    skipped: i64,
    in_progress: i64,
    pending: i64,
}

told! { "camelCase":
    OfDeployment {
        region: &'a str,
        account_id: &'a str,
        event_trigger_name: &'a str,
        application_name: &'a str,
        deployment_id: &'a str,
        deployment_group_name: &'a str,
        create_time: String,
        complete_time: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        deployment_overview: Option<String>,
        status: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error_information: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        rollback_information: Option<String>,
    }
    OfInstance {
        region: &'a str,
        account_id: &'a str,
        event_trigger_name: &'a str,
        deployment_id: &'a str,
        instance_id: &'a str,
        last_updated_at: String,
        instance_status: &'a str,
        lifecycle_events: Vec<OfEvent<'a>>,
    }
    EventBridgeEvent {
        version: &'a str,
        id: &'a str,
        #[serde(rename = "detail-type")]
        detail_type: String,
        source: &'a str,
        account: &'a str,
        time: String,
        region: &'a str,
        resources: Vec<String>,
        detail: Detail<'a>,
    }
    Detail {
        instance_group_id: &'a str,
        region: &'a str,
        application: &'a str,
        deployment_id: &'a str,
        state: &'a str,
        deployment_group: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        instance_id: Option<&'a str>,
    }
}

impl<'a> OfEvent<'a> {
    fn new(event: &'a Event) -> Self {
        OfEvent {
            lifecycle_event: event.name.name(),
            lifecycle_event_status: event.state.status().into(),
            start_time: event.state.started().map(seconds),
            end_time: event.state.ended().map(seconds),
        }
    }
}

/// Texts and numbers always have a JSON form.
fn to_json<T: Serialize>(told: &T) -> String {
    serde_json::to_string(told).unwrap_or_default()
}

fn date(time: Timestamp) -> OffsetDateTime {
    let seconds = time.millis().div_euclid(1000);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn iso(time: Timestamp) -> String {
    date(time).format(&Rfc3339).unwrap_or_default()
}

/// As `Thu Oct 13 15:50:45 UTC 2022`.
fn spoken(time: Timestamp) -> String {
    let form = format_description!(
        "[weekday repr:short] [month repr:short] [day] [hour]:[minute]:[second] UTC [year]"
    );
    date(time).format(form).unwrap_or_default()
}

fn seconds(time: Timestamp) -> String {
    time.millis().div_euclid(1000).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(told: &str) -> Value {
        serde_json::from_str(told).unwrap()
    }

    fn change(state: State) -> Notification {
        Notification {
            id: "7f1d".into(),
            time: Timestamp::from_millis(1_665_676_245_999),
            state,
            target: None,
            deployment: Deployment {
                id: "d-7Q2M0ZK4A".into(),
                application: "shop".into(),
                group: "web".into(),
                group_id: "6b0e".into(),
                created: Timestamp::from_millis(1_665_676_245_000),
                completed: None,
                overview: Some(DeploymentOverview {
                    succeeded: Some(2),
                    ..Default::default()
                }),
                error: None,
                undoes: None,
            },
        }
    }

    fn partition() -> Partition {
        Partition::new(Some("eu-west-1".into()), Some("111122223333".into())).unwrap()
    }

    #[test]
    fn deployments_are_told_as_the_live_service_tells_them() {
        let topic = "arn:aws:sns:eu-west-1:111122223333:t";
        let told = read(&change(State::Success).sns(&partition(), topic, "ops"));
        let message = told["Message"].as_str().unwrap();
        assert_eq!(
            message,
            r#"{"region":"eu-west-1","accountId":"111122223333","eventTriggerName":"ops","applicationName":"shop","deploymentId":"d-7Q2M0ZK4A","deploymentGroupName":"web","createTime":"Thu Oct 13 15:50:45 UTC 2022","completeTime":null,"deploymentOverview":"{\"Succeeded\":2,\"Failed\":0,\"Skipped\":0,\"InProgress\":0,\"Pending\":0}","status":"SUCCEEDED"}"#
        );
        assert_eq!(
            told["Subject"],
            "SUCCEEDED: AWS CodeDeploy d-7Q2M0ZK4A in eu-west-1 to shop"
        );
        let mut failed = change(State::Failure);
        let error = ErrorInformation {
            code: Some(ErrorCode::HealthConstraints),
            message: Some("m".into()),
        };
        failed.deployment.error = Some(error);
        let message = read(
            read(&failed.sns(&partition(), topic, "ops"))["Message"]
                .as_str()
                .unwrap(),
        );
        assert_eq!(
            message["errorInformation"],
            r#"{"ErrorCode":"HEALTH_CONSTRAINTS","ErrorMessage":"m"}"#
        );
        assert_eq!(message["rollbackInformation"], "{}");
        failed.target = Some(NotifiedTarget {
            id: "box1".into(),
            arn: "arn:box1".into(),
            events: Vec::new(),
        });
        let told = read(&failed.sns(&partition(), topic, "ops"));
        assert_eq!(
            told["Subject"],
            "FAILED: AWS CodeDeploy instance box1 of d-7Q2M0ZK4A in eu-west-1 to shop"
        );
        let mut rollback = change(State::Start);
        assert_eq!(rollback.trigger_events(), ["DeploymentStart"]);
        rollback.deployment.undoes = Some(Undoes {
            id: "d-1".into(),
            message: None,
        });
        assert_eq!(
            rollback.trigger_events(),
            ["DeploymentStart", "DeploymentRollback"]
        );
    }

    #[test]
    fn events_have_the_form_of_event_bridge() {
        let mut change = change(State::Failure);
        let told = read(&change.event_bridge(&partition()));
        assert_eq!(
            told["detail-type"],
            "CodeDeploy Deployment State-change Notification"
        );
        assert_eq!(told["time"], "2022-10-13T15:50:45Z");
        assert_eq!(told["detail"]["state"], "FAILURE");
        let resources = json!([
            "arn:aws:codedeploy:eu-west-1:111122223333:application:shop",
            "arn:aws:codedeploy:eu-west-1:111122223333:deploymentgroup:shop/web",
        ]);
        assert_eq!(told["resources"], resources);
        change.target = Some(NotifiedTarget {
            id: "box1".into(),
            arn: "arn:box1".into(),
            events: Vec::new(),
        });
        let told = read(&change.event_bridge(&partition()));
        assert_eq!(
            (&told["resources"][0], &told["detail"]["instanceId"]),
            (&json!("arn:box1"), &json!("box1"))
        );
    }
}
