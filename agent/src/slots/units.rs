//! Starts and stops the units of a slot through systemd, which waits until they are ready.

use std::time::Duration;

use codedeploy_hooks::appspec::strategy::UnitTemplate;
use codedeploy_hooks::slots::SlotName;

use super::traffic::program::{self, ProgramError};

/// The time in which a unit must start or stop; its own limits are usually shorter.
const LIMIT: Duration = Duration::from_secs(600);

/// The reason why a unit was not started or stopped.
#[derive(Debug, thiserror::Error)]
#[error("systemctl {action} {unit} failed; see journalctl -u {unit}")]
pub struct UnitError {
    action: &'static str,
    unit: String,
    source: ProgramError,
}

/// Starts the units of a slot anew, with its present files. systemd waits for a unit of the type
/// `notify` until it reports that it is ready, and for others until they are started.
pub async fn start(units: &[UnitTemplate], slot: SlotName) -> Result<(), UnitError> {
    for unit in units {
        let unit = unit.of(slot);
        // Frequent deployments do not count as failures of the unit.
        let _ = run("reset-failed", &unit).await;
        run("restart", &unit).await?;
        run("is-active", &unit).await?;
    }
    Ok(())
}

/// Stops the units of a slot, the last one first.
pub async fn stop(units: &[UnitTemplate], slot: SlotName) -> Result<(), UnitError> {
    for unit in units.iter().rev() {
        run("stop", &unit.of(slot)).await?;
    }
    Ok(())
}

async fn run(action: &'static str, unit: &str) -> Result<(), UnitError> {
    let ran = program::run("systemctl", &[action, unit], LIMIT).await;
    ran.map(drop).map_err(|source| UnitError {
        action,
        unit: unit.to_owned(),
        source,
    })
}
