//! What hosts are owed when the service was away: its absence is not theirs.
//!
//! A command that is out has a timer, and no host can beat it while the service does not answer. So each gets at least a
//! whole pick-up period from the moment on in which the service is back. The limits of deployments as a whole go on.

use codedeploy_api::codedeploy::Timestamp;

use crate::deployment::effects::Effects;
use crate::error::ApiError;
use crate::records::{Record, Target};
use crate::transaction::Context;

/// Most targets that one transaction gives time to.
const BATCH: usize = 250;

/// Gives the commands of a deployment that are out their time from `back` on. Says whether there may be more of them.
pub fn resume(context: &Context<'_>, id: &str, back: Timestamp) -> Result<(bool, Effects), ApiError> {
    let mut outcome = Effects::none(id);
    let Some(record) = Record::load(context.tx, id)? else {
        return Ok((false, outcome));
    };
    let granted = back + context.timers.pick_up;
    let before = Timestamp::from_millis(granted.millis() - 1);
    let targets = Target::overdue(context.tx, id, before, BATCH)?;
    let more = targets.len() == BATCH;
    for mut target in targets {
        target.state.prolong(&record.rules, context.timers, back);
        // Nothing happened to the target that its clients should see.
        let updated = target.updated;
        target.save(context.tx, &record.rules, context.timers, updated)?;
        // A poll that came before took the command for overdue.
        if target.state.running(&record.rules).is_some_and(|event| event.state.is_offered()) {
            outcome.hosts.push(target.member.host);
        }
    }
    outcome.look_again(record.first_deadline(context.tx)?);
    Ok((more, outcome))
}
