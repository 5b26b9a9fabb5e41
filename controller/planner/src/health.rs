//! Minimum healthy hosts: the number of targets that may be unavailable at a time, and the point at
//! which a deployment has lost too many.

use serde::{Deserialize, Serialize};

/// The requirement of a deployment configuration for the fleet while a deployment runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinimumHealthy {
    /// This number of hosts.
    HostCount(u32),
    /// This percentage, rounded up; at most 99.
    FleetPercent(u8),
    /// CodeDeployDefault.HalfAtATime: half of the hosts; a single host may be deployed to.
    HalfAtATime,
    /// CodeDeployDefault.OneAtATime: one target in progress, all but one healthy.
    OneAtATime,
}

/// The budget of a deployment to a known number of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The largest number of targets that may be failed or in progress.
    pub unavailable: usize,
    /// The largest number of targets in progress.
    pub parallel: usize,
}

/// The minimum leaves no target that could be deployed to. Clients see this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "The deployment configuration wants at least {minimum} healthy instances of {targets}, so none can be \
     deployed to; choose a configuration with a lower minimum."
)]
pub struct Unsatisfiable {
    minimum: usize,
    targets: usize,
}

impl MinimumHealthy {
    /// The budget for a deployment to `targets` targets.
    pub fn budget(self, targets: usize) -> Result<Budget, Unsatisfiable> {
        let minimum = match self {
            Self::HostCount(count) => count as usize,
            Self::FleetPercent(percent) => (targets * usize::from(percent)).div_ceil(100),
            Self::HalfAtATime if targets == 1 => 0,
            Self::HalfAtATime => targets.div_ceil(2),
            Self::OneAtATime => targets.saturating_sub(1),
        };
        if minimum >= targets {
            return Err(Unsatisfiable { minimum, targets });
        }
        let unavailable = targets - minimum;
        let parallel = match self {
            Self::OneAtATime => 1,
            _ => unavailable,
        };
        Ok(Budget {
            unavailable,
            parallel,
        })
    }

    /// The number of `targets` targets that may have failed when their fleet is to serve. None may,
    /// if the fleet is smaller than the minimum: when traffic returns to a fleet, its size was not
    /// chosen for the minimum.
    pub fn tolerated(self, targets: usize) -> usize {
        self.budget(targets).map_or(0, |budget| budget.unavailable)
    }
}

/// The targets, counted by progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub not_attempted: usize,
    pub in_progress: usize,
    pub succeeded: usize,
    pub failed: usize,
}

/// The verdict on a tally under a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Targets are in progress or can be started, with the number that can start now.
    Continue {
        start: usize,
    },
    Succeeded,
    /// Too few targets would be healthy.
    Failed,
}

impl Budget {
    /// No target may begin.
    pub const NONE: Budget = Budget {
        unavailable: 0,
        parallel: 0,
    };

    pub fn judge(self, tally: Tally) -> Verdict {
        let room = self
            .unavailable
            .saturating_sub(tally.failed + tally.in_progress)
            .min(self.parallel.saturating_sub(tally.in_progress))
            .min(tally.not_attempted);
        if tally.in_progress > 0 || room > 0 {
            Verdict::Continue { start: room }
        } else if tally.not_attempted == 0
            && tally.succeeded > 0
            // More may have failed than the hosts that were not drained allow.
            && tally.failed <= self.unavailable
        {
            Verdict::Succeeded
        } else {
            Verdict::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MinimumHealthy::*;
    use super::*;

    #[test]
    fn documented_budgets() {
        let table = [
            (HostCount(6), 9, Some((3, 3))),
            (FleetPercent(40), 9, Some((5, 5))),
            (HalfAtATime, 9, Some((4, 4))),
            (HalfAtATime, 1, Some((1, 1))),
            (HalfAtATime, 2, Some((1, 1))),
            (OneAtATime, 1, Some((1, 1))),
            (OneAtATime, 10, Some((1, 1))),
            (HostCount(8), 10, Some((2, 2))),
            (FleetPercent(0), 4, Some((4, 4))),
            (FleetPercent(95), 10, None),
            (FleetPercent(99), 99, None),
            (FleetPercent(50), 1, None),
            (HostCount(10), 10, None),
            (HostCount(u32::MAX), 10, None),
        ];
        for (minimum, targets, expected) in table {
            let budget = minimum
                .budget(targets)
                .ok()
                .map(|b| (b.unavailable, b.parallel));
            assert_eq!(budget, expected, "{minimum:?} of {targets}");
        }
    }

    #[test]
    fn all_of_a_fleet_too_small_for_the_minimum_are_wanted() {
        let table = [
            (HostCount(6), 9, 3),
            (HostCount(3), 2, 0),
            (FleetPercent(50), 1, 0),
            (OneAtATime, 9, 1),
        ];
        for (minimum, targets, expected) in table {
            assert_eq!(
                minimum.tolerated(targets),
                expected,
                "{minimum:?} of {targets}"
            );
        }
    }

    #[test]
    fn the_last_failure_is_free_and_one_success_is_needed() {
        let tally = |not_attempted, in_progress, succeeded, failed| Tally {
            not_attempted,
            in_progress,
            succeeded,
            failed,
        };
        let one_at_a_time = OneAtATime.budget(3).unwrap();
        assert_eq!(
            one_at_a_time.judge(tally(2, 0, 1, 0)),
            Verdict::Continue { start: 1 }
        );
        assert_eq!(
            one_at_a_time.judge(tally(2, 1, 0, 0)),
            Verdict::Continue { start: 0 }
        );
        assert_eq!(one_at_a_time.judge(tally(1, 0, 1, 1)), Verdict::Failed);
        assert_eq!(one_at_a_time.judge(tally(0, 0, 2, 1)), Verdict::Succeeded);
        let all = FleetPercent(0).budget(3).unwrap();
        assert_eq!(all.judge(tally(0, 0, 1, 2)), Verdict::Succeeded);
        assert_eq!(all.judge(tally(0, 0, 0, 3)), Verdict::Failed);
        // Two at a time of ten: the first failure halves the parallelism, the second ends the
        // deployment.
        let two = HostCount(8).budget(10).unwrap();
        assert_eq!(two.judge(tally(8, 0, 1, 1)), Verdict::Continue { start: 1 });
        assert_eq!(two.judge(tally(8, 0, 0, 2)), Verdict::Failed);
    }
}
