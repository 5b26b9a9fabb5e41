//! Numbers and booleans as YAML 1.1 writes them, read as the official agents read them.

/// The number that an unquoted text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// A whole number, in any form: `300`, `1_000`, `0300` (octal), `0x12C`, `0b11`, `1:30:00`,
    /// `300.0`. Values beyond the type become its limit.
    Whole(i128),
    Fraction,
}

/// Reads `text` as a number; `None` if it is none.
pub(super) fn number(text: &str) -> Option<Number> {
    let (sign, digits) = signed(text);
    let whole = integer(digits).or_else(|| sexagesimal(digits));
    whole
        .map(|whole| Number::Whole(whole.saturating_mul(sign)))
        .or_else(|| float(text))
}

/// The octal digits of a number with a leading zero, such as `0644`; they stay digits here.
pub(super) fn octal_form(text: &str) -> Option<String> {
    let (_, digits) = signed(text);
    let rest = digits.strip_prefix('0').filter(|rest| !rest.is_empty())?;
    if !rest.chars().all(|c| matches!(c, '0'..='7' | '_' | ',')) {
        return None;
    }
    Some(rest.chars().filter(char::is_ascii_digit).collect())
}

/// Returns the number at the beginning of a text, as Ruby's `to_i` reads it, or 0, and the text
/// behind it.
pub(super) fn leading_number(text: &str) -> (i128, &str) {
    let trimmed = text.trim_start();
    let (sign, rest) = signed(trimmed);
    let mut length = 0;
    let mut value: i128 = 0;
    let bytes = rest.as_bytes();
    while let Some(byte) = bytes.get(length) {
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' => {
                value = value
                    .saturating_mul(10)
                    .saturating_add(i128::from(byte - b'0'))
            }
            b'_' if length > 0 && is_digit(length - 1) && is_digit(length + 1) => {}
            _ => break,
        }
        length += 1;
    }
    (value.saturating_mul(sign), &rest[length..])
}

/// Reads an unquoted text as a boolean.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is(["true", "yes", "on"]) => Some(true),
        () if is(["false", "no", "off"]) => Some(false),
        () => None,
    }
}

fn signed(text: &str) -> (i128, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Whether the text has at least one digit, and only `_` and `,` between digits.
fn made_of(text: &str, is_digit: impl Fn(char) -> bool) -> bool {
    text.contains(&is_digit) && text.chars().all(|c| is_digit(c) || matches!(c, '_' | ','))
}

fn in_base(digits: &str, base: u32) -> i128 {
    digits
        .chars()
        .filter_map(|c| c.to_digit(base))
        .fold(0, |value: i128, digit| {
            value
                .saturating_mul(base.into())
                .saturating_add(digit.into())
        })
}

fn integer(digits: &str) -> Option<i128> {
    if let Some(binary) = digits
        .strip_prefix("0b")
        .filter(|rest| made_of(rest, |c| matches!(c, '0' | '1')))
    {
        return Some(in_base(binary, 2));
    }
    if let Some(hex) = digits
        .strip_prefix("0x")
        .filter(|rest| made_of(rest, |c| c.is_ascii_hexdigit()))
    {
        return Some(in_base(hex, 16));
    }
    if let Some(octal) = octal_form(digits) {
        return Some(in_base(&octal, 8));
    }
    let mut after_digit = false;
    let is_decimal = digits.chars().all(|c| {
        let fits = c.is_ascii_digit() || (after_digit && matches!(c, '_' | ','));
        after_digit = c.is_ascii_digit();
        fits
    });
    let begins = digits == "0" || digits.starts_with(|c| matches!(c, '1'..='9'));
    (is_decimal && begins && after_digit).then(|| in_base(digits, 10))
}

/// `H:MM` and `H:MM:SS`, in seconds.
fn sexagesimal(digits: &str) -> Option<i128> {
    let digits = digits.split_once('.').map_or(digits, |(whole, fraction)| {
        if fraction.chars().all(|c| matches!(c, '0' | '_')) {
            whole
        } else {
            ""
        }
    });
    let mut parts = digits.split(':');
    let hours = parts
        .next()
        .filter(|hours| hours.starts_with(|c: char| c.is_ascii_digit()))?;
    if !hours.chars().all(|c| c.is_ascii_digit() || c == '_') {
        return None;
    }
    let parts: Vec<&str> = parts.collect();
    let is_part = |part: &&str| match part.as_bytes() {
        [b'0'..=b'9'] => true,
        [tens, ones] => matches!(tens, b'0'..=b'5') && ones.is_ascii_digit(),
        _ => false,
    };
    if !(1..=2).contains(&parts.len()) || !parts.iter().all(is_part) {
        return None;
    }
    let later = parts
        .iter()
        .zip([60, 1])
        .map(|(part, factor)| in_base(part, 10) * factor)
        .sum::<i128>();
    Some(
        in_base(hours, 10)
            .saturating_mul(3600)
            .saturating_add(later),
    )
}

/// Digits around a point, with an exponent that has a sign.
fn float(text: &str) -> Option<Number> {
    let (_, unsigned) = signed(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = whole.is_empty()
        || (whole.starts_with(|c: char| c.is_ascii_digit())
            && made_of(whole, |c| c.is_ascii_digit()));
    let is_exponent = |exponent: &str| {
        exponent
            .strip_prefix(['-', '+'])
            .is_some_and(|digits| !digits.is_empty() && all_digits(digits))
    };
    if !is_whole || !all_digits(fraction) || !exponent.is_none_or(is_exponent) || mantissa == "." {
        return None;
    }
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let value: f64 = plain.parse().ok()?;
    if value.fract() != 0.0 {
        return Some(Number::Fraction);
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, as a whole number does here"
    )]
    let whole = value as i128;
    Some(Number::Whole(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_yaml_1_1() {
        for (text, value) in [
            ("300", 300),
            ("+300", 300),
            ("-5", -5),
            ("0300", 192),
            ("0,300", 192),
            ("0x12C", 300),
            ("0b1_1", 3),
            ("1_000", 1000),
            ("1,000", 1000),
            ("0", 0),
            ("0_", 0),
            ("300.0", 300),
            ("300.", 300),
            ("3.0e+2", 300),
            ("3_0.0", 30),
            ("1:30", 5400),
            ("12:00:00", 43200),
            ("1:30:00.0", 5400),
            ("-1:30", -5400),
        ] {
            assert_eq!(number(text), Some(Number::Whole(value)), "{text}");
        }
        for text in ["1.5", ".5", "-.5", "1.0e-3"] {
            assert_eq!(number(text), Some(Number::Fraction), "{text}");
        }
        for text in [
            "",
            "08",
            "1__0",
            "1_",
            "_1",
            "0X1",
            "0x",
            "0o17",
            "3e2",
            "3.0e2",
            "1:60",
            "5m",
            ".",
            "1.2.3",
            "2024-01-31",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(number(&"9".repeat(100)), Some(Number::Whole(i128::MAX)));
    }

    #[test]
    fn a_text_has_the_number_that_it_begins_with() {
        for (text, value, rest) in [
            ("300", 300, ""),
            ("5m", 5, "m"),
            (" 1_000", 1000, ""),
            ("1__0", 1, "__0"),
            ("0x1", 0, "x1"),
            ("soon", 0, "soon"),
            ("-3", -3, ""),
            ("", 0, ""),
        ] {
            assert_eq!(leading_number(text), (value, rest), "{text}");
        }
    }
}
