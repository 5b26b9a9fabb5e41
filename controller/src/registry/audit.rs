//! Changes by the administrative commands, on their way to the service's log: each command is a
//! separate process, whose standard error nobody keeps.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_support::timestamp::rfc3339;
use time::OffsetDateTime;

use crate::error::ApiError;
use crate::store::{SqlError, Tx};
use crate::transaction::Context;

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

/// Records the transaction's change.
pub fn note(tx: &Tx<'_>, done: Timestamp, command: &str, resource: &str) -> Result<(), SqlError> {
    let login = std::fs::read_to_string(LOGIN).unwrap_or_default();
    let by = match login.trim() {
        "" | NOBODY => "command line".to_owned(),
        uid => format!("command line, login of uid {uid}"),
    };
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
