//! The rules for what a deployment group may be set to.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::*;

use super::{CONFIG, configs, shorten};
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;

/// Most of anything a group lists: filters, triggers, alarms, load balancers, Auto Scaling groups.
const MAX_LISTED: usize = 10;
const MAX_TAG_GROUPS: usize = 3;

/// Checks the members that a request gives; `complete` is what the group would be set to as a whole.
pub(super) fn check(
    given: &DeploymentGroupSettings,
    complete: &DeploymentGroupSettings,
) -> Result<(), ApiError> {
    if let Some(name) = &given.deployment_config_name {
        configs::minimum_healthy(&CONFIG.check(Some(name.clone()))?)?;
    }
    if let Some(role) = &given.service_role_arn {
        check_role(role)?;
    }
    check_filters(given)?;
    if given.auto_scaling_groups.as_ref().is_some_and(|groups| !groups.is_empty()) {
        return Err(ErrorName::InvalidAutoScalingGroup
            .because("This service knows no Auto Scaling groups: register hosts as on-premises instances."));
    }
    check_triggers(given.trigger_configurations.as_deref().unwrap_or_default())?;
    if let Some(alarms) = &given.alarm_configuration {
        check_alarms(alarms)?;
    }
    if let Some(rollback) = &given.auto_rollback_configuration {
        check_rollback(rollback)?;
    }
    if let Some(strategy) = given.outdated_instances_strategy.as_ref().filter(|s| !s.is_known()) {
        return Err(ErrorName::InvalidInput.because(format!(
            "The outdated instances strategy {:?} is not UPDATE or IGNORE.",
            shorten(strategy.as_str())
        )));
    }
    if given.ecs_services.as_ref().is_some_and(|services| !services.is_empty()) {
        return Err(
            ErrorName::InvalidECSService.because("ECS services do not go with the Server compute platform.")
        );
    }
    check_processes(given.ec2_deployment_options.as_ref())?;
    check_load_balancer(complete)?;
    check_blue_green(complete)
}

fn check_role(role: &str) -> Result<(), ApiError> {
    let mut parts = role.splitn(6, ':');
    let head = [parts.next(), parts.next(), parts.next(), parts.next()];
    let account = parts.next().unwrap_or_default();
    let name = parts.next().and_then(|resource| resource.strip_prefix("role/"));
    let valid = head[0] == Some("arn")
        && head[1].is_some_and(|partition| partition.starts_with("aws"))
        && head[2] == Some("iam")
        && head[3] == Some("")
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && name.is_some_and(|name| !name.is_empty());
    if valid {
        Ok(())
    } else {
        Err(ErrorName::InvalidRole.because(format!(
            "{:?} is not a role ARN such as arn:aws:iam::123456789012:role/name.",
            shorten(role)
        )))
    }
}

fn check_filters(given: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let flat = |filters: &Option<Vec<TagFilter>>| filters.as_ref().is_some_and(|filters| !filters.is_empty());
    let ec2_set = given.ec2_tag_set.iter().flat_map(|set| set.ec2_tag_set_list.as_deref());
    let ec2_set: Vec<_> = ec2_set.flatten().collect();
    let on_premises_set = given.on_premises_tag_set.iter();
    let on_premises_set = on_premises_set.flat_map(|set| set.on_premises_tag_set_list.as_deref());
    let on_premises_set: Vec<_> = on_premises_set.flatten().collect();
    if flat(&given.ec2_tag_filters) && !ec2_set.is_empty() {
        return Err(ErrorName::InvalidEC2TagCombination.because("Give ec2TagFilters or ec2TagSet, not both."));
    }
    if flat(&given.on_premises_instance_tag_filters) && !on_premises_set.is_empty() {
        return Err(ErrorName::InvalidOnPremisesTagCombination
            .because("Give onPremisesInstanceTagFilters or onPremisesTagSet, not both."));
    }
    for set in [&ec2_set, &on_premises_set] {
        if set.len() > MAX_TAG_GROUPS {
            return Err(ErrorName::TagSetListLimitExceeded.because(format!(
                "The tag set has {} groups; at most {MAX_TAG_GROUPS} are allowed.",
                set.len()
            )));
        }
    }
    let lists = |flat: &'_ Option<Vec<TagFilter>>, set: Vec<&Vec<TagFilter>>| -> Vec<Vec<TagFilter>> {
        flat.iter().cloned().chain(set.into_iter().cloned()).collect()
    };
    for list in lists(&given.ec2_tag_filters, ec2_set) {
        check_list(&list, ErrorName::InvalidEC2Tag)?;
    }
    for list in lists(&given.on_premises_instance_tag_filters, on_premises_set) {
        check_list(&list, ErrorName::InvalidTag)?;
    }
    Ok(())
}

fn check_list(filters: &[TagFilter], refusal: ErrorName) -> Result<(), ApiError> {
    if filters.len() > MAX_LISTED {
        return Err(refusal.because(format!(
            "{} tag filters were given; at most {MAX_LISTED} are allowed in a list.",
            filters.len()
        )));
    }
    for filter in filters {
        TagTest::read(filter).map_err(|invalid| refusal.because(invalid.to_string()))?;
    }
    Ok(())
}

fn check_triggers(triggers: &[TriggerConfig]) -> Result<(), ApiError> {
    if triggers.len() > MAX_LISTED {
        return Err(ErrorName::TriggerTargetsLimitExceeded
            .because(format!("More than {MAX_LISTED} trigger targets were given.")));
    }
    let invalid = |message: &str| Err(ErrorName::InvalidTriggerConfig.because(message));
    let mut seen = BTreeSet::new();
    for trigger in triggers {
        let name = trigger.trigger_name.as_deref().unwrap_or_default();
        let arn = trigger.trigger_target_arn.as_deref().unwrap_or_default();
        let events = trigger.trigger_events.as_deref().unwrap_or_default();
        if name.is_empty() || !seen.insert(("name", name)) {
            return invalid("Every trigger needs a name of its own.");
        }
        // Clients retry when a message has the words "Topic ARN"; this will not get better.
        if !arn.starts_with("arn:") || arn.split(':').nth(2) != Some("sns") || !seen.insert(("arn", arn)) {
            return invalid("Every trigger needs an SNS ARN of its own as its target.");
        }
        if events.is_empty() || events.iter().any(|event| !event.is_known()) {
            return invalid("Every trigger needs at least one event, and only events that CodeDeploy has.");
        }
    }
    Ok(())
}

pub(crate) fn check_alarms(configuration: &AlarmConfiguration) -> Result<(), ApiError> {
    let alarms = configuration.alarms.as_deref().unwrap_or_default();
    if configuration.enabled == Some(true) && alarms.is_empty() {
        return Err(
            ErrorName::InvalidAlarmConfig.because("An enabled alarm configuration needs at least one alarm.")
        );
    }
    if alarms.len() > MAX_LISTED {
        return Err(
            ErrorName::AlarmsLimitExceeded.because(format!("More than {MAX_LISTED} alarms were given."))
        );
    }
    let mut names = BTreeSet::new();
    for alarm in alarms {
        let name = alarm.name.as_deref().unwrap_or_default();
        if name.is_empty() || name.chars().count() > 255 || !names.insert(name) {
            return Err(ErrorName::InvalidAlarmConfig
                .because("Every alarm needs a name of its own of at most 255 characters."));
        }
    }
    Ok(())
}

pub(crate) fn check_rollback(configuration: &AutoRollbackConfiguration) -> Result<(), ApiError> {
    let events = configuration.events.as_deref().unwrap_or_default();
    if configuration.enabled == Some(true) && events.is_empty() {
        return Err(ErrorName::InvalidAutoRollbackConfig
            .because("An enabled automatic rollback needs at least one event."));
    }
    match events.iter().find(|event| !event.is_known()) {
        Some(event) => Err(ErrorName::InvalidAutoRollbackConfig.because(format!(
            "{:?} is not one of {}.",
            shorten(event.as_str()),
            AutoRollbackEvent::KNOWN.join(", ")
        ))),
        None => Ok(()),
    }
}

pub(crate) fn check_processes(options: Option<&Ec2DeploymentOptions>) -> Result<(), ApiError> {
    let processes = options.and_then(|options| options.auto_scaling_group_processes_to_suspend.as_deref());
    match processes.unwrap_or_default().iter().find(|process| !process.is_known()) {
        Some(process) => Err(ErrorName::InvalidAutoScalingGroupProcessToSuspend.because(format!(
            "{:?} is not one of {}.",
            shorten(process.as_str()),
            AutoScalingGroupProcess::KNOWN.join(", ")
        ))),
        None => Ok(()),
    }
}

fn check_load_balancer(settings: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let info = settings.load_balancer_info.clone().unwrap_or_default();
    let balancers = info.elb_info_list.unwrap_or_default();
    let target_groups = info.target_group_info_list.unwrap_or_default();
    let pairs = info.target_group_pair_info_list.unwrap_or_default();
    let invalid = |message: &str| Err(ErrorName::InvalidLoadBalancerInfo.because(message));
    if balancers.len() > MAX_LISTED || target_groups.len() > MAX_LISTED {
        return invalid("At most 10 load balancers and 10 target groups can be given.");
    }
    let usable =
        |name: &Option<String>| name.as_ref().is_some_and(|name| (1..=32).contains(&name.chars().count()));
    if !balancers.iter().all(|elb| usable(&elb.name))
        || !target_groups.iter().all(|group| usable(&group.name))
    {
        return invalid("A load balancer or target group is given by its name, of 1 to 32 characters.");
    }
    let style = settings.deployment_style.clone().unwrap_or_default();
    let shifts_traffic = style.deployment_option == Some(DeploymentOption::WithTrafficControl);
    if shifts_traffic && balancers.is_empty() && target_groups.is_empty() && pairs.is_empty() {
        return invalid("WITH_TRAFFIC_CONTROL needs a load balancer or a target group in loadBalancerInfo.");
    }
    Ok(())
}

fn check_blue_green(settings: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let style = settings.deployment_style.clone().unwrap_or_default();
    let known = style.deployment_type.as_ref().is_none_or(DeploymentType::is_known)
        && style.deployment_option.as_ref().is_none_or(DeploymentOption::is_known);
    if !known {
        return Err(ErrorName::InvalidDeploymentStyle.because("The deployment type or option is unknown."));
    }
    if style.deployment_type == Some(DeploymentType::BlueGreen)
        && style.deployment_option != Some(DeploymentOption::WithTrafficControl)
    {
        return Err(ErrorName::InvalidDeploymentStyle
            .because("BLUE_GREEN deployments are not supported WITHOUT_TRAFFIC_CONTROL."));
    }
    let Some(configuration) = &settings.blue_green_deployment_configuration else {
        return Ok(());
    };
    let invalid = |message: &str| Err(ErrorName::InvalidBlueGreenDeploymentConfiguration.because(message));
    let Some(termination) = &configuration.terminate_blue_instances_on_deployment_success else {
        return invalid("terminateBlueInstancesOnDeploymentSuccess is missing.");
    };
    let Some(ready) = &configuration.deployment_ready_option else {
        return invalid("deploymentReadyOption is missing.");
    };
    let minutes = 0..=2880;
    if !minutes.contains(&termination.termination_wait_time_in_minutes.unwrap_or(0))
        || !minutes.contains(&ready.wait_time_in_minutes.unwrap_or(0))
    {
        return invalid("A wait time must be 0 to 2880 minutes.");
    }
    if termination.action.as_ref().is_some_and(|action| !action.is_known()) {
        return invalid("The action for blue instances must be TERMINATE or KEEP_ALIVE.");
    }
    match (&ready.action_on_timeout, ready.wait_time_in_minutes.unwrap_or(0)) {
        (Some(DeploymentReadyAction::StopDeployment), 0) => {
            invalid("STOP_DEPLOYMENT needs a wait of 1 minute or more.")
        }
        (Some(DeploymentReadyAction::ContinueDeployment), 1..) => {
            invalid("CONTINUE_DEPLOYMENT takes no wait time.")
        }
        (Some(DeploymentReadyAction::Other(_)), _) => {
            invalid("The action on timeout must be CONTINUE_DEPLOYMENT or STOP_DEPLOYMENT.")
        }
        _ => {
            let green = configuration.green_fleet_provisioning_option.as_ref();
            match green.and_then(|green| green.action.as_ref()) {
                Some(GreenFleetProvisioningAction::CopyAutoScalingGroup) => invalid(
                    "COPY_AUTO_SCALING_GROUP needs exactly one Auto Scaling group, and this service knows none.",
                ),
                Some(GreenFleetProvisioningAction::Other(_)) => {
                    invalid("The green fleet action must be DISCOVER_EXISTING or COPY_AUTO_SCALING_GROUP.")
                }
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_by_name() {
        let table = [
            (r#"{"serviceRoleArn":"role"}"#, "InvalidRoleException"),
            (r#"{"deploymentConfigName":"none"}"#, "DeploymentConfigDoesNotExistException"),
            (
                r#"{"onPremisesInstanceTagFilters":[{"Key":"a","Value":"b","Type":"KEY_ONLY"}]}"#,
                "InvalidTagException",
            ),
            (r#"{"ec2TagFilters":[{"Value":"b","Key":"a","Type":"VALUE_ONLY"}]}"#, "InvalidEC2TagException"),
            (
                r#"{"ec2TagFilters":[{"Key":"a"}],"ec2TagSet":{"ec2TagSetList":[[{"Key":"a"}]]}}"#,
                "InvalidEC2TagCombinationException",
            ),
            (
                r#"{"onPremisesInstanceTagFilters":[{"Key":"a"}],"onPremisesTagSet":{"onPremisesTagSetList":[[{"Key":"a"}]]}}"#,
                "InvalidOnPremisesTagCombinationException",
            ),
            (
                r#"{"onPremisesTagSet":{"onPremisesTagSetList":[[],[],[],[]]}}"#,
                "TagSetListLimitExceededException",
            ),
            (r#"{"alarmConfiguration":{"enabled":true}}"#, "InvalidAlarmConfigException"),
            (r#"{"autoRollbackConfiguration":{"enabled":true}}"#, "InvalidAutoRollbackConfigException"),
            (
                r#"{"deploymentStyle":{"deploymentType":"BLUE_GREEN","deploymentOption":"WITHOUT_TRAFFIC_CONTROL"}}"#,
                "InvalidDeploymentStyleException",
            ),
            (
                r#"{"deploymentStyle":{"deploymentType":"IN_PLACE","deploymentOption":"WITH_TRAFFIC_CONTROL"}}"#,
                "InvalidLoadBalancerInfoException",
            ),
            (
                r#"{"blueGreenDeploymentConfiguration":{}}"#,
                "InvalidBlueGreenDeploymentConfigurationException",
            ),
            (r#"{"triggerConfigurations":[{"triggerName":"t"}]}"#, "InvalidTriggerConfigException"),
            (r#"{"outdatedInstancesStrategy":"X"}"#, "InvalidInputException"),
        ];
        for (json, expected) in table {
            let settings: DeploymentGroupSettings = serde_json::from_str(json).unwrap();
            assert_eq!(check(&settings, &settings).unwrap_err().name.text(), expected, "{json}");
        }
        // What Terraform sends to clear settings.
        let cleared = r#"{"alarmConfiguration":{"enabled":false,"alarms":[]},"autoRollbackConfiguration":{"enabled":false,"events":[]}}"#;
        let settings: DeploymentGroupSettings = serde_json::from_str(cleared).unwrap();
        assert!(check(&settings, &settings).is_ok());
    }
}
