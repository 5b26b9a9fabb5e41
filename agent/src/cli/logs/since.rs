//! Parses moments as people write them.

use std::time::{Duration, SystemTime};

use codedeploy_hooks::clock::LocalTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const UNITS: [(char, u64); 5] = [
    ('s', 1),
    ('m', 60),
    ('h', 3600),
    ('d', 86_400),
    ('w', 604_800),
];

/// Parses a time ago, such as `30m`, or a time by the host's clocks or with a zone.
pub(super) fn parse(text: &str) -> Result<SystemTime, String> {
    ago(text)
        .or_else(|| local(text))
        .or_else(|| {
            OffsetDateTime::parse(text, &Rfc3339)
                .ok()
                .map(SystemTime::from)
        })
        .ok_or_else(|| {
            "expected 90s, 30m, 1h, 2d, 1w, or a time such as \"2026-11-22 21:00\"".to_owned()
        })
}

fn ago(text: &str) -> Option<SystemTime> {
    let (unit, seconds) = UNITS.iter().find(|(unit, _)| text.ends_with(*unit))?;
    let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
    SystemTime::now().checked_sub(Duration::from_secs(number.checked_mul(*seconds)?))
}

fn local(text: &str) -> Option<SystemTime> {
    let rest = match text.len() {
        10 => " 00:00:00",
        16 => ":00",
        _ => "",
    };
    LocalTime::parse(&format!("{text}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ages_or_moments() {
        let age = SystemTime::now()
            .duration_since(parse("2h").unwrap())
            .unwrap();
        assert!((7199.0..7260.0).contains(&age.as_secs_f64()), "{age:?}");
        let day = parse("2026-11-22").unwrap();
        assert_eq!(
            parse("2026-11-22 00:01").unwrap(),
            day + Duration::from_secs(60)
        );
        let zone = parse("2026-11-22T21:00:00Z").unwrap();
        assert_eq!(
            zone.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
            1_795_381_200
        );
        for text in [
            "",
            "h",
            "-1h",
            "1y",
            "yesterday",
            "99999999999999999999s",
            "9999999999999999w",
            "2026-13-01",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
