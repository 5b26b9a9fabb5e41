//! What a deployment group may be set to, and how new settings replace those it has.

use codedeploy_api::codedeploy::*;

use super::Field;
use super::members::ConfigName;
use super::options::*;
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;

/// What a request gives of a group's settings, each member checked by itself.
#[derive(Debug, Clone, Default)]
pub struct Settings(DeploymentGroupSettings);

impl Settings {
    pub(super) fn check(given: DeploymentGroupSettings) -> Result<Self, ApiError> {
        /// Members that say by their types what is checked of them.
        macro_rules! read {
            ($($member:ident: $type:ty,)*) => { $(<Option<$type>>::read(given.$member.clone())?;)* };
        }
        read! {
            deployment_config_name: ConfigName,
            service_role_arn: Role,
            trigger_configurations: Triggers,
            alarm_configuration: AlarmConfiguration,
            auto_rollback_configuration: AutoRollbackConfiguration,
            outdated_instances_strategy: OutdatedInstancesStrategy,
            ec2_deployment_options: Ec2DeploymentOptions,
            load_balancer_info: LoadBalancerInfo,
            blue_green_deployment_configuration: BlueGreenDeploymentConfiguration,
            deployment_style: DeploymentStyle,
        }
        check_filters(&given)?;
        if given.auto_scaling_groups.as_ref().is_some_and(|groups| !groups.is_empty()) {
            return Err(ErrorName::InvalidAutoScalingGroup.because(
                "This service knows no Auto Scaling groups: register hosts as on-premises instances.",
            ));
        }
        if given.ecs_services.as_ref().is_some_and(|services| !services.is_empty()) {
            return Err(ErrorName::InvalidECSService
                .because("ECS services do not go with the Server compute platform."));
        }
        Ok(Settings(given))
    }

    /// The configuration that is named, if one is.
    pub(crate) fn config_name(&self) -> Option<&str> {
        self.0.deployment_config_name.as_deref()
    }

    /// What was given, each member by itself.
    pub(crate) fn given(&self) -> &DeploymentGroupSettings {
        &self.0
    }

    /// What a new group is set to.
    pub(crate) fn complete(self) -> Result<DeploymentGroupSettings, ApiError> {
        refuse_both_forms(&self.0)?;
        check_together(&self.0)?;
        Ok(self.0)
    }

    /// What a group is set to once these settings replaced its own: a member that is given as a whole, the others not.
    pub(crate) fn replace(
        self,
        stored: DeploymentGroupSettings,
    ) -> Result<DeploymentGroupSettings, ApiError> {
        let Settings(given) = self;
        refuse_both_forms(&given)?;
        let has_filters =
            |given: &Option<Vec<TagFilter>>| given.as_ref().is_some_and(|list| !list.is_empty());
        let ec2_set = given.ec2_tag_set.iter().any(|set| groups(&set.ec2_tag_set_list) > 0);
        let on_premises_set =
            given.on_premises_tag_set.iter().any(|set| groups(&set.on_premises_tag_set_list) > 0);
        // The two forms of a filter replace each other.
        let other = |replaced: bool, stored| if replaced { None } else { stored };
        let complete = DeploymentGroupSettings {
            ec2_tag_set: given
                .ec2_tag_set
                .or(stored.ec2_tag_set.filter(|_| !has_filters(&given.ec2_tag_filters))),
            ec2_tag_filters: given.ec2_tag_filters.or(other(ec2_set, stored.ec2_tag_filters)),
            on_premises_tag_set: given.on_premises_tag_set.or(stored
                .on_premises_tag_set
                .filter(|_| !has_filters(&given.on_premises_instance_tag_filters))),
            on_premises_instance_tag_filters: given
                .on_premises_instance_tag_filters
                .or(other(on_premises_set, stored.on_premises_instance_tag_filters)),
            deployment_config_name: given.deployment_config_name.or(stored.deployment_config_name),
            auto_scaling_groups: given.auto_scaling_groups.or(stored.auto_scaling_groups),
            service_role_arn: given.service_role_arn.or(stored.service_role_arn),
            trigger_configurations: given.trigger_configurations.or(stored.trigger_configurations),
            alarm_configuration: given.alarm_configuration.or(stored.alarm_configuration),
            auto_rollback_configuration: given
                .auto_rollback_configuration
                .or(stored.auto_rollback_configuration),
            outdated_instances_strategy: given
                .outdated_instances_strategy
                .or(stored.outdated_instances_strategy),
            deployment_style: given.deployment_style.or(stored.deployment_style),
            blue_green_deployment_configuration: given
                .blue_green_deployment_configuration
                .or(stored.blue_green_deployment_configuration),
            load_balancer_info: given.load_balancer_info.or(stored.load_balancer_info),
            ecs_services: None,
            ec2_deployment_options: given.ec2_deployment_options.or(stored.ec2_deployment_options),
            termination_hook_enabled: given.termination_hook_enabled.or(stored.termination_hook_enabled),
        };
        check_together(&complete)?;
        Ok(complete)
    }
}

fn groups(list: &Option<Vec<Vec<TagFilter>>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}

/// Settings as they are used and shown, made of what was given once.
pub(crate) fn in_full(mut stored: DeploymentGroupSettings) -> DeploymentGroupSettings {
    stored.load_balancer_info.take_if(|info| load_balancers(Some(info)).is_empty());
    stored.auto_rollback_configuration.get_or_insert_default().complete();
    stored.alarm_configuration.complete();
    stored.ec2_tag_filters.complete();
    stored.on_premises_instance_tag_filters.complete();
    stored.ec2_tag_set.iter_mut().for_each(|set| set.ec2_tag_set_list.complete());
    stored.on_premises_tag_set.iter_mut().for_each(|set| set.on_premises_tag_set_list.complete());
    stored
}

/// What members demand of each other.
fn check_together(settings: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let style = settings.deployment_style.clone().unwrap_or_default();
    let shifts_traffic = style.deployment_option == Some(DeploymentOption::WithTrafficControl);
    if style.deployment_type == Some(DeploymentType::BlueGreen) && !shifts_traffic {
        return Err(ErrorName::InvalidDeploymentStyle
            .because("BLUE_GREEN deployments are not supported WITHOUT_TRAFFIC_CONTROL."));
    }
    if shifts_traffic && load_balancers(settings.load_balancer_info.as_ref()).is_empty() {
        return Err(ErrorName::InvalidLoadBalancerInfo
            .because("WITH_TRAFFIC_CONTROL needs a load balancer or a target group in loadBalancerInfo."));
    }
    Ok(())
}

/// The two forms in which filters of one kind can be given.
struct Forms<'a> {
    flat: &'a [TagFilter],
    set: &'a [Vec<TagFilter>],
}

impl<'a> Forms<'a> {
    fn of_ec2(given: &'a DeploymentGroupSettings) -> Self {
        let set = given.ec2_tag_set.as_ref().and_then(|set| set.ec2_tag_set_list.as_deref());
        let flat = given.ec2_tag_filters.as_deref();
        Forms { flat: flat.unwrap_or_default(), set: set.unwrap_or_default() }
    }

    fn of_on_premises(given: &'a DeploymentGroupSettings) -> Self {
        let set = given.on_premises_tag_set.as_ref().and_then(|set| set.on_premises_tag_set_list.as_deref());
        let flat = given.on_premises_instance_tag_filters.as_deref();
        Forms { flat: flat.unwrap_or_default(), set: set.unwrap_or_default() }
    }

    fn are_both_given(&self) -> bool {
        !self.flat.is_empty() && !self.set.is_empty()
    }
}

fn refuse_both_forms(given: &DeploymentGroupSettings) -> Result<(), ApiError> {
    if Forms::of_ec2(given).are_both_given() {
        return Err(ErrorName::InvalidEC2TagCombination.because("Give ec2TagFilters or ec2TagSet, not both."));
    }
    if Forms::of_on_premises(given).are_both_given() {
        return Err(ErrorName::InvalidOnPremisesTagCombination
            .because("Give onPremisesInstanceTagFilters or onPremisesTagSet, not both."));
    }
    Ok(())
}

fn check_filters(given: &DeploymentGroupSettings) -> Result<(), ApiError> {
    check_forms(&Forms::of_ec2(given), ErrorName::InvalidEC2Tag)?;
    check_forms(&Forms::of_on_premises(given), ErrorName::InvalidTag)
}

fn check_forms(&Forms { flat, set }: &Forms<'_>, refusal: ErrorName) -> Result<(), ApiError> {
    if set.len() > MAX_TAG_GROUPS {
        return Err(ErrorName::TagSetListLimitExceeded.because(format!(
            "The tag set has {} groups; at most {MAX_TAG_GROUPS} are allowed.",
            set.len()
        )));
    }
    if set.iter().any(Vec::is_empty) {
        return Err(refusal.because(EMPTY_TAG_GROUP));
    }
    check_list(flat, refusal)?;
    set.iter().try_for_each(|list| check_list(list, refusal))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_by_name() {
        let table = [
            (r#"{"serviceRoleArn":"role"}"#, "InvalidInputException"),
            (r#"{"deploymentConfigName":"no such"}"#, "InvalidDeploymentConfigNameException"),
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
            (r#"{"onPremisesTagSet":{"onPremisesTagSetList":[[{"Key":"a"}],[]]}}"#, "InvalidTagException"),
            (r#"{"ec2TagSet":{"ec2TagSetList":[[]]}}"#, "InvalidEC2TagException"),
            (r#"{"alarmConfiguration":{"enabled":true}}"#, "InvalidAlarmConfigException"),
            (r#"{"alarmConfiguration":{"alarms":[null]}}"#, "InvalidAlarmConfigException"),
            (
                r#"{"deploymentStyle":{"deploymentType":"IN_PLACE","deploymentOption":"WITH_TRAFFIC_CONTROL"},"loadBalancerInfo":{"targetGroupPairInfoList":[{}]}}"#,
                "InvalidLoadBalancerInfoException",
            ),
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
            let refused = Settings::check(settings).and_then(Settings::complete).unwrap_err();
            assert_eq!(refused.name.text(), expected, "{json}");
        }
        // What Terraform sends to clear settings.
        let cleared = r#"{"alarmConfiguration":{"enabled":false,"alarms":[]},"autoRollbackConfiguration":{"enabled":false,"events":[]}}"#;
        let settings: DeploymentGroupSettings = serde_json::from_str(cleared).unwrap();
        assert!(Settings::check(settings).and_then(Settings::complete).is_ok());
    }
}
