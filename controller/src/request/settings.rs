//! What a deployment group may be set to, and how new settings replace those it has.

use codedeploy_api::codedeploy::*;

use super::Field;
use super::members::ConfigName;
use super::options::*;
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;

const MAX_TAG_GROUPS: usize = 3;

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

    /// What a new group is set to.
    pub(crate) fn complete(self) -> Result<DeploymentGroupSettings, ApiError> {
        check_together(&self.0)?;
        Ok(self.0)
    }

    /// What a group is set to once these settings replaced its own: a member that is given as a whole, the others not.
    pub(crate) fn replace(
        self,
        stored: DeploymentGroupSettings,
    ) -> Result<DeploymentGroupSettings, ApiError> {
        let Settings(given) = self;
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

/// What members demand of each other.
fn check_together(settings: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let style = settings.deployment_style.clone().unwrap_or_default();
    let shifts_traffic = style.deployment_option == Some(DeploymentOption::WithTrafficControl);
    if style.deployment_type == Some(DeploymentType::BlueGreen) && !shifts_traffic {
        return Err(ErrorName::InvalidDeploymentStyle
            .because("BLUE_GREEN deployments are not supported WITHOUT_TRAFFIC_CONTROL."));
    }
    let balanced = settings.load_balancer_info.as_ref().is_some_and(|info| {
        let named = [
            info.elb_info_list.as_ref().map_or(0, Vec::len),
            info.target_group_info_list.as_ref().map_or(0, Vec::len),
            info.target_group_pair_info_list.as_ref().map_or(0, Vec::len),
        ];
        named.iter().any(|count| *count > 0)
    });
    if shifts_traffic && !balanced {
        return Err(ErrorName::InvalidLoadBalancerInfo
            .because("WITH_TRAFFIC_CONTROL needs a load balancer or a target group in loadBalancerInfo."));
    }
    Ok(())
}

fn check_filters(given: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let ec2_set = given.ec2_tag_set.as_ref().and_then(|set| set.ec2_tag_set_list.as_deref());
    check_forms(
        given.ec2_tag_filters.as_deref().unwrap_or_default(),
        ec2_set.unwrap_or_default(),
        ErrorName::InvalidEC2Tag,
        ErrorName::InvalidEC2TagCombination.because("Give ec2TagFilters or ec2TagSet, not both."),
    )?;
    let set = given.on_premises_tag_set.as_ref().and_then(|set| set.on_premises_tag_set_list.as_deref());
    check_forms(
        given.on_premises_instance_tag_filters.as_deref().unwrap_or_default(),
        set.unwrap_or_default(),
        ErrorName::InvalidTag,
        ErrorName::InvalidOnPremisesTagCombination
            .because("Give onPremisesInstanceTagFilters or onPremisesTagSet, not both."),
    )
}

/// The two forms in which filters of one kind can be given.
fn check_forms(
    flat: &[TagFilter],
    set: &[Vec<TagFilter>],
    refusal: ErrorName,
    both: ApiError,
) -> Result<(), ApiError> {
    if !flat.is_empty() && !set.is_empty() {
        return Err(both);
    }
    if set.len() > MAX_TAG_GROUPS {
        return Err(ErrorName::TagSetListLimitExceeded.because(format!(
            "The tag set has {} groups; at most {MAX_TAG_GROUPS} are allowed.",
            set.len()
        )));
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
            (r#"{"serviceRoleArn":"role"}"#, "InvalidRoleException"),
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
            let refused = Settings::check(settings).and_then(Settings::complete).unwrap_err();
            assert_eq!(refused.name.text(), expected, "{json}");
        }
        // What Terraform sends to clear settings.
        let cleared = r#"{"alarmConfiguration":{"enabled":false,"alarms":[]},"autoRollbackConfiguration":{"enabled":false,"events":[]}}"#;
        let settings: DeploymentGroupSettings = serde_json::from_str(cleared).unwrap();
        assert!(Settings::check(settings).and_then(Settings::complete).is_ok());
    }
}
