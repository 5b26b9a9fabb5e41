//! The time for which a call without a response is repeated.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::CallError;

/// The limit of waiting for a service that is unreachable.
#[derive(Debug, Clone, Copy)]
pub enum Persistence<'a> {
    /// The command is not delivered again: wait until the agent stops, even if the service rejects
    /// the credentials.
    Recovered { end: &'a CancellationToken },
    /// The service delivers it again: wait as long as the command may be wanted.
    Delivered {
        end: &'a CancellationToken,
        until: Instant,
    },
}

impl Persistence<'_> {
    pub(super) fn end(&self) -> &CancellationToken {
        match self {
            Self::Recovered { end } | Self::Delivered { end, .. } => end,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Delivered { until, .. } if Instant::now() >= *until)
    }

    pub(super) fn goes_on_after(&self, error: &CallError) -> bool {
        match self {
            Self::Recovered { .. } => !error.is_refusal(),
            Self::Delivered { .. } => error.is_temporary(),
        }
    }
}
