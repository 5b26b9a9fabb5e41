//! The rows of deployments, their targets and their commands.

use codedeploy_api::codedeploy::{
    DeploymentInfo, DeploymentOverview, RevisionLocation, TargetStatus, Timestamp,
};
use rusqlite::{OptionalExtension, Row, Transaction, named_params};

use super::plan::{DeploymentState, Event, Rules, TargetState, target_status};
use super::state::Progress;
use crate::error::ApiError;
use crate::fleet::Member;
use crate::registry::random_text;
use crate::store::Json;

/// A deployment without its targets.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub id: String,
    pub group_id: String,
    pub created: Timestamp,
    pub progress: Progress,
    pub rules: Rules,
    /// What does not change after the creation.
    pub snapshot: DeploymentInfo,
    /// The names of today; a group and an application can be renamed.
    pub application_name: String,
    pub group_name: String,
}

const SELECT: &str = "SELECT d.*, g.name AS group_name, a.name AS application_name
    FROM deployments d
    JOIN deployment_groups g ON g.id = d.group_id
    JOIN applications a ON a.id = g.application_id";

impl Record {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Record {
            id: row.get("id")?,
            group_id: row.get("group_id")?,
            created: Timestamp::from_millis(row.get("created")?),
            progress: row.get::<_, Json<_>>("progress")?.0,
            rules: row.get::<_, Json<_>>("rules")?.0,
            snapshot: row.get::<_, Json<_>>("snapshot")?.0,
            application_name: row.get("application_name")?,
            group_name: row.get("group_name")?,
        })
    }

    pub(super) fn load(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<Option<Record>> {
        tx.prepare_cached(&format!("{SELECT} WHERE d.id = ?1"))?.query_row([id], Record::read).optional()
    }

    pub(super) fn insert(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.execute(
            "INSERT INTO deployments (id, group_id, created, status, progress, rules, snapshot)
             VALUES (:id, :group, :created, :status, :progress, :rules, :snapshot)",
            named_params! {
                ":id": self.id,
                ":group": self.group_id,
                ":created": self.created.millis(),
                ":status": self.progress.status().as_str(),
                ":progress": Json(&self.progress),
                ":rules": Json(&self.rules),
                ":snapshot": Json(&self.snapshot),
            },
        )?;
        Ok(())
    }

    pub(super) fn save_progress(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.prepare_cached("UPDATE deployments SET status = ?2, progress = ?3 WHERE id = ?1")?.execute((
            &self.id,
            self.progress.status().as_str(),
            Json(&self.progress),
        ))?;
        Ok(())
    }

    pub(super) fn revision(&self) -> RevisionLocation {
        self.snapshot.revision.clone().unwrap_or_default()
    }
}

/// One target of a deployment.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub deployment_id: String,
    pub position: usize,
    pub member: Member,
    pub updated: Timestamp,
    pub state: TargetState,
    pub status: TargetStatus,
}

impl Target {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Target {
            deployment_id: row.get("deployment_id")?,
            position: row.get("position")?,
            member: Member { name: row.get("target_id")?, arn: row.get("arn")?, host: row.get("host")? },
            updated: Timestamp::from_millis(row.get("updated")?),
            state: TargetState { events: row.get::<_, Json<Vec<Event>>>("events")?.0 },
            status: TargetStatus::from(row.get::<_, String>("status")?),
        })
    }

    pub(super) fn load_all(tx: &Transaction<'_>, deployment_id: &str) -> rusqlite::Result<Vec<Target>> {
        tx.prepare_cached("SELECT * FROM targets WHERE deployment_id = ?1 ORDER BY position")?
            .query_map([deployment_id], Target::read)?
            .collect()
    }

    pub(super) fn at(
        tx: &Transaction<'_>,
        deployment_id: &str,
        position: usize,
    ) -> rusqlite::Result<Option<Target>> {
        tx.prepare_cached("SELECT * FROM targets WHERE deployment_id = ?1 AND position = ?2")?
            .query_row((deployment_id, position), Target::read)
            .optional()
    }

    /// The target with an id or an ARN.
    pub(super) fn named(
        tx: &Transaction<'_>,
        deployment_id: &str,
        name: &str,
    ) -> rusqlite::Result<Option<Target>> {
        tx.prepare_cached("SELECT * FROM targets WHERE deployment_id = ?1 AND (target_id = ?2 OR arn = ?2)")?
            .query_row((deployment_id, name), Target::read)
            .optional()
    }

    pub(super) fn insert(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.prepare_cached(
            "INSERT INTO targets (deployment_id, position, target_id, arn, host, status, updated, events)
             VALUES (:deployment, :position, :name, :arn, :host, :status, :updated, :events)",
        )?
        .execute(named_params! {
            ":deployment": self.deployment_id,
            ":position": self.position,
            ":name": self.member.name,
            ":arn": self.member.arn,
            ":host": self.member.host,
            ":status": self.status.as_str(),
            ":updated": self.updated.millis(),
            ":events": Json(&self.state.events),
        })?;
        Ok(())
    }

    /// Writes the events, what follows from them, and withdraws commands that are no longer offered.
    pub(super) fn save(
        &mut self,
        tx: &Transaction<'_>,
        rules: &Rules,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        self.status = target_status(&self.state, rules);
        self.updated = now;
        tx.prepare_cached(
            "UPDATE targets SET status = ?3, updated = ?4, events = ?5 WHERE deployment_id = ?1 AND position = ?2",
        )?
        .execute((
            &self.deployment_id,
            self.position,
            self.status.as_str(),
            now.millis(),
            Json(&self.state.events),
        ))?;
        let offered = self.state.events.iter().position(|event| event.state.is_offered());
        tx.prepare_cached(
            "UPDATE commands SET offered = 0
             WHERE deployment_id = ?1 AND target = ?2 AND offered = 1 AND event IS NOT ?3",
        )?
        .execute((&self.deployment_id, self.position, offered))?;
        Ok(())
    }
}

/// Targets per status.
pub(super) fn overview(tx: &Transaction<'_>, deployment_id: &str) -> rusqlite::Result<DeploymentOverview> {
    let mut overview = DeploymentOverview {
        pending: Some(0),
        in_progress: Some(0),
        succeeded: Some(0),
        failed: Some(0),
        skipped: Some(0),
        ready: Some(0),
    };
    let mut statement =
        tx.prepare_cached("SELECT status, count(*) FROM targets WHERE deployment_id = ?1 GROUP BY status")?;
    let mut rows = statement.query([deployment_id])?;
    while let Some(row) = rows.next()? {
        let count = Some(row.get(1)?);
        match TargetStatus::from(row.get::<_, String>(0)?) {
            TargetStatus::Pending => overview.pending = count,
            TargetStatus::InProgress => overview.in_progress = count,
            TargetStatus::Succeeded => overview.succeeded = count,
            TargetStatus::Failed => overview.failed = count,
            TargetStatus::Skipped => overview.skipped = count,
            TargetStatus::Ready => overview.ready = count,
            TargetStatus::Unknown | TargetStatus::Other(_) => {}
        }
    }
    Ok(overview)
}

/// What the planner sees of a deployment.
pub(super) fn state(record: &Record, targets: &[Target]) -> DeploymentState {
    DeploymentState {
        rules: record.rules.clone(),
        progress: record.progress.clone(),
        targets: targets.iter().map(|target| target.state.clone()).collect(),
    }
}

/// The command that performs one event on one target.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub sequence: i64,
    pub id: String,
    pub deployment_id: String,
    pub target: usize,
    pub event: usize,
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

    /// Offers an event of a target to its host.
    pub(super) fn offer(tx: &Transaction<'_>, target: &Target, event: usize) -> Result<(), ApiError> {
        let name = target.state.events.get(event).map_or("", |event| event.name.name());
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
            &target.member.host,
        ))?;
        Ok(())
    }

    /// The commands that wait for a host, the oldest first.
    pub(super) fn offered_to(tx: &Transaction<'_>, host: &str) -> rusqlite::Result<Vec<Command>> {
        tx.prepare_cached("SELECT * FROM commands WHERE host = ?1 AND offered = 1 ORDER BY sequence")?
            .query_map([host], Command::read)?
            .collect()
    }

    /// The command with an identifier, if it is this host's.
    pub(super) fn of_host(tx: &Transaction<'_>, host: &str, id: &str) -> rusqlite::Result<Option<Command>> {
        tx.prepare_cached("SELECT * FROM commands WHERE id = ?1 AND host = ?2")?
            .query_row((id, host), Command::read)
            .optional()
    }

    pub(super) fn note_noop(&self, tx: &Transaction<'_>, noop: bool) -> rusqlite::Result<()> {
        tx.prepare_cached("UPDATE commands SET noop = ?2 WHERE sequence = ?1")?
            .execute((self.sequence, noop))?;
        Ok(())
    }
}
