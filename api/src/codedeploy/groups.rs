//! Deployment groups.

use serde::{Deserialize, Deserializer};

use super::{
    ComputePlatform, DeploymentStatus, RevisionLocation, Tag, TagFilter, Timestamp, enumerations,
    shapes,
};

enumerations! {
    AutoRollbackEvent {
        DeploymentFailure = "DEPLOYMENT_FAILURE",
        DeploymentStopOnAlarm = "DEPLOYMENT_STOP_ON_ALARM",
        DeploymentStopOnRequest = "DEPLOYMENT_STOP_ON_REQUEST",
    }

    AutoScalingGroupProcess {
        Terminate = "Terminate",
        AzRebalance = "AZRebalance",
        InstanceRefresh = "InstanceRefresh",
        ScheduledActions = "ScheduledActions",
    }

    DeploymentType { InPlace = "IN_PLACE", BlueGreen = "BLUE_GREEN", }

    DeploymentOption {
        WithTrafficControl = "WITH_TRAFFIC_CONTROL",
        WithoutTrafficControl = "WITHOUT_TRAFFIC_CONTROL",
    }

    InstanceAction { Terminate = "TERMINATE", KeepAlive = "KEEP_ALIVE", }

    DeploymentReadyAction {
        ContinueDeployment = "CONTINUE_DEPLOYMENT",
        StopDeployment = "STOP_DEPLOYMENT",
    }

    GreenFleetProvisioningAction {
        DiscoverExisting = "DISCOVER_EXISTING",
        CopyAutoScalingGroup = "COPY_AUTO_SCALING_GROUP",
    }

    OutdatedInstancesStrategy { Update = "UPDATE", Ignore = "IGNORE", }

    TriggerEventType {
        DeploymentStart = "DeploymentStart",
        DeploymentSuccess = "DeploymentSuccess",
        DeploymentFailure = "DeploymentFailure",
        DeploymentStop = "DeploymentStop",
        DeploymentRollback = "DeploymentRollback",
        DeploymentReady = "DeploymentReady",
        InstanceStart = "InstanceStart",
        InstanceSuccess = "InstanceSuccess",
        InstanceFailure = "InstanceFailure",
        InstanceReady = "InstanceReady",
    }
}

shapes! {
    Alarm { name: String, }
    AlarmConfiguration {
        enabled: bool,
        ignore_poll_alarm_failure: bool,
        /// A null alarm is one without a name.
        #[serde(default, deserialize_with = "nulls_are_defaults")]
        alarms: Vec<Alarm>,
    }
    AutoRollbackConfiguration { enabled: bool, events: Vec<AutoRollbackEvent>, }
    AutoScalingGroup { name: String, hook: String, termination_hook: String, }
    BlueInstanceTerminationOption { action: InstanceAction, termination_wait_time_in_minutes: i64, }
    DeploymentReadyOption { action_on_timeout: DeploymentReadyAction, wait_time_in_minutes: i64, }
    GreenFleetProvisioningOption { action: GreenFleetProvisioningAction, }
    BlueGreenDeploymentConfiguration {
        terminate_blue_instances_on_deployment_success: BlueInstanceTerminationOption,
        deployment_ready_option: DeploymentReadyOption,
        green_fleet_provisioning_option: GreenFleetProvisioningOption,
    }
    DeploymentStyle { deployment_type: DeploymentType, deployment_option: DeploymentOption, }
    Ec2TagSet {
        ec2_tag_set_list: Vec<Vec<TagFilter>>,
    }
    OnPremisesTagSet { on_premises_tag_set_list: Vec<Vec<TagFilter>>, }
    ElbInfo { name: String, }
    TargetGroupInfo { name: String, }
    TrafficRoute { listener_arns: Vec<String>, }
    TargetGroupPairInfo {
        target_groups: Vec<TargetGroupInfo>,
        prod_traffic_route: TrafficRoute,
        test_traffic_route: TrafficRoute,
    }
    LoadBalancerInfo {
        elb_info_list: Vec<ElbInfo>,
        target_group_info_list: Vec<TargetGroupInfo>,
        target_group_pair_info_list: Vec<TargetGroupPairInfo>,
    }
    TriggerConfig {
        trigger_name: String,
        trigger_target_arn: String,
        trigger_events: Vec<TriggerEventType>,
    }
    Ec2DeploymentOptions { auto_scaling_group_processes_to_suspend: Vec<AutoScalingGroupProcess>, }
    EcsService { service_name: String, cluster_name: String, }
    LastDeploymentInfo {
        deployment_id: String,
        status: DeploymentStatus,
        end_time: Timestamp,
        create_time: Timestamp,
    }

    DeploymentGroupInfo {
        application_name: String,
        deployment_group_id: String,
        deployment_group_name: String,
        deployment_config_name: String,
        ec2_tag_filters: Vec<TagFilter>,
        on_premises_instance_tag_filters: Vec<TagFilter>,
        auto_scaling_groups: Vec<AutoScalingGroup>,
        service_role_arn: String,
        target_revision: RevisionLocation,
        trigger_configurations: Vec<TriggerConfig>,
        alarm_configuration: AlarmConfiguration,
        auto_rollback_configuration: AutoRollbackConfiguration,
        deployment_style: DeploymentStyle,
        outdated_instances_strategy: OutdatedInstancesStrategy,
        blue_green_deployment_configuration: BlueGreenDeploymentConfiguration,
        load_balancer_info: LoadBalancerInfo,
        last_successful_deployment: LastDeploymentInfo,
        last_attempted_deployment: LastDeploymentInfo,
        ec2_tag_set: Ec2TagSet,
        on_premises_tag_set: OnPremisesTagSet,
        compute_platform: ComputePlatform,
        ec2_deployment_options: Ec2DeploymentOptions,
        termination_hook_enabled: bool,
    }

    CreateDeploymentGroupOutput { deployment_group_id: String, }
    GetDeploymentGroupInput { application_name: String, deployment_group_name: String, }
    GetDeploymentGroupOutput { deployment_group_info: DeploymentGroupInfo, }
    BatchGetDeploymentGroupsInput { application_name: String, deployment_group_names: Vec<String>, }
    BatchGetDeploymentGroupsOutput {
        deployment_groups_info: Vec<DeploymentGroupInfo>,
        /// Lists the groups that do not exist; empty if all do.
        error_message: String,
    }
    ListDeploymentGroupsInput { application_name: String, next_token: String, }
    ListDeploymentGroupsOutput {
        application_name: String,
        deployment_groups: Vec<String>,
        next_token: String,
    }
    DeleteDeploymentGroupInput { application_name: String, deployment_group_name: String, }
    DeleteDeploymentGroupOutput { hooks_not_cleaned_up: Vec<AutoScalingGroup>, }
    UpdateDeploymentGroupOutput { hooks_not_cleaned_up: Vec<AutoScalingGroup>, }
}

/// Passes the members of a group's settings to a macro, behind the macro's own arguments.
macro_rules! with_settings {
    ($given_to:ident! { $($given:tt)* }) => {
        $given_to! { $($given)* {
            deployment_config_name: String,
            ec2_tag_filters: Vec<TagFilter>,
            on_premises_instance_tag_filters: Vec<TagFilter>,
            auto_scaling_groups: Vec<String>,
            service_role_arn: String,
            trigger_configurations: Vec<TriggerConfig>,
            alarm_configuration: AlarmConfiguration,
            auto_rollback_configuration: AutoRollbackConfiguration,
            outdated_instances_strategy: OutdatedInstancesStrategy,
            deployment_style: DeploymentStyle,
            blue_green_deployment_configuration: BlueGreenDeploymentConfiguration,
            load_balancer_info: LoadBalancerInfo,
            ec2_tag_set: Ec2TagSet,
            ecs_services: Vec<EcsService>,
            on_premises_tag_set: OnPremisesTagSet,
            ec2_deployment_options: Ec2DeploymentOptions,
            termination_hook_enabled: bool,
        } }
    };
}

with_settings! { shapes! {
    /// The settings of CreateDeploymentGroup and UpdateDeploymentGroup, in the form in which a
    /// service stores them.
    DeploymentGroupSettings
} }

/// An input that includes the settings. It is read as one flat list of members: serde cannot report
/// the member that failed inside a flattened structure.
macro_rules! inputs {
    ($(#[$doc:meta])* $name:ident { $($own:ident: $own_type:ty,)* } { $($member:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $own: Option<$own_type>,
            )*
            #[serde(flatten)]
            pub settings: DeploymentGroupSettings,
        }

        #[allow(unreachable_pub, reason = "shapes are seen by others, but for this one")]
        const _: () = {
            shapes! { Flat { $($own: $own_type,)* $($member: $type,)* } }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(object: D) -> Result<Self, D::Error> {
                    let flat: Flat = crate::object::read(object)?;
                    let settings = DeploymentGroupSettings { $($member: flat.$member,)* };
                    Ok($name { $($own: flat.$own,)* settings })
                }
            }
        };
    };
}

with_settings! { inputs! {
    /// The input of CreateDeploymentGroup.
    CreateDeploymentGroupInput {
        application_name: String,
        deployment_group_name: String,
        tags: Vec<Tag>,
    }
} }

with_settings! { inputs! {
    /// The input of UpdateDeploymentGroup; an absent member of the settings keeps its value.
    UpdateDeploymentGroupInput {
        application_name: String,
        current_deployment_group_name: String,
        new_deployment_group_name: String,
    }
} }

/// Reads a list whose items may be null.
fn nulls_are_defaults<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    list: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list: Option<Vec<Option<T>>> = Option::deserialize(list)?;
    Ok(list.map(|list| list.into_iter().map(Option::unwrap_or_default).collect()))
}
