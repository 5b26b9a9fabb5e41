//! Whether a deployment that was stopped is undone, and how.

use crate::deployment_state::Stop;
use crate::strategy::Strategy;

/// The endings after which a deployment is rolled back without being asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AutoRollback {
    pub on_failure: bool,
    pub on_alarm: bool,
    pub on_request: bool,
}

impl AutoRollback {
    /// Whether a rollback is asked for after a stop. The wish of whoever stopped the deployment
    /// counts more.
    pub fn asks_after(self, stop: &Stop) -> bool {
        match stop {
            Stop::Failure(_) => self.on_failure,
            Stop::Alarm { .. } => self.on_alarm,
            Stop::Request { rollback } => rollback.unwrap_or(self.on_request),
            // The traffic is where it was.
            Stop::NotContinued => false,
        }
    }
}

/// The facts about a deployment that is to be undone, and about its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    pub strategy: Strategy,
    /// A host was handed a command of it.
    pub was_attempted: bool,
    /// A replacement instance may have got traffic.
    pub gave_traffic: bool,
    pub has_original_instances: bool,
    /// An earlier deployment of the group has succeeded.
    pub has_predecessor: bool,
}

/// The way to undo a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// Hosts get the revision of the last successful deployment.
    Redeploy(Strategy),
    /// The original instances, which have kept their revision, get their traffic back.
    ReturnTraffic,
    /// There is nothing to undo, for the reason given.
    Needless(&'static str),
}

impl Stopped {
    /// Decides how the deployment is undone.
    pub fn rollback(self) -> Rollback {
        match self.strategy {
            Strategy::BlueGreen { .. } if !self.gave_traffic => Rollback::Needless(
                "Nothing was rolled back: the original instances have kept their traffic.",
            ),
            Strategy::BlueGreen { .. } if !self.has_original_instances => Rollback::Needless(
                "Nothing was rolled back: the deployment had no original instances, which could serve again.",
            ),
            Strategy::BlueGreen { .. } => Rollback::ReturnTraffic,
            _ if !self.was_attempted => Rollback::Needless(
                "Nothing was rolled back: the deployment was not begun on any instance.",
            ),
            Strategy::BlueGreenRollback => Rollback::ReturnTraffic,
            Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer if !self.has_predecessor => {
                Rollback::Needless(
                    "Nothing was rolled back: no earlier deployment of the deployment group has succeeded.",
                )
            }
            Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer => {
                Rollback::Redeploy(self.strategy)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE_GREEN: Strategy = Strategy::BlueGreen {
        wait_minutes: None,
        retire_minutes: None,
    };

    #[test]
    fn a_wish_counts_more_than_the_settings() {
        let settings = AutoRollback {
            on_request: true,
            ..AutoRollback::default()
        };
        for (rollback, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
            assert_eq!(
                settings.asks_after(&Stop::Request { rollback }),
                expected,
                "{rollback:?}"
            );
        }
        assert!(AutoRollback::default().asks_after(&Stop::Request {
            rollback: Some(true)
        }));
        let alarm = Stop::Alarm {
            message: String::new(),
        };
        assert!(!settings.asks_after(&alarm));
        let always = AutoRollback {
            on_failure: true,
            on_alarm: true,
            on_request: true,
        };
        assert!(always.asks_after(&alarm) && !always.asks_after(&Stop::NotContinued));
    }

    #[test]
    fn only_what_was_changed_is_undone() {
        let stopped = |strategy| Stopped {
            strategy,
            was_attempted: true,
            gave_traffic: true,
            has_original_instances: true,
            has_predecessor: true,
        };
        for strategy in [Strategy::InPlace, Strategy::InPlaceBehindLoadBalancer] {
            assert_eq!(stopped(strategy).rollback(), Rollback::Redeploy(strategy));
            for untouched in [
                Stopped {
                    was_attempted: false,
                    ..stopped(strategy)
                },
                Stopped {
                    has_predecessor: false,
                    ..stopped(strategy)
                },
            ] {
                assert!(
                    matches!(untouched.rollback(), Rollback::Needless(_)),
                    "{untouched:?}"
                );
            }
        }
        // Traffic goes back to instances that have a revision, whatever the group's history.
        let first = Stopped {
            has_predecessor: false,
            ..stopped(BLUE_GREEN)
        };
        assert_eq!(first.rollback(), Rollback::ReturnTraffic);
        for untouched in [
            Stopped {
                gave_traffic: false,
                ..stopped(BLUE_GREEN)
            },
            Stopped {
                has_original_instances: false,
                ..stopped(BLUE_GREEN)
            },
        ] {
            assert!(
                matches!(untouched.rollback(), Rollback::Needless(_)),
                "{untouched:?}"
            );
        }
    }
}
