//! Moves new connections from one slot to the other, and waits for those that the old one has.
//!
//! A provider ([`Traffic`]) is the program in front of both slots. Each can be called again after a
//! crash at any moment: it then finishes, or repeats without harm, what was begun. If a provider
//! fails, it puts back what it changed, so that the old slot goes on.

mod command;
pub mod connections;
mod haproxy;
mod nginx;
pub(in crate::slots) mod program;
mod systemd;

use std::path::Path;
use std::time::Duration;

use codedeploy_hooks::appspec::strategy::traffic::Traffic;
use codedeploy_hooks::script::Outcome;
use codedeploy_hooks::slots::Side;
use tokio::time::Instant;

pub use command::Call;
pub use haproxy::HaproxyError;
pub use nginx::NginxError;
pub use program::ProgramError;
pub use systemd::SystemdError;

/// The interval of checks whether a change has happened.
const LOOK: Duration = Duration::from_millis(50);

/// The slots of one switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absent if no slot serves.
    pub from: Option<Side>,
    pub to: Side,
}

/// The connections of a slot that no longer gets new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    Empty,
    /// This many were open at the limit.
    Open(u64),
    /// Nobody knows the slot's connections.
    Unknown,
}

#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    #[error(transparent)]
    Haproxy(#[from] HaproxyError),
    #[error(transparent)]
    Nginx(#[from] NginxError),
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    #[error("the script that moves traffic failed: {0}")]
    Command(String),
}

/// Sends new connections to the slot `change.to`, and none to the other one. `archive` is the
/// unpacked revision; `run` runs its scripts, as it runs those of lifecycle events.
pub async fn move_to(
    traffic: &Traffic,
    change: &Change,
    archive: &Path,
    run: impl AsyncFnOnce(Call) -> Outcome,
) -> Result<(), TrafficError> {
    match traffic {
        Traffic::None => Ok(()),
        Traffic::Haproxy(haproxy) => Ok(haproxy::move_to(haproxy, &change.to).await?),
        Traffic::Nginx(nginx) => Ok(nginx::move_to(nginx, &change.to).await?),
        Traffic::SystemdSocket(units) => Ok(systemd::move_to(units, &change.to).await?),
        Traffic::Command(command) => {
            let outcome = run(command::call(command, change, archive)).await;
            if outcome.succeeded() {
                return Ok(());
            }
            Err(TrafficError::Command(outcome.to_string()))
        }
    }
}

/// Waits until the slot has no connections, at most for `limit`.
pub async fn drained(
    traffic: &Traffic,
    old: &Side,
    limit: Duration,
) -> Result<Drained, TrafficError> {
    let until = Instant::now() + limit;
    loop {
        let open = open(traffic, old).await?;
        let Some(open) = open else {
            if matches!(traffic, Traffic::Command(_)) {
                tokio::time::sleep_until(until).await;
            }
            return Ok(Drained::Unknown);
        };
        if open == 0 {
            return Ok(Drained::Empty);
        }
        if Instant::now() >= until {
            return Ok(Drained::Open(open));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The number of connections that the slot has, or may still get from a program that is ending;
/// `None` if it is unknown.
async fn open(traffic: &Traffic, old: &Side) -> Result<Option<u64>, TrafficError> {
    let connections = old.port.map(connections::established);
    match traffic {
        Traffic::Haproxy(haproxy) => Ok(Some(haproxy::sessions(haproxy, old.name).await?)),
        Traffic::Nginx(nginx) => {
            let workers = nginx::ending_workers(nginx);
            Ok(Some(workers + connections.unwrap_or(0)))
        }
        Traffic::SystemdSocket(units) => Ok(Some(systemd::running(units, old.name).await?)),
        Traffic::None | Traffic::Command(_) => Ok(connections),
    }
}
