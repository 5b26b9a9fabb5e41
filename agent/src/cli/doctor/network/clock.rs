//! Compares this host's clock with the service's.

use time::OffsetDateTime;

use crate::cli::doctor::Check;
use crate::cli::doctor::network::service::Signature;

/// Services reject signatures if the clocks differ by more than this, in seconds (AWS: 5 minutes at
/// the strictest).
const TOO_SKEWED: f64 = 300.0;
/// A difference beyond this, in seconds, means that time synchronisation does not work.
const SKEWED: f64 = 30.0;

/// The clocks at the time of a response; `theirs` is absent if the service does not send its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) theirs: Option<OffsetDateTime>,
    pub(super) ours: OffsetDateTime,
}

impl Clocks {
    /// The seconds by which this host is ahead; negative if it is behind.
    fn ahead(self) -> Option<f64> {
        self.theirs
            .map(|theirs| (self.ours - theirs).as_seconds_f64())
    }

    /// Whether services may reject this host's signatures because of its clock.
    pub(super) fn are_too_far_apart(self) -> bool {
        self.ahead().is_some_and(|ahead| ahead.abs() >= TOO_SKEWED)
    }
}

/// Judges the clocks; a difference that the service accepts is never called a reason for rejection.
pub(super) fn check(clocks: Clocks, signature: Signature) -> Check {
    const NAME: &str = "clock";
    let Some(ahead) = clocks.ahead() else {
        return Check::warning(
            NAME,
            "the service does not send its time",
            "compare this host's clock by hand",
        );
    };
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    let text = format!("this host is {:.0} s {direction} the service", ahead.abs());
    let advice = "synchronise the clock, with chronyd or systemd-timesyncd";
    match (ahead.abs() >= SKEWED, clocks.are_too_far_apart(), signature) {
        (false, ..) => Check::ok(NAME, "this host and the service agree on the time"),
        (true, true, Signature::Refused) => {
            Check::problem(NAME, format!("{text}, which refuses the signature"), advice)
        }
        (true, true, Signature::Unknown) => Check::problem(
            NAME,
            format!("{text}; services refuse signatures that are more than {TOO_SKEWED} s off"),
            advice,
        ),
        (true, ..) => Check::warning(NAME, text, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Verdict;
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_with_direction() {
        let ours = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let cases = [
            (Some(0), Signature::Unknown, Verdict::Ok, "agree"),
            (Some(29), Signature::Refused, Verdict::Ok, "agree"),
            (
                Some(31),
                Signature::Accepted,
                Verdict::Warning,
                "31 s behind",
            ),
            (
                Some(-90),
                Signature::Refused,
                Verdict::Warning,
                "90 s ahead of",
            ),
            (
                Some(-300),
                Signature::Unknown,
                Verdict::Problem,
                "300 s ahead of",
            ),
            (
                Some(-300),
                Signature::Refused,
                Verdict::Problem,
                "refuses the signature",
            ),
            (
                Some(86_400),
                Signature::Accepted,
                Verdict::Warning,
                "86400 s behind",
            ),
            (
                None,
                Signature::Refused,
                Verdict::Warning,
                "does not send its time",
            ),
        ];
        for (seconds, signature, verdict, text) in cases {
            let theirs = seconds.map(|seconds| ours + time::Duration::seconds(seconds));
            let check = check(Clocks { theirs, ours }, signature);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.text.contains(text), "{check:?}");
            assert!(
                signature == Signature::Refused || !check.text.contains("refuses the"),
                "{check:?}"
            );
        }
    }
}
