//! The rows of scripts' times, which hosts report if traces are configured.

use codedeploy_api::diagnostics::ScriptRun;

use crate::records::command::Command;
use crate::store::{Json, SqlError, Tx};

/// Keeps the scripts that ran for a command; the first report counts.
pub(crate) fn keep(tx: &Tx<'_>, command: &Command, scripts: &[ScriptRun]) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO script_runs (deployment_id, target, event, runs) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING",
        (
            &command.deployment_id,
            command.target,
            command.event,
            Json(scripts),
        ),
    )?;
    Ok(())
}

/// Returns the scripts of a target, each with the position of its event.
pub(crate) fn of_target(
    tx: &Tx<'_>,
    deployment_id: &str,
    target: usize,
) -> Result<Vec<(usize, Vec<ScriptRun>)>, SqlError> {
    tx.query_all(
        "SELECT event, runs FROM script_runs WHERE deployment_id = ?1 AND target = ?2",
        (deployment_id, target),
        |row| {
            let Json(runs) = row.get(1)?;
            Ok((row.get(0)?, runs))
        },
    )
}
