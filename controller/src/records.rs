//! The rows of deployments, of their targets and commands, and of their traces; and those of
//! updates of agents, [`agent_update`].
//!
//! Lists of deployments are in [`listing`] and [`unfinished`], the health of instances is in
//! [`health`], and the changes to report to receivers are in [`state_changes`]. A row that cannot
//! be read is [set aside](set_aside).

pub(crate) mod agent_update;
pub(crate) mod columns;
pub(crate) mod command;
pub(crate) mod definition;
pub(crate) mod delivery;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod listing;
pub(crate) mod script_log;
pub(crate) mod script_runs;
mod set_aside;
pub(crate) mod squares;
pub(crate) mod state_changes;
mod target;
pub mod unfinished;

use std::collections::BTreeMap;

use codedeploy_api::codedeploy::{
    ErrorInformation, LastDeploymentInfo, RollbackInfo, TargetLabel, Timestamp,
};
use codedeploy_planner::deployment_state::{DeploymentState, Ending, Stage};
use codedeploy_planner::plan::{Class, Count};
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorName};
use crate::options::LoadBalancers;
use crate::request::members::shorten;
use crate::revision::Revision;
use crate::store::{Json, Row, SqlError, Tx, named};
use columns::Column;
use definition::{Creator, Definition, Stored};
pub(crate) use set_aside::set_aside;
pub(crate) use target::{Target, overview};

/// A deployment without its targets.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub id: String,
    pub group_id: String,
    pub created: Timestamp,
    /// The user ARN of the access key that created it; `None` for automatic deployments.
    pub created_by: Option<String>,
    pub progress: DeploymentState,
    pub rules: Rules,
    /// `None` if damage has destroyed it; the deployment has ended then.
    pub definition: Option<Definition>,
    pub relations: Relations,
    /// Whether its row was unreadable, and was set aside in this transaction.
    pub was_set_aside: bool,
    /// The present names; a group and an application can be renamed.
    pub application_name: String,
    pub group_name: String,
}

/// The connections of a deployment to others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Relations {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackInfo>,
    /// The deployment that a person took back with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_back: Option<String>,
    /// The deployment whose archives hosts still have, for a deployment that restarts the
    /// application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse_archive_from: Option<String>,
    /// Whether its revision is fetched with the GitHub token of the application.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_github_token: bool,
    /// The instances on which it was taken back while it was in progress, each with the deployment
    /// of the group whose revision it has again, if there is one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taken_back: BTreeMap<String, Option<String>>,
}

const BY_ID: &str = "SELECT d.*, g.name AS group_name, a.name AS application_name
    FROM deployments d
    JOIN deployment_groups g ON g.id = d.group_id
    JOIN applications a ON a.id = g.application_id
    WHERE d.id = ?1";

impl Record {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        let Json(relations): Json<Relations> = row.get("relations")?;
        let Json(rules): Json<Rules> = row.get("rules")?;
        let Json(progress): Json<DeploymentState> = row.get("progress")?;
        let status: String = row.get("status")?;
        if status != progress.status().as_str() {
            let said = format!(
                "found {}, and progress has {}",
                shorten(&status),
                progress.status()
            );
            return Err(SqlError::damaged("status", said));
        }
        let Json(Stored(definition)) = row.get("snapshot")?;
        Ok(Record {
            id: row.get("id")?,
            group_id: row.get("group_id")?,
            created: row.get("created")?,
            created_by: row.get("created_by")?,
            progress,
            rules,
            definition,
            relations,
            was_set_aside: false,
            application_name: row.get("application_name")?,
            group_name: row.get("group_name")?,
        })
    }

    /// Returns the deployment with an id. An unreadable row is set aside if the transaction can
    /// write.
    pub(crate) fn load(tx: &Tx<'_>, id: &str) -> Result<Option<Record>, SqlError> {
        match Record::find(tx, id) {
            Err(damage) if damage.is_damage() && !tx.is_readonly() => {
                set_aside(tx, id, &damage.to_string(), Timestamp::now())?;
                Ok(Record::find(tx, id)?.map(|record| Record {
                    was_set_aside: true,
                    ..record
                }))
            }
            found => found,
        }
    }

    fn find(tx: &Tx<'_>, id: &str) -> Result<Option<Record>, SqlError> {
        tx.query_opt(BY_ID, [id], Record::read)
    }

    /// The reason of an unsuccessful ending.
    pub(crate) fn error(&self) -> Option<&ErrorInformation> {
        match &self.progress {
            DeploymentState::Ended { ending, .. } => ending.error(),
            DeploymentState::Created
            | DeploymentState::InProgress { .. }
            | DeploymentState::Ready { .. } => None,
        }
    }

    /// Whether it has ended, and no work of it continues.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.progress, DeploymentState::Ended { .. })
    }

    pub(crate) fn insert(&self, tx: &Tx<'_>) -> Result<(), SqlError> {
        tx.execute(
            "INSERT INTO deployments
             (id, sequence, group_id, created, created_by, status, progress, rules, snapshot, revision,
              relations)
             SELECT :id, coalesce(max(sequence), 0) + 1, :group, :created, :by, :status, :progress, :rules,
                 :snapshot, :revision, :relations
             FROM deployments",
            named! {
                ":id": self.id,
                ":group": self.group_id,
                ":created": self.created,
                ":by": self.created_by,
                ":status": self.progress.status().as_str(),
                ":progress": Json(&self.progress),
                ":rules": Json(&self.rules),
                ":snapshot": Json(Stored(self.definition.clone())),
                ":revision": Json(self.revision()),
                ":relations": Json(&self.relations),
            },
        )?;
        Ok(())
    }

    pub(crate) fn save_progress(&self, tx: &Tx<'_>) -> Result<(), SqlError> {
        tx.execute(
            "UPDATE deployments SET status = ?2, progress = ?3, retire_at = ?4, relations = ?5 WHERE id = ?1",
            (
                &self.id,
                self.progress.status().as_str(),
                Json(&self.progress),
                self.progress.retire_at(),
                Json(&self.relations),
            ),
        )?;
        Ok(())
    }

    pub(crate) fn save_definition(&self, tx: &Tx<'_>) -> Result<(), SqlError> {
        tx.execute(
            "UPDATE deployments SET snapshot = ?2 WHERE id = ?1",
            (&self.id, Json(Stored(self.definition.clone()))),
        )?;
        Ok(())
    }

    /// Returns the definition, which every active deployment has.
    pub(crate) fn definition(&self) -> Result<&Definition, ApiError> {
        self.definition.as_ref().ok_or_else(|| {
            ErrorName::DamagedRecord.because(format!(
                "the record of the deployment {} was damaged, and has no revision",
                self.id
            ))
        })
    }

    /// The revision, if it is known.
    pub(crate) fn revision(&self) -> Option<&Revision> {
        self.definition
            .as_ref()
            .map(|definition| &definition.revision)
    }

    /// The names of the load balancers at which it changes traffic.
    pub(crate) fn load_balancers(&self) -> Vec<String> {
        let balancers = self
            .definition
            .as_ref()
            .and_then(|definition| definition.load_balancers.as_ref());
        balancers.map(LoadBalancers::names).unwrap_or_default()
    }

    /// Whether its original instances wait for their end, or have reached it.
    pub(crate) fn waits_for_termination(&self) -> bool {
        let retires = matches!(
            self.rules.strategy,
            Strategy::BlueGreen {
                retire_minutes: Some(_),
                ..
            }
        );
        retires
            && matches!(
                self.progress,
                DeploymentState::Ended {
                    ending: Ending::Succeeded,
                    ..
                }
            )
    }

    /// The deployment that this one undoes.
    pub(crate) fn rolls_back(&self) -> Option<String> {
        self.relations
            .rollback
            .as_ref()?
            .rollback_triggering_deployment_id
            .clone()
    }

    /// Returns a deployment in the form that its group shows.
    pub(crate) fn last_info(tx: &Tx<'_>, id: &str) -> Result<Option<LastDeploymentInfo>, SqlError> {
        Ok(Record::load(tx, id)?.map(|record| LastDeploymentInfo {
            deployment_id: Some(record.id),
            status: Some(record.progress.status()),
            end_time: record.progress.completed(),
            create_time: Some(record.created),
        }))
    }

    /// Whether the service made this deployment as a rollback.
    pub(crate) fn is_rollback(&self) -> bool {
        self.definition
            .as_ref()
            .is_some_and(|definition| definition.creator == Creator::Rollback)
    }

    /// Counts the targets of each kind.
    pub(crate) fn counts(&self, tx: &Tx<'_>) -> Result<Vec<Count>, SqlError> {
        tx.query_all(
            "SELECT label, class, stage, count(*) FROM targets WHERE deployment_id = ?1
             GROUP BY class, stage, label",
            [&self.id],
            |row| {
                Ok(Count {
                    label: row.get::<Option<String>>(0)?.map(TargetLabel::from),
                    class: row.get::<Column<Class>>(1)?.0,
                    stage: row.get::<Column<Stage>>(2)?.0,
                    targets: row.get(3)?,
                })
            },
        )
    }

    /// Returns the oldest deployment of a group.
    pub(crate) fn oldest_of_group(tx: &Tx<'_>, group_id: &str) -> Result<Option<String>, SqlError> {
        let sql = "SELECT id FROM deployments WHERE group_id = ?1 ORDER BY created LIMIT 1";
        tx.query_opt(sql, [group_id], |row| row.get(0))
    }

    /// Deletes a deployment with its remaining targets.
    pub(crate) fn delete(tx: &Tx<'_>, id: &str) -> Result<(), SqlError> {
        tx.execute("DELETE FROM deployments WHERE id = ?1", [id])
            .map(drop)
    }

    /// The time at which the first running command expires.
    pub(crate) fn first_deadline(&self, tx: &Tx<'_>) -> Result<Option<Timestamp>, SqlError> {
        tx.query_one(
            "SELECT min(deadline) FROM targets WHERE deployment_id = ?1 AND deadline IS NOT NULL",
            [&self.id],
            |row| row.get(0),
        )
    }
}
