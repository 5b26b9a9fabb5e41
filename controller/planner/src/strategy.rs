//! The lifecycle events of a target, and their stages, for each kind of deployment.

use codedeploy_api::codedeploy::TargetLabel;
use codedeploy_api::lifecycle::LifecycleEvent;
use serde::{Deserialize, Serialize};

use crate::deployment_state::Stage;

/// The strategy of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Strategy {
    /// The group's instances get the revision in place.
    #[default]
    InPlace,
    /// The same, with each instance out of the load balancer's rotation meanwhile.
    InPlaceBehindLoadBalancer,
    /// Replacement (green) instances get the revision, then the traffic of the original (blue)
    /// ones.
    BlueGreen {
        /// The minutes for which the replacement instances wait for somebody to let the deployment
        /// continue; `None` means no wait.
        wait_minutes: Option<u32>,
        /// The minutes without traffic after which the original instances are deregistered; `None`
        /// means that they are kept.
        retire_minutes: Option<u32>,
    },
    /// The traffic returns to the original instances.
    BlueGreenRollback,
}

const BLOCK: [LifecycleEvent; 3] = [
    LifecycleEvent::BeforeBlockTraffic,
    LifecycleEvent::BlockTraffic,
    LifecycleEvent::AfterBlockTraffic,
];
const DEPLOY: [LifecycleEvent; 7] = [
    LifecycleEvent::ApplicationStop,
    LifecycleEvent::DownloadBundle,
    LifecycleEvent::BeforeInstall,
    LifecycleEvent::Install,
    LifecycleEvent::AfterInstall,
    LifecycleEvent::ApplicationStart,
    LifecycleEvent::ValidateService,
];
const ALLOW: [LifecycleEvent; 3] = [
    LifecycleEvent::BeforeAllowTraffic,
    LifecycleEvent::AllowTraffic,
    LifecycleEvent::AfterAllowTraffic,
];

impl Strategy {
    pub fn first_stage(self) -> Stage {
        match self {
            Strategy::BlueGreenRollback => Stage::Allow,
            _ => Stage::Deploy,
        }
    }

    /// The stage after this one; `None` after the last.
    pub fn stage_after(self, stage: Stage) -> Option<Stage> {
        match (self, stage) {
            (Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer, _) | (_, Stage::Block) => {
                None
            }
            (_, Stage::Deploy) => Some(Stage::Allow),
            (_, Stage::Allow) => Some(Stage::Block),
        }
    }

    /// The fleet that performs a stage; `None` means all targets.
    pub fn fleet(self, stage: Stage) -> Option<TargetLabel> {
        match (self, stage) {
            (Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer, _) => None,
            (Strategy::BlueGreen { .. }, Stage::Deploy | Stage::Allow)
            | (Strategy::BlueGreenRollback, Stage::Block) => Some(TargetLabel::Green),
            (Strategy::BlueGreen { .. }, Stage::Block) | (Strategy::BlueGreenRollback, _) => {
                Some(TargetLabel::Blue)
            }
        }
    }

    /// The events of a target, in order, with their stages.
    pub fn events(self, label: Option<&TargetLabel>) -> Vec<(Stage, LifecycleEvent)> {
        let stage = |stage, events: &[LifecycleEvent]| -> Vec<_> {
            events.iter().map(|event| (stage, event.clone())).collect()
        };
        let (deploy, allow, block) = (Stage::Deploy, Stage::Allow, Stage::Block);
        match (self, label) {
            (Strategy::InPlace, _) => stage(deploy, &DEPLOY),
            (Strategy::InPlaceBehindLoadBalancer, _) => [
                stage(deploy, &BLOCK),
                stage(deploy, &DEPLOY),
                stage(deploy, &ALLOW),
            ]
            .concat(),
            (Strategy::BlueGreen { .. }, Some(TargetLabel::Blue)) => stage(block, &BLOCK),
            (Strategy::BlueGreen { .. }, _) => {
                [stage(deploy, &DEPLOY), stage(allow, &ALLOW)].concat()
            }
            (Strategy::BlueGreenRollback, Some(TargetLabel::Blue)) => stage(allow, &ALLOW),
            (Strategy::BlueGreenRollback, _) => stage(block, &BLOCK),
        }
    }
}

/// Whether the service itself performs the event, at a load balancer.
pub fn is_performed_here(event: &LifecycleEvent) -> bool {
    matches!(
        event,
        LifecycleEvent::BlockTraffic | LifecycleEvent::AllowTraffic
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_load_balancer_all_thirteen_events_are_performed_in_their_order() {
        let events: Vec<_> = Strategy::InPlaceBehindLoadBalancer
            .events(None)
            .into_iter()
            .map(|(_, event)| event)
            .collect();
        assert_eq!(events, LifecycleEvent::standard().collect::<Vec<_>>());
    }

    #[test]
    fn green_waits_for_its_traffic_and_blue_for_green() {
        let strategy = Strategy::BlueGreen {
            wait_minutes: None,
            retire_minutes: None,
        };
        let names = |label| {
            let events = strategy.events(Some(&label));
            events
                .into_iter()
                .map(|(stage, event)| format!("{stage:?} {event}"))
                .collect::<Vec<_>>()
        };
        let green = names(TargetLabel::Green);
        assert_eq!(
            (green.len(), green[6].as_str()),
            (10, "Deploy ValidateService")
        );
        assert_eq!(green[7], "Allow BeforeAllowTraffic");
        let blue = names(TargetLabel::Blue);
        assert_eq!(
            blue,
            [
                "Block BeforeBlockTraffic",
                "Block BlockTraffic",
                "Block AfterBlockTraffic"
            ]
        );
    }
}
