//! The members with the options of deployment groups and deployments.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::*;

use super::Member;
use super::members::{fits, shorten};
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;
use crate::options::{Alarms, AutoRollback, BlueGreen, LoadBalancers, Replacement, names};

/// The length of lists: filters, triggers, alarms, load balancers, target groups.
pub(super) const MAX_LISTED: usize = 10;

/// The number of groups in a set of tags.
pub(super) const MAX_TAG_GROUPS: usize = 3;

/// The longest name of a trigger, and the longest ARN, in characters.
const MAX_TRIGGER_NAME: usize = 256;
const MAX_ARN: usize = 1024;

/// An instance must match a filter of every group, and an empty group matches nothing.
pub(super) const EMPTY_TAG_GROUP: &str =
    "A tag group is empty: give each group at least one filter.";

/// The ARN of a role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role;

impl Member for Role {
    type Raw = String;

    fn missing() -> ApiError {
        ErrorName::RoleRequired.because("The service role ARN is missing.")
    }

    fn is_given(raw: &String) -> bool {
        !raw.is_empty()
    }

    fn check(raw: String) -> Result<Self, ApiError> {
        let parts: Vec<&str> = raw.splitn(6, ':').collect();
        if let &["arn", partition, "iam", "", account, resource] = parts.as_slice() {
            let numbered = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
            let named = resource
                .strip_prefix("role/")
                .is_some_and(|name| !name.is_empty());
            if partition.starts_with("aws") && numbered && named && raw.len() <= MAX_ARN {
                return Ok(Role);
            }
        }
        // Not InvalidRole, after which Terraform retries for minutes, because it expects the role
        // to appear.
        Err(ErrorName::InvalidInput.because(format!(
            "The service role {:?} is not a role ARN such as arn:aws:iam::123456789012:role/name.",
            shorten(&raw)
        )))
    }
}

/// The triggers: the receivers of a group's events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Triggers;

impl Member for Triggers {
    type Raw = Vec<TriggerConfig>;

    fn check(raw: Vec<TriggerConfig>) -> Result<Self, ApiError> {
        let invalid = |message: String| Err(ErrorName::InvalidTriggerConfig.because(message));
        let (mut names, mut arns) = (BTreeSet::new(), BTreeSet::new());
        for trigger in &raw {
            let name = trigger.trigger_name.as_deref().unwrap_or_default();
            let arn = trigger.trigger_target_arn.as_deref().unwrap_or_default();
            if name.is_empty() {
                return invalid("A trigger has no name.".into());
            }
            if !fits(name, MAX_TRIGGER_NAME) {
                return invalid(format!(
                    "The name {:?} of a trigger has more than {MAX_TRIGGER_NAME} characters.",
                    shorten(name)
                ));
            }
            // Clients retry if a message contains the words "Topic ARN"; here, a retry does not
            // help.
            if !is_topic(arn) {
                return invalid(format!(
                    "The target of the trigger {:?} is {:?}, which is not the ARN of an SNS topic.",
                    shorten(name),
                    shorten(arn)
                ));
            }
            if !names.insert(name) || !arns.insert(arn) {
                return invalid(format!(
                    "The name or the target of the trigger {:?} is that of another trigger.",
                    shorten(name)
                ));
            }
            let events = trigger.trigger_events.as_deref().unwrap_or_default();
            if events.is_empty() {
                return invalid(format!("The trigger {:?} has no events.", shorten(name)));
            }
            if events.len() > TriggerEventType::KNOWN.len() {
                return invalid(format!(
                    "The trigger {:?} has {} events; there are {}.",
                    shorten(name),
                    events.len(),
                    TriggerEventType::KNOWN.len()
                ));
            }
            if let Some(event) = events.iter().find(|event| !event.is_known()) {
                return invalid(format!(
                    "The event {:?} is not one of {}.",
                    shorten(event.as_str()),
                    TriggerEventType::KNOWN.join(", ")
                ));
            }
        }
        if raw.len() > MAX_LISTED {
            return Err(ErrorName::TriggerTargetsLimitExceeded.because(format!(
                "{} trigger targets were given; at most {MAX_LISTED} are allowed.",
                raw.len()
            )));
        }
        Ok(Triggers)
    }
}

fn is_topic(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    matches!(parts.as_slice(), ["arn", _, "sns", region, account, name]
        if !region.is_empty() && !account.is_empty() && !name.is_empty() && arn.len() <= MAX_ARN)
}

impl Member for Alarms {
    type Raw = AlarmConfiguration;

    fn check(raw: AlarmConfiguration) -> Result<Self, ApiError> {
        let invalid = |message: &str| Err(ErrorName::InvalidAlarmConfig.because(message));
        let raw = in_full(raw);
        match (raw.enabled, &raw.alarms) {
            (Some(true), None) => {
                return invalid(
                    "The alarm configuration is enabled, but its list of alarms is null.",
                );
            }
            (Some(true), Some(alarms)) if alarms.is_empty() => {
                return invalid(
                    "The alarm configuration is enabled, but its list of alarms is empty.",
                );
            }
            _ => {}
        }
        let alarms = raw.alarms.as_deref().unwrap_or_default();
        let mut names = BTreeSet::new();
        for alarm in alarms {
            let name = alarm.name.as_deref().unwrap_or_default();
            if name.is_empty() || name.chars().count() > 255 {
                return invalid("Every alarm needs a name of 1 to 255 characters.");
            }
            if !names.insert(name) {
                return invalid(&format!("The alarm {:?} is given twice.", shorten(name)));
            }
        }
        if alarms.len() > MAX_LISTED {
            return Err(ErrorName::AlarmsLimitExceeded.because(format!(
                "{} alarms were given; at most {MAX_LISTED} are allowed.",
                alarms.len()
            )));
        }
        Ok(Alarms::checked(raw))
    }
}

impl Member for AutoRollback {
    type Raw = AutoRollbackConfiguration;

    fn check(raw: AutoRollbackConfiguration) -> Result<Self, ApiError> {
        let events = raw.events.clone().unwrap_or_default();
        if raw.enabled == Some(true) && events.is_empty() {
            return Err(ErrorName::InvalidAutoRollbackConfig
                .because("An enabled automatic rollback needs at least one event."));
        }
        if events.len() > AutoRollbackEvent::KNOWN.len() {
            return Err(ErrorName::InvalidAutoRollbackConfig.because(format!(
                "{} automatic rollback events were given; there are {}.",
                events.len(),
                AutoRollbackEvent::KNOWN.len()
            )));
        }
        Vec::<AutoRollbackEvent>::check(events)?;
        Ok(AutoRollback::checked(in_full(raw)))
    }
}

impl Member for Ec2DeploymentOptions {
    type Raw = Ec2DeploymentOptions;

    fn check(raw: Ec2DeploymentOptions) -> Result<Self, ApiError> {
        let processes = raw
            .auto_scaling_group_processes_to_suspend
            .clone()
            .unwrap_or_default();
        if processes.len() > AutoScalingGroupProcess::KNOWN.len() {
            return Err(
                ErrorName::InvalidAutoScalingGroupProcessToSuspend.because(format!(
                    "{} Auto Scaling group processes were given; there are {}.",
                    processes.len(),
                    AutoScalingGroupProcess::KNOWN.len()
                )),
            );
        }
        Vec::<AutoScalingGroupProcess>::check(processes)?;
        Ok(raw)
    }
}

impl Member for LoadBalancers {
    type Raw = LoadBalancerInfo;

    fn check(raw: LoadBalancerInfo) -> Result<Self, ApiError> {
        let invalid = |message: &str| Err(ErrorName::InvalidLoadBalancerInfo.because(message));
        let pairs = raw
            .target_group_pair_info_list
            .as_deref()
            .unwrap_or_default();
        let lengths = [
            raw.elb_info_list.as_ref().map_or(0, Vec::len),
            raw.target_group_info_list.as_ref().map_or(0, Vec::len),
            pairs.len(),
        ];
        if lengths.iter().any(|length| *length > MAX_LISTED) {
            return invalid(
                "At most 10 load balancers, 10 target groups and 10 pairs of them can be given.",
            );
        }
        if pairs
            .iter()
            .any(|pair| pair.target_groups.as_ref().is_none_or(Vec::is_empty))
        {
            return invalid("A pair of target groups has none in targetGroups.");
        }
        let listed = |pair: &TargetGroupPairInfo| {
            let routes = pair
                .prod_traffic_route
                .iter()
                .chain(&pair.test_traffic_route);
            let arns = routes.flat_map(|route| route.listener_arns.iter());
            pair.target_groups
                .as_ref()
                .is_none_or(|groups| groups.len() <= MAX_LISTED)
                && arns.clone().all(|arns| arns.len() <= MAX_LISTED)
                && arns.flatten().all(|arn| fits(arn, MAX_ARN))
        };
        if !pairs.iter().all(listed) {
            return invalid(
                "A pair of target groups has at most 10 targetGroups and 10 listenerArns of 1024 characters each.",
            );
        }
        let usable =
            |name: Option<&str>| name.is_some_and(|name| (1..=32).contains(&name.chars().count()));
        if !names(&raw).all(usable) {
            return invalid(
                "A load balancer or target group is given by its name, of 1 to 32 characters.",
            );
        }
        Ok(LoadBalancers::checked(raw))
    }
}

/// Fills in the defaults of omitted members, which clients expect.
pub(super) trait InFull {
    fn complete(&mut self);
}

pub(super) fn in_full<T: InFull>(mut given: T) -> T {
    given.complete();
    given
}

impl InFull for AutoRollbackConfiguration {
    fn complete(&mut self) {
        self.enabled.get_or_insert(false);
    }
}

impl InFull for AlarmConfiguration {
    fn complete(&mut self) {
        self.enabled.get_or_insert(false);
        self.ignore_poll_alarm_failure.get_or_insert(false);
    }
}

impl InFull for TagFilter {
    fn complete(&mut self) {
        if self.kind.is_none() {
            self.kind = TagTest::read(self).ok().map(|test| test.kind());
        }
    }
}

impl<T: InFull> InFull for Vec<T> {
    fn complete(&mut self) {
        self.iter_mut().for_each(T::complete);
    }
}

impl<T: InFull> InFull for Option<T> {
    fn complete(&mut self) {
        self.iter_mut().for_each(T::complete);
    }
}

impl Member for DeploymentStyle {
    type Raw = DeploymentStyle;

    fn check(raw: DeploymentStyle) -> Result<Self, ApiError> {
        let known = raw
            .deployment_type
            .as_ref()
            .is_none_or(DeploymentType::is_known)
            && raw
                .deployment_option
                .as_ref()
                .is_none_or(DeploymentOption::is_known);
        if known {
            return Ok(raw);
        }
        Err(ErrorName::InvalidDeploymentStyle.because(format!(
            "The deployment type must be one of {} and the deployment option one of {}.",
            DeploymentType::KNOWN.join(", "),
            DeploymentOption::KNOWN.join(", ")
        )))
    }
}

impl Member for BlueGreen {
    type Raw = BlueGreenDeploymentConfiguration;

    fn check(raw: BlueGreenDeploymentConfiguration) -> Result<Self, ApiError> {
        let invalid = |message: &str| {
            Err(ErrorName::InvalidBlueGreenDeploymentConfiguration.because(message))
        };
        let Some(ready) = &raw.deployment_ready_option else {
            return invalid("deploymentReadyOption is null.");
        };
        let Some(termination) = &raw.terminate_blue_instances_on_deployment_success else {
            return invalid("terminateBlueInstancesOnDeploymentSuccess is null.");
        };
        let wait = ready.wait_time_in_minutes.unwrap_or(0);
        let minutes = 0..=2880;
        if !minutes.contains(&wait)
            || !minutes.contains(&termination.termination_wait_time_in_minutes.unwrap_or(0))
        {
            return invalid("A wait time must be 0 to 2880 minutes, which are two days.");
        }
        if termination
            .action
            .as_ref()
            .is_some_and(|action| !action.is_known())
        {
            return invalid("The action for blue instances must be TERMINATE or KEEP_ALIVE.");
        }
        match &ready.action_on_timeout {
            Some(DeploymentReadyAction::StopDeployment) if wait == 0 => {
                return invalid("STOP_DEPLOYMENT needs a wait of 1 minute or more.");
            }
            Some(DeploymentReadyAction::ContinueDeployment) if wait > 0 => {
                return invalid("CONTINUE_DEPLOYMENT takes no wait time.");
            }
            Some(DeploymentReadyAction::Other(_)) => {
                return invalid(
                    "The action on timeout must be CONTINUE_DEPLOYMENT or STOP_DEPLOYMENT.",
                );
            }
            _ => {}
        }
        let green = raw
            .green_fleet_provisioning_option
            .as_ref()
            .and_then(|green| green.action.as_ref());
        match green {
            Some(GreenFleetProvisioningAction::CopyAutoScalingGroup) => invalid(
                "COPY_AUTO_SCALING_GROUP needs exactly one Auto Scaling group, and this service knows none.",
            ),
            Some(GreenFleetProvisioningAction::Other(_)) => invalid(
                "The green fleet action must be DISCOVER_EXISTING or COPY_AUTO_SCALING_GROUP.",
            ),
            _ => Ok(BlueGreen::checked(raw)),
        }
    }
}

impl Member for Replacement {
    type Raw = TargetInstances;

    fn check(mut raw: TargetInstances) -> Result<Self, ApiError> {
        let invalid = |message: String| Err(ErrorName::InvalidTargetInstances.because(message));
        if raw
            .auto_scaling_groups
            .as_ref()
            .is_some_and(|groups| !groups.is_empty())
        {
            return invalid(
                "This service knows no Auto Scaling groups: give the tags of the instances.".into(),
            );
        }
        let flat = raw.tag_filters.iter();
        let sets = || {
            raw.ec2_tag_set
                .iter()
                .flat_map(|set| set.ec2_tag_set_list.iter().flatten())
        };
        if sets().count() > MAX_TAG_GROUPS {
            return invalid(format!(
                "The tag set has {} groups; at most {MAX_TAG_GROUPS} are allowed.",
                sets().count()
            ));
        }
        if sets().any(Vec::is_empty) {
            return invalid(EMPTY_TAG_GROUP.into());
        }
        for list in flat.chain(sets()) {
            if list.len() > MAX_LISTED {
                return invalid(format!(
                    "{} tags were given; at most {MAX_LISTED} are allowed.",
                    list.len()
                ));
            }
            if let Some(refused) = list.iter().find_map(|filter| TagTest::read(filter).err()) {
                return invalid(refused.to_string());
            }
        }
        raw.tag_filters.complete();
        raw.ec2_tag_set
            .iter_mut()
            .for_each(|set| set.ec2_tag_set_list.complete());
        Ok(Replacement::checked(raw))
    }
}
