//! The rows of updates of agents, and of their hosts.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{AgentUpdateHostStatus as Status, AgentUpdateStatus};

use crate::store::{Row, SqlError, Tx, named};

/// An update of agents.
#[derive(Debug, Clone)]
pub(crate) struct AgentUpdate {
    pub(crate) id: String,
    pub(crate) status: AgentUpdateStatus,
    pub(crate) at_a_time: usize,
    pub(crate) is_stopped: bool,
    pub(crate) created: Timestamp,
    pub(crate) created_by: Option<String>,
    pub(crate) ended: Option<Timestamp>,
}

/// A host of an update.
#[derive(Debug, Clone)]
pub(crate) struct UpdatedHost {
    pub(crate) update_id: String,
    pub(crate) position: usize,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) command: String,
    pub(crate) status: Status,
    pub(crate) since: Timestamp,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) leased: Option<Timestamp>,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) log: Option<String>,
}

impl AgentUpdate {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(AgentUpdate {
            id: row.get("id")?,
            status: row.get::<String>("status")?.into(),
            at_a_time: row.get("at_a_time")?,
            is_stopped: row.get("stopped")?,
            created: row.get("created")?,
            created_by: row.get("created_by")?,
            ended: row.get("ended")?,
        })
    }

    pub(crate) fn insert(&self, tx: &Tx<'_>) -> Result<(), SqlError> {
        tx.execute(
            "INSERT INTO agent_updates (id, status, at_a_time, stopped, created, created_by)
             VALUES (:id, :status, :at_a_time, :stopped, :created, :by)",
            named! {
                ":id": self.id,
                ":status": self.status.as_str(),
                ":at_a_time": self.at_a_time,
                ":stopped": self.is_stopped,
                ":created": self.created,
                ":by": self.created_by,
            },
        )?;
        Ok(())
    }

    /// Saves what changes.
    pub(crate) fn save(&self, tx: &Tx<'_>) -> Result<(), SqlError> {
        tx.execute(
            "UPDATE agent_updates SET status = ?2, stopped = ?3, ended = ?4 WHERE id = ?1",
            (&self.id, self.status.as_str(), self.is_stopped, self.ended),
        )?;
        Ok(())
    }

    pub(crate) fn find(tx: &Tx<'_>, id: &str) -> Result<Option<Self>, SqlError> {
        tx.query_opt(
            "SELECT * FROM agent_updates WHERE id = ?1",
            [id],
            Self::read,
        )
    }

    pub(crate) fn in_progress(tx: &Tx<'_>) -> Result<Option<Self>, SqlError> {
        let sql = "SELECT * FROM agent_updates WHERE status = 'InProgress'";
        tx.query_opt(sql, (), Self::read)
    }

    pub(crate) fn last(tx: &Tx<'_>) -> Result<Option<Self>, SqlError> {
        let sql = "SELECT * FROM agent_updates ORDER BY sequence DESC LIMIT 1";
        tx.query_opt(sql, (), Self::read)
    }

    /// Deletes all but the last ones.
    pub(crate) fn keep_last(tx: &Tx<'_>, most: usize) -> Result<(), SqlError> {
        tx.execute(
            "DELETE FROM agent_updates WHERE sequence <= (
                 SELECT sequence FROM agent_updates ORDER BY sequence DESC LIMIT 1 OFFSET ?1)",
            [most],
        )?;
        Ok(())
    }

    /// The hosts, in the order of their stages.
    pub(crate) fn hosts(&self, tx: &Tx<'_>) -> Result<Vec<UpdatedHost>, SqlError> {
        let sql = "SELECT * FROM agent_update_hosts WHERE update_id = ?1 ORDER BY position";
        tx.query_all(sql, [&self.id], UpdatedHost::read)
    }
}

impl UpdatedHost {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(UpdatedHost {
            update_id: row.get("update_id")?,
            position: row.get("position")?,
            name: row.get("name")?,
            host: row.get("host")?,
            command: row.get("command")?,
            status: row.get::<String>("status")?.into(),
            since: row.get("since")?,
            deadline: row.get("deadline")?,
            leased: row.get("leased")?,
            before: row.get("before")?,
            after: row.get("after")?,
            message: row.get("message")?,
            log: row.get("log")?,
        })
    }

    pub(crate) fn save(&self, tx: &Tx<'_>) -> Result<(), SqlError> {
        tx.execute(
            "INSERT INTO agent_update_hosts (update_id, position, name, host, command, status, since, deadline, leased,
                 before, after, message, log)
             VALUES (:update, :position, :name, :host, :command, :status, :since, :deadline, :leased, :before, :after,
                 :message, :log)
             ON CONFLICT (update_id, position) DO UPDATE SET status = excluded.status, since = excluded.since,
                 deadline = excluded.deadline, leased = excluded.leased, after = excluded.after,
                 message = excluded.message, log = excluded.log",
            named! {
                ":update": self.update_id,
                ":position": self.position,
                ":name": self.name,
                ":host": self.host,
                ":command": self.command,
                ":status": self.status.as_str(),
                ":since": self.since,
                ":deadline": self.deadline,
                ":leased": self.leased,
                ":before": self.before,
                ":after": self.after,
                ":message": self.message,
                ":log": self.log,
            },
        )?;
        Ok(())
    }

    /// Returns what a host has to do, or does.
    pub(crate) fn open_of(tx: &Tx<'_>, host: &str) -> Result<Option<Self>, SqlError> {
        let sql = "SELECT * FROM agent_update_hosts WHERE host = ?1 AND deadline IS NOT NULL";
        tx.query_opt(sql, [host], Self::read)
    }

    /// Returns the host of a command, if the command belongs to it.
    pub(crate) fn of_command(
        tx: &Tx<'_>,
        host: &str,
        command: &str,
    ) -> Result<Option<Self>, SqlError> {
        let sql = "SELECT * FROM agent_update_hosts WHERE command = ?1 AND host = ?2";
        tx.query_opt(sql, (command, host), Self::read)
    }

    /// Extends every deadline to this time at least.
    pub(crate) fn prolong(tx: &Tx<'_>, granted: Timestamp) -> Result<(), SqlError> {
        let sql = "UPDATE agent_update_hosts SET deadline = ?1 WHERE deadline < ?1";
        tx.execute(sql, [granted])?;
        Ok(())
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(
            self.status,
            Status::Offered | Status::Fetched | Status::Running
        )
    }
}
