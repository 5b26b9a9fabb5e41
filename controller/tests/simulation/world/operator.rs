//! The operator of a small fleet: sets up the group, and deploys, continues and stops.

use codedeploy_controller::deployment::{create, drain, intervene, removal};
use codedeploy_controller::error::{ApiError, ErrorName};
use codedeploy_controller::identity::Identity;
use codedeploy_controller::registry::{applications, configs, groups, instances};
use codedeploy_controller::request::{Field as _, NewInstanceName, Request};
use serde_json::{Value, json};

use super::{Style, World, oracle};

const GROUPS: [&str; 2] = ["web", "api"];

impl World {
    pub(super) fn set_up(&mut self) {
        let tempers: Vec<_> = self.hosts.iter().map(|host| host.temper).collect();
        self.say(format!("{:?}, hosts {tempers:?}", self.style));
        let groups: Vec<_> = (0..self.groups)
            .map(|number| self.draw_group(number))
            .collect();
        let fleets: Vec<_> = self
            .hosts
            .iter()
            .map(|host| (host.name.clone(), host.identifier.clone()))
            .collect();
        let split = self.rng.usize(0..fleets.len());
        self.say(format!("groups {groups:?}; green from box{split}"));
        self.transact(move |context| {
            for table in ["applications", "instances", "deployment_configs"] {
                context.tx.execute(&format!("DELETE FROM {table}"), ())?;
            }
            let application = json!({"applicationName": "shop"});
            applications::create(context, request(application)?)?;
            for (config, settings) in groups {
                if let Some(config) = config {
                    configs::create(context, request(config)?)?;
                }
                groups::create(context, request(settings)?)?;
            }
            for (number, (name, arn)) in fleets.iter().enumerate() {
                let fleet = if number < split { "blue" } else { "green" };
                let tags =
                    json!([{"Key": "env", "Value": "prod"}, {"Key": "fleet", "Value": fleet}]);
                let tags: Vec<_> = serde_json::from_value(tags).unwrap();
                let identity = Identity::User(arn.clone());
                let name = NewInstanceName::read(Some(name.clone()))?;
                instances::enroll(
                    context.tx,
                    context.partition,
                    context.now,
                    &name,
                    &identity,
                    &tags,
                )?;
            }
            Ok(())
        })
        .unwrap();
    }

    /// The settings of a group, and its deployment configuration if it has its own.
    fn draw_group(&mut self, number: usize) -> (Option<Value>, Value) {
        let minimum = match self.rng.u32(0..10) {
            0..=1 => {
                Some(json!({"type": "HOST_COUNT", "value": self.rng.usize(0..=self.hosts.len())}))
            }
            2..=3 => Some(json!({"type": "FLEET_PERCENT", "value": self.rng.u32(0..100)})),
            _ => None,
        };
        let own = format!("own{number}");
        let config = minimum
            .map(|minimum| json!({"deploymentConfigName": own, "minimumHealthyHosts": minimum}));
        let predefined = *self
            .rng
            .choice(&[
                "CodeDeployDefault.OneAtATime",
                "CodeDeployDefault.HalfAtATime",
                "CodeDeployDefault.AllAtOnce",
            ])
            .unwrap();
        let mut settings = json!({
            "applicationName": "shop", "deploymentGroupName": GROUPS[number],
            "serviceRoleArn": "arn:aws:iam::123456789012:role/cd",
            "deploymentConfigName": if config.is_some() { own.as_str() } else { predefined },
            "onPremisesInstanceTagFilters": [{"Key": "env", "Value": "prod", "Type": "KEY_AND_VALUE"}],
        });
        if self.style != Style::InPlace {
            let kind = if self.style == Style::BlueGreen {
                "BLUE_GREEN"
            } else {
                "IN_PLACE"
            };
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
            let action = if self.rng.u32(0..4) == 0 {
                "TERMINATE"
            } else {
                "KEEP_ALIVE"
            };
            settings["blueGreenDeploymentConfiguration"] = json!({
                "deploymentReadyOption": ready,
                "terminateBlueInstancesOnDeploymentSuccess": {"action": action, "terminationWaitTimeInMinutes": 2},
                "greenFleetProvisioningOption": {"action": "DISCOVER_EXISTING"},
            });
        }
        let events = [
            "DEPLOYMENT_FAILURE",
            "DEPLOYMENT_STOP_ON_ALARM",
            "DEPLOYMENT_STOP_ON_REQUEST",
        ];
        let events: Vec<_> = events
            .into_iter()
            .filter(|_| self.rng.u32(0..3) > 0)
            .collect();
        if !events.is_empty() {
            settings["autoRollbackConfiguration"] = json!({"enabled": true, "events": events});
        }
        if self.rng.u32(0..4) == 0 {
            settings["alarmConfiguration"] =
                json!({"enabled": true, "alarms": [{"name": "too-hot"}]});
        }
        (config, settings)
    }

    pub(super) fn operate(&mut self) {
        if self.rng.u32(0..3) == 0 {
            return self.drain_or_return();
        }
        let group = GROUPS[self.rng.usize(0..self.groups)];
        let newest = self.transact(move |context| {
            let newest = oracle::deployments(context.tx)
                .into_iter()
                .rfind(|d| d.group_name == group);
            Ok(newest.map(|deployment| (deployment.id, deployment.status)))
        });
        match newest.unwrap() {
            Some((id, status)) if oracle::ACTIVE.contains(&status.as_str()) => {
                if status == "Ready" && self.rng.u32(0..3) > 0 {
                    self.proceed(&id);
                } else if !self.calm && self.rng.u32(0..20) == 0 {
                    self.stop(id);
                }
            }
            _ if self.wanted > 0 && self.rng.u32(0..6) == 0 => self.replace_host(),
            _ if self.wanted > 0 => self.create(group),
            _ => {}
        }
    }

    /// Drains a host, or returns it.
    fn drain_or_return(&mut self) {
        // The work on a host ends with its drain.
        if self.calm && self.memory.running > 0 {
            return;
        }
        let name = self.hosts[self.rng.usize(0..self.hosts.len())].name.clone();
        let input = json!({"instanceName": name});
        let drained = self
            .transact(|context| Ok(oracle::drained(context.tx)))
            .unwrap();
        let returns = drained.contains(&name);
        let verb = if returns { "undrains" } else { "drains" };
        self.say(format!("the operator {verb} {name}"));
        let done = self.act(move |context| {
            let effects = if returns {
                drain::undrain(context, request(input)?)?.1
            } else {
                drain::drain(context, request(input)?)?.1
            };
            Ok(((), vec![effects]))
        });
        // A host can be between two registrations.
        if let Some(Err(refusal)) = done {
            assert_eq!(refusal.name, ErrorName::InstanceNotRegistered);
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
        let asked = self
            .rng
            .choice(&[Value::Null, json!(true), json!(false)])
            .unwrap()
            .clone();
        self.say(format!("the operator stops {name}, rollback {asked}"));
        let input = json!({"deploymentId": id, "autoRollbackEnabled": asked});
        let done = self.act(move |context| {
            let (output, outcome) = intervene::stop(context, request(input)?)?;
            Ok((output, vec![outcome]))
        });
        self.memory
            .ledger
            .note_stop(&id, done.as_ref().map(|_| asked));
        if let Some(done) = done {
            done.unwrap();
            self.memory.note_stop(&id);
        }
    }

    /// Registers a host again, with the same name and agent.
    fn replace_host(&mut self) {
        let number = self.rng.usize(0..self.hosts.len());
        let (name, arn) = (
            self.hosts[number].name.clone(),
            self.hosts[number].identifier.clone(),
        );
        let fleet = *self.rng.choice(&["blue", "green"]).unwrap();
        // A host's commands end with its registration.
        if self.calm && self.memory.running > 0 {
            return;
        }
        self.say(format!("the operator registers {name} anew, in {fleet}"));
        self.memory.ledger.forget(&name);
        self.changed = true;
        let given_up = self
            .transact(move |context| {
                let tags =
                    json!([{"Key": "env", "Value": "prod"}, {"Key": "fleet", "Value": fleet}]);
                let tags: Vec<_> = serde_json::from_value(tags).unwrap();
                let (_, given_up) =
                    removal::deregister(context, request(json!({"instanceName": name}))?)?;
                let identity = Identity::User(arn);
                let name = NewInstanceName::read(Some(name))?;
                instances::enroll(
                    context.tx,
                    context.partition,
                    context.now,
                    &name,
                    &identity,
                    &tags,
                )?;
                Ok(given_up)
            })
            .unwrap();
        self.hear(&given_up);
    }

    fn create(&mut self, group: &str) {
        let key = format!("app{}.zip", self.rng.u32(0..3));
        let mut input = json!({
            "applicationName": "shop", "deploymentGroupName": group,
            "revision": {"revisionType": "S3", "s3Location": {"bucket": "b", "key": key, "bundleType": "zip"}},
            "ignoreApplicationStopFailures": self.rng.bool(),
            "updateOutdatedInstancesOnly": self.rng.u32(0..4) == 0,
        });
        if self.style == Style::BlueGreen {
            let fleet = *self.rng.choice(&["blue", "green"]).unwrap();
            input["targetInstances"] = json!({"tagFilters": [{"Key": "fleet", "Value": fleet}]});
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
            // There is nothing to restart yet, or no green host is left.
            Some(Err(refusal)) => {
                let known = [
                    ErrorName::RevisionDoesNotExist,
                    ErrorName::InvalidTargetInstances,
                ];
                assert!(known.contains(&refusal.name), "{refusal}");
                self.wanted -= 1;
            }
            None => {}
        }
    }
}

/// A request as a client sends it.
fn request<R: Request>(input: Value) -> Result<R, ApiError> {
    R::check(serde_json::from_value(input).unwrap())
}
