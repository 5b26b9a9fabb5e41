//! The rows of script logs: the output of a command's scripts, in compressed parts.

use crate::records::command::Command;
use crate::store::{SqlError, Tx};

/// The log of one command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScriptLog {
    /// The size of its text.
    pub(crate) bytes: usize,
    /// The number of parts that have not arrived.
    pub(crate) missing: usize,
}

/// An event of a target of a deployment.
pub(crate) type Place<'a> = (&'a str, usize, usize);

/// The place of a command's log.
pub(crate) fn place(command: &Command) -> Place<'_> {
    (&command.deployment_id, command.target, command.event)
}

impl ScriptLog {
    /// Returns the log of a command, if any part of it has arrived.
    pub(crate) fn at(tx: &Tx<'_>, place: Place<'_>) -> Result<Option<ScriptLog>, SqlError> {
        tx.query_opt(
            "SELECT bytes, missing FROM script_logs WHERE deployment_id = ?1 AND target = ?2 AND event = ?3",
            place,
            |row| {
                Ok(ScriptLog {
                    bytes: row.get(0)?,
                    missing: row.get(1)?,
                })
            },
        )
    }

    /// Returns the size of all logs of a deployment.
    pub(crate) fn bytes_of(tx: &Tx<'_>, deployment_id: &str) -> Result<usize, SqlError> {
        tx.query_one(
            "SELECT coalesce(sum(bytes), 0) FROM script_logs WHERE deployment_id = ?1",
            [deployment_id],
            |row| row.get(0),
        )
    }

    /// Replaces the log of a command by one without any part.
    pub(crate) fn reserve(
        tx: &Tx<'_>,
        (deployment_id, target, event): Place<'_>,
        log: ScriptLog,
    ) -> Result<(), SqlError> {
        tx.execute(
            "DELETE FROM script_logs WHERE deployment_id = ?1 AND target = ?2 AND event = ?3",
            (deployment_id, target, event),
        )?;
        tx.execute(
            "INSERT INTO script_logs (deployment_id, target, event, bytes, missing) VALUES (?1, ?2, ?3, ?4, ?5)",
            (deployment_id, target, event, log.bytes, log.missing),
        )?;
        Ok(())
    }

    /// Adds a part, compressed with gzip; one that is there stays.
    pub(crate) fn add(
        tx: &Tx<'_>,
        (deployment_id, target, event): Place<'_>,
        part: usize,
        text: &[u8],
    ) -> Result<(), SqlError> {
        let added = tx.execute(
            "INSERT INTO script_log_parts (deployment_id, target, event, part, text) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
            (deployment_id, target, event, part, text),
        )?;
        tx.execute(
            "UPDATE script_logs SET missing = missing - ?4
             WHERE deployment_id = ?1 AND target = ?2 AND event = ?3",
            (deployment_id, target, event, added),
        )?;
        Ok(())
    }

    /// Returns the parts of a log, in order.
    pub(crate) fn parts(tx: &Tx<'_>, place: Place<'_>) -> Result<Vec<Vec<u8>>, SqlError> {
        tx.query_all(
            "SELECT text FROM script_log_parts WHERE deployment_id = ?1 AND target = ?2 AND event = ?3
             ORDER BY part",
            place,
            |row| row.get(0),
        )
    }

    /// Returns the first deployment after another one, in the order of their ids, that has logs.
    pub(crate) fn deployment_after(tx: &Tx<'_>, id: &str) -> Result<Option<String>, SqlError> {
        tx.query_one(NEXT, [id], |row| row.get(0))
    }

    /// Deletes logs of a deployment, at most `most`, and returns their number.
    pub(crate) fn delete(tx: &Tx<'_>, deployment_id: &str, most: usize) -> Result<usize, SqlError> {
        let first = tx.query_all(
            "SELECT target, event FROM script_logs WHERE deployment_id = ?1
             ORDER BY target, event LIMIT ?2",
            (deployment_id, most),
            |row| Ok((row.get::<usize>(0)?, row.get::<usize>(1)?)),
        )?;
        for (target, event) in &first {
            tx.execute(
                "DELETE FROM script_logs WHERE deployment_id = ?1 AND target = ?2 AND event = ?3",
                (deployment_id, *target, *event),
            )?;
        }
        Ok(first.len())
    }
}

const NEXT: &str = "SELECT min(deployment_id) FROM script_logs WHERE deployment_id > ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn the_next_deployment_with_logs_is_found_without_reading_the_others() {
        let way = way_of(NEXT);
        assert!(way.contains("PRIMARY KEY (deployment_id>?)"), "{way}");
    }
}
