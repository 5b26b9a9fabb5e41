//! Stopping in two steps: "take no more work", and at a deadline "end running work". Reporting
//! continues in both.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio_util::sync::CancellationToken;

/// Both steps; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled: no new commands begin.
    pub no_more_work: CancellationToken,
    /// Cancelled: running scripts are ended.
    pub end_running: CancellationToken,
}

impl Shutdown {
    /// Handles TERM, INT, QUIT and HUP: the first signal takes the first step at once and the
    /// second step after `grace`. A second INT or QUIT, from somebody at a keyboard, does not wait;
    /// a second TERM or HUP has no effect. If HUP was ignored from the beginning, as with nohup(1),
    /// it stays ignored.
    pub fn on_signals(grace: Duration) -> io::Result<Self> {
        let shutdown = Self::default();
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT].into_iter().chain(hangup))?;
        let steps = shutdown.clone();
        tokio::spawn(async move {
            let Some(signal) = signals.next().await else {
                return;
            };
            tracing::info!(
                signal,
                "stopping: no new commands; those in progress are finished"
            );
            steps.no_more_work.cancel();
            let mut keyboard =
                signals.filter(|signal| std::future::ready([SIGINT, SIGQUIT].contains(signal)));
            tokio::select! {
                Some(_) = keyboard.next() => tracing::warn!("second signal: scripts that still run are ended"),
                () = tokio::time::sleep(grace) => tracing::warn!("the time for a stop is over: scripts that still run are ended"),
            }
            steps.end_running.cancel();
        });
        Ok(shutdown)
    }
}

/// Whether this process was started with `signal` ignored (proc(5)).
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
