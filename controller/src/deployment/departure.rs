//! Hosts that are registered no more: what they were to do is not waited for.

use rusqlite::Transaction;

use super::decide::Outcome;
use super::records::Target;

/// Makes every command overdue whose host was deregistered: the next decision about its deployment ends it, as it does
/// with a command whose time is over.
pub fn give_up(tx: &Transaction<'_>) -> rusqlite::Result<Outcome> {
    let stirred = Target::expire_departed(tx)?.into_iter().collect();
    Ok(Outcome { stirred, ..Outcome::default() })
}
