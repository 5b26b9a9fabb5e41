//! Stopping in two steps: "take no more work", and at a deadline "end what still runs". Reports are sent under neither.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio_util::sync::CancellationToken;

/// Both steps; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled: no new commands.
    pub no_more_work: CancellationToken,
    /// Cancelled: scripts that still run are ended.
    pub end_running: CancellationToken,
}

impl Shutdown {
    /// Follows TERM, INT and QUIT: the first takes the first step at once and the second after `patience`. A second
    /// INT or QUIT, from somebody at a keyboard, does not wait; a second TERM changes nothing.
    pub fn on_signals(patience: Duration) -> io::Result<Self> {
        let shutdown = Self::default();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT])?;
        let steps = shutdown.clone();
        tokio::spawn(async move {
            let Some(signal) = signals.next().await else {
                return;
            };
            tracing::info!(signal, "stopping: no new commands; those in progress are finished");
            steps.no_more_work.cancel();
            let mut impatient = signals.filter(|signal| std::future::ready(*signal != SIGTERM));
            tokio::select! {
                Some(_) = impatient.next() => tracing::warn!("second signal: scripts that still run are ended"),
                () = tokio::time::sleep(patience) => tracing::warn!("out of patience: scripts that still run are ended"),
            }
            steps.end_running.cancel();
        });
        Ok(shutdown)
    }
}
