//! Deployments and their targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{
    AlarmConfiguration, AutoRollbackConfiguration, BlueGreenDeploymentConfiguration,
    ComputePlatform, DeploymentStyle, Ec2DeploymentOptions, Ec2TagSet, LoadBalancerInfo,
    RevisionLocation, TagFilter, Timestamp, enumerations, shapes,
};

enumerations! {
    DeploymentStatus {
        Created = "Created",
        Queued = "Queued",
        InProgress = "InProgress",
        Baking = "Baking",
        Succeeded = "Succeeded",
        Failed = "Failed",
        Stopped = "Stopped",
        Ready = "Ready",
    }

    /// Status of a target of a deployment; the older operations call it InstanceStatus.
    TargetStatus {
        Pending = "Pending",
        InProgress = "InProgress",
        Succeeded = "Succeeded",
        Failed = "Failed",
        Skipped = "Skipped",
        Unknown = "Unknown",
        Ready = "Ready",
    }

    LifecycleEventStatus {
        Pending = "Pending",
        InProgress = "InProgress",
        Succeeded = "Succeeded",
        Failed = "Failed",
        Skipped = "Skipped",
        Unknown = "Unknown",
    }

    LifecycleErrorCode {
        Success = "Success",
        ScriptMissing = "ScriptMissing",
        ScriptNotExecutable = "ScriptNotExecutable",
        ScriptTimedOut = "ScriptTimedOut",
        ScriptFailed = "ScriptFailed",
        UnknownError = "UnknownError",
    }

    /// The reason why a deployment failed or was stopped: those codes that a Server deployment
    /// outside EC2 can end with.
    ErrorCode {
        AgentIssue = "AGENT_ISSUE",
        AlarmActive = "ALARM_ACTIVE",
        ApplicationMissing = "APPLICATION_MISSING",
        DeploymentGroupMissing = "DEPLOYMENT_GROUP_MISSING",
        HealthConstraints = "HEALTH_CONSTRAINTS",
        HealthConstraintsInvalid = "HEALTH_CONSTRAINTS_INVALID",
        InternalError = "INTERNAL_ERROR",
        ManualStop = "MANUAL_STOP",
        MissingGithubToken = "MISSING_GITHUB_TOKEN",
        NoInstances = "NO_INSTANCES",
        OverMaxInstances = "OVER_MAX_INSTANCES",
        RevisionMissing = "REVISION_MISSING",
        Timeout = "TIMEOUT",
    }

    /// The creator of a deployment.
    DeploymentCreator {
        User = "user",
        AutoScaling = "autoscaling",
        CodeDeployRollback = "codeDeployRollback",
        CodeDeploy = "CodeDeploy",
        CodeDeployAutoUpdate = "CodeDeployAutoUpdate",
        CloudFormation = "CloudFormation",
        CloudFormationRollback = "CloudFormationRollback",
        AutoScalingTermination = "autoscalingTermination",
    }

    DeploymentMode { Standard = "STANDARD", Restart = "RESTART", }

    /// The way in which Install handles a file that it did not create.
    FileExistsBehavior { Disallow = "DISALLOW", Overwrite = "OVERWRITE", Retain = "RETAIN", }

    StopStatus { Pending = "Pending", Succeeded = "Succeeded", }

    /// The wait of a blue/green deployment that is to end.
    DeploymentWaitType { ReadyWait = "READY_WAIT", TerminationWait = "TERMINATION_WAIT", }

    DeploymentTargetType { InstanceTarget = "InstanceTarget", }

    /// The fleet of a blue/green deployment that a target belongs to.
    TargetLabel { Blue = "Blue", Green = "Green", }
}

shapes! {
    Diagnostics {
        error_code: LifecycleErrorCode,
        script_name: String,
        message: String,
        log_tail: String,
    }

    LifecycleEvent {
        lifecycle_event_name: String,
        diagnostics: Diagnostics,
        start_time: Timestamp,
        end_time: Timestamp,
        status: LifecycleEventStatus,
    }

    InstanceTarget {
        deployment_id: String,
        target_id: String,
        target_arn: String,
        status: TargetStatus,
        last_updated_at: Timestamp,
        lifecycle_events: Vec<LifecycleEvent>,
        instance_label: TargetLabel,
    }

    DeploymentTarget { deployment_target_type: DeploymentTargetType, instance_target: InstanceTarget, }

    /// The older shape of a target; `instance_id` is its ARN.
    InstanceSummary {
        deployment_id: String,
        instance_id: String,
        status: TargetStatus,
        last_updated_at: Timestamp,
        lifecycle_events: Vec<LifecycleEvent>,
        instance_type: TargetLabel,
    }

    /// Targets per status. Its members are spelled with a capital.
    DeploymentOverview {
        #[serde(rename = "Pending")]
        pending: i64,
        #[serde(rename = "InProgress")]
        in_progress: i64,
        #[serde(rename = "Succeeded")]
        succeeded: i64,
        #[serde(rename = "Failed")]
        failed: i64,
        #[serde(rename = "Skipped")]
        skipped: i64,
        #[serde(rename = "Ready")]
        ready: i64,
    }

    ErrorInformation { code: ErrorCode, message: String, }
    RollbackInfo {
        rollback_deployment_id: String,
        rollback_triggering_deployment_id: String,
        rollback_message: String,
    }
    RelatedDeployments {
        auto_update_outdated_instances_root_deployment_id: String,
        auto_update_outdated_instances_deployment_ids: Vec<String>,
    }
    TargetInstances {
        tag_filters: Vec<TagFilter>,
        auto_scaling_groups: Vec<String>,
        ec2_tag_set: Ec2TagSet,
    }

    DeploymentInfo {
        application_name: String,
        deployment_group_name: String,
        deployment_config_name: String,
        deployment_id: String,
        previous_revision: RevisionLocation,
        revision: RevisionLocation,
        status: DeploymentStatus,
        error_information: ErrorInformation,
        create_time: Timestamp,
        start_time: Timestamp,
        complete_time: Timestamp,
        deployment_overview: DeploymentOverview,
        description: String,
        creator: DeploymentCreator,
        ignore_application_stop_failures: bool,
        auto_rollback_configuration: AutoRollbackConfiguration,
        update_outdated_instances_only: bool,
        rollback_info: RollbackInfo,
        deployment_style: DeploymentStyle,
        target_instances: TargetInstances,
        instance_termination_wait_time_started: bool,
        blue_green_deployment_configuration: BlueGreenDeploymentConfiguration,
        load_balancer_info: LoadBalancerInfo,
        additional_deployment_status_info: String,
        file_exists_behavior: FileExistsBehavior,
        deployment_mode: DeploymentMode,
        deployment_status_messages: Vec<String>,
        compute_platform: ComputePlatform,
        external_id: String,
        related_deployments: RelatedDeployments,
        override_alarm_configuration: AlarmConfiguration,
        ec2_deployment_options: Ec2DeploymentOptions,
    }

    CreateDeploymentInput {
        application_name: String,
        deployment_group_name: String,
        revision: RevisionLocation,
        deployment_config_name: String,
        description: String,
        ignore_application_stop_failures: bool,
        target_instances: TargetInstances,
        auto_rollback_configuration: AutoRollbackConfiguration,
        update_outdated_instances_only: bool,
        file_exists_behavior: FileExistsBehavior,
        deployment_mode: DeploymentMode,
        override_alarm_configuration: AlarmConfiguration,
        ec2_deployment_options: Ec2DeploymentOptions,
    }
    CreateDeploymentOutput { deployment_id: String, }
    GetDeploymentInput { deployment_id: String, }
    GetDeploymentOutput { deployment_info: DeploymentInfo, }
    BatchGetDeploymentsInput { deployment_ids: Vec<String>, }
    BatchGetDeploymentsOutput { deployments_info: Vec<DeploymentInfo>, }
    TimeRange { start: Timestamp, end: Timestamp, }
    ListDeploymentsInput {
        application_name: String,
        deployment_group_name: String,
        external_id: String,
        include_only_statuses: Vec<DeploymentStatus>,
        create_time_range: TimeRange,
        next_token: String,
    }
    ListDeploymentsOutput { deployments: Vec<String>, next_token: String, }
    StopDeploymentInput { deployment_id: String, auto_rollback_enabled: bool, }
    StopDeploymentOutput { status: StopStatus, status_message: String, }

    ListDeploymentTargetsInput {
        deployment_id: String,
        next_token: String,
        /// A null filter counts as absent.
        #[serde(default, deserialize_with = "without_nulls")]
        target_filters: BTreeMap<String, Vec<String>>,
    }
    ListDeploymentTargetsOutput { target_ids: Vec<String>, next_token: String, }
    GetDeploymentTargetInput { deployment_id: String, target_id: String, }
    GetDeploymentTargetOutput { deployment_target: DeploymentTarget, }
    BatchGetDeploymentTargetsInput { deployment_id: String, target_ids: Vec<String>, }
    BatchGetDeploymentTargetsOutput { deployment_targets: Vec<DeploymentTarget>, }
    ListDeploymentInstancesInput {
        deployment_id: String,
        next_token: String,
        instance_status_filter: Vec<TargetStatus>,
        instance_type_filter: Vec<TargetLabel>,
    }
    ListDeploymentInstancesOutput { instances_list: Vec<String>, next_token: String, }
    GetDeploymentInstanceInput { deployment_id: String, instance_id: String, }
    GetDeploymentInstanceOutput { instance_summary: InstanceSummary, }
    BatchGetDeploymentInstancesInput { deployment_id: String, instance_ids: Vec<String>, }
    BatchGetDeploymentInstancesOutput {
        /// Lists the instances that are not part of the deployment; empty if all are.
        error_message: String,
        instances_summary: Vec<InstanceSummary>,
    }

    ContinueDeploymentInput { deployment_id: String, deployment_wait_type: DeploymentWaitType, }
    SkipWaitTimeForInstanceTerminationInput { deployment_id: String, }
    PutLifecycleEventHookExecutionStatusInput {
        deployment_id: String,
        lifecycle_event_hook_execution_id: String,
        status: LifecycleEventStatus,
    }
    DeleteResourcesByExternalIdInput { external_id: String, }
}

/// Reads a map whose values may be null.
fn without_nulls<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    map: D,
) -> Result<Option<BTreeMap<String, T>>, D::Error> {
    let map: Option<BTreeMap<String, Option<T>>> = Option::deserialize(map)?;
    Ok(map.map(|map| {
        map.into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }))
}
