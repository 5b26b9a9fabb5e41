//! Deployment configurations: the predefined ones of the Server platform.

use codedeploy_api::codedeploy::*;

use super::{CONFIG, Context};
use crate::deployment::MinimumHealthy;
use crate::error::{ApiError, ErrorName};

/// The configuration of a group that names none.
pub(crate) const DEFAULT: &str = "CodeDeployDefault.OneAtATime";

/// A configuration that always exists.
struct Predefined {
    name: &'static str,
    id: &'static str,
    minimum: MinimumHealthy,
}

const PREDEFINED: [Predefined; 3] = [
    Predefined {
        name: "CodeDeployDefault.AllAtOnce",
        id: "00000000-0000-0000-0000-000000000003",
        minimum: MinimumHealthy::FleetPercent(0),
    },
    Predefined {
        name: "CodeDeployDefault.HalfAtATime",
        id: "00000000-0000-0000-0000-000000000002",
        minimum: MinimumHealthy::HalfAtATime,
    },
    Predefined {
        name: DEFAULT,
        id: "00000000-0000-0000-0000-000000000001",
        minimum: MinimumHealthy::OneAtATime,
    },
];

impl Predefined {
    fn info(&self) -> DeploymentConfigInfo {
        let (kind, value) = match self.minimum {
            MinimumHealthy::HostCount(count) => (MinimumHealthyHostsType::HostCount, i64::from(count)),
            MinimumHealthy::FleetPercent(percent) => {
                (MinimumHealthyHostsType::FleetPercent, i64::from(percent))
            }
            MinimumHealthy::HalfAtATime => (MinimumHealthyHostsType::FleetPercent, 50),
            // AWS reports a type that is in no enumeration of its model.
            MinimumHealthy::OneAtATime => (MinimumHealthyHostsType::Other("MOST_CONCURRENCY".into()), 1),
        };
        DeploymentConfigInfo {
            deployment_config_id: Some(self.id.into()),
            deployment_config_name: Some(self.name.into()),
            minimum_healthy_hosts: Some(MinimumHealthyHosts { kind: Some(kind), value: Some(value) }),
            // The day the API was published.
            create_time: Some(Timestamp::from_millis(1_412_553_600_000)),
            compute_platform: Some(ComputePlatform::Server),
        }
    }
}

fn find(name: Option<String>) -> Result<&'static Predefined, ApiError> {
    let name = CONFIG.check(name)?;
    PREDEFINED.iter().find(|config| config.name == name).ok_or_else(|| {
        ErrorName::DeploymentConfigDoesNotExist
            .because(format!("No deployment configuration found for name: {name}"))
    })
}

/// What the configuration of a group or a deployment demands.
pub(crate) fn minimum_healthy(name: &str) -> Result<MinimumHealthy, ApiError> {
    Ok(find(Some(name.to_owned()))?.minimum)
}

pub fn get(_: &Context<'_>, input: GetDeploymentConfigInput) -> Result<GetDeploymentConfigOutput, ApiError> {
    Ok(GetDeploymentConfigOutput { deployment_config_info: Some(find(input.deployment_config_name)?.info()) })
}

pub fn list(
    context: &Context<'_>,
    input: ListDeploymentConfigsInput,
) -> Result<ListDeploymentConfigsOutput, ApiError> {
    let items = PREDEFINED.iter().map(|config| (config.name.to_owned(), config.name.to_owned()));
    let (names, next_token) = context.pages.cut("configs", input.next_token.as_deref(), items)?;
    Ok(ListDeploymentConfigsOutput { deployment_configs_list: Some(names), next_token })
}
