//! When a download that failed is tried again: the pauses double, and end when nothing more arrives.

use std::time::Duration;

/// Failures in a row, without [`PROGRESS`] between them, after which a download is given up.
const MOST: u32 = 6;
/// Bytes after which a failure no longer counts as one of the same row.
const PROGRESS: u64 = 64 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u32,
    position: u64,
}

impl Failures {
    /// Notes a failure at `position`, in bytes; gives the pause before the next try, `None` to give up.
    pub(super) fn pause_after(&mut self, position: u64) -> Option<Duration> {
        if position >= self.position.saturating_add(PROGRESS) {
            self.count = 0;
        }
        self.position = self.position.max(position);
        self.count += 1;
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
        let mut failures = Failures::default();
        let pauses: Vec<_> = std::iter::from_fn(|| failures.pause_after(10)).collect();
        assert_eq!(pauses.len(), 5);
        assert!(pauses.iter().sum::<Duration>() <= Duration::from_secs(16), "{pauses:?}");
        assert!(failures.pause_after(PROGRESS + 10).is_some());
    }
}
