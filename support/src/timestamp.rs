//! Points in time as the logs write them.

use time::OffsetDateTime;

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`, for a time in UTC.
pub fn rfc3339(moment: OffsetDateTime) -> String {
    let (date, time) = (moment.date(), moment.time());
    format!(
        "{date}T{:02}:{:02}:{:02}.{:03}Z",
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}
