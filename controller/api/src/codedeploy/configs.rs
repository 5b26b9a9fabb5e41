//! Deployment configurations.

use super::{ComputePlatform, Timestamp, enumerations, shapes};

enumerations! {
    /// How [`MinimumHealthyHosts::value`] counts.
    MinimumHealthyHostsType { HostCount = "HOST_COUNT", FleetPercent = "FLEET_PERCENT", }
}

shapes! {
    /// How many hosts must stay healthy while a deployment runs.
    MinimumHealthyHosts {
        #[serde(rename = "type")]
        kind: MinimumHealthyHostsType,
        value: i64,
    }

    DeploymentConfigInfo {
        deployment_config_id: String,
        deployment_config_name: String,
        minimum_healthy_hosts: MinimumHealthyHosts,
        create_time: Timestamp,
        compute_platform: ComputePlatform,
    }

    GetDeploymentConfigInput { deployment_config_name: String, }
    GetDeploymentConfigOutput { deployment_config_info: DeploymentConfigInfo, }
    ListDeploymentConfigsInput { next_token: String, }
    ListDeploymentConfigsOutput { deployment_configs_list: Vec<String>, next_token: String, }
}
