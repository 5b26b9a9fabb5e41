//! The states of a deployment, with their one transition function.

use codedeploy_api::codedeploy::{DeploymentStatus, ErrorCode, ErrorInformation, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event_state::IllegalEvent;

/// A stage of a deployment's strategy. Targets perform the events of the current stage, and of no
/// later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Stage {
    /// Targets get the revision, as many at a time as the minimum of healthy hosts allows.
    #[default]
    Deploy,
    /// The new fleet gets traffic.
    Allow,
    /// The other fleet loses traffic.
    Block,
}

/// The state of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status")]
pub enum DeploymentState {
    /// Accepted; its targets are not known yet.
    Created,
    /// Its targets are known, and commands are created.
    InProgress {
        started: Timestamp,
        #[serde(default)]
        stage: Stage,
        /// Set when it is about to end, and waits for running commands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<Stop>,
    },
    /// The replacement instances wait for their traffic.
    Ready {
        started: Timestamp,
        /// The time at which the deployment is stopped unless somebody lets it continue.
        until: Timestamp,
    },
    Ended {
        #[serde(skip_serializing_if = "Option::is_none")]
        started: Option<Timestamp>,
        completed: Timestamp,
        ending: Ending,
        /// The time at which the original instances, which no longer serve, are deregistered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retire_at: Option<Timestamp>,
    },
}

/// The reason why a deployment ends early. The first reason counts, however long the end takes; of
/// a user's wishes about the rollback, the last one counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stop {
    /// A user requested it, and may have decided about a rollback.
    Request { rollback: Option<bool> },
    /// An alarm, named in the text, is active or cannot be read.
    Alarm { message: String },
    /// It can no longer succeed.
    Failure(ErrorInformation),
    /// It waited for somebody to let it continue, and nobody did.
    NotContinued,
}

impl Stop {
    pub fn failure(code: ErrorCode, message: impl Into<String>) -> Self {
        Stop::Failure(ErrorInformation {
            code: Some(code),
            message: Some(message.into()),
        })
    }

    /// Returns the ending of a deployment that was stopped for this reason.
    pub fn ending(&self) -> Ending {
        let stopped = |code, message: &str| {
            Ending::Stopped(ErrorInformation {
                code: Some(code),
                message: Some(message.to_owned()),
            })
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

/// The way in which a deployment ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    Succeeded,
    Failed(ErrorInformation),
    Stopped(ErrorInformation),
}

impl Ending {
    /// The error that clients see, unless the ending is a success.
    pub fn error(&self) -> Option<&ErrorInformation> {
        match self {
            Ending::Succeeded => None,
            Ending::Failed(error) | Ending::Stopped(error) => Some(error),
        }
    }
}

/// An input to a deployment's state.
#[derive(Debug, Clone, PartialEq)]
pub enum DeploymentInput {
    /// Its targets are known.
    Start(Stage),
    /// It shall end, though commands may still be running; the first request gives the reason.
    RequestStop(Stop),
    /// The replacement instances have the revision, and wait for traffic.
    AwaitContinue { until: Timestamp },
    /// All stages before this one are done.
    Enter(Stage),
    End {
        ending: Ending,
        retire_at: Option<Timestamp>,
    },
    /// The waiting time of the original instances is over.
    Retire,
}

impl DeploymentState {
    /// The state after `input` at `now`.
    pub fn next(
        &self,
        input: DeploymentInput,
        now: Timestamp,
    ) -> Result<DeploymentState, IllegalEvent> {
        use DeploymentInput as In;
        let illegal = |input: &'static str| {
            Err(IllegalEvent {
                state: self.name(),
                input,
            })
        };
        match (self, input) {
            (DeploymentState::Created, In::Start(stage)) => Ok(DeploymentState::InProgress {
                started: now,
                stage,
                stop: None,
            }),
            (_, In::Start(_)) => illegal("Start"),
            (
                DeploymentState::InProgress {
                    started,
                    stage,
                    stop,
                },
                In::RequestStop(asked),
            ) => {
                let stop = match (stop, asked) {
                    // A second request may change the decision about the rollback.
                    (
                        Some(Stop::Request { .. }) | None,
                        asked @ Stop::Request { rollback: Some(_) },
                    ) => asked,
                    (Some(first), _) => first.clone(),
                    (None, asked) => asked,
                };
                Ok(DeploymentState::InProgress {
                    started: *started,
                    stage: *stage,
                    stop: Some(stop),
                })
            }
            // The wait ends for another reason than the awaited one.
            (DeploymentState::Ready { started, .. }, In::RequestStop(asked)) => {
                Ok(DeploymentState::InProgress {
                    started: *started,
                    stage: Stage::Deploy,
                    stop: Some(asked),
                })
            }
            (_, In::RequestStop(_)) => illegal("RequestStop"),
            (
                DeploymentState::InProgress {
                    started,
                    stop: None,
                    ..
                },
                In::AwaitContinue { until },
            ) => Ok(DeploymentState::Ready {
                started: *started,
                until,
            }),
            (_, In::AwaitContinue { .. }) => illegal("AwaitContinue"),
            (
                DeploymentState::InProgress {
                    started,
                    stop: None,
                    ..
                }
                | DeploymentState::Ready { started, .. },
                In::Enter(stage),
            ) => Ok(DeploymentState::InProgress {
                started: *started,
                stage,
                stop: None,
            }),
            (_, In::Enter(_)) => illegal("Enter"),
            (
                DeploymentState::Created,
                In::End {
                    ending: Ending::Succeeded,
                    ..
                },
            )
            | (DeploymentState::Ended { .. }, In::End { .. }) => illegal("End"),
            (_, In::End { ending, retire_at }) => Ok(DeploymentState::Ended {
                started: self.started(),
                completed: now,
                ending,
                retire_at,
            }),
            (
                DeploymentState::Ended {
                    started,
                    completed,
                    ending,
                    ..
                },
                In::Retire,
            ) => Ok(DeploymentState::Ended {
                started: *started,
                completed: *completed,
                ending: ending.clone(),
                retire_at: None,
            }),
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
            DeploymentState::InProgress { started, .. }
            | DeploymentState::Ready { started, .. } => Some(*started),
            DeploymentState::Ended { started, .. } => *started,
        }
    }

    pub fn completed(&self) -> Option<Timestamp> {
        match self {
            DeploymentState::Ended { completed, .. } => Some(*completed),
            DeploymentState::Created
            | DeploymentState::InProgress { .. }
            | DeploymentState::Ready { .. } => None,
        }
    }

    /// The time at which the original instances are deregistered, after the deployment has
    /// succeeded.
    pub fn retire_at(&self) -> Option<Timestamp> {
        match self {
            DeploymentState::Ended { retire_at, .. } => *retire_at,
            DeploymentState::Created
            | DeploymentState::InProgress { .. }
            | DeploymentState::Ready { .. } => None,
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
