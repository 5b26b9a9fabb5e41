//! What is said of a change of state: in the forms of EventBridge and of SNS. Pure.

use codedeploy_api::codedeploy::{DeploymentInfo, LifecycleEvent, Timestamp};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::config::Partition;

/// A change of the state of a deployment, or of one of its targets.
#[derive(Debug, Clone)]
pub struct Change {
    /// Unique, the same however often it is told.
    pub id: String,
    pub time: Timestamp,
    pub state: State,
    pub target: Option<Target>,
    pub info: DeploymentInfo,
    pub group_id: String,
}

#[derive(Debug, Clone)]
pub struct Target {
    pub id: String,
    pub arn: String,
    pub events: Vec<LifecycleEvent>,
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
    /// The state that a status of a deployment or a target begins.
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

impl Change {
    /// The types of trigger that are about it.
    pub fn trigger_events(&self) -> Vec<&'static str> {
        match (&self.target, self.state) {
            (Some(_), State::Start) => vec!["InstanceStart"],
            (Some(_), State::Ready) => vec!["InstanceReady"],
            (Some(_), State::Success) => vec!["InstanceSuccess"],
            (Some(_), State::Failure) => vec!["InstanceFailure"],
            (Some(_), State::Stop) => Vec::new(),
            (None, State::Start) if self.rolls_back() => vec!["DeploymentStart", "DeploymentRollback"],
            (None, State::Start) => vec!["DeploymentStart"],
            (None, State::Ready) => vec!["DeploymentReady"],
            (None, State::Success) => vec!["DeploymentSuccess"],
            (None, State::Failure) => vec!["DeploymentFailure"],
            (None, State::Stop) => vec!["DeploymentStop"],
        }
    }

    fn rolls_back(&self) -> bool {
        let rollback = self.info.rollback_info.as_ref();
        rollback.is_some_and(|rollback| rollback.rollback_triggering_deployment_id.is_some())
    }

    /// The event as EventBridge has it.
    pub fn event_bridge(&self, partition: &Partition) -> Value {
        let Partition { region, account_id } = partition;
        let (application, group) =
            (text(&self.info.application_name), text(&self.info.deployment_group_name));
        let arn = |resource: String| json!(format!("arn:aws:codedeploy:{region}:{account_id}:{resource}"));
        let mut resources = vec![
            arn(format!("application:{application}")),
            arn(format!("deploymentgroup:{application}/{group}")),
        ];
        let mut detail = json!({
            "instanceGroupId": self.group_id,
            "region": region,
            "application": application,
            "deploymentId": text(&self.info.deployment_id),
            "state": self.state.of_event_bridge(),
            "deploymentGroup": group,
        });
        let kind = match &self.target {
            Some(target) => {
                resources.insert(0, json!(target.arn));
                detail["instanceId"] = json!(target.id);
                "Instance"
            }
            None => "Deployment",
        };
        json!({
            "version": "0",
            "id": self.id,
            "detail-type": format!("CodeDeploy {kind} State-change Notification"),
            "source": "aws.codedeploy",
            "account": account_id,
            "time": iso(self.time),
            "region": region,
            "resources": resources,
            "detail": detail,
        })
    }

    /// The notification as a topic's subscriber gets it.
    pub fn sns(&self, partition: &Partition, topic: &str, trigger: &str) -> Value {
        let id = text(&self.info.deployment_id);
        let application = text(&self.info.application_name);
        let subject =
            format!("{}: AWS CodeDeploy {id} in {} to {application}", self.state.of_sns(), partition.region);
        let message = match &self.target {
            Some(target) => self.of_instance(partition, trigger, target),
            None => self.of_deployment(partition, trigger),
        };
        json!({
            "Type": "Notification",
            "MessageId": self.id,
            "TopicArn": topic,
            "Subject": subject,
            "Message": message.to_string(),
            "Timestamp": iso(self.time),
        })
    }

    /// In the form that the live service sends; members that hold JSON are texts there.
    fn of_deployment(&self, partition: &Partition, trigger: &str) -> Value {
        let info = &self.info;
        let mut message = json!({
            "region": partition.region,
            "accountId": partition.account_id,
            "eventTriggerName": trigger,
            "applicationName": text(&info.application_name),
            "deploymentId": text(&info.deployment_id),
            "deploymentGroupName": text(&info.deployment_group_name),
            "createTime": info.create_time.map(spoken),
            "completeTime": info.complete_time.map(spoken),
            "status": self.state.of_sns(),
        });
        if let Some(overview) = &info.deployment_overview {
            let count = |count: Option<i64>| count.unwrap_or(0);
            let overview = json!({
                "Succeeded": count(overview.succeeded),
                "Failed": count(overview.failed),
                "Skipped": count(overview.skipped),
                "InProgress": count(overview.in_progress),
                "Pending": count(overview.pending),
            });
            message["deploymentOverview"] = json!(overview.to_string());
        }
        if let Some(error) = &info.error_information {
            let error = json!({"ErrorCode": error.code, "ErrorMessage": error.message});
            message["errorInformation"] = json!(error.to_string());
        }
        if let Some(rollback) = info.rollback_info.as_ref().filter(|_| self.rolls_back()) {
            let rollback = json!({
                "RollbackMessage": rollback.rollback_message,
                "RollbackTriggeringDeploymentId": rollback.rollback_triggering_deployment_id,
            });
            message["rollbackInformation"] = json!(rollback.to_string());
        } else if self.state == State::Failure {
            message["rollbackInformation"] = json!("{}");
        }
        message
    }

    fn of_instance(&self, partition: &Partition, trigger: &str, target: &Target) -> Value {
        let events = target.events.iter().map(|event| {
            let mut shown = Map::new();
            let mut show = |name: &str, value: Option<String>| {
                shown.extend(value.map(|value| (name.to_owned(), json!(value))));
            };
            show("LifecycleEvent", event.lifecycle_event_name.clone());
            show("LifecycleEventStatus", event.status.as_ref().map(ToString::to_string));
            show("StartTime", event.start_time.map(seconds));
            show("EndTime", event.end_time.map(seconds));
            Value::Object(shown)
        });
        let status = match self.state {
            State::Start => "InProgress",
            State::Ready => "Ready",
            State::Success => "Succeeded",
            State::Failure | State::Stop => "Failed",
        };
        json!({
            "region": partition.region,
            "accountId": partition.account_id,
            "eventTriggerName": trigger,
            "deploymentId": text(&self.info.deployment_id),
            "instanceId": target.arn,
            "lastUpdatedAt": seconds(self.time),
            "instanceStatus": status,
            "lifecycleEvents": events.collect::<Vec<_>>(),
        })
    }
}

fn text(member: &Option<String>) -> &str {
    member.as_deref().unwrap_or_default()
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
    use codedeploy_api::codedeploy::{DeploymentOverview, RollbackInfo};

    use super::*;

    fn change(state: State) -> Change {
        Change {
            id: "7f1d".into(),
            time: Timestamp::from_millis(1_665_676_245_999),
            state,
            target: None,
            group_id: "6b0e".into(),
            info: DeploymentInfo {
                application_name: Some("shop".into()),
                deployment_group_name: Some("web".into()),
                deployment_id: Some("d-7Q2M0ZK4A".into()),
                create_time: Some(Timestamp::from_millis(1_665_676_245_000)),
                deployment_overview: Some(DeploymentOverview { succeeded: Some(2), ..Default::default() }),
                ..DeploymentInfo::default()
            },
        }
    }

    fn partition() -> Partition {
        Partition::new(Some("eu-west-1".into()), Some("111122223333".into())).unwrap()
    }

    #[test]
    fn deployments_are_told_as_the_live_service_tells_them() {
        let told = change(State::Success).sns(&partition(), "arn:aws:sns:eu-west-1:111122223333:t", "ops");
        assert_eq!(told["Subject"], "SUCCEEDED: AWS CodeDeploy d-7Q2M0ZK4A in eu-west-1 to shop");
        let message: Value = serde_json::from_str(told["Message"].as_str().unwrap()).unwrap();
        assert_eq!(message["createTime"], "Thu Oct 13 15:50:45 UTC 2022");
        assert_eq!(message["completeTime"], Value::Null);
        let overview: Value = serde_json::from_str(message["deploymentOverview"].as_str().unwrap()).unwrap();
        assert_eq!(overview["Succeeded"], 2);
        assert_eq!(message.get("rollbackInformation"), None);
        let mut rollback = change(State::Start);
        assert_eq!(rollback.trigger_events(), ["DeploymentStart"]);
        rollback.info.rollback_info = Some(RollbackInfo {
            rollback_triggering_deployment_id: Some("d-1".into()),
            ..RollbackInfo::default()
        });
        assert_eq!(rollback.trigger_events(), ["DeploymentStart", "DeploymentRollback"]);
    }

    #[test]
    fn events_have_the_form_of_event_bridge() {
        let mut change = change(State::Failure);
        let told = change.event_bridge(&partition());
        assert_eq!(told["detail-type"], "CodeDeploy Deployment State-change Notification");
        assert_eq!(told["time"], "2022-10-13T15:50:45Z");
        assert_eq!(told["detail"]["state"], "FAILURE");
        let resources = json!([
            "arn:aws:codedeploy:eu-west-1:111122223333:application:shop",
            "arn:aws:codedeploy:eu-west-1:111122223333:deploymentgroup:shop/web",
        ]);
        assert_eq!(told["resources"], resources);
        change.target = Some(Target { id: "box1".into(), arn: "arn:box1".into(), events: Vec::new() });
        let told = change.event_bridge(&partition());
        assert_eq!(
            (&told["resources"][0], &told["detail"]["instanceId"]),
            (&json!("arn:box1"), &json!("box1"))
        );
    }
}
