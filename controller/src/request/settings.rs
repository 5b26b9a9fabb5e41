//! The settings of a deployment group, and the rules for replacing them.

use codedeploy_api::codedeploy::*;
use serde::{Deserialize, Serialize};

use super::Field;
use super::members::ConfigName;
use super::options::*;
use crate::error::{ApiError, ErrorName};
use crate::fleet::{Filters, Membership, TagTest};
use crate::options::{self, Alarms, AutoRollback, BlueGreen, LoadBalancers, Style};

/// The settings in a request, each member checked by itself.
#[derive(Debug, Clone, Default)]
pub struct Settings(DeploymentGroupSettings);

impl Settings {
    pub(super) fn check(given: DeploymentGroupSettings) -> Result<Self, ApiError> {
        /// Members whose types define their checks.
        macro_rules! read {
            ($($member:ident: $type:ty,)*) => { $(<Option<$type>>::read(given.$member.clone())?;)* };
        }
        read! {
            deployment_config_name: ConfigName,
            service_role_arn: Role,
            trigger_configurations: Triggers,
            alarm_configuration: Alarms,
            auto_rollback_configuration: AutoRollback,
            outdated_instances_strategy: OutdatedInstancesStrategy,
            ec2_deployment_options: Ec2DeploymentOptions,
            load_balancer_info: LoadBalancers,
            blue_green_deployment_configuration: BlueGreen,
            deployment_style: DeploymentStyle,
        }
        check_filters(&given)?;
        if given
            .auto_scaling_groups
            .as_ref()
            .is_some_and(|groups| !groups.is_empty())
        {
            return Err(ErrorName::InvalidAutoScalingGroup.because(
                "This service knows no Auto Scaling groups: register hosts as on-premises instances.",
            ));
        }
        if given
            .ecs_services
            .as_ref()
            .is_some_and(|services| !services.is_empty())
        {
            return Err(ErrorName::InvalidECSService
                .because("ECS services do not go with the Server compute platform."));
        }
        Ok(Settings(given))
    }

    /// The name of the configuration, if there is one.
    pub(crate) fn config_name(&self) -> Option<&str> {
        self.0.deployment_config_name.as_deref()
    }

    /// The names that refer to the service's configuration.
    pub(crate) fn references(&self) -> References {
        References::of(&self.0)
    }

    /// The settings of a new group.
    pub(crate) fn complete(self) -> Result<GroupSettings, ApiError> {
        refuse_both_forms(&self.0)?;
        check_together(&self.0)?;
        Ok(GroupSettings(self.0))
    }

    /// The settings of a group after these have replaced its own: each member that is set, as a
    /// whole.
    pub(crate) fn replace(self, stored: GroupSettings) -> Result<GroupSettings, ApiError> {
        let (Settings(given), GroupSettings(stored)) = (self, stored);
        refuse_both_forms(&given)?;
        let has_filters =
            |given: &Option<Vec<TagFilter>>| given.as_ref().is_some_and(|list| !list.is_empty());
        let ec2_set = given
            .ec2_tag_set
            .iter()
            .any(|set| groups(&set.ec2_tag_set_list) > 0);
        let on_premises_set = given
            .on_premises_tag_set
            .iter()
            .any(|set| groups(&set.on_premises_tag_set_list) > 0);
        // The two forms of a filter replace each other.
        let other = |replaced: bool, stored| if replaced { None } else { stored };
        let complete = DeploymentGroupSettings {
            ec2_tag_set: given.ec2_tag_set.or(stored
                .ec2_tag_set
                .filter(|_| !has_filters(&given.ec2_tag_filters))),
            ec2_tag_filters: given
                .ec2_tag_filters
                .or(other(ec2_set, stored.ec2_tag_filters)),
            on_premises_tag_set: given.on_premises_tag_set.or(stored
                .on_premises_tag_set
                .filter(|_| !has_filters(&given.on_premises_instance_tag_filters))),
            on_premises_instance_tag_filters: given.on_premises_instance_tag_filters.or(other(
                on_premises_set,
                stored.on_premises_instance_tag_filters,
            )),
            deployment_config_name: given
                .deployment_config_name
                .or(stored.deployment_config_name),
            auto_scaling_groups: given.auto_scaling_groups.or(stored.auto_scaling_groups),
            service_role_arn: given.service_role_arn.or(stored.service_role_arn),
            trigger_configurations: given
                .trigger_configurations
                .or(stored.trigger_configurations),
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
            ec2_deployment_options: given
                .ec2_deployment_options
                .or(stored.ec2_deployment_options),
            termination_hook_enabled: given
                .termination_hook_enabled
                .or(stored.termination_hook_enabled),
        };
        check_together(&complete)?;
        Ok(GroupSettings(complete))
    }
}

/// The consistent settings of a deployment group. They are stored in the form in which they were
/// set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "DeploymentGroupSettings", into = "DeploymentGroupSettings")]
pub struct GroupSettings(DeploymentGroupSettings);

/// Omitted fields are returned with their defaults, which clients expect.
impl From<DeploymentGroupSettings> for GroupSettings {
    fn from(mut stored: DeploymentGroupSettings) -> Self {
        stored
            .load_balancer_info
            .take_if(|info| options::names(info).flatten().next().is_none());
        stored
            .auto_rollback_configuration
            .get_or_insert_default()
            .complete();
        stored.alarm_configuration.complete();
        stored.ec2_tag_filters.complete();
        stored.on_premises_instance_tag_filters.complete();
        stored
            .ec2_tag_set
            .iter_mut()
            .for_each(|set| set.ec2_tag_set_list.complete());
        stored
            .on_premises_tag_set
            .iter_mut()
            .for_each(|set| set.on_premises_tag_set_list.complete());
        GroupSettings(stored)
    }
}

impl From<GroupSettings> for DeploymentGroupSettings {
    fn from(GroupSettings(settings): GroupSettings) -> Self {
        settings
    }
}

impl GroupSettings {
    /// The name of the configuration, if there is one.
    pub(crate) fn config_name(&self) -> Option<&str> {
        self.0.deployment_config_name.as_deref()
    }

    pub(crate) fn style(&self) -> Style {
        Style::of(self.0.deployment_style.as_ref())
    }

    /// The instances of the group.
    pub(crate) fn membership(&self) -> Membership {
        Membership::of_any(&[ec2_filters(&self.0), on_premises_filters(&self.0)])
    }

    pub(crate) fn alarms(&self) -> Option<Alarms> {
        self.0.alarm_configuration.clone().map(Alarms::checked)
    }

    pub(crate) fn auto_rollback(&self) -> AutoRollback {
        AutoRollback::checked(
            self.0
                .auto_rollback_configuration
                .clone()
                .unwrap_or_default(),
        )
    }

    pub(crate) fn load_balancers(&self) -> Option<LoadBalancers> {
        self.0
            .load_balancer_info
            .clone()
            .map(LoadBalancers::checked)
    }

    pub(crate) fn blue_green(&self) -> Option<BlueGreen> {
        self.0
            .blue_green_deployment_configuration
            .clone()
            .map(BlueGreen::checked)
    }

    /// The receivers of the group's events.
    pub(crate) fn triggers(&self) -> impl Iterator<Item = Trigger<'_>> {
        self.0
            .trigger_configurations
            .iter()
            .flatten()
            .filter_map(Trigger::of)
    }

    /// The names that refer to the service's configuration.
    pub(crate) fn references(&self) -> References {
        References::of(&self.0)
    }
}

/// A topic that receives some events of a group's deployments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trigger<'a> {
    pub(crate) name: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) events: &'a [TriggerEventType],
}

impl<'a> Trigger<'a> {
    /// A stored one has all members.
    fn of(stored: &'a TriggerConfig) -> Option<Self> {
        Some(Trigger {
            name: stored.trigger_name.as_deref()?,
            topic: stored.trigger_target_arn.as_deref()?,
            events: stored.trigger_events.as_deref()?,
        })
    }
}

/// Names in settings that refer to the service's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub alarms: Vec<String>,
    pub topics: Vec<String>,
}

impl References {
    fn of(settings: &DeploymentGroupSettings) -> Self {
        let alarms = settings.alarm_configuration.clone().map(Alarms::checked);
        let triggers = settings.trigger_configurations.iter().flatten();
        References {
            alarms: alarms
                .iter()
                .flat_map(Alarms::names)
                .map(str::to_owned)
                .collect(),
            topics: triggers
                .filter_map(|trigger| trigger.trigger_target_arn.clone())
                .collect(),
        }
    }
}

fn groups(list: &Option<Vec<Vec<TagFilter>>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}

/// Checks the consistency of members.
fn check_together(settings: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let style = settings.deployment_style.clone().unwrap_or_default();
    let shifts_traffic = style.deployment_option == Some(DeploymentOption::WithTrafficControl);
    if style.deployment_type == Some(DeploymentType::BlueGreen) && !shifts_traffic {
        return Err(ErrorName::InvalidDeploymentStyle
            .because("BLUE_GREEN deployments are not supported WITHOUT_TRAFFIC_CONTROL."));
    }
    if shifts_traffic
        && !settings
            .load_balancer_info
            .iter()
            .any(|info| options::names(info).flatten().next().is_some())
    {
        return Err(ErrorName::InvalidLoadBalancerInfo.because(
            "WITH_TRAFFIC_CONTROL needs a load balancer or a target group in loadBalancerInfo.",
        ));
    }
    Ok(())
}

/// The filters for instances on EC2.
fn ec2_filters(given: &DeploymentGroupSettings) -> Filters<'_> {
    let set = given
        .ec2_tag_set
        .as_ref()
        .and_then(|set| set.ec2_tag_set_list.as_deref());
    let flat = given.ec2_tag_filters.as_deref();
    Filters {
        flat: flat.unwrap_or_default(),
        set: set.unwrap_or_default(),
    }
}

/// The filters for on-premises instances.
fn on_premises_filters(given: &DeploymentGroupSettings) -> Filters<'_> {
    let set = given
        .on_premises_tag_set
        .as_ref()
        .and_then(|set| set.on_premises_tag_set_list.as_deref());
    let flat = given.on_premises_instance_tag_filters.as_deref();
    Filters {
        flat: flat.unwrap_or_default(),
        set: set.unwrap_or_default(),
    }
}

fn refuse_both_forms(given: &DeploymentGroupSettings) -> Result<(), ApiError> {
    let are_both_given = |Filters { flat, set }: Filters<'_>| !flat.is_empty() && !set.is_empty();
    if are_both_given(ec2_filters(given)) {
        return Err(ErrorName::InvalidEC2TagCombination
            .because("Give ec2TagFilters or ec2TagSet, not both."));
    }
    if are_both_given(on_premises_filters(given)) {
        return Err(ErrorName::InvalidOnPremisesTagCombination
            .because("Give onPremisesInstanceTagFilters or onPremisesTagSet, not both."));
    }
    Ok(())
}

fn check_filters(given: &DeploymentGroupSettings) -> Result<(), ApiError> {
    check_forms(ec2_filters(given), ErrorName::InvalidEC2Tag)?;
    check_forms(on_premises_filters(given), ErrorName::InvalidTag)
}

fn check_forms(Filters { flat, set }: Filters<'_>, refusal: ErrorName) -> Result<(), ApiError> {
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
            (
                r#"{"deploymentConfigName":"no such"}"#,
                "InvalidDeploymentConfigNameException",
            ),
            (
                r#"{"onPremisesInstanceTagFilters":[{"Key":"a","Value":"b","Type":"KEY_ONLY"}]}"#,
                "InvalidTagException",
            ),
            (
                r#"{"ec2TagFilters":[{"Value":"b","Key":"a","Type":"VALUE_ONLY"}]}"#,
                "InvalidEC2TagException",
            ),
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
            (
                r#"{"onPremisesTagSet":{"onPremisesTagSetList":[[{"Key":"a"}],[]]}}"#,
                "InvalidTagException",
            ),
            (
                r#"{"ec2TagSet":{"ec2TagSetList":[[]]}}"#,
                "InvalidEC2TagException",
            ),
            (
                r#"{"alarmConfiguration":{"enabled":true}}"#,
                "InvalidAlarmConfigException",
            ),
            (
                r#"{"alarmConfiguration":{"alarms":[null]}}"#,
                "InvalidAlarmConfigException",
            ),
            (
                r#"{"deploymentStyle":{"deploymentType":"IN_PLACE","deploymentOption":"WITH_TRAFFIC_CONTROL"},"loadBalancerInfo":{"targetGroupPairInfoList":[{}]}}"#,
                "InvalidLoadBalancerInfoException",
            ),
            (
                r#"{"autoRollbackConfiguration":{"enabled":true}}"#,
                "InvalidAutoRollbackConfigException",
            ),
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
            (
                r#"{"triggerConfigurations":[{"triggerName":"t"}]}"#,
                "InvalidTriggerConfigException",
            ),
            (
                r#"{"outdatedInstancesStrategy":"X"}"#,
                "InvalidInputException",
            ),
        ];
        for (json, expected) in table {
            let settings: DeploymentGroupSettings = serde_json::from_str(json).unwrap();
            let refused = Settings::check(settings)
                .and_then(Settings::complete)
                .unwrap_err();
            assert_eq!(refused.name.text(), expected, "{json}");
        }
        // Terraform sends this to clear settings.
        let cleared = r#"{"alarmConfiguration":{"enabled":false,"alarms":[]},"autoRollbackConfiguration":{"enabled":false,"events":[]}}"#;
        let settings: DeploymentGroupSettings = serde_json::from_str(cleared).unwrap();
        assert!(
            Settings::check(settings)
                .and_then(Settings::complete)
                .is_ok()
        );
    }

    fn tags(pairs: &[(&str, &str)]) -> Vec<Tag> {
        let tag = |&(key, value): &(&str, &str)| Tag {
            key: Some(key.into()),
            value: Some(value.into()),
        };
        pairs.iter().map(tag).collect()
    }

    #[test]
    fn a_tag_set_needs_a_match_in_every_list_and_a_group_has_the_hosts_of_both_kinds_of_filters() {
        let membership = |json: &str| {
            serde_json::from_str::<GroupSettings>(json)
                .unwrap()
                .membership()
        };
        let both = membership(
            r#"{"onPremisesTagSet":{"onPremisesTagSetList":[[{"Key":"env","Value":"prod"},{"Key":"env","Value":"test"}],[{"Key":"tier"}]]}}"#,
        );
        assert!(both.includes(&tags(&[("env", "test"), ("tier", "web")])));
        assert!(!both.includes(&tags(&[("env", "test")])));
        let either = membership(
            r#"{"ec2TagSet":{"ec2TagSetList":[[{"Key":"tier"}],[{"Key":"env","Value":"prod"}]]},"onPremisesInstanceTagFilters":[{"Key":"env","Value":"test"}]}"#,
        );
        for (pairs, expected) in [
            (&[("tier", "web"), ("env", "prod")][..], true),
            (&[("env", "test")], true),
            (&[("env", "prod")], false),
        ] {
            assert_eq!(either.includes(&tags(pairs)), expected, "{pairs:?}");
        }
        for none in ["{}", r#"{"onPremisesInstanceTagFilters":[]}"#] {
            assert!(!membership(none).includes(&tags(&[("env", "prod")])));
        }
    }
}
