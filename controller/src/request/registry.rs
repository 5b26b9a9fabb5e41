//! Requests about operators' objects: applications, revisions, configurations, groups, GitHub
//! tokens.

use codedeploy_api::codedeploy::*;
use codedeploy_planner::health::MinimumHealthy;

use super::members::*;
use super::options::Role;
use super::revisions::{MAX_BUCKET, MAX_KEY};
use super::settings::Settings;
use super::tags::ResourceTags;
use super::{Field, Member, Request, Subject, requests};
use crate::error::{ApiError, ErrorName};
use crate::revision::Revision;

requests! {
    CreateApplication(CreateApplicationInput) {
        application_name: ApplicationName,
        compute_platform: Option<ServerPlatform>,
        tags: Option<ResourceTags>,
    }
    GetApplication(GetApplicationInput) { application_name: ApplicationName, }
    ListApplications(ListApplicationsInput) { next_token: Option<String>, }
    BatchGetApplications(BatchGetApplicationsInput) { application_names: Batch<ApplicationName>, }
    UpdateApplication(UpdateApplicationInput) {
        application_name: ApplicationName,
        new_application_name: NewApplicationName,
    }
    DeleteApplication(DeleteApplicationInput) { application_name: ApplicationName, }

    RegisterApplicationRevision(RegisterApplicationRevisionInput) {
        application_name: ApplicationName,
        revision: Revision,
        description: Option<Description>,
    }
    GetApplicationRevision(GetApplicationRevisionInput) {
        application_name: ApplicationName,
        revision: Revision,
    }
    BatchGetApplicationRevisions(BatchGetApplicationRevisionsInput) {
        application_name: ApplicationName,
        revisions: Batch<Revision, 25>,
    }

    GetDeploymentConfig(GetDeploymentConfigInput) { deployment_config_name: ConfigName, }
    ListDeploymentConfigs(ListDeploymentConfigsInput) { next_token: Option<String>, }
    DeleteDeploymentConfig(DeleteDeploymentConfigInput) { deployment_config_name: ConfigName, }

    GetDeploymentGroup(GetDeploymentGroupInput) {
        application_name: ApplicationName,
        deployment_group_name: GroupName,
    }
    BatchGetDeploymentGroups(BatchGetDeploymentGroupsInput) {
        application_name: ApplicationName,
        deployment_group_names: Batch<GroupName>,
    }
    ListDeploymentGroups(ListDeploymentGroupsInput) {
        application_name: ApplicationName,
        next_token: Option<String>,
    }
    DeleteDeploymentGroup(DeleteDeploymentGroupInput) {
        application_name: ApplicationName,
        deployment_group_name: GroupName,
    }

    ListGitHubAccountTokenNames(ListGitHubAccountTokenNamesInput) { next_token: Option<String>, }
    DeleteGitHubAccountToken(DeleteGitHubAccountTokenInput) { token_name: TokenName, }
}

/// A configuration of this service's only platform.
#[derive(Debug, Clone)]
pub struct CreateDeploymentConfig {
    pub deployment_config_name: NewConfigName,
    pub minimum_healthy_hosts: MinimumHealthy,
    pub zonal_config: Option<ZonalConfig>,
}

impl Request for CreateDeploymentConfig {
    type Input = CreateDeploymentConfigInput;

    /// Configurations of other platforms have other members, and do not need this one's.
    fn check(input: Self::Input) -> Result<Self, ApiError> {
        NewConfigName::demand(&input.deployment_config_name)?;
        if input
            .compute_platform
            .as_ref()
            .is_none_or(|platform| *platform == ComputePlatform::Server)
        {
            MinimumHealthy::demand(&input.minimum_healthy_hosts)?;
        }
        let deployment_config_name = Field::read(input.deployment_config_name)?;
        let _: Option<ServerPlatform> = Field::read(input.compute_platform)?;
        let minimum_healthy_hosts = Field::read(input.minimum_healthy_hosts)?;
        let _: Option<NoTrafficRouting> = Field::read(input.traffic_routing_config)?;
        let zonal_config = Field::read(input.zonal_config)?;
        Ok(CreateDeploymentConfig {
            deployment_config_name,
            minimum_healthy_hosts,
            zonal_config,
        })
    }

    fn subject(&self) -> Option<Subject> {
        let NewConfigName(name) = &self.deployment_config_name;
        Some(Subject {
            deployment_config: Some(name.to_string()),
            ..Subject::default()
        })
    }
}

/// The settings are members of the input like the others, and are checked together with them.
#[derive(Debug, Clone)]
pub struct CreateDeploymentGroup {
    pub application_name: ApplicationName,
    pub deployment_group_name: GroupName,
    pub settings: Settings,
    pub tags: Option<ResourceTags>,
}

impl Request for CreateDeploymentGroup {
    type Input = CreateDeploymentGroupInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        ApplicationName::demand(&input.application_name)?;
        GroupName::demand(&input.deployment_group_name)?;
        Role::demand(&input.settings.service_role_arn)?;
        Ok(CreateDeploymentGroup {
            application_name: Field::read(input.application_name)?,
            deployment_group_name: Field::read(input.deployment_group_name)?,
            settings: Settings::check(input.settings)?,
            tags: Field::read(input.tags)?,
        })
    }

    fn subject(&self) -> Option<Subject> {
        Some(Subject {
            application: Some(self.application_name.to_string()),
            deployment_group: Some(self.deployment_group_name.to_string()),
            deployment_config: self.settings.config_name().map(str::to_owned),
            ..Subject::default()
        })
    }
}

/// An absent member of the settings keeps its value.
#[derive(Debug, Clone)]
pub struct UpdateDeploymentGroup {
    pub application_name: ApplicationName,
    pub current_deployment_group_name: CurrentGroupName,
    pub new_deployment_group_name: Option<GroupName>,
    pub settings: Settings,
}

impl Request for UpdateDeploymentGroup {
    type Input = UpdateDeploymentGroupInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        ApplicationName::demand(&input.application_name)?;
        CurrentGroupName::demand(&input.current_deployment_group_name)?;
        Ok(UpdateDeploymentGroup {
            application_name: Field::read(input.application_name)?,
            current_deployment_group_name: Field::read(input.current_deployment_group_name)?,
            new_deployment_group_name: Field::read(input.new_deployment_group_name)?,
            settings: Settings::check(input.settings)?,
        })
    }

    fn subject(&self) -> Option<Subject> {
        Some(Subject {
            application: Some(self.application_name.to_string()),
            deployment_group: Some(self.current_deployment_group_name.to_string()),
            deployment_config: self.settings.config_name().map(str::to_owned),
            new_name: self
                .new_deployment_group_name
                .as_ref()
                .map(ToString::to_string),
            ..Subject::default()
        })
    }
}

/// The input of ListApplicationRevisions, whose members depend on each other.
#[derive(Debug, Clone)]
pub struct ListApplicationRevisions {
    pub application_name: ApplicationName,
    pub sort_by: ApplicationRevisionSortBy,
    pub descending: bool,
    /// A bucket, and a prefix of its keys.
    pub place: Option<(String, String)>,
    /// Only target revisions of groups, or only the others.
    pub deployed: Option<bool>,
    pub next_token: Option<String>,
}

impl Request for ListApplicationRevisions {
    type Input = ListApplicationRevisionsInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        let application_name = Field::read(input.application_name)?;
        let sort_by: Option<ApplicationRevisionSortBy> = Field::read(input.sort_by)?;
        let sort_order: Option<SortOrder> = Field::read(input.sort_order)?;
        let place = match (input.s3_bucket, input.s3_key_prefix) {
            (None, None) => None,
            (Some(bucket), _) if bucket.is_empty() => {
                return Err(ErrorName::InvalidBucketNameFilter.because("s3Bucket is empty."));
            }
            (Some(bucket), _) if !fits(&bucket, MAX_BUCKET) => {
                return Err(ErrorName::InvalidBucketNameFilter.because(format!(
                    "s3Bucket has more than {MAX_BUCKET} characters, as no bucket's name has."
                )));
            }
            (_, Some(prefix)) if prefix.is_empty() => {
                return Err(ErrorName::InvalidKeyPrefixFilter.because("s3KeyPrefix is empty."));
            }
            (_, Some(prefix)) if prefix.len() > MAX_KEY => {
                return Err(ErrorName::InvalidKeyPrefixFilter.because(format!(
                    "s3KeyPrefix has more than {MAX_KEY} bytes, as no key has."
                )));
            }
            (None, Some(_)) => {
                return Err(ErrorName::BucketNameFilterRequired
                    .because("s3KeyPrefix needs s3Bucket beside it."));
            }
            (Some(bucket), prefix) => Some((bucket, prefix.unwrap_or_default())),
        };
        let deployed: Option<ListStateFilterAction> = Field::read(input.deployed)?;
        Ok(ListApplicationRevisions {
            application_name,
            sort_by: sort_by.unwrap_or(ApplicationRevisionSortBy::RegisterTime),
            descending: sort_order == Some(SortOrder::Descending),
            place,
            deployed: match deployed {
                Some(ListStateFilterAction::Include) => Some(true),
                Some(ListStateFilterAction::Exclude) => Some(false),
                _ => None,
            },
            next_token: input.next_token,
        })
    }
}

/// A name that an operator may give a configuration.
#[derive(Debug, Clone)]
pub struct NewConfigName(pub ConfigName);

/// The prefix of the names of predefined configurations.
pub(crate) const PREDEFINED_PREFIX: &str = "CodeDeployDefault.";

impl Member for NewConfigName {
    type Raw = String;

    fn missing() -> ApiError {
        ConfigName::missing()
    }

    fn is_given(raw: &String) -> bool {
        ConfigName::is_given(raw)
    }

    fn check(raw: String) -> Result<Self, ApiError> {
        if raw.starts_with(PREDEFINED_PREFIX) {
            return Err(ErrorName::InvalidDeploymentConfigName.because(format!(
                "Deployment configuration names that begin with {PREDEFINED_PREFIX} are reserved: {:?} was given.",
                shorten(&raw)
            )));
        }
        ConfigName::check(raw).map(NewConfigName)
    }
}

/// AWS's model has 32-bit integers.
const MAX_HOST_COUNT: i64 = i32::MAX as i64;

impl Member for MinimumHealthy {
    type Raw = MinimumHealthyHosts;

    fn missing() -> ApiError {
        ErrorName::InvalidMinimumHealthyHostValue.because(
            "The minimumHealthyHosts argument is missing: give a type, HOST_COUNT or FLEET_PERCENT, and a value.",
        )
    }

    fn check(raw: MinimumHealthyHosts) -> Result<Self, ApiError> {
        use MinimumHealthyHostsType::{FleetPercent, HostCount};
        let invalid =
            |message: String| Err(ErrorName::InvalidMinimumHealthyHostValue.because(message));
        match (raw.kind, raw.value) {
            (Some(HostCount), Some(value)) => match u32::try_from(value) {
                Ok(count) if value <= MAX_HOST_COUNT => Ok(MinimumHealthy::HostCount(count)),
                _ => invalid(format!(
                    "A HOST_COUNT must be 0 to {MAX_HOST_COUNT}, not {value}."
                )),
            },
            (Some(FleetPercent), Some(value)) => match u8::try_from(value) {
                Ok(percent) if percent < 100 => Ok(MinimumHealthy::FleetPercent(percent)),
                _ => invalid(format!("A FLEET_PERCENT must be 0 to 99, not {value}.")),
            },
            (Some(MinimumHealthyHostsType::Other(text)), _) => invalid(format!(
                "The type {:?} is not one of HOST_COUNT and FLEET_PERCENT.",
                shorten(&text)
            )),
            (None, _) | (_, None) => Err(Self::missing()),
        }
    }
}

/// A member that must be absent in a Server configuration.
#[derive(Debug, Clone, Copy)]
pub struct NoTrafficRouting;

impl Member for NoTrafficRouting {
    type Raw = TrafficRoutingConfig;

    fn check(_: TrafficRoutingConfig) -> Result<Self, ApiError> {
        Err(ErrorName::InvalidTrafficRoutingConfiguration.because(
            "The trafficRoutingConfig must be null for a configuration of the Server compute platform.",
        ))
    }
}

impl Member for ZonalConfig {
    type Raw = ZonalConfig;

    fn check(raw: ZonalConfig) -> Result<Self, ApiError> {
        let invalid =
            |message: &str| Err(ErrorName::InvalidZonalDeploymentConfiguration.because(message));
        let durations = [
            raw.first_zone_monitor_duration_in_seconds,
            raw.monitor_duration_in_seconds,
        ];
        if durations.into_iter().flatten().any(|seconds| seconds < 0) {
            return invalid("The monitor durations of zonalConfig must be 0 seconds or more.");
        }
        let Some(hosts) = &raw.minimum_healthy_hosts_per_zone else {
            return Ok(raw);
        };
        match (&hosts.kind, hosts.value) {
            (Some(MinimumHealthyHostsType::HostCount), Some(0..=MAX_HOST_COUNT)) => Ok(raw),
            (Some(MinimumHealthyHostsType::FleetPercent), Some(0..=99)) => Ok(raw),
            _ => invalid(
                "minimumHealthyHostsPerZone needs a type, HOST_COUNT or FLEET_PERCENT, and a value, which is 0 to 99 for a \
                 FLEET_PERCENT.",
            ),
        }
    }
}
