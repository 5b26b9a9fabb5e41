//! The record of every change: who made it, from where, and when. It is written in the transaction
//! of the change.
//!
//! Changes by the administrative commands are also on their way to the service's log: each command
//! is a separate process, whose standard error nobody keeps.

use std::collections::BTreeMap;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{self, ListAuditEntriesOutput};
use codedeploy_support::timestamp::rfc3339;
use time::OffsetDateTime;

use crate::error::ApiError;
use crate::pagination::PAGE;
use crate::request;
use crate::store::{Json, SqlError, Tx, named};
use crate::transaction::{Caller, Context};

/// The file in which Linux keeps the login user of a process, even after a change of user.
const LOGIN: &str = "/proc/self/loginuid";

/// The value for processes without a login.
const NOBODY: &str = "4294967295";

/// A change that was made at the command line.
#[derive(Debug)]
pub struct AuditEntry {
    done: Timestamp,
    command: String,
    resource: String,
    by: String,
}

/// A change to record.
#[derive(Debug)]
pub struct Change<'a> {
    /// A user ARN, or the origin of a change without one.
    pub who: &'a str,
    pub access_key_id: Option<&'a str>,
    pub operation: &'a str,
    /// The names of the changed objects by their kinds.
    pub names: &'a BTreeMap<String, String>,
    pub address: Option<&'a str>,
    pub request_id: Option<&'a str>,
    /// The way in which it was requested, if not by the API.
    pub source: Option<&'a str>,
}

impl Change<'_> {
    /// Records it in its transaction.
    pub fn record(&self, tx: &Tx<'_>, now: Timestamp) -> Result<(), SqlError> {
        tx.execute(
            "INSERT INTO audit (time, who, access_key_id, operation, names, address, request_id, source)
             VALUES (:time, :who, :key, :operation, :names, :address, :request, :source)",
            named! {
                ":time": now,
                ":who": self.who,
                ":key": self.access_key_id,
                ":operation": self.operation,
                ":names": Json(self.names),
                ":address": self.address,
                ":request": self.request_id,
                ":source": self.source,
            },
        )?;
        Ok(())
    }
}

/// Records a change by the caller of a request.
pub fn record(
    tx: &Tx<'_>,
    now: Timestamp,
    caller: &Caller,
    operation: &str,
    names: &BTreeMap<String, String>,
) -> Result<(), SqlError> {
    let mut names = names.clone();
    if let Some(subject) = &caller.subject {
        names.insert("subject".to_owned(), subject.clone());
    }
    let change = Change {
        who: &caller.arn,
        access_key_id: Some(&caller.access_key_id),
        operation,
        names: &names,
        address: caller.address.as_deref(),
        request_id: Some(&caller.request_id),
        source: caller.source,
    };
    change.record(tx, now)
}

const NEWEST: &str =
    "SELECT * FROM audit WHERE time >= ?1 AND time <= ?2 AND (time, sequence) < (?2, ?3)
    AND (?5 IS NULL OR instr(lower(who), lower(?5)))
    AND (?6 IS NULL OR instr(lower(operation), lower(?6)))
    AND (?7 IS NULL OR instr(lower(names), lower(?7)))
    ORDER BY time DESC, sequence DESC LIMIT ?4";

/// The newest first.
pub fn list(
    context: &Context<'_>,
    request: request::ListAuditEntries,
) -> Result<ListAuditEntriesOutput, ApiError> {
    let since = request.since.map_or(i64::MIN, Timestamp::millis);
    let request::ListAuditEntries {
        who,
        operation,
        name,
        ..
    } = &request;
    let params = (who, operation, name);
    let name = format!("audit since {since} of {params:?}");
    let listing = context
        .pages
        .listing::<(i64, i64)>(name, request.next_token.as_deref())?;
    let (time, sequence) = listing.after().copied().unwrap_or((i64::MAX, i64::MAX));
    // One more than a page shows whether there is another page.
    let found = context.tx.query_all(
        NEWEST,
        (
            since,
            time,
            sequence,
            PAGE + 1,
            params.0,
            params.1,
            params.2,
        ),
        |row| {
            let time: Timestamp = row.get("time")?;
            let Json(names) = row.get("names")?;
            let entry = controller::AuditEntry {
                time: Some(time),
                who: row.get("who")?,
                access_key_id: row.get("access_key_id")?,
                operation: row.get("operation")?,
                names: Some(names),
                address: row.get("address")?,
                request_id: row.get("request_id")?,
                source: row.get("source")?,
            };
            Ok(((time.millis(), row.get("sequence")?), entry))
        },
    )?;
    let (entries, next_token) = listing.page(found.into_iter().map(Ok::<_, ApiError>))?;
    Ok(ListAuditEntriesOutput {
        entries: Some(entries),
        next_token,
    })
}

/// Deletes the oldest entries from before a time, at most `most`, and returns their number.
pub fn forget(tx: &Tx<'_>, before: Timestamp, most: usize) -> Result<usize, SqlError> {
    tx.execute(FORGET, (before, most))
}

const FORGET: &str = "DELETE FROM audit WHERE sequence IN (
        SELECT sequence FROM audit WHERE time < ?1 ORDER BY time LIMIT ?2)";

/// Records the transaction's change by a command.
pub fn note(tx: &Tx<'_>, done: Timestamp, command: &str, resource: &str) -> Result<(), SqlError> {
    let login = std::fs::read_to_string(LOGIN).unwrap_or_default();
    let by = match login.trim() {
        "" | NOBODY => "command line".to_owned(),
        uid => format!("command line, login of uid {uid}"),
    };
    let names = BTreeMap::from([("resource".to_owned(), resource.to_owned())]);
    let change = Change {
        who: &by,
        access_key_id: None,
        operation: command,
        names: &names,
        address: None,
        request_id: None,
        source: None,
    };
    change.record(tx, done)?;
    let insert = "INSERT INTO administration (done, command, resource, by) VALUES (?1, ?2, ?3, ?4)";
    tx.execute(insert, (done, command, resource, by)).map(drop)
}

/// Returns the changes that are not logged yet. The caller logs them once this is on disk.
pub fn take(context: &Context<'_>) -> Result<Vec<AuditEntry>, ApiError> {
    if !context
        .tx
        .exists("SELECT 1 FROM administration LIMIT 1", ())?
    {
        return Ok(Vec::new());
    }
    let entries = context.tx.query_all(
        "SELECT done, command, resource, by FROM administration ORDER BY number",
        (),
        |row| {
            Ok(AuditEntry {
                done: row.get("done")?,
                command: row.get("command")?,
                resource: row.get("resource")?,
                by: row.get("by")?,
            })
        },
    )?;
    context.tx.execute("DELETE FROM administration", ())?;
    Ok(entries)
}

impl AuditEntry {
    pub fn log(&self) {
        let AuditEntry {
            command,
            resource,
            by,
            ..
        } = self;
        // A service that was down logs it later.
        let done =
            rfc3339(OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(self.done.millis()));
        tracing::info!(
            by,
            operation = command,
            resource,
            done,
            "changed at the command line"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn pages_of_entries_are_read_from_the_index_of_times() {
        for sql in [NEWEST, FORGET] {
            let way = way_of(sql);
            assert!(
                way.contains("audit_by_time (time") && !way.contains("TEMP B-TREE"),
                "{way}"
            );
        }
    }
}
