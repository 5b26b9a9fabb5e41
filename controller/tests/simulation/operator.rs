//! The operator of a small fleet: what the group is like, and what is deployed, continued and stopped.

use codedeploy_controller::deployment::{create, intervene};
use codedeploy_controller::error::{ApiError, ErrorName};
use codedeploy_controller::registry::instances::{self, Identity};
use codedeploy_controller::registry::{applications, groups};
use codedeploy_controller::request::{Member, Request};
use serde_json::{Value, json};

use super::oracle;
use super::{Style, World};

impl World {
    pub(super) fn set_up(&mut self) {
        let tempers: Vec<_> = self.hosts.iter().map(|host| host.temper).collect();
        self.say(format!("{:?}, hosts {tempers:?}", self.style));
        let settings = self.draw_group();
        let fleets: Vec<_> =
            self.hosts.iter().map(|host| (host.name.clone(), host.identifier.clone())).collect();
        let split = self.rng.usize(0..fleets.len());
        self.say(format!("group {settings}; green from box{split}"));
        self.transact(move |context| {
            context.tx.execute_batch("DELETE FROM applications; DELETE FROM instances;")?;
            let application = json!({"applicationName": "shop"});
            applications::create(context, request(application)?)?;
            groups::create(context, request(settings)?)?;
            for (number, (name, arn)) in fleets.iter().enumerate() {
                let fleet = if number < split { "blue" } else { "green" };
                let tags = json!([{"Key": "env", "Value": "prod"}, {"Key": "fleet", "Value": fleet}]);
                let tags: Vec<_> = serde_json::from_value(tags).unwrap();
                let identity = Identity::User(arn.clone());
                let name = Member::check(name.clone())?;
                instances::enroll(context.tx, context.partition, context.now, &name, &identity, &tags)?;
            }
            Ok(())
        })
        .unwrap();
    }

    fn draw_group(&mut self) -> Value {
        let config = *self
            .rng
            .choice(&[
                "CodeDeployDefault.OneAtATime",
                "CodeDeployDefault.HalfAtATime",
                "CodeDeployDefault.AllAtOnce",
            ])
            .unwrap();
        let mut settings = json!({
            "applicationName": "shop", "deploymentGroupName": "web",
            "serviceRoleArn": "arn:aws:iam::123456789012:role/cd", "deploymentConfigName": config,
            "onPremisesInstanceTagFilters": [{"Key": "env", "Value": "prod", "Type": "KEY_AND_VALUE"}],
        });
        if self.style != Style::InPlace {
            let kind = if self.style == Style::BlueGreen { "BLUE_GREEN" } else { "IN_PLACE" };
            settings["deploymentStyle"] =
                json!({"deploymentType": kind, "deploymentOption": "WITH_TRAFFIC_CONTROL"});
            settings["loadBalancerInfo"] = json!({"targetGroupInfoList": [{"name": "lb"}]});
        }
        if self.style == Style::BlueGreen {
            let ready = if self.rng.bool() {
                json!({"actionOnTimeout": "CONTINUE_DEPLOYMENT"})
            } else {
                json!({"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 5})
            };
            let action = if self.rng.u32(0..4) == 0 { "TERMINATE" } else { "KEEP_ALIVE" };
            settings["blueGreenDeploymentConfiguration"] = json!({
                "deploymentReadyOption": ready,
                "terminateBlueInstancesOnDeploymentSuccess": {"action": action, "terminationWaitTimeInMinutes": 2},
                "greenFleetProvisioningOption": {"action": "DISCOVER_EXISTING"},
            });
        }
        if self.rng.u32(0..3) > 0 {
            settings["autoRollbackConfiguration"] = json!({"enabled": true, "events":
                ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"]});
        }
        if self.rng.u32(0..4) == 0 {
            settings["alarmConfiguration"] = json!({"enabled": true, "alarms": [{"name": "too-hot"}]});
        }
        settings
    }

    pub(super) fn operate(&mut self) {
        let newest = self.transact(|context| {
            Ok(oracle::deployments(context.tx).pop().map(|deployment| (deployment.id, deployment.status)))
        });
        match newest.unwrap() {
            Some((id, status)) if ["Created", "InProgress", "Ready"].contains(&status.as_str()) => {
                if status == "Ready" && self.rng.u32(0..3) > 0 {
                    self.proceed(&id);
                } else if self.rng.u32(0..20) == 0 {
                    self.stop(id);
                }
            }
            _ if self.wanted > 0 => self.create(),
            _ => {}
        }
    }

    fn proceed(&mut self, id: &str) {
        let name = self.name(id);
        self.say(format!("the operator continues {name}"));
        let input = json!({"deploymentId": id});
        let done = self.act(move |context| {
            let (_, outcome) = intervene::proceed(context, request(input)?)?;
            Ok(((), vec![outcome]))
        });
        if let Some(done) = done {
            done.unwrap();
        }
    }

    fn stop(&mut self, id: String) {
        let name = self.name(&id);
        let rollback = *self.rng.choice(&[Value::Null, json!(true), json!(false)]).as_ref().unwrap();
        self.say(format!("the operator stops {name}, rollback {rollback}"));
        let input = json!({"deploymentId": id, "autoRollbackEnabled": rollback});
        let done = self.act(move |context| {
            let (output, outcome) = intervene::stop(context, request(input)?)?;
            Ok((output, vec![outcome]))
        });
        if let Some(done) = done {
            done.unwrap();
            self.memory.note_stop(&id);
        }
    }

    fn create(&mut self) {
        let key = format!("app{}.zip", self.rng.u32(0..3));
        let mut input = json!({
            "applicationName": "shop", "deploymentGroupName": "web",
            "revision": {"revisionType": "S3", "s3Location": {"bucket": "b", "key": key, "bundleType": "zip"}},
            "ignoreApplicationStopFailures": self.rng.bool(),
            "updateOutdatedInstancesOnly": self.rng.u32(0..4) == 0,
        });
        if self.style == Style::BlueGreen {
            input["targetInstances"] = json!({"tagFilters": [{"Key": "fleet", "Value": "green"}]});
        } else if self.rng.u32(0..6) == 0 {
            input["deploymentMode"] = json!("RESTART");
            input["updateOutdatedInstancesOnly"] = json!(false);
            input.as_object_mut().unwrap().remove("revision");
        }
        self.say(format!("the operator deploys {input}"));
        let done = self.act(move |context| {
            let (output, outcome) = create::create(context, request(input)?)?;
            Ok((output.deployment_id.unwrap(), vec![outcome]))
        });
        match done {
            Some(Ok(_)) => self.wanted -= 1,
            // Nothing to restart yet, or no green host is left.
            Some(Err(refusal)) => {
                let known = [ErrorName::RevisionDoesNotExist, ErrorName::InvalidTargetInstances];
                assert!(known.contains(&refusal.name), "{refusal}");
                if refusal.name == ErrorName::InvalidTargetInstances {
                    self.wanted = 0;
                }
            }
            None => {}
        }
    }
}

/// A request as a client sends it.
fn request<R: Request>(input: Value) -> Result<R, ApiError> {
    R::check(serde_json::from_value(input).unwrap())
}
