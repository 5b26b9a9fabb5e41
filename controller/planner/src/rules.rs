//! The rules of one deployment, decided when it is created.

use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use serde::{Deserialize, Serialize};

use crate::health::MinimumHealthy;
use crate::strategy::Strategy;
use crate::timers::Timers;

/// The decisions about a deployment that the planner needs, made when it was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub minimum_healthy: MinimumHealthy,
    /// A failure of an event that runs the previous revision's scripts does not fail the target.
    pub ignore_application_stop_failures: bool,
    /// Stored under its earlier name.
    #[serde(default, rename = "course")]
    pub strategy: Strategy,
    /// The alarms that stop the deployment; it starts after they were checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<MonitoredAlarms>,
}

/// The alarms of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitoredAlarms {
    pub names: Vec<String>,
    /// Continue if the state of an alarm cannot be read.
    pub ignore_poll_failure: bool,
}

impl Rules {
    /// Whether a target continues with the next event after this one failed.
    pub fn ignores(&self, event: &LifecycleEvent) -> bool {
        use LifecycleEvent::{AfterBlockTraffic, ApplicationStop, BeforeBlockTraffic};
        match event {
            // An instance that is left behind may be broken or gone, and must not keep its traffic
            // because of that.
            BeforeBlockTraffic | AfterBlockTraffic
                if self.strategy == Strategy::BlueGreenRollback =>
            {
                true
            }
            ApplicationStop | BeforeBlockTraffic | AfterBlockTraffic => {
                self.ignore_application_stop_failures
            }
            _ => false,
        }
    }

    /// The time that a deployment of this kind may take.
    pub fn time_limit(&self, timers: &Timers) -> Duration {
        match self.strategy {
            Strategy::BlueGreen { .. } | Strategy::BlueGreenRollback => timers.blue_green,
            Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer => timers.deployment,
        }
    }
}
