//! The rows of commands.

use codedeploy_planner::plan::Class;
use codedeploy_planner::strategy::is_performed_here;

use crate::error::ApiError;
use crate::ids::random_text;
use crate::records::Target;
use crate::records::columns::Column;
use crate::store::{Row, SqlError, Tx};

/// The host of the commands that the service performs itself; no registered host has an empty
/// identifier.
pub(crate) const SERVICE: &str = "";

const OFFERED_HERE: &str = "SELECT * FROM commands WHERE host = '' AND offered = 1 AND sequence > ?1 ORDER BY sequence LIMIT ?2";

/// By way of the active deployments: there may be any number of older commands.
const BEGUN_HERE: &str = "SELECT * FROM commands
    WHERE (deployment_id, target) IN (
        SELECT t.deployment_id, t.position FROM deployments d JOIN targets t ON t.deployment_id = d.id
        WHERE d.status IN ('Created', 'InProgress', 'Ready') AND t.class = ?3)
      AND host = ?4 AND offered = 0 AND sequence > ?1
    ORDER BY sequence LIMIT ?2";

/// The command that performs one event on one target.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) sequence: i64,
    pub(crate) id: String,
    pub(crate) deployment_id: String,
    pub(crate) target: usize,
    pub(crate) event: usize,
}

impl Command {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Command {
            sequence: row.get("sequence")?,
            id: row.get("id")?,
            deployment_id: row.get("deployment_id")?,
            target: row.get("target")?,
            event: row.get("event")?,
        })
    }

    /// Offers an event of a target to its host, or to the service itself, and returns the
    /// performer.
    pub(crate) fn offer<'a>(
        tx: &Tx<'_>,
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
        tx.execute(
            "INSERT INTO commands (id, deployment_id, target, event, host, offered)
             VALUES (?1, ?2, ?3, ?4, ?5, 1)",
            (
                // The readable part is for people who find it in an agent's folder.
                format!("{}.{name}.{random}", target.deployment_id),
                &target.deployment_id,
                target.position,
                event,
                host,
            ),
        )?;
        Ok(host)
    }

    /// Returns the commands that wait for a host, the oldest first.
    pub(crate) fn offered_to(tx: &Tx<'_>, host: &str) -> Result<Vec<Command>, SqlError> {
        tx.query_all(
            "SELECT * FROM commands WHERE host = ?1 AND offered = 1 ORDER BY sequence",
            [host],
            Command::read,
        )
    }

    /// Returns the next commands that wait for the service itself, in order.
    pub(crate) fn offered_here(
        tx: &Tx<'_>,
        after: i64,
        most: usize,
    ) -> Result<Vec<Command>, SqlError> {
        tx.query_all(OFFERED_HERE, (after, most), Command::read)
    }

    /// Returns the next commands that the service may have begun to perform itself, in order.
    pub(crate) fn begun_here(
        tx: &Tx<'_>,
        after: i64,
        most: usize,
    ) -> Result<Vec<Command>, SqlError> {
        tx.query_all(
            BEGUN_HERE,
            (after, most, Column(Class::Performing), SERVICE),
            Command::read,
        )
    }

    /// Whether the service still has to perform a command that it began.
    pub(crate) fn is_wanted_here(tx: &Tx<'_>, id: &str) -> Result<bool, SqlError> {
        tx.exists(
            "SELECT 1 FROM commands c
             JOIN targets t ON t.deployment_id = c.deployment_id AND t.position = c.target
             WHERE c.id = ?1 AND t.class = ?2 AND NOT EXISTS (
                 SELECT 1 FROM commands n
                 WHERE n.deployment_id = c.deployment_id AND n.target = c.target AND n.event > c.event)",
            (id, Column(Class::Performing)),
        )
    }

    /// Returns the command with an identifier, if it belongs to this host.
    pub(crate) fn of_host(tx: &Tx<'_>, host: &str, id: &str) -> Result<Option<Command>, SqlError> {
        tx.query_opt(
            "SELECT * FROM commands WHERE id = ?1 AND host = ?2",
            (id, host),
            Command::read,
        )
    }

    pub(crate) fn note_noop(&self, tx: &Tx<'_>, noop: bool) -> Result<(), SqlError> {
        tx.execute(
            "UPDATE commands SET noop = ?2 WHERE sequence = ?1",
            (self.sequence, noop),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn no_old_command_is_looked_at_to_find_those_of_today() {
        let offered = way_of(OFFERED_HERE);
        assert!(
            offered.contains("SEARCH commands USING INDEX commands_offered"),
            "{offered}"
        );
        let begun = way_of(BEGUN_HERE);
        for step in [
            "INDEX deployments_by_status (status=?)",
            "INDEX targets_by_class",
            "SEARCH commands USING INDEX",
        ] {
            assert!(begun.contains(step), "{begun}");
        }
    }
}
