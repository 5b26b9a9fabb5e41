//! The definition of a deployment: its revision and its options, which do not change after its
//! creation.

use codedeploy_api::codedeploy::{
    AutoRollbackConfiguration, ComputePlatform, DeploymentCreator, DeploymentInfo, DeploymentMode,
    Ec2DeploymentOptions,
};
use serde::{Deserialize, Serialize};

use crate::options::{
    Alarms, AutoRollback, BlueGreen, FileExists, LoadBalancers, Replacement, Style,
};
use crate::revision::{NotARevision, Revision};

/// The contents and options of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    pub(crate) revision: Revision,
    /// The group's previous revision.
    pub(crate) previous_revision: Option<Revision>,
    pub(crate) config_name: String,
    pub(crate) description: Option<String>,
    pub(crate) creator: Creator,
    pub(crate) style: Style,
    /// Whether it restarts the application with the hosts' present revision.
    pub(crate) restarts: bool,
    pub(crate) file_exists: FileExists,
    pub(crate) ignore_application_stop_failures: bool,
    pub(crate) update_outdated_only: bool,
    pub(crate) auto_rollback: AutoRollback,
    /// Only a blue/green deployment has replacement instances.
    pub(crate) replacement: Option<Replacement>,
    pub(crate) blue_green: Option<BlueGreen>,
    pub(crate) load_balancers: Option<LoadBalancers>,
    /// Alarms that replace the group's.
    pub(crate) override_alarms: Option<Alarms>,
    /// No effect here, because there are no Auto Scaling groups.
    pub(crate) ec2_options: Option<Ec2DeploymentOptions>,
    /// Warnings for people.
    pub(crate) messages: Vec<String>,
}

/// The creator of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creator {
    User,
    /// The service, for a rollback.
    Rollback,
}

impl From<Creator> for DeploymentCreator {
    fn from(creator: Creator) -> Self {
        match creator {
            Creator::User => DeploymentCreator::User,
            Creator::Rollback => DeploymentCreator::CodeDeployRollback,
        }
    }
}

/// A definition in its row; `None` if damage destroyed it. The format is that of the API, for all
/// versions of this program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "DeploymentInfo", into = "DeploymentInfo")]
pub(super) struct Stored(pub(super) Option<Definition>);

#[derive(Debug, thiserror::Error)]
pub(super) enum NotADefinition {
    #[error("revision: {0}")]
    Revision(#[from] NotARevision),
    #[error("revision: found none")]
    NoRevision,
    #[error("fileExistsBehavior: found none of DISALLOW, OVERWRITE and RETAIN")]
    FileExists,
}

impl TryFrom<DeploymentInfo> for Stored {
    type Error = NotADefinition;

    fn try_from(info: DeploymentInfo) -> Result<Self, NotADefinition> {
        if info == DeploymentInfo::default() {
            return Ok(Stored(None));
        }
        let is_rollback = info.creator == Some(DeploymentCreator::CodeDeployRollback);
        let never = || AutoRollbackConfiguration {
            enabled: Some(false),
            events: None,
        };
        Ok(Stored(Some(Definition {
            revision: info
                .revision
                .ok_or(NotADefinition::NoRevision)?
                .try_into()?,
            previous_revision: info.previous_revision.map(Revision::try_from).transpose()?,
            config_name: info.deployment_config_name.unwrap_or_default(),
            description: info.description,
            creator: if is_rollback {
                Creator::Rollback
            } else {
                Creator::User
            },
            style: Style::of(info.deployment_style.as_ref()),
            restarts: info.deployment_mode == Some(DeploymentMode::Restart),
            file_exists: FileExists::of(info.file_exists_behavior.as_ref())
                .ok_or(NotADefinition::FileExists)?,
            ignore_application_stop_failures: info.ignore_application_stop_failures == Some(true),
            update_outdated_only: info.update_outdated_instances_only == Some(true),
            auto_rollback: AutoRollback::checked(
                info.auto_rollback_configuration.unwrap_or_else(never),
            ),
            replacement: info.target_instances.map(Replacement::checked),
            blue_green: info
                .blue_green_deployment_configuration
                .map(BlueGreen::checked),
            load_balancers: info.load_balancer_info.map(LoadBalancers::checked),
            override_alarms: info.override_alarm_configuration.map(Alarms::checked),
            ec2_options: info.ec2_deployment_options,
            messages: info.deployment_status_messages.unwrap_or_default(),
        })))
    }
}

impl From<Stored> for DeploymentInfo {
    fn from(Stored(definition): Stored) -> Self {
        definition.map(DeploymentInfo::from).unwrap_or_default()
    }
}

/// The members of a deployment that its definition determines.
impl From<Definition> for DeploymentInfo {
    fn from(definition: Definition) -> Self {
        DeploymentInfo {
            deployment_config_name: Some(definition.config_name),
            previous_revision: definition.previous_revision.map(Into::into),
            revision: Some(definition.revision.into()),
            description: definition.description,
            creator: Some(definition.creator.into()),
            ignore_application_stop_failures: Some(definition.ignore_application_stop_failures),
            auto_rollback_configuration: Some(definition.auto_rollback.into_shape()),
            update_outdated_instances_only: Some(definition.update_outdated_only),
            deployment_style: Some(definition.style.into()),
            target_instances: definition.replacement.map(Replacement::into_shape),
            blue_green_deployment_configuration: definition.blue_green.map(BlueGreen::into_shape),
            load_balancer_info: definition.load_balancers.map(LoadBalancers::into_shape),
            file_exists_behavior: Some(definition.file_exists.into()),
            deployment_mode: definition.restarts.then_some(DeploymentMode::Restart),
            deployment_status_messages: (!definition.messages.is_empty())
                .then_some(definition.messages),
            compute_platform: Some(ComputePlatform::Server),
            override_alarm_configuration: definition.override_alarms.map(Alarms::into_shape),
            ec2_deployment_options: definition.ec2_options,
            ..DeploymentInfo::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"deploymentConfigName":"CodeDeployDefault.OneAtATime","revision":{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"zip"}},"creator":"user","ignoreApplicationStopFailures":false,"autoRollbackConfiguration":{"enabled":true,"events":["DEPLOYMENT_FAILURE"]},"updateOutdatedInstancesOnly":true,"deploymentStyle":{"deploymentType":"BLUE_GREEN","deploymentOption":"WITH_TRAFFIC_CONTROL"},"targetInstances":{"tagFilters":[{"Key":"a","Value":"b","Type":"KEY_AND_VALUE"}]},"loadBalancerInfo":{"elbInfoList":[{"name":"lb"}]},"fileExistsBehavior":"RETAIN","computePlatform":"Server"}"#;

    #[test]
    fn a_row_is_written_as_it_was_read() {
        for row in [ROW, "{}"] {
            let stored: Stored = serde_json::from_str(row).unwrap();
            assert_eq!(serde_json::to_string(&stored).unwrap(), row);
        }
        let Stored(definition) = serde_json::from_str(ROW).unwrap();
        let definition = definition.unwrap();
        assert_eq!(
            (definition.style, definition.file_exists),
            (Style::BlueGreen, FileExists::Retain)
        );
        assert!(definition.auto_rollback.endings().on_failure && definition.update_outdated_only);
    }

    #[test]
    fn a_row_without_a_revision_is_damaged() {
        for row in [
            r#"{"creator":"user"}"#,
            r#"{"revision":{"revisionType":"S3"}}"#,
        ] {
            assert!(serde_json::from_str::<Stored>(row).is_err(), "{row}");
        }
    }
}
