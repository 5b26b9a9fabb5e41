//! The predefined configurations: those of the Server platform, which groups use, and those of the
//! other platforms, which are listed as on AWS.

use codedeploy_api::codedeploy::*;
use codedeploy_planner::health::MinimumHealthy;

use crate::request::PREDEFINED_PREFIX;

pub(super) const ONE_AT_A_TIME: &str = "CodeDeployDefault.OneAtATime";

enum Kind {
    Server(MinimumHealthy),
    Other(ComputePlatform, Routing),
}

enum Routing {
    AllAtOnce,
    /// Ten percent, and the rest after this number of minutes.
    Canary(i64),
    /// Ten percent after each of these minutes.
    Linear(i64),
}

/// The name after the prefix, and the contents; the position is the configuration's number.
const PREDEFINED: [(&str, Kind); 17] = {
    use ComputePlatform::{Ecs, Lambda};
    use Kind::{Other, Server};
    use Routing::{AllAtOnce, Canary, Linear};
    [
        ("OneAtATime", Server(MinimumHealthy::OneAtATime)),
        ("HalfAtATime", Server(MinimumHealthy::HalfAtATime)),
        ("AllAtOnce", Server(MinimumHealthy::FleetPercent(0))),
        ("LambdaAllAtOnce", Other(Lambda, AllAtOnce)),
        ("LambdaCanary10Percent5Minutes", Other(Lambda, Canary(5))),
        ("LambdaCanary10Percent10Minutes", Other(Lambda, Canary(10))),
        ("LambdaCanary10Percent15Minutes", Other(Lambda, Canary(15))),
        ("LambdaCanary10Percent30Minutes", Other(Lambda, Canary(30))),
        (
            "LambdaLinear10PercentEvery1Minute",
            Other(Lambda, Linear(1)),
        ),
        (
            "LambdaLinear10PercentEvery2Minutes",
            Other(Lambda, Linear(2)),
        ),
        (
            "LambdaLinear10PercentEvery3Minutes",
            Other(Lambda, Linear(3)),
        ),
        (
            "LambdaLinear10PercentEvery10Minutes",
            Other(Lambda, Linear(10)),
        ),
        ("ECSAllAtOnce", Other(Ecs, AllAtOnce)),
        ("ECSCanary10Percent5Minutes", Other(Ecs, Canary(5))),
        ("ECSCanary10Percent15Minutes", Other(Ecs, Canary(15))),
        ("ECSLinear10PercentEvery1Minutes", Other(Ecs, Linear(1))),
        ("ECSLinear10PercentEvery3Minutes", Other(Ecs, Linear(3))),
    ]
};

fn find(name: &str) -> Option<(usize, &'static Kind)> {
    let short = name.strip_prefix(PREDEFINED_PREFIX)?;
    let position = PREDEFINED.iter().position(|(known, _)| *known == short)?;
    PREDEFINED
        .get(position)
        .map(|(_, kind)| (position + 1, kind))
}

pub(super) fn names() -> impl Iterator<Item = String> {
    PREDEFINED
        .iter()
        .map(|(name, _)| format!("{PREDEFINED_PREFIX}{name}"))
}

pub(super) fn platform(name: &str) -> Option<ComputePlatform> {
    find(name).map(|(_, kind)| kind.platform())
}

/// Returns the minimum of a configuration of the Server platform.
pub(super) fn minimum(name: &str) -> Option<MinimumHealthy> {
    match find(name)? {
        (_, Kind::Server(minimum)) => Some(*minimum),
        (_, Kind::Other(..)) => None,
    }
}

pub(super) fn info(name: &str) -> Option<DeploymentConfigInfo> {
    let (number, kind) = find(name)?;
    let (minimum_healthy_hosts, traffic_routing_config) = match kind {
        Kind::Server(minimum) => (Some(super::present(*minimum)), None),
        Kind::Other(_, routing) => (None, Some(routing.present())),
    };
    Some(DeploymentConfigInfo {
        deployment_config_id: Some(format!("00000000-0000-0000-0000-{number:012}")),
        deployment_config_name: Some(name.to_owned()),
        minimum_healthy_hosts,
        // The day on which the API was published.
        create_time: Some(Timestamp::from_millis(1_412_553_600_000)),
        compute_platform: Some(kind.platform()),
        traffic_routing_config,
        zonal_config: None,
    })
}

impl Kind {
    fn platform(&self) -> ComputePlatform {
        match self {
            Kind::Server(_) => ComputePlatform::Server,
            Kind::Other(platform, _) => platform.clone(),
        }
    }
}

impl Routing {
    fn present(&self) -> TrafficRoutingConfig {
        let (kind, time_based_canary, time_based_linear) = match *self {
            Routing::AllAtOnce => (TrafficRoutingType::AllAtOnce, None, None),
            Routing::Canary(minutes) => {
                let canary = TimeBasedCanary {
                    canary_percentage: Some(10),
                    canary_interval: Some(minutes),
                };
                (TrafficRoutingType::TimeBasedCanary, Some(canary), None)
            }
            Routing::Linear(minutes) => {
                let linear = TimeBasedLinear {
                    linear_percentage: Some(10),
                    linear_interval: Some(minutes),
                };
                (TrafficRoutingType::TimeBasedLinear, None, Some(linear))
            }
        };
        TrafficRoutingConfig {
            kind: Some(kind),
            time_based_canary,
            time_based_linear,
        }
    }
}
