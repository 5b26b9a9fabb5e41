//! The waits after errors (spec: Errors while polling).

use std::time::Duration;

/// The wait after throttling, whatever the count.
const THROTTLED: Duration = Duration::from_secs(60);
const GROWTH: f64 = 1.2675;
const CAP: i32 = 10;
const LONGEST: f64 = 90.0;

/// Counts consecutive errors.
#[derive(Debug, Default)]
pub struct Backoff {
    errors: i32,
}

/// A random time up to `ceiling`, so that hosts which failed together do not retry together.
pub fn jittered(ceiling: Duration) -> Duration {
    ceiling.mul_f64(fastrand::f64())
}

impl Backoff {
    /// Resets the count; returns whether there were errors.
    pub fn reset(&mut self) -> bool {
        std::mem::take(&mut self.errors) > 0
    }

    /// Returns the pause after one more error, minus the time that the failed call took; with
    /// jitter over the whole range, so that a fleet does not poll in step. After throttling, the
    /// pause is not reduced.
    pub fn after_error(&mut self, throttled: bool, call_took: Duration) -> Duration {
        self.errors = (self.errors + 1).min(CAP);
        if throttled {
            return THROTTLED + jittered(THROTTLED / 10);
        }
        let full = Duration::from_secs(self.ceiling());
        jittered(full.saturating_sub(call_took))
    }

    /// In whole seconds.
    fn ceiling(&self) -> u64 {
        (GROWTH.powi(self.errors) * LONGEST / GROWTH.powi(CAP)).floor() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_as_the_official_agents_do_and_stay_below_their_ceiling() {
        let mut backoff = Backoff::default();
        let mut ceilings = Vec::new();
        for _ in 0..12 {
            let pause = backoff.after_error(false, Duration::ZERO);
            assert!(pause <= Duration::from_secs(backoff.ceiling()));
            ceilings.push(backoff.ceiling());
        }
        assert_eq!(ceilings, [10, 13, 17, 21, 27, 34, 44, 56, 71, 90, 90, 90]);
        assert!(backoff.reset() && !backoff.reset());
        backoff.after_error(false, Duration::ZERO);
        assert_eq!(backoff.ceiling(), 10);
    }

    #[test]
    fn throttling_waits_a_minute_and_a_slow_call_counts_as_waiting() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let pause = backoff.after_error(true, Duration::from_secs(50));
            assert!((THROTTLED..=THROTTLED.mul_f64(1.1)).contains(&pause));
        }
        assert_eq!(
            Backoff::default().after_error(false, Duration::from_secs(80)),
            Duration::ZERO
        );
    }
    #[test]
    fn a_fleet_that_failed_together_spreads_over_the_whole_pause() {
        let pauses: Vec<_> = (0..1000)
            .map(|_| {
                Backoff { errors: 9 }
                    .after_error(false, Duration::ZERO)
                    .as_secs()
            })
            .collect();
        for tenth in (0..90).step_by(9) {
            let there = pauses
                .iter()
                .filter(|pause| (tenth..tenth + 9).contains(*pause))
                .count();
            assert!(
                there > 40,
                "{there} of 1000 hosts between {tenth} s and {} s",
                tenth + 9
            );
        }
    }
}
