//! Requests of the controller's own API.

use codedeploy_api::codedeploy::{DeploymentStatus, Tag, Timestamp};
use codedeploy_api::controller::*;

use super::deployments::both_or_none;
use super::members::*;
use super::{Field, Member, Request, Subject, requests};
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;

requests! {
    GetHostStatus(GetHostStatusInput) { instance_name: InstanceName, }
    GetDeploymentStatus(GetDeploymentStatusInput) { deployment_id: DeploymentId, }
    DrainHost(DrainHostInput) { instance_name: InstanceName, reason: Option<Description>, }
    UndrainHost(UndrainHostInput) { instance_name: InstanceName, }
    StopAgentUpdate(StopAgentUpdateInput) { agent_update_id: AgentUpdateId, }
    RollBackDeploymentGroup(RollBackDeploymentGroupInput) {
        application_name: ApplicationName,
        deployment_group_name: GroupName,
        description: Option<Description>,
    }
}

/// The hosts whose agents are to be updated.
#[derive(Debug, Clone)]
pub enum ChosenHosts {
    Named(InstanceNames),
    Group(ApplicationName, GroupName),
    Tagged(Vec<TagTest>),
    All,
}

/// The number of hosts in one stage.
#[derive(Debug, Clone, Copy)]
pub struct AtATime(pub usize);

impl Member for AtATime {
    type Raw = usize;

    fn check(raw: usize) -> Result<Self, ApiError> {
        match raw {
            1..=1000 => Ok(AtATime(raw)),
            other => Err(ErrorName::InvalidInput.because(format!(
                "The number of hosts in a stage (atATime) is {other}; expected 1 to 1000."
            ))),
        }
    }
}

#[derive(Debug, Clone)]
pub struct UpdateAgents {
    pub hosts: ChosenHosts,
    pub at_a_time: AtATime,
}

impl Request for UpdateAgents {
    type Input = UpdateAgentsInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        let names: Option<InstanceNames> = Field::read(input.instance_names)?;
        let group = both_or_none(input.application_name, input.deployment_group_name)?;
        let tests: Option<TagTests> = Field::read(input.tag_filters)?;
        let ways = [
            names
                .filter(|names| !names.0.is_empty())
                .map(ChosenHosts::Named),
            group.map(|(application, group)| ChosenHosts::Group(application, group)),
            tests
                .map(|TagTests(tests)| tests)
                .filter(|tests| !tests.is_empty())
                .map(ChosenHosts::Tagged),
            input
                .all_hosts
                .unwrap_or_default()
                .then_some(ChosenHosts::All),
        ];
        let mut given = ways.into_iter().flatten();
        let (Some(hosts), None) = (given.next(), given.next()) else {
            return Err(ErrorName::InvalidInput.because(
                "Say in one way which hosts are meant: instanceNames, a deployment group with its application, tagFilters, \
                 or allHosts.",
            ));
        };
        Ok(UpdateAgents {
            hosts,
            at_a_time: Field::read(Some(input.at_a_time.unwrap_or(1)))?,
        })
    }

    fn subject(&self) -> Option<Subject> {
        let mut subject = Subject::default();
        match &self.hosts {
            ChosenHosts::Named(names) => {
                subject.instances = names.0.iter().map(ToString::to_string).collect();
            }
            ChosenHosts::Group(application, group) => {
                subject.application = Some(application.to_string());
                subject.deployment_group = Some(group.to_string());
            }
            ChosenHosts::Tagged(tests) => {
                let tests: Vec<String> = tests.iter().map(ToString::to_string).collect();
                subject.tags = Some(tests.join(", "));
            }
            ChosenHosts::All => subject.instances = vec!["all".to_owned()],
        }
        Some(subject)
    }
}

/// An update of agents, or the last one.
#[derive(Debug, Clone)]
pub struct GetAgentUpdate {
    pub agent_update_id: Option<AgentUpdateId>,
}

impl Request for GetAgentUpdate {
    type Input = GetAgentUpdateInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        Ok(GetAgentUpdate {
            agent_update_id: Field::read(input.agent_update_id)?,
        })
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
    pub only: OnlyHosts,
    pub next_token: Option<String>,
}

/// The hosts of a list; by default all of them.
#[derive(Debug, Clone, Default)]
pub struct OnlyHosts {
    /// In lower case.
    name: Option<String>,
    /// One of them must match, if there are any.
    tags: Vec<TagTest>,
    pub silent: bool,
    pub drained: bool,
}

impl OnlyHosts {
    /// Whether they have a host with these tags.
    pub fn have_tags(&self, tags: &[Tag]) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|test| test.matches(tags))
    }

    /// Whether they have a host with a name, which is read if it matters.
    pub fn have_name<E>(&self, name: impl FnOnce() -> Result<String, E>) -> Result<bool, E> {
        match &self.name {
            Some(wanted) => Ok(name()?.to_lowercase().contains(wanted.as_str())),
            None => Ok(true),
        }
    }
}

impl Request for ListHosts {
    type Input = ListHostsInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        let tags: Option<TagTests> = Field::read(input.tag_filters)?;
        Ok(ListHosts {
            group: both_or_none(input.application_name, input.deployment_group_name)?,
            silent_first: input.silent_first.unwrap_or_default(),
            only: OnlyHosts {
                name: input
                    .name_contains
                    .filter(|name| !name.is_empty())
                    .map(|name| name.to_lowercase()),
                tags: tags.unwrap_or_default().0,
                silent: input.silent.unwrap_or_default(),
                drained: input.drained.unwrap_or_default(),
            },
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
