//! The states of a deployment, with their one transition function.

use codedeploy_api::codedeploy::{DeploymentStatus, ErrorCode, ErrorInformation, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event_state::IllegalEvent;

/// A part of a deployment's strategy. Targets perform the events of the stage that the deployment is in, and no later
/// ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Stage {
    /// Targets get the revision, as many at a time as the minimum of healthy hosts allows.
    #[default]
    Deploy,
    /// The fleet that is to serve gets traffic.
    Allow,
    /// The other fleet loses it.
    Block,
}

/// Where a deployment stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status")]
pub enum DeploymentState {
    /// Accepted; its targets are not known.
    Created,
    /// Its targets are known, and commands are being made.
    InProgress {
        started: Timestamp,
        #[serde(default)]
        stage: Stage,
        /// It is about to end, and waits for the commands that run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<Stop>,
    },
    /// The replacement instances wait for their traffic.
    Ready {
        started: Timestamp,
        /// When the deployment is stopped if nobody lets it go on.
        until: Timestamp,
    },
    Ended {
        #[serde(skip_serializing_if = "Option::is_none")]
        started: Option<Timestamp>,
        completed: Timestamp,
        ending: Ending,
        /// When the original instances, which serve no more, are deregistered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retire_at: Option<Timestamp>,
    },
}

/// Why a deployment ends before all of it is done. The first reason counts, however long the end takes then; of what users
/// wish about the rollback, the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stop {
    /// A user asked for it, and may have said whether to roll back.
    Request { rollback: Option<bool> },
    /// An alarm, named in the text, is active or cannot be read.
    Alarm { message: String },
    /// It cannot succeed any more.
    Failure(ErrorInformation),
    /// It waited for someone who lets it go on, and nobody did.
    NotContinued,
}

impl Stop {
    pub fn failure(code: ErrorCode, message: impl Into<String>) -> Self {
        Stop::Failure(ErrorInformation { code: Some(code), message: Some(message.into()) })
    }

    /// The ending of a deployment that was stopped so.
    pub fn ending(&self) -> Ending {
        let stopped = |code, message: &str| {
            Ending::Stopped(ErrorInformation { code: Some(code), message: Some(message.to_owned()) })
        };
        match self {
            Stop::Request { .. } => stopped(
                ErrorCode::ManualStop,
                "The deployment was stopped by a user; no more commands were scheduled.",
            ),
            Stop::Alarm { message } => stopped(ErrorCode::AlarmActive, message),
            Stop::Failure(error) => Ending::Failed(error.clone()),
            Stop::NotContinued => stopped(
                ErrorCode::Timeout,
                "The replacement instances were ready, and nobody continued the deployment in time.",
            ),
        }
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    Succeeded,
    Failed(ErrorInformation),
    Stopped(ErrorInformation),
}

impl Ending {
    /// What clients are told about an ending that is not a success.
    pub fn error(&self) -> Option<&ErrorInformation> {
        match self {
            Ending::Succeeded => None,
            Ending::Failed(error) | Ending::Stopped(error) => Some(error),
        }
    }
}

/// What can happen to a deployment.
#[derive(Debug, Clone, PartialEq)]
pub enum DeploymentInput {
    /// Its targets are known.
    Start(Stage),
    /// It shall end, while commands may be running; the first to ask gives the reason.
    RequestStop(Stop),
    /// The replacement instances have the revision, and wait.
    AwaitContinue {
        until: Timestamp,
    },
    /// All of the stages before this one is done.
    Enter(Stage),
    End {
        ending: Ending,
        retire_at: Option<Timestamp>,
    },
    /// The time of the original instances is over.
    Retire,
}

impl DeploymentState {
    /// The state after `input` at `now`.
    pub fn next(&self, input: DeploymentInput, now: Timestamp) -> Result<DeploymentState, IllegalEvent> {
        use DeploymentInput as In;
        let illegal = |input: &'static str| Err(IllegalEvent { state: self.name(), input });
        match (self, input) {
            (DeploymentState::Created, In::Start(stage)) => {
                Ok(DeploymentState::InProgress { started: now, stage, stop: None })
            }
            (_, In::Start(_)) => illegal("Start"),
            (DeploymentState::InProgress { started, stage, stop }, In::RequestStop(asked)) => {
                let stop = match (stop, asked) {
                    // Who asks again may have changed their mind about the rollback.
                    (Some(Stop::Request { .. }) | None, asked @ Stop::Request { rollback: Some(_) }) => asked,
                    (Some(first), _) => first.clone(),
                    (None, asked) => asked,
                };
                Ok(DeploymentState::InProgress { started: *started, stage: *stage, stop: Some(stop) })
            }
            // The wait is over, for another reason than the one waited for.
            (DeploymentState::Ready { started, .. }, In::RequestStop(asked)) => {
                Ok(DeploymentState::InProgress { started: *started, stage: Stage::Deploy, stop: Some(asked) })
            }
            (_, In::RequestStop(_)) => illegal("RequestStop"),
            (DeploymentState::InProgress { started, stop: None, .. }, In::AwaitContinue { until }) => {
                Ok(DeploymentState::Ready { started: *started, until })
            }
            (_, In::AwaitContinue { .. }) => illegal("AwaitContinue"),
            (
                DeploymentState::InProgress { started, stop: None, .. }
                | DeploymentState::Ready { started, .. },
                In::Enter(stage),
            ) => Ok(DeploymentState::InProgress { started: *started, stage, stop: None }),
            (_, In::Enter(_)) => illegal("Enter"),
            (DeploymentState::Created, In::End { ending: Ending::Succeeded, .. })
            | (DeploymentState::Ended { .. }, In::End { .. }) => illegal("End"),
            (_, In::End { ending, retire_at }) => {
                Ok(DeploymentState::Ended { started: self.started(), completed: now, ending, retire_at })
            }
            (DeploymentState::Ended { started, completed, ending, .. }, In::Retire) => {
                Ok(DeploymentState::Ended {
                    started: *started,
                    completed: *completed,
                    ending: ending.clone(),
                    retire_at: None,
                })
            }
            (_, In::Retire) => illegal("Retire"),
        }
    }

    pub fn status(&self) -> DeploymentStatus {
        match self {
            DeploymentState::Created => DeploymentStatus::Created,
            DeploymentState::InProgress { .. } => DeploymentStatus::InProgress,
            DeploymentState::Ready { .. } => DeploymentStatus::Ready,
            DeploymentState::Ended { ending, .. } => match ending {
                Ending::Succeeded => DeploymentStatus::Succeeded,
                Ending::Failed(_) => DeploymentStatus::Failed,
                Ending::Stopped(_) => DeploymentStatus::Stopped,
            },
        }
    }

    pub fn started(&self) -> Option<Timestamp> {
        match self {
            DeploymentState::Created => None,
            DeploymentState::InProgress { started, .. } | DeploymentState::Ready { started, .. } => {
                Some(*started)
            }
            DeploymentState::Ended { started, .. } => *started,
        }
    }

    pub fn completed(&self) -> Option<Timestamp> {
        match self {
            DeploymentState::Ended { completed, .. } => Some(*completed),
            DeploymentState::Created | DeploymentState::InProgress { .. } | DeploymentState::Ready { .. } => {
                None
            }
        }
    }

    /// When the original instances are deregistered, once the deployment has succeeded.
    pub fn retire_at(&self) -> Option<Timestamp> {
        match self {
            DeploymentState::Ended { retire_at, .. } => *retire_at,
            DeploymentState::Created | DeploymentState::InProgress { .. } | DeploymentState::Ready { .. } => {
                None
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            DeploymentState::Created => "Created",
            DeploymentState::InProgress { .. } => "InProgress",
            DeploymentState::Ready { .. } => "Ready",
            DeploymentState::Ended { .. } => "Ended",
        }
    }
}
