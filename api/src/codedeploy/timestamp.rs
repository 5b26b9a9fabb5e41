//! Points in time: on the wire a number of seconds since the epoch, here whole milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The type's name in serde; a format that marks times recognises them by it.
    pub const TYPE: &'static str = "Timestamp";

    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis)
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The time of the host's clock.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(0) + since_epoch
    }

    /// The latest time that is not after this, and a multiple of `period` before or after `start`.
    pub fn floor_from(self, start: Timestamp, period: Duration) -> Timestamp {
        let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
        let rest = self.0.saturating_sub(start.0).rem_euclid(period);
        Timestamp(self.0.saturating_sub(rest))
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seconds = self.0 as f64 / 1000.0;
        // Clients truncate a binary number to milliseconds: a number just below a millisecond would
        // become the previous one.
        let is_below = seconds.mul_add(1000.0, -(self.0 as f64)) < 0.0;
        if is_below && !serializer.is_human_readable() {
            seconds = seconds.next_up();
        }
        serializer.serialize_newtype_struct(Self::TYPE, &seconds)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seconds;

        impl<'de> Visitor<'de> for Seconds {
            type Value = Timestamp;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time in seconds since the epoch")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                number: D,
            ) -> Result<Timestamp, D::Error> {
                let seconds = f64::deserialize(number)?;
                if !seconds.is_finite() {
                    return Err(D::Error::invalid_value(Unexpected::Float(seconds), &self));
                }
                // `as` saturates, so a number beyond every date becomes the last date.
                Ok(Timestamp((seconds * 1000.0).round() as i64))
            }
        }

        deserializer.deserialize_newtype_struct(Self::TYPE, Seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_floats_and_exponents_are_read() {
        for (text, millis) in [
            ("1446744188", 1_446_744_188_000),
            ("1446744188.711", 1_446_744_188_711),
            ("1.446744190402E9", 1_446_744_190_402),
        ] {
            assert_eq!(
                serde_json::from_str::<Timestamp>(text).unwrap().millis(),
                millis
            );
        }
        assert_eq!(
            serde_json::to_string(&Timestamp::from_millis(1_446_744_188_711)).unwrap(),
            "1446744188.711"
        );
    }
}
