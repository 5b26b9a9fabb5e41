//! Lists in columns, for people.

use codedeploy_api::codedeploy::Timestamp;
use time::OffsetDateTime;
use time::macros::format_description;

/// Rows below the names of their columns; without rows, an empty text.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = all()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max();
            line.push_str(&format!(
                "{cell:width$}  ",
                width = width.unwrap_or_default()
            ));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time in the form of the logs, to the second; `-` for none.
pub(super) fn when(time: Option<Timestamp>) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let text = time.and_then(|time| {
        OffsetDateTime::from_unix_timestamp(time.millis().div_euclid(1000))
            .ok()?
            .format(format)
            .ok()
    });
    text.unwrap_or_else(|| "-".into())
}
