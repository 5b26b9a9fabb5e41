//! Requests of the controller's own API.

use codedeploy_api::codedeploy::{DeploymentStatus, Timestamp};
use codedeploy_api::controller::*;

use super::deployments::both_or_none;
use super::members::*;
use super::{Field, Request, requests};
use crate::error::{ApiError, ErrorName};

requests! {
    GetHostStatus(GetHostStatusInput) { instance_name: InstanceName, }
    GetDeploymentStatus(GetDeploymentStatusInput) { deployment_id: DeploymentId, }
    DrainHost(DrainHostInput) { instance_name: InstanceName, reason: Option<Description>, }
    UndrainHost(UndrainHostInput) { instance_name: InstanceName, }
    RollBackDeploymentGroup(RollBackDeploymentGroupInput) {
        application_name: ApplicationName,
        deployment_group_name: GroupName,
        description: Option<Description>,
    }
}

/// The output of an event on a host.
#[derive(Debug, Clone)]
pub struct GetScriptLog {
    pub deployment_id: DeploymentId,
    pub instance_name: InstanceName,
    pub lifecycle_event_name: Option<String>,
}

impl Request for GetScriptLog {
    type Input = GetScriptLogInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        Ok(GetScriptLog {
            deployment_id: Field::read(input.deployment_id)?,
            instance_name: Field::read(input.instance_name)?,
            lifecycle_event_name: input.lifecycle_event_name,
        })
    }
}

/// All groups, those of an application, or one.
#[derive(Debug, Clone)]
pub struct GetFleetStatus {
    pub application: Option<ApplicationName>,
    pub group: Option<GroupName>,
    pub next_token: Option<String>,
}

impl Request for GetFleetStatus {
    type Input = GetFleetStatusInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        if input.deployment_group_name.is_some() && input.application_name.is_none() {
            return Err(ErrorName::ApplicationNameRequired
                .because("Give the applicationName of the deployment group."));
        }
        Ok(GetFleetStatus {
            application: Field::read(input.application_name)?,
            group: Field::read(input.deployment_group_name)?,
            next_token: input.next_token,
        })
    }
}

/// All hosts, or those of a group.
#[derive(Debug, Clone)]
pub struct ListHosts {
    pub group: Option<(ApplicationName, GroupName)>,
    pub silent_first: bool,
    pub next_token: Option<String>,
}

impl Request for ListHosts {
    type Input = ListHostsInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        Ok(ListHosts {
            group: both_or_none(input.application_name, input.deployment_group_name)?,
            silent_first: input.silent_first.unwrap_or_default(),
            next_token: input.next_token,
        })
    }
}

/// The changes in a period.
#[derive(Debug, Clone)]
pub struct ListAuditEntries {
    pub since: Option<Timestamp>,
    pub who: Option<String>,
    pub operation: Option<String>,
    pub name: Option<String>,
    pub next_token: Option<String>,
}

impl Request for ListAuditEntries {
    type Input = ListAuditEntriesInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        Ok(ListAuditEntries {
            since: input.since,
            who: input.who,
            operation: input.operation,
            name: input.name,
            next_token: input.next_token,
        })
    }
}

/// All deployments, or those of a group.
#[derive(Debug, Clone)]
pub struct ListDeploymentStatuses {
    pub group: Option<(ApplicationName, GroupName)>,
    pub include_only_statuses: Vec<DeploymentStatus>,
    pub next_token: Option<String>,
}

impl Request for ListDeploymentStatuses {
    type Input = ListDeploymentStatusesInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        let statuses: Option<Vec<DeploymentStatus>> = Field::read(input.include_only_statuses)?;
        Ok(ListDeploymentStatuses {
            group: both_or_none(input.application_name, input.deployment_group_name)?,
            include_only_statuses: once_each(statuses.unwrap_or_default()),
            next_token: input.next_token,
        })
    }
}
