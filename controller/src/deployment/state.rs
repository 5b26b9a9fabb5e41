//! The states of a deployment and of a lifecycle event on one target, each with its one transition function.
//!
//! A lifecycle event and the host command that performs it are one thing here: the command's life (waiting for its
//! host, handed out, acknowledged) is the event's way from pending to its end. A target has no state of its own;
//! [`standing`](super::plan::standing) reads it off its events.

use codedeploy_api::codedeploy::{
    DeploymentStatus, Diagnostics, ErrorCode, ErrorInformation, LifecycleEventStatus, Timestamp,
};
use serde::{Deserialize, Serialize};

/// Where a lifecycle event of one target stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state")]
pub enum EventState {
    /// Its turn has not come.
    Pending,
    /// The command waits for its host's poll.
    Queued {
        since: Timestamp,
    },
    /// Handed to the host, which has not acknowledged it; handed out again after `until`.
    Leased {
        queued: Timestamp,
        started: Timestamp,
        until: Timestamp,
    },
    /// The host runs it.
    Acknowledged {
        started: Timestamp,
        since: Timestamp,
    },
    Succeeded {
        started: Timestamp,
        ended: Timestamp,
        diagnostics: Diagnostics,
    },
    Failed {
        #[serde(skip_serializing_if = "Option::is_none")]
        started: Option<Timestamp>,
        ended: Timestamp,
        diagnostics: Diagnostics,
    },
    /// Never performed, or withdrawn before its host acknowledged it.
    Skipped {
        ended: Timestamp,
    },
}

/// What can happen to a lifecycle event.
#[derive(Debug, Clone, PartialEq)]
pub enum EventInput {
    /// Its command is made.
    Issue,
    /// A poll of its host asks for a command.
    Lease { until: Timestamp },
    /// The host acknowledges the command.
    Acknowledge,
    /// The host says how the command ended.
    Complete { succeeded: bool, diagnostics: Diagnostics },
    /// A timer of the service ran out.
    Expire { diagnostics: Diagnostics },
    /// It shall not be performed.
    Skip,
}

/// An input that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{input} is not possible while {state}")]
pub struct IllegalEvent {
    state: &'static str,
    input: &'static str,
}

impl EventState {
    /// The state after `input` at `now`.
    pub fn next(&self, input: EventInput, now: Timestamp) -> Result<EventState, IllegalEvent> {
        use EventInput as In;
        use EventState as St;
        let illegal = |input: &'static str| Err(IllegalEvent { state: self.name(), input });
        match input {
            In::Issue => match self {
                St::Pending => Ok(St::Queued { since: now }),
                St::Queued { .. } | St::Leased { .. } | St::Acknowledged { .. } => illegal("Issue"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Issue"),
            },
            In::Lease { until } => match *self {
                St::Queued { since } => Ok(St::Leased { queued: since, started: now, until }),
                St::Leased { queued, started, until: previous } if previous <= now => {
                    Ok(St::Leased { queued, started, until })
                }
                St::Pending | St::Leased { .. } | St::Acknowledged { .. } => illegal("Lease"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Lease"),
            },
            In::Acknowledge => match *self {
                St::Leased { started, .. } => Ok(St::Acknowledged { started, since: now }),
                St::Acknowledged { started, since } => Ok(St::Acknowledged { started, since }),
                St::Pending | St::Queued { .. } => illegal("Acknowledge"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Acknowledge"),
            },
            In::Complete { succeeded, diagnostics } => match *self {
                St::Leased { started, .. } | St::Acknowledged { started, .. } if succeeded => {
                    Ok(St::Succeeded { started, ended: now, diagnostics })
                }
                St::Leased { started, .. } | St::Acknowledged { started, .. } => {
                    Ok(St::Failed { started: Some(started), ended: now, diagnostics })
                }
                St::Pending | St::Queued { .. } => illegal("Complete"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Complete"),
            },
            In::Expire { diagnostics } => match *self {
                St::Queued { .. } | St::Leased { .. } | St::Acknowledged { .. } => {
                    Ok(St::Failed { started: self.started(), ended: now, diagnostics })
                }
                St::Pending => illegal("Expire"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Expire"),
            },
            // A command that its host acknowledged cannot be recalled.
            In::Skip => match self {
                St::Pending | St::Queued { .. } | St::Leased { .. } => Ok(St::Skipped { ended: now }),
                St::Acknowledged { .. } => illegal("Skip"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Skip"),
            },
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Queued { .. } => "Queued",
            Self::Leased { .. } => "Leased",
            Self::Acknowledged { .. } => "Acknowledged",
            Self::Succeeded { .. } => "Succeeded",
            Self::Failed { .. } => "Failed",
            Self::Skipped { .. } => "Skipped",
        }
    }

    /// The status that clients are shown.
    pub fn status(&self) -> LifecycleEventStatus {
        match self {
            Self::Pending | Self::Queued { .. } => LifecycleEventStatus::Pending,
            Self::Leased { .. } | Self::Acknowledged { .. } => LifecycleEventStatus::InProgress,
            Self::Succeeded { .. } => LifecycleEventStatus::Succeeded,
            Self::Failed { .. } => LifecycleEventStatus::Failed,
            Self::Skipped { .. } => LifecycleEventStatus::Skipped,
        }
    }

    /// When the command was first handed out.
    pub fn started(&self) -> Option<Timestamp> {
        match self {
            Self::Leased { started, .. }
            | Self::Acknowledged { started, .. }
            | Self::Succeeded { started, .. } => Some(*started),
            Self::Failed { started, .. } => *started,
            Self::Pending | Self::Queued { .. } | Self::Skipped { .. } => None,
        }
    }

    pub fn ended(&self) -> Option<Timestamp> {
        match self {
            Self::Succeeded { ended, .. } | Self::Failed { ended, .. } | Self::Skipped { ended } => {
                Some(*ended)
            }
            Self::Pending | Self::Queued { .. } | Self::Leased { .. } | Self::Acknowledged { .. } => None,
        }
    }

    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Succeeded { diagnostics, .. } | Self::Failed { diagnostics, .. } => Some(diagnostics),
            _ => None,
        }
    }

    /// Whether the command still waits for its host to acknowledge it.
    pub fn is_offered(&self) -> bool {
        matches!(self, Self::Queued { .. } | Self::Leased { .. })
    }
}

/// Where a deployment stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status")]
pub enum Progress {
    /// Accepted; its targets are not known.
    Created,
    /// Its targets are known, and commands are being made.
    InProgress {
        started: Timestamp,
        /// A user asked for its end.
        #[serde(skip_serializing_if = "Option::is_none")]
        stop_requested: Option<Timestamp>,
    },
    Ended {
        #[serde(skip_serializing_if = "Option::is_none")]
        started: Option<Timestamp>,
        completed: Timestamp,
        ending: Ending,
    },
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    Succeeded,
    Failed(ErrorInformation),
    Stopped(ErrorInformation),
}

impl Ending {
    pub fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Ending::Failed(ErrorInformation { code: Some(code), message: Some(message.into()) })
    }

    pub fn stopped(code: ErrorCode, message: impl Into<String>) -> Self {
        Ending::Stopped(ErrorInformation { code: Some(code), message: Some(message.into()) })
    }

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
    Start,
    /// A user asks for its end while commands may be running.
    RequestStop,
    End(Ending),
}

impl Progress {
    /// The state after `input` at `now`.
    pub fn next(&self, input: DeploymentInput, now: Timestamp) -> Result<Progress, IllegalEvent> {
        use DeploymentInput as In;
        let illegal = |input: &'static str| Err(IllegalEvent { state: self.name(), input });
        match (self, input) {
            (Progress::Created, In::Start) => Ok(Progress::InProgress { started: now, stop_requested: None }),
            (Progress::InProgress { started, stop_requested }, In::RequestStop) => {
                Ok(Progress::InProgress { started: *started, stop_requested: stop_requested.or(Some(now)) })
            }
            (Progress::Created, In::End(ending @ (Ending::Failed(_) | Ending::Stopped(_)))) => {
                Ok(Progress::Ended { started: None, completed: now, ending })
            }
            (Progress::InProgress { started, .. }, In::End(ending)) => {
                Ok(Progress::Ended { started: Some(*started), completed: now, ending })
            }
            (Progress::InProgress { .. } | Progress::Ended { .. }, In::Start) => illegal("Start"),
            (Progress::Created | Progress::Ended { .. }, In::RequestStop) => illegal("RequestStop"),
            (Progress::Created | Progress::Ended { .. }, In::End(_)) => illegal("End"),
        }
    }

    pub fn status(&self) -> DeploymentStatus {
        match self {
            Progress::Created => DeploymentStatus::Created,
            Progress::InProgress { .. } => DeploymentStatus::InProgress,
            Progress::Ended { ending, .. } => match ending {
                Ending::Succeeded => DeploymentStatus::Succeeded,
                Ending::Failed(_) => DeploymentStatus::Failed,
                Ending::Stopped(_) => DeploymentStatus::Stopped,
            },
        }
    }

    pub fn started(&self) -> Option<Timestamp> {
        match self {
            Progress::Created => None,
            Progress::InProgress { started, .. } => Some(*started),
            Progress::Ended { started, .. } => *started,
        }
    }

    pub fn completed(&self) -> Option<Timestamp> {
        match self {
            Progress::Ended { completed, .. } => Some(*completed),
            Progress::Created | Progress::InProgress { .. } => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Progress::Created => "Created",
            Progress::InProgress { .. } => "InProgress",
            Progress::Ended { .. } => "Ended",
        }
    }
}
