//! Requests about deployments and their targets.

use std::collections::BTreeMap;

use codedeploy_api::codedeploy::*;

use super::members::*;
use super::{Field, Member, Request, Subject, requests};
use crate::error::{ApiError, ErrorName};
use crate::options::{Alarms, AutoRollback, FileExists, Replacement};
use crate::revision::Revision;

requests! {
    GetDeployment(GetDeploymentInput) { deployment_id: DeploymentId, }
    BatchGetDeployments(BatchGetDeploymentsInput) { deployment_ids: Batch<DeploymentId>, }
    StopDeployment(StopDeploymentInput) { deployment_id: DeploymentId, auto_rollback_enabled: Option<bool>, }
    ContinueDeployment(ContinueDeploymentInput) {
        deployment_id: DeploymentId,
        deployment_wait_type: Option<DeploymentWaitType>,
    }
    SkipWaitTimeForInstanceTermination(SkipWaitTimeForInstanceTerminationInput) {
        deployment_id: DeploymentId,
    }
    PutLifecycleEventHookExecutionStatus(PutLifecycleEventHookExecutionStatusInput) {
        deployment_id: DeploymentId,
    }
    DeleteResourcesByExternalId(DeleteResourcesByExternalIdInput) { external_id: Option<String>, }

    ListDeploymentTargets(ListDeploymentTargetsInput) {
        deployment_id: DeploymentId,
        target_filters: Option<TargetFilters>,
        next_token: Option<String>,
    }
    GetDeploymentTarget(GetDeploymentTargetInput) { deployment_id: DeploymentId, target_id: TargetId, }
    BatchGetDeploymentTargets(BatchGetDeploymentTargetsInput) {
        deployment_id: DeploymentId,
        target_ids: TargetIds,
    }
    ListDeploymentInstances(ListDeploymentInstancesInput) {
        deployment_id: DeploymentId,
        instance_status_filter: Option<Vec<TargetStatus>>,
        instance_type_filter: Option<Vec<TargetLabel>>,
        next_token: Option<String>,
    }
    GetDeploymentInstance(GetDeploymentInstanceInput) { deployment_id: DeploymentId, instance_id: InstanceId, }
    BatchGetDeploymentInstances(BatchGetDeploymentInstancesInput) {
        deployment_id: DeploymentId,
        instance_ids: Batch<InstanceId>,
    }
}

/// The targets that ListDeploymentTargets returns; an empty filter stands for all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetFilters {
    pub statuses: Vec<TargetStatus>,
    pub labels: Vec<TargetLabel>,
}

impl Member for TargetFilters {
    type Raw = BTreeMap<String, Vec<String>>;

    fn check(raw: Self::Raw) -> Result<Self, ApiError> {
        let mut filters = TargetFilters::default();
        for (name, values) in raw {
            match name.as_str() {
                "TargetStatus" => filters.statuses = once_each(Member::check(read_all(values))?),
                "ServerInstanceLabel" => {
                    filters.labels = once_each(Member::check(read_all(values))?)
                }
                other => {
                    return Err(ErrorName::InvalidTargetFilterName.because(format!(
                        "The target filter name {:?} is not one of TargetStatus and ServerInstanceLabel.",
                        shorten(other)
                    )));
                }
            }
        }
        Ok(filters)
    }
}

fn read_all<T: From<String>>(texts: Vec<String>) -> Vec<T> {
    texts.into_iter().map(T::from).collect()
}

/// Reads the names of an application and one of its groups, which belong together.
pub(super) fn both_or_none(
    application: Option<String>,
    group: Option<String>,
) -> Result<Option<(ApplicationName, GroupName)>, ApiError> {
    if application.is_none() && group.is_none() {
        return Ok(None);
    }
    let together = |missing: ApiError| {
        missing
            .name
            .because("Give applicationName and deploymentGroupName together, or neither.")
    };
    ApplicationName::demand(&application).map_err(together)?;
    GroupName::demand(&group).map_err(together)?;
    Ok(Some((Field::read(application)?, Field::read(group)?)))
}

/// An application is named together with one of its groups, or not at all.
#[derive(Debug, Clone)]
pub struct ListDeployments {
    pub group: Option<(ApplicationName, GroupName)>,
    pub external_id: Option<ExternalId>,
    pub include_only_statuses: Vec<DeploymentStatus>,
    pub created: Period,
    pub next_token: Option<String>,
}

impl Request for ListDeployments {
    type Input = ListDeploymentsInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        let group = both_or_none(input.application_name, input.deployment_group_name)?;
        let statuses: Option<Vec<DeploymentStatus>> = Field::read(input.include_only_statuses)?;
        let created: Option<Period> = Field::read(input.create_time_range)?;
        Ok(ListDeployments {
            group,
            external_id: Field::read(input.external_id)?,
            include_only_statuses: once_each(statuses.unwrap_or_default()),
            created: created.unwrap_or_default(),
            next_token: input.next_token,
        })
    }
}

/// The input of CreateDeployment, as far as it can be checked without the group.
#[derive(Debug, Clone)]
pub struct CreateDeployment {
    pub application_name: ApplicationName,
    pub deployment_group_name: GroupName,
    pub source: Source,
    pub deployment_config_name: Option<ConfigName>,
    pub description: Option<Description>,
    pub ignore_application_stop_failures: bool,
    pub replacement: Option<Replacement>,
    pub auto_rollback: Option<AutoRollback>,
    pub update_outdated_only: bool,
    pub file_exists: FileExists,
    pub override_alarms: Option<Alarms>,
    pub ec2_options: Option<Ec2DeploymentOptions>,
    /// The deployment that a rollback by hand takes back.
    pub takes_back: Option<String>,
}

/// The revision that hosts run after a deployment.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Revision(Revision),
    /// Mode RESTART: the revision of the group's last successful deployment. A revision in the same
    /// request is a contradiction.
    LastSuccessful {
        has_revision: bool,
    },
}

impl CreateDeployment {
    /// A request for a deployment of a revision with the settings of its group.
    pub(crate) fn of_revision(
        application: &str,
        group: &str,
        revision: Revision,
        description: &str,
    ) -> Result<Self, ApiError> {
        Ok(CreateDeployment {
            application_name: Member::check(application.to_owned())?,
            deployment_group_name: Member::check(group.to_owned())?,
            source: Source::Revision(Member::check(revision.into())?),
            deployment_config_name: None,
            description: Some(Member::check(description.to_owned())?),
            ignore_application_stop_failures: false,
            replacement: None,
            auto_rollback: None,
            update_outdated_only: false,
            file_exists: FileExists::Disallow,
            override_alarms: None,
            ec2_options: None,
            takes_back: None,
        })
    }

    /// Rejects contradictory members.
    pub(crate) fn check_together(&self) -> Result<(), ApiError> {
        let Source::LastSuccessful { has_revision } = self.source else {
            return Ok(());
        };
        let what = match (has_revision, self.update_outdated_only) {
            (true, _) => "A revision",
            (_, true) => "updateOutdatedInstancesOnly",
            (false, false) => return Ok(()),
        };
        Err(ErrorName::InvalidInput.because(format!(
            "{what} does not go with the deployment mode RESTART."
        )))
    }
}

impl Member for FileExists {
    type Raw = FileExistsBehavior;

    fn check(raw: FileExistsBehavior) -> Result<Self, ApiError> {
        FileExists::of(Some(&raw)).ok_or_else(|| {
            ErrorName::InvalidFileExistsBehavior.because(format!(
                "The file exists behavior {:?} is not one of {}.",
                shorten(raw.as_str()),
                FileExistsBehavior::KNOWN.join(", ")
            ))
        })
    }
}

impl Request for CreateDeployment {
    type Input = CreateDeploymentInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        ApplicationName::demand(&input.application_name)?;
        GroupName::demand(&input.deployment_group_name)?;
        let restarts = input.deployment_mode == Some(DeploymentMode::Restart);
        if !restarts {
            Revision::demand(&input.revision)?;
        }
        let application_name = Field::read(input.application_name)?;
        let deployment_group_name = Field::read(input.deployment_group_name)?;
        let revision: Option<Revision> = Field::read(input.revision)?;
        let file_exists: Option<FileExists> = Field::read(input.file_exists_behavior)?;
        let _: Option<DeploymentMode> = Field::read(input.deployment_mode)?;
        Ok(CreateDeployment {
            application_name,
            deployment_group_name,
            source: match revision {
                Some(revision) if !restarts => Source::Revision(revision),
                revision => Source::LastSuccessful {
                    has_revision: revision.is_some(),
                },
            },
            deployment_config_name: Field::read(input.deployment_config_name)?,
            description: Field::read(input.description)?,
            ignore_application_stop_failures: input
                .ignore_application_stop_failures
                .unwrap_or(false),
            replacement: Field::read(input.target_instances)?,
            auto_rollback: Field::read(input.auto_rollback_configuration)?,
            update_outdated_only: input.update_outdated_instances_only.unwrap_or(false),
            file_exists: file_exists.unwrap_or(FileExists::Disallow),
            override_alarms: Field::read(input.override_alarm_configuration)?,
            ec2_options: Field::read(input.ec2_deployment_options)?,
            takes_back: None,
        })
    }

    /// The log has a line of its own about a new deployment.
    fn recorded(&self) -> Subject {
        let revision = match &self.source {
            Source::Revision(revision) => Some(revision.to_string()),
            Source::LastSuccessful { .. } => None,
        };
        Subject {
            application: Some(self.application_name.to_string()),
            deployment_group: Some(self.deployment_group_name.to_string()),
            revision,
            ..Subject::default()
        }
    }
}
