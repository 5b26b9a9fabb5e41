//! Extends hosts' timeouts after a downtime of the service, which must not count against them.
//!
//! A command in progress has a timeout, and no host can meet it while the service does not respond.
//! So each command gets at least a whole pick-up period from the time on at which the service is
//! back. The limits of deployments as a whole are not extended.

use codedeploy_api::codedeploy::Timestamp;

use crate::deployment::effects::Effects;
use crate::error::ApiError;
use crate::records::{Record, Target};
use crate::transaction::Context;

/// The number of targets whose timeouts one transaction extends.
const BATCH: usize = 250;

/// Extends the timeouts of a deployment's running commands from `back` on. Returns whether there
/// may be more of them.
pub fn resume(
    context: &Context<'_>,
    id: &str,
    back: Timestamp,
) -> Result<(bool, Effects), ApiError> {
    let mut effects = Effects::none(id);
    let Some(record) = Record::load(context.tx, id)? else {
        return Ok((false, effects));
    };
    let granted = back + context.timers.pick_up;
    let overdue = Timestamp::from_millis(granted.millis() - 1);
    let targets = Target::overdue(context.tx, id, overdue, BATCH)?;
    let more = targets.len() == BATCH;
    for mut target in targets {
        let before = target.state.clone();
        target.state.prolong(&record.rules, context.timers, back);
        // Clients should not see this as a change of the target.
        let updated = target.updated;
        target.save(context.tx, &before, &record.rules, context.timers, updated)?;
        // An earlier poll found the command overdue.
        if target
            .state
            .running(&record.rules)
            .is_some_and(|event| event.state.is_offered())
        {
            effects.hosts.push(target.member.host);
        }
    }
    effects.look_again(record.first_deadline(context.tx)?);
    Ok((more, effects))
}
