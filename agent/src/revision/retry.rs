//! Decides when to retry a failed download: pauses double, and retries end when no more data
//! arrive, or when the server has been unreachable for too long.

use std::time::{Duration, Instant};

/// The number of consecutive failures, without [`PROGRESS`] between them, after which a download is
/// given up.
const MOST: u32 = 6;
/// The number of bytes after which a failure no longer counts as consecutive.
const PROGRESS: u64 = 64 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Counts consecutive failures.
#[derive(Debug)]
pub(super) struct Failures {
    count: u32,
    position: u64,
    /// The time to wait for a server that does not respond at all, in addition to the other
    /// attempts.
    outage: Duration,
    away_since: Option<Instant>,
}

impl Failures {
    pub(super) fn new(outage: Duration) -> Self {
        Self {
            count: 0,
            position: 0,
            outage,
            away_since: None,
        }
    }

    /// Records a failure at `position`, in bytes; returns the pause before the next attempt, `None`
    /// to give up. `away`: the server did not respond.
    pub(super) fn pause_after(&mut self, position: u64, away: bool) -> Option<Duration> {
        if position >= self.position.saturating_add(PROGRESS) {
            self.count = 0;
        }
        self.position = self.position.max(position);
        let since = if away {
            Some(*self.away_since.get_or_insert_with(Instant::now))
        } else {
            None
        };
        self.away_since = since;
        let waited_for = since.is_some_and(|since| since.elapsed() < self.outage);
        if !waited_for || self.count + 1 < MOST {
            self.count += 1;
        }
        let full = FIRST_PAUSE * 2u32.pow(self.count.min(MOST) - 1);
        // Half of it is jitter, so that a fleet does not return in step.
        (self.count < MOST).then(|| full.mul_f64(0.5 + 0.5 * fastrand::f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_without_progress_end_and_progress_begins_anew() {
        let mut failures = Failures::new(Duration::ZERO);
        let pauses: Vec<_> = std::iter::from_fn(|| failures.pause_after(10, true)).collect();
        assert_eq!(pauses.len(), 5);
        assert!(
            pauses.iter().sum::<Duration>() <= Duration::from_secs(16),
            "{pauses:?}"
        );
        assert!(failures.pause_after(PROGRESS + 10, false).is_some());
    }

    #[test]
    fn a_server_that_is_away_is_waited_for() {
        let mut failures = Failures::new(Duration::from_secs(3600));
        let pauses: Vec<_> = std::iter::from_fn(|| failures.pause_after(0, true))
            .take(100)
            .collect();
        assert_eq!(pauses.len(), 100);
        assert!(
            pauses.iter().max() <= Some(&Duration::from_secs(8)),
            "{pauses:?}"
        );
        assert!(
            failures.pause_after(0, false).is_none(),
            "it answers, and that is one failure too many"
        );
    }
}
