//! The rows of commands.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::Target;
use crate::deployment::course::is_performed_here;
use crate::deployment::plan::Class;
use crate::error::ApiError;
use crate::registry::random_text;

/// The host of the commands that the service performs itself; no host is registered with an empty identifier.
pub(in crate::deployment) const SERVICE: &str = "";

/// The command that performs one event on one target.
#[derive(Debug, Clone)]
pub(in crate::deployment) struct Command {
    pub(in crate::deployment) sequence: i64,
    pub(in crate::deployment) id: String,
    pub(in crate::deployment) deployment_id: String,
    pub(in crate::deployment) target: usize,
    pub(in crate::deployment) event: usize,
}

impl Command {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Command {
            sequence: row.get("sequence")?,
            id: row.get("id")?,
            deployment_id: row.get("deployment_id")?,
            target: row.get("target")?,
            event: row.get("event")?,
        })
    }

    /// Offers an event of a target to its host, or to the service's own hand, and gives whom.
    pub(in crate::deployment) fn offer<'a>(
        tx: &Transaction<'_>,
        target: &'a Target,
        event: usize,
    ) -> Result<&'a str, ApiError> {
        let name = target.state.events.get(event).map(|event| &event.name);
        let host = match name {
            Some(name) if is_performed_here(name) => SERVICE,
            _ => &target.member.host,
        };
        let name = name.map_or("", |name| name.name());
        let random = random_text(b"abcdefghijklmnopqrstuvwxyz0123456789", 20)?;
        tx.prepare_cached(
            "INSERT INTO commands (id, deployment_id, target, event, host, offered) VALUES (?1, ?2, ?3, ?4, ?5, 1)",
        )?
        .execute((
            // The readable part is for people who find it in an agent's folder.
            format!("{}.{name}.{random}", target.deployment_id),
            &target.deployment_id,
            target.position,
            event,
            host,
        ))?;
        Ok(host)
    }

    /// The commands that wait for a host, the oldest first.
    pub(in crate::deployment) fn offered_to(
        tx: &Transaction<'_>,
        host: &str,
    ) -> rusqlite::Result<Vec<Command>> {
        tx.prepare_cached("SELECT * FROM commands WHERE host = ?1 AND offered = 1 ORDER BY sequence")?
            .query_map([host], Command::read)?
            .collect()
    }

    /// Every command that the service performs itself and that may not be done.
    pub(in crate::deployment) fn of_service(tx: &Transaction<'_>) -> rusqlite::Result<Vec<Command>> {
        tx.prepare_cached(
            "SELECT c.* FROM commands c JOIN targets t ON t.deployment_id = c.deployment_id AND t.position = c.target
             WHERE c.host = '' AND t.class IN (?1, ?2) ORDER BY c.sequence",
        )?
        .query_map([Class::Offered, Class::Performing], Command::read)?
        .collect()
    }

    /// The command with an identifier, if it is this host's.
    pub(in crate::deployment) fn of_host(
        tx: &Transaction<'_>,
        host: &str,
        id: &str,
    ) -> rusqlite::Result<Option<Command>> {
        tx.prepare_cached("SELECT * FROM commands WHERE id = ?1 AND host = ?2")?
            .query_row((id, host), Command::read)
            .optional()
    }

    pub(in crate::deployment) fn note_noop(&self, tx: &Transaction<'_>, noop: bool) -> rusqlite::Result<()> {
        tx.prepare_cached("UPDATE commands SET noop = ?2 WHERE sequence = ?1")?
            .execute((self.sequence, noop))?;
        Ok(())
    }
}
