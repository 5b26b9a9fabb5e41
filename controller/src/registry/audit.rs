//! What the administrative commands change, on its way to the log of the service: each is a process of its own, whose
//! standard error nobody keeps.

use codedeploy_api::codedeploy::Timestamp;
use time::OffsetDateTime;

use crate::error::ApiError;
use crate::logging::rfc3339;
use crate::store::{SqlError, Tx};
use crate::transaction::Context;

/// Where Linux keeps who has logged in, whatever user they have become since.
const LOGIN: &str = "/proc/self/loginuid";

/// Of processes that no login is behind.
const NOBODY: &str = "4294967295";

/// A change that was made at the command line.
#[derive(Debug)]
pub struct AuditEntry {
    done: Timestamp,
    command: String,
    resource: String,
    by: String,
}

/// Notes what the transaction changes.
pub fn note(tx: &Tx<'_>, done: Timestamp, command: &str, resource: &str) -> Result<(), SqlError> {
    let login = std::fs::read_to_string(LOGIN).unwrap_or_default();
    let by = match login.trim() {
        "" | NOBODY => "command line".to_owned(),
        uid => format!("command line, login of uid {uid}"),
    };
    let insert = "INSERT INTO administration (done, command, resource, by) VALUES (?1, ?2, ?3, ?4)";
    tx.execute(insert, (done.millis(), command, resource, by)).map(drop)
}

/// What is not logged yet. The caller logs it once this is on disk.
pub fn take(context: &Context<'_>) -> Result<Vec<AuditEntry>, ApiError> {
    if !context.tx.exists("SELECT 1 FROM administration LIMIT 1", ())? {
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
        let AuditEntry { command, resource, by, .. } = self;
        // A service that did not run then hears of it later.
        let done = rfc3339(OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(self.done.millis()));
        tracing::info!(by, operation = command, resource, done, "changed at the command line");
    }
}
