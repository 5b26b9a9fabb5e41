//! The states of a lifecycle event on one target, with their one transition function.
//!
//! Here, a lifecycle event and the command that performs it are one: the command's life (waiting
//! for its host, leased, acknowledged) takes the event from pending to its end. A target has no
//! state of its own; [`standing`](crate::target_state::standing) derives it from its events.

use std::time::Duration;

use codedeploy_api::codedeploy::{Diagnostics, LifecycleEventStatus, Timestamp};
use serde::{Deserialize, Serialize};

/// The state of one target's lifecycle event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state")]
pub enum EventState {
    /// Its turn has not come.
    Pending,
    /// The command waits for its host's poll. The timers of this state and the next two run from
    /// `since`, `queued` and `since`.
    Queued { since: Timestamp },
    /// Leased to the host, which has not acknowledged it; leased again after `until`.
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
    Skipped { ended: Timestamp },
}

/// An input to a lifecycle event's state.
#[derive(Debug, Clone, PartialEq)]
pub enum EventInput {
    /// Its command is created.
    Issue,
    /// The host polls for a command.
    Lease { until: Timestamp },
    /// The host acknowledges the command.
    Acknowledge,
    /// The host reports the end of the command.
    Complete {
        succeeded: bool,
        diagnostics: Diagnostics,
    },
    /// A timer of the service expired.
    Expire { diagnostics: Diagnostics },
    /// It shall not be performed.
    Skip,
}

/// An input that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{input} is not possible while {state}")]
pub struct IllegalEvent {
    pub(crate) state: &'static str,
    pub(crate) input: &'static str,
}

impl EventState {
    /// The state after `input` at `now`.
    pub fn next(&self, input: EventInput, now: Timestamp) -> Result<EventState, IllegalEvent> {
        use EventInput as In;
        use EventState as St;
        let illegal = |input: &'static str| {
            Err(IllegalEvent {
                state: self.name(),
                input,
            })
        };
        match input {
            In::Issue => match self {
                St::Pending => Ok(St::Queued { since: now }),
                St::Queued { .. } | St::Leased { .. } | St::Acknowledged { .. } => illegal("Issue"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Issue"),
            },
            In::Lease { until } => match *self {
                St::Queued { since } => Ok(St::Leased {
                    queued: since,
                    started: now,
                    until,
                }),
                St::Leased {
                    queued,
                    started,
                    until: previous,
                } if previous <= now => Ok(St::Leased {
                    queued,
                    started,
                    until,
                }),
                St::Pending | St::Leased { .. } | St::Acknowledged { .. } => illegal("Lease"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Lease"),
            },
            In::Acknowledge => match *self {
                // The host knows the command, so it received it: a service that was restored from a
                // backup may have forgotten.
                St::Queued { .. } => Ok(St::Acknowledged {
                    started: now,
                    since: now,
                }),
                St::Leased { started, .. } => Ok(St::Acknowledged {
                    started,
                    since: now,
                }),
                St::Acknowledged { started, since } => Ok(St::Acknowledged { started, since }),
                St::Pending => illegal("Acknowledge"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => {
                    illegal("Acknowledge")
                }
            },
            In::Complete {
                succeeded,
                diagnostics,
            } => match *self {
                St::Queued { .. } | St::Leased { .. } | St::Acknowledged { .. } => {
                    let (started, ended) = (self.started().unwrap_or(now), now);
                    Ok(if succeeded {
                        St::Succeeded {
                            started,
                            ended,
                            diagnostics,
                        }
                    } else {
                        St::Failed {
                            started: Some(started),
                            ended,
                            diagnostics,
                        }
                    })
                }
                St::Pending => illegal("Complete"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => {
                    illegal("Complete")
                }
            },
            In::Expire { diagnostics } => match *self {
                St::Queued { .. } | St::Leased { .. } | St::Acknowledged { .. } => Ok(St::Failed {
                    started: self.started(),
                    ended: now,
                    diagnostics,
                }),
                St::Pending => illegal("Expire"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Expire"),
            },
            // A command that its host acknowledged cannot be recalled.
            In::Skip => match self {
                St::Pending | St::Queued { .. } | St::Leased { .. } => {
                    Ok(St::Skipped { ended: now })
                }
                St::Acknowledged { .. } => illegal("Skip"),
                St::Succeeded { .. } | St::Failed { .. } | St::Skipped { .. } => illegal("Skip"),
            },
        }
    }

    /// Extends the timer of a running command.
    pub(crate) fn postpone(&mut self, by: Duration) {
        if let Self::Queued { since }
        | Self::Leased { queued: since, .. }
        | Self::Acknowledged { since, .. } = self
        {
            *since = *since + by;
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

    /// The status that clients see.
    pub fn status(&self) -> LifecycleEventStatus {
        match self {
            Self::Pending | Self::Queued { .. } => LifecycleEventStatus::Pending,
            Self::Leased { .. } | Self::Acknowledged { .. } => LifecycleEventStatus::InProgress,
            Self::Succeeded { .. } => LifecycleEventStatus::Succeeded,
            Self::Failed { .. } => LifecycleEventStatus::Failed,
            Self::Skipped { .. } => LifecycleEventStatus::Skipped,
        }
    }

    /// The time at which the command was first leased.
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
            Self::Succeeded { ended, .. }
            | Self::Failed { ended, .. }
            | Self::Skipped { ended } => Some(*ended),
            Self::Pending
            | Self::Queued { .. }
            | Self::Leased { .. }
            | Self::Acknowledged { .. } => None,
        }
    }

    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Succeeded { diagnostics, .. } | Self::Failed { diagnostics, .. } => {
                Some(diagnostics)
            }
            _ => None,
        }
    }

    /// Whether the command still waits for its host to acknowledge it.
    pub fn is_offered(&self) -> bool {
        matches!(self, Self::Queued { .. } | Self::Leased { .. })
    }
}
