//! Lists in columns, for people.

use std::borrow::Cow;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_support::plain::harmless;
use time::OffsetDateTime;
use time::macros::format_description;

/// Rows below the names of their columns; without rows, an empty text. Cells may contain text of
/// others.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = head.map(Cow::Borrowed);
    let rows = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| harmless(cell)));
    let all: Vec<[Cow<'_, str>; N]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; N];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
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
