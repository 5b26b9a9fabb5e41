//! The rules of one deployment, which are decided when it is created.

use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use serde::{Deserialize, Serialize};

use crate::health::MinimumHealthy;
use crate::strategy::Strategy;
use crate::timers::Timers;

/// What was decided about a deployment when it was created, and the planner needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub minimum_healthy: MinimumHealthy,
    /// A failure of an event that runs the previous revision's scripts does not fail the target.
    pub ignore_application_stop_failures: bool,
    /// Stored under its earlier name.
    #[serde(default, rename = "course")]
    pub strategy: Strategy,
    /// Alarms that stop the deployment; it starts once they were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<Watch>,
}

/// The alarms of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    pub names: Vec<String>,
    /// Go on when the state of an alarm cannot be read.
    pub ignore_poll_failure: bool,
}

impl Rules {
    /// Whether a target whose event failed goes on with the next.
    pub(crate) fn ignores(&self, event: &LifecycleEvent) -> bool {
        use LifecycleEvent::{AfterBlockTraffic, ApplicationStop, BeforeBlockTraffic};
        match event {
            // What is left behind may be broken or gone, and must not keep its traffic for that.
            BeforeBlockTraffic | AfterBlockTraffic if self.strategy == Strategy::BlueGreenRollback => true,
            ApplicationStop | BeforeBlockTraffic | AfterBlockTraffic => self.ignore_application_stop_failures,
            _ => false,
        }
    }

    /// How long a deployment of this kind may take.
    pub fn patience(&self, timers: &Timers) -> Duration {
        match self.strategy {
            Strategy::BlueGreen { .. } | Strategy::BlueGreenRollback => timers.blue_green,
            Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer => timers.deployment,
        }
    }
}
