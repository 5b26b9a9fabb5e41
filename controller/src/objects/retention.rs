//! Determines the expired versions of an object.

use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;

use super::Version;

/// The retention of replaced versions. A version that either bound keeps stays, and so does the
/// newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// This number of the newest versions of an object that have content.
    pub versions: Option<usize>,
    /// Versions that were replaced or deleted within this time.
    pub time: Option<Duration>,
}

impl Retention {
    /// Whether all versions stay.
    pub fn is_endless(&self) -> bool {
        self.versions.is_none() && self.time.is_none()
    }

    /// Returns the expired versions among the `versions` of one object, the newest of which is
    /// first.
    pub fn expired<'a>(&self, versions: &'a [Version], now: Timestamp) -> Vec<&'a Version> {
        if self.is_endless() {
            return Vec::new();
        }
        let mut newer = 0;
        let mut expired = Vec::new();
        for (place, version) in versions.iter().enumerate() {
            let replaced = place
                .checked_sub(1)
                .and_then(|before| versions.get(before))
                .map(|by| by.modified);
            let recent = |replaced| self.time.is_some_and(|time| now < replaced + time);
            let one_of_the_newest = self.versions.is_some_and(|most| newer < most);
            if replaced.is_some_and(|replaced| !one_of_the_newest && !recent(replaced)) {
                expired.push(version);
            }
            newer += usize::from(!version.deleted);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Checksums, Labels};

    /// Versions that were made on these days, the newest first; a minus marks deletions.
    fn expired(retention: Retention, made: &[&str], today: i64) -> Vec<String> {
        let day = |number: i64| Timestamp::from_millis(number * 86_400_000);
        let version = |made: &&str| Version {
            id: (*made).to_owned(),
            etag: String::new(),
            size: 0,
            modified: day(made.trim_start_matches('-').parse().unwrap()),
            deleted: made.starts_with('-'),
            labels: Labels::default(),
            checksums: Checksums::default(),
        };
        let versions: Vec<_> = made.iter().map(version).collect();
        retention
            .expired(&versions, day(today))
            .into_iter()
            .map(|version| version.id.clone())
            .collect()
    }

    #[test]
    fn what_either_bound_keeps_stays_and_the_newest_always_does() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let made = ["40", "30", "20", "10"];
        for (versions, time, today, gone) in [
            (None, None, 1000, &[][..]),
            (Some(1), None, 41, &["30", "20", "10"]),
            (Some(3), None, 41, &["10"]),
            (Some(9), None, 41, &[]),
            // Replaced on day 20, and on day 30.
            (None, days(15), 41, &["10"]),
            (None, days(1), 1000, &["30", "20", "10"]),
            (Some(2), days(15), 41, &["10"]),
            (Some(3), days(15), 1000, &["10"]),
        ] {
            let retention = Retention { versions, time };
            assert_eq!(
                expired(retention, &made, today),
                gone,
                "{retention:?} on day {today}"
            );
        }
    }

    #[test]
    fn a_deletion_counts_as_a_replacement_and_not_as_a_version() {
        let made = ["-40", "30", "20"];
        let newest = Retention {
            versions: Some(1),
            time: None,
        };
        assert_eq!(expired(newest, &made, 50), ["20"]);
        let recent = Retention {
            versions: None,
            time: Some(Duration::from_secs(15 * 86_400)),
        };
        assert_eq!(expired(recent, &made, 50), ["20"]);
        assert_eq!(expired(recent, &made, 55), ["30", "20"]);
    }
}
