//! The host's local time. The official agents write their logs in it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment in the host's time zone.
#[derive(Clone, Copy)]
pub struct LocalTime {
    fields: libc::tm,
    milliseconds: u32,
}

/// A day of the host's calendar, as `YYYYMMDD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u32);

impl LocalTime {
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// Converts `moment` to local time; a moment before 1970 counts as the beginning of 1970.
    pub fn of(moment: SystemTime) -> Self {
        let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = libc::time_t::try_from(since_epoch.as_secs()).unwrap_or_default();
        #[allow(
            unsafe_code,
            reason = "libc alone knows the host's time zone; all-zero is a valid `tm`"
        )]
        // SAFETY: both pointers are valid for the call; the environment (TZ) is never changed in
        // this process.
        let fields = unsafe {
            let mut fields: libc::tm = std::mem::zeroed();
            libc::localtime_r(&seconds, &mut fields);
            fields
        };
        Self {
            fields,
            milliseconds: since_epoch.subsec_millis(),
        }
    }

    /// Returns the moment at which the host's clocks show `YYYY-MM-DD HH:MM:SS`, with any separator
    /// between date and time, and optional milliseconds. `None` if `text` has another form. For the
    /// hour that a change of clocks repeats, the system's library chooses.
    pub fn parse(text: &str) -> Option<SystemTime> {
        let number = |range: std::ops::Range<usize>| -> Option<i32> {
            let digits = text.get(range)?;
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())?
        };
        let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if marks
            .iter()
            .any(|(at, mark)| text.as_bytes().get(*at) != Some(mark))
        {
            return None;
        }
        let within = |value: i32, range: std::ops::RangeInclusive<i32>| {
            range.contains(&value).then_some(value)
        };
        let milliseconds = match text.get(19..) {
            None => return None,
            Some("") => 0,
            Some(rest) if rest.starts_with('.') => number(20..23).filter(|_| text.len() == 23)?,
            Some(_) => return None,
        };
        #[allow(
            unsafe_code,
            reason = "libc alone knows the host's time zone; all-zero is a valid `tm`"
        )]
        // SAFETY: the pointer is valid for the call; the environment (TZ) is never changed in this
        // process.
        let seconds = unsafe {
            let mut fields: libc::tm = std::mem::zeroed();
            fields.tm_year = within(number(0..4)?, 1970..=9999)? - 1900;
            fields.tm_mon = within(number(5..7)?, 1..=12)? - 1;
            fields.tm_mday = within(number(8..10)?, 1..=31)?;
            fields.tm_hour = within(number(11..13)?, 0..=23)?;
            fields.tm_min = within(number(14..16)?, 0..=59)?;
            fields.tm_sec = within(number(17..19)?, 0..=60)?;
            fields.tm_isdst = -1;
            libc::mktime(&mut fields)
        };
        let seconds = Duration::from_secs(u64::try_from(seconds).ok()?);
        Some(UNIX_EPOCH + seconds + Duration::from_millis(u64::try_from(milliseconds).ok()?))
    }

    /// `YYYY-MM-DD HH:MM:SS`
    pub fn seconds(&self) -> String {
        let libc::tm {
            tm_year,
            tm_mon,
            tm_mday,
            tm_hour,
            tm_min,
            tm_sec,
            ..
        } = self.fields;
        let (year, month) = (tm_year + 1900, tm_mon + 1);
        format!("{year:04}-{month:02}-{tm_mday:02} {tm_hour:02}:{tm_min:02}:{tm_sec:02}")
    }

    /// `YYYY-MM-DD HH:MM:SS.mmm`
    pub fn milliseconds(&self) -> String {
        format!("{}.{:03}", self.seconds(), self.milliseconds)
    }

    pub fn day(&self) -> Day {
        let libc::tm {
            tm_year,
            tm_mon,
            tm_mday,
            ..
        } = self.fields;
        Day(((tm_year + 1900) * 10_000 + (tm_mon + 1) * 100 + tm_mday).unsigned_abs())
    }
}

impl std::fmt::Debug for LocalTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.milliseconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_shows_names_its_moment() {
        let moment = UNIX_EPOCH + Duration::from_millis(1_795_381_200_042);
        let shown = LocalTime::of(moment);
        assert_eq!(LocalTime::parse(&shown.milliseconds()), Some(moment));
        let whole = moment - Duration::from_millis(42);
        assert_eq!(LocalTime::parse(&shown.seconds()), Some(whole));
        assert_eq!(
            LocalTime::parse(&shown.seconds().replace(' ', "T")),
            Some(whole),
            "as 1.8.1 writes it"
        );
    }

    #[test]
    fn anything_else_is_no_time() {
        let cases = [
            "",
            "2026-11-22",
            "2026-11-22 21:00",
            "2026-13-22 21:00:00",
            "2026-11-22 24:00:00",
            "2026-11-22 21:00:00x",
            "2026-11-22 21:00:00.1",
            "+026-11-22 21:00:00",
            "2026-11-22 21:00:0é",
        ];
        for text in cases {
            assert_eq!(LocalTime::parse(text), None, "{text}");
        }
    }
}
