//! Deployment configurations.

use super::{ComputePlatform, Timestamp, enumerations, shapes};

enumerations! {
    /// The unit of [`MinimumHealthyHosts::value`].
    MinimumHealthyHostsType { HostCount = "HOST_COUNT", FleetPercent = "FLEET_PERCENT", }
}

enumerations! {
    /// The way in which the Lambda and ECS platforms shift traffic.
    TrafficRoutingType {
        TimeBasedCanary = "TimeBasedCanary",
        TimeBasedLinear = "TimeBasedLinear",
        AllAtOnce = "AllAtOnce",
    }
}

shapes! {
    /// The number of hosts that must stay healthy while a deployment runs.
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
        traffic_routing_config: TrafficRoutingConfig,
        zonal_config: ZonalConfig,
    }

    /// Deploys to one availability zone after another.
    ZonalConfig {
        first_zone_monitor_duration_in_seconds: i64,
        monitor_duration_in_seconds: i64,
        minimum_healthy_hosts_per_zone: MinimumHealthyHosts,
    }

    TimeBasedCanary { canary_percentage: i64, canary_interval: i64, }
    TimeBasedLinear { linear_percentage: i64, linear_interval: i64, }
    /// For configurations of Lambda and ECS only.
    TrafficRoutingConfig {
        #[serde(rename = "type")]
        kind: TrafficRoutingType,
        time_based_canary: TimeBasedCanary,
        time_based_linear: TimeBasedLinear,
    }

    CreateDeploymentConfigInput {
        deployment_config_name: String,
        minimum_healthy_hosts: MinimumHealthyHosts,
        traffic_routing_config: TrafficRoutingConfig,
        compute_platform: ComputePlatform,
        zonal_config: ZonalConfig,
    }
    CreateDeploymentConfigOutput { deployment_config_id: String, }
    DeleteDeploymentConfigInput { deployment_config_name: String, }
    GetDeploymentConfigInput { deployment_config_name: String, }
    GetDeploymentConfigOutput { deployment_config_info: DeploymentConfigInfo, }
    ListDeploymentConfigsInput { next_token: String, }
    ListDeploymentConfigsOutput { deployment_configs_list: Vec<String>, next_token: String, }
}
