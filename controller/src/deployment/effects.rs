//! The effects of a transaction on a deployment, for the waiting tasks and for the log, once it is
//! on disk.

use std::time::Duration;

use codedeploy_api::codedeploy::{DeploymentStatus, TargetStatus, Timestamp};

use crate::records::delivery::Delivery;
use crate::records::state_changes;
use crate::revision::Revision;
use crate::store::SqlError;
use crate::transaction::Context;

/// The effects of a decision, applied once it is on disk.
#[derive(Debug, Default)]
pub struct Effects {
    pub deployment_id: String,
    /// Deployments to decide about now.
    pub recheck: Vec<String>,
    /// The time of the next decision about the deployment if nothing happens before.
    pub again_at: Option<Timestamp>,
    /// Hosts with a new command.
    pub hosts: Vec<String>,
    /// Whether the service has a new command to perform itself.
    pub traffic: bool,
    /// Whether the deployment waits for the first check of its alarms.
    pub alarms: bool,
    /// The measures of the deployment if it has ended.
    pub ended: Option<Box<Delivery>>,
    /// The time for which a command had waited when its host received it.
    pub picked_up_after: Option<Duration>,
    pub(super) changes: Vec<Change>,
}

impl Effects {
    /// No effects.
    pub(crate) fn none(deployment_id: &str) -> Self {
        Effects {
            deployment_id: deployment_id.to_owned(),
            ..Effects::default()
        }
    }

    /// Requests a decision about the deployment as a whole.
    pub(crate) fn recheck_self(&mut self) {
        self.recheck.push(self.deployment_id.clone());
    }

    /// The changes that were noted.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Notes a change of the deployment: for the log, and for the receivers of events if the status
    /// changed.
    pub(super) fn note(&mut self, context: &Context<'_>, change: Change) -> Result<(), SqlError> {
        let Context { tx, now, .. } = *context;
        let id = self.deployment_id.as_str();
        match &change {
            Change::Created { .. } => {
                state_changes::note_deployment(tx, id, &DeploymentStatus::Created, now)?
            }
            Change::Ready => state_changes::note_deployment(tx, id, &DeploymentStatus::Ready, now)?,
            Change::Ended { status, .. } => state_changes::note_deployment(tx, id, status, now)?,
            Change::RollingBack { by, .. } => {
                state_changes::note_deployment(tx, by, &DeploymentStatus::Created, now)?;
            }
            Change::Target { name, arn, status } => {
                state_changes::note_target(tx, id, (name, arn), status, now)?;
            }
            Change::Started { .. } | Change::Retired { .. } | Change::Event { .. } => {}
        }
        self.changes.push(change);
        Ok(())
    }

    pub(crate) fn look_again(&mut self, at: Option<Timestamp>) {
        self.again_at = self.again_at.into_iter().chain(at).min();
    }
}

/// A change of state.
#[derive(Debug)]
pub enum Change {
    Created {
        application: String,
        deployment_group: String,
        revision: Revision,
    },
    Started {
        targets: usize,
    },
    Ready,
    Ended {
        status: DeploymentStatus,
        error: String,
        rolls_back: Option<String>,
    },
    RollingBack {
        by: String,
        revision: Revision,
    },
    Retired {
        instances: Vec<String>,
    },
    Target {
        name: String,
        arn: String,
        status: TargetStatus,
    },
    Event {
        target: String,
        event: String,
        state: &'static str,
        message: String,
    },
}

/// Logs at a level that is determined at run time: failures are warnings, and each step of a host
/// is for debugging.
macro_rules! log {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::Warn => tracing::warn!($($fields)*),
            Level::Info => tracing::info!($($fields)*),
            Level::Debug => tracing::debug!($($fields)*),
        }
    };
}

enum Level {
    Warn,
    Info,
    Debug,
}

impl Effects {
    /// Writes every change to the log.
    pub fn log(&self) {
        for change in &self.changes {
            change.log(&self.deployment_id);
        }
    }
}

impl Change {
    fn log(&self, deployment_id: &str) {
        match self {
            Change::Created {
                application,
                deployment_group,
                revision,
            } => {
                tracing::info!(deployment_id, application, deployment_group, %revision, "deployment created");
            }
            Change::Started { targets } => {
                tracing::info!(deployment_id, targets, "deployment started")
            }
            Change::Ready => tracing::info!(deployment_id, "replacement instances ready"),
            Change::Ended {
                status,
                error,
                rolls_back,
            } => {
                let level = if *status == DeploymentStatus::Failed {
                    Level::Warn
                } else {
                    Level::Info
                };
                log!(level, deployment_id, %status, reason = error, rolls_back, "deployment ended");
            }
            Change::RollingBack { by, revision } => {
                tracing::info!(deployment_id, rollback_deployment_id = by, %revision, "rollback created");
            }
            Change::Retired { instances } => {
                let (number, instances) = (instances.len(), instances.join(", "));
                tracing::info!(
                    deployment_id,
                    number,
                    instances,
                    "original instances deregistered"
                );
            }
            Change::Target {
                name,
                arn: _,
                status,
            } => {
                let level = match status {
                    TargetStatus::Failed => Level::Warn,
                    TargetStatus::Pending | TargetStatus::InProgress => Level::Debug,
                    _ => Level::Info,
                };
                log!(level, deployment_id, host = name, %status, "target changed");
            }
            Change::Event {
                target,
                event,
                state,
                message,
            } => {
                let level = match *state {
                    "Failed" => Level::Warn,
                    "Succeeded" => Level::Info,
                    _ => Level::Debug,
                };
                log!(
                    level,
                    deployment_id,
                    host = target,
                    lifecycle_event = event,
                    state,
                    reason = message,
                    "lifecycle event changed"
                );
            }
        }
    }
}
