//! How long a call is repeated that no answer comes to.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::CallError;

/// For how long an answer is waited for, with a service that is away.
#[derive(Debug, Clone, Copy)]
pub enum Persistence<'a> {
    /// Nobody delivers the command once more: until the agent stops, whatever the service finds wrong with who calls.
    Recovered { end: &'a CancellationToken },
    /// The service delivers it again: as long as it may be wanted.
    Delivered { end: &'a CancellationToken, until: Instant },
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
