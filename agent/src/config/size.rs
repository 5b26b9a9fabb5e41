//! Parses sizes as people write them: bytes, or a number with a unit.

use codedeploy_api::command::MAX_SCRIPT_LOG;

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
];

/// Returns the bytes that `text` means; `None` if it is no size or does not fit.
pub(super) fn parse(text: &str) -> Option<u64> {
    let digits = text
        .trim()
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.trim().len());
    let (number, unit) = text.trim().split_at(digits);
    let unit = unit.trim_start().to_ascii_uppercase();
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| *name == unit)?.1
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The size of a log file: a smaller file would be rotated within one deployment.
pub(super) fn of_log(text: &str) -> Option<u64> {
    parse(text).filter(|bytes| *bytes >= 64 << 10)
}

/// The size of the script output that is sent to a controller; `none` is 0.
pub(super) fn of_report(text: &str) -> Option<usize> {
    if text.trim() == "none" {
        return Some(0);
    }
    let bytes = usize::try_from(parse(text)?).ok()?;
    (bytes <= MAX_SCRIPT_LOG).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_decimal_or_binary_as_their_name_says() {
        let cases = [
            ("0", Some(0)),
            ("512", Some(512)),
            ("5KB", Some(5000)),
            ("5 KiB", Some(5120)),
            ("1gb", Some(1_000_000_000)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in [
            "",
            "MB",
            "-1",
            "1.5GB",
            "1XB",
            "99999999999999999999",
            "99999999999TiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
