//! Carries decisions out: one transaction advances a deployment as far as possible now, or a
//! bounded part of that way.

use codedeploy_planner::deployment_state::{DeploymentInput, DeploymentState};
use codedeploy_planner::event_state::{EventState, IllegalEvent};
use codedeploy_planner::plan::{self, Move, plan};
use codedeploy_planner::target_state::TargetState;

use super::effects::Effects;
use super::{end, start};
use crate::deployment::effects::Change;
use crate::error::{ApiError, ErrorName};
use crate::fleet::Member;
use crate::records::command::{Command, SERVICE};
use crate::records::{Record, Target, set_aside};
use crate::transaction::Context;

/// The number of targets that one transaction advances. Other deployments and hosts wait meanwhile.
const BATCH: usize = 250;

impl From<IllegalEvent> for ApiError {
    fn from(cause: IllegalEvent) -> Self {
        tracing::error!(error = %cause, "a decision did not fit the state that it was made for");
        ErrorName::DamagedRecord
            .because("the service made an impossible decision; its log has the cause")
    }
}

/// Decides about a deployment and carries the decision out. Does nothing if the deployment has
/// ended or does not exist.
pub fn decide(context: &Context<'_>, id: &str) -> Result<Effects, ApiError> {
    let mut effects = Effects::none(id);
    let Some(mut record) = Record::load(context.tx, id)? else {
        // It was deleted, or belongs to no group.
        set_aside(
            context.tx,
            id,
            "its deployment group does not exist",
            context.now,
        )?;
        return Ok(effects);
    };
    match &record.progress {
        DeploymentState::Created if record.rules.alarms.is_some() => effects.alarms = true,
        DeploymentState::Created => {
            start::start(context, &mut record, &mut effects)?;
            advance(context, &mut record, &mut effects)?;
        }
        DeploymentState::InProgress { .. } | DeploymentState::Ready { .. } => {
            advance(context, &mut record, &mut effects)?;
        }
        DeploymentState::Ended {
            retire_at: Some(at),
            ..
        } if *at <= context.now => {
            end::retire(context, &mut record, &mut effects)?;
        }
        DeploymentState::Ended { .. } => {}
    }
    effects.look_again(plan::deadline(
        &record.rules,
        &record.progress,
        context.timers,
    ));
    Ok(effects)
}

/// Ends a deployment whose rows make a decision impossible.
pub fn give_up(context: &Context<'_>, id: &str, found: &str) -> Result<Effects, ApiError> {
    set_aside(context.tx, id, found, context.now)?;
    Ok(Effects::none(id))
}

/// Advances a deployment whose targets are known.
pub(super) fn advance(
    context: &Context<'_>,
    record: &mut Record,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    let mut room = BATCH;
    let overdue = Target::overdue(context.tx, &record.id, context.now, room)?;
    room -= overdue.len().min(room);
    for mut target in overdue {
        effects.settle(context, record, &mut target)?;
    }
    // Before anything is planned: nothing may begin on them.
    let drained = Target::drained(context.tx, &record.id, room)?;
    room -= drained.len().min(room);
    for mut target in drained {
        effects.settle(context, record, &mut target)?;
    }
    loop {
        if room == 0 {
            effects.recheck_self();
            break;
        }
        let counts = record.counts(context.tx)?;
        let (targets, closing) = match plan(
            &record.rules,
            &record.progress,
            &counts,
            context.timers,
            context.now,
        ) {
            Move::Wait => break,
            Move::Enter(stage) => {
                record.step(context, DeploymentInput::Enter(stage))?;
                continue;
            }
            Move::Stop(stop) => {
                record.step(context, DeploymentInput::RequestStop(stop))?;
                continue;
            }
            Move::AwaitContinue { until } => {
                record.step(context, DeploymentInput::AwaitContinue { until })?;
                effects.note(context, Change::Ready)?;
                break;
            }
            Move::End { ending, retire_at } => {
                end::end(context, record, ending, retire_at, effects)?;
                break;
            }
            Move::Begin(number) => match record.progress {
                DeploymentState::InProgress { stage, .. } => (
                    Target::waiting(context.tx, record, stage, number.min(room))?,
                    false,
                ),
                _ => break,
            },
            Move::Close => (Target::open(context.tx, &record.id, room)?, true),
        };
        if targets.is_empty() {
            return Err(ErrorName::DamagedRecord
                .because("the counts of targets are not those of their rows"));
        }
        room -= targets.len().min(room);
        for mut target in targets {
            let before = target.state.clone();
            let issued = if closing {
                target
                    .state
                    .settle(&record.rules, true, context.timers, context.now)?
            } else {
                target.state.begin(&record.rules, context.now)?
            };
            effects.save(context, record, &mut target, &before, issued)?;
        }
    }
    effects.look_again(record.first_deadline(context.tx)?);
    Ok(())
}

impl Record {
    /// Applies one input to the deployment, on disk.
    pub(super) fn step(
        &mut self,
        context: &Context<'_>,
        input: DeploymentInput,
    ) -> Result<(), ApiError> {
        self.progress = self.progress.next(input, context.now)?;
        Ok(self.save_progress(context.tx)?)
    }
}

impl Effects {
    /// Applies the target's own next steps.
    fn settle(
        &mut self,
        context: &Context<'_>,
        record: &Record,
        target: &mut Target,
    ) -> Result<(), ApiError> {
        let before = target.state.clone();
        let closing =
            plan::closing(&record.rules, &record.progress, context.timers, context.now).is_some();
        let issued = target
            .state
            .settle(&record.rules, closing, context.timers, context.now)?;
        self.save(context, record, target, &before, issued)
    }

    /// Stores a target whose state was `before`, with the issued command, and records the changes.
    /// A target reports its skipped events as a whole.
    pub(super) fn save(
        &mut self,
        context: &Context<'_>,
        record: &Record,
        target: &mut Target,
        before: &TargetState,
        issued: Option<usize>,
    ) -> Result<(), ApiError> {
        let status = target.status.clone();
        target.save(
            context.tx,
            before,
            &record.rules,
            context.timers,
            context.now,
        )?;
        if let Some(event) = issued {
            match Command::offer(context.tx, target, event)? {
                SERVICE => self.traffic = true,
                host => self.hosts.push(host.to_owned()),
            }
        }
        self.look_again(target.state.deadline(&record.rules, context.timers));
        for (old, new) in before.events.iter().zip(&target.state.events) {
            let skipped = matches!(new.state, EventState::Skipped { .. });
            if old.state.name() != new.state.name() && !skipped {
                let diagnostics = new.state.diagnostics();
                let message = diagnostics.and_then(|diagnostics| diagnostics.message.clone());
                let change = Change::Event {
                    target: target.member.name.clone(),
                    event: new.name.name().to_owned(),
                    state: new.state.name(),
                    message: message.unwrap_or_default(),
                };
                self.note(context, change)?;
            }
        }
        if status != target.status {
            let Member { name, arn, .. } = &target.member;
            let (name, arn, status) = (name.clone(), arn.clone(), target.status.clone());
            self.note(context, Change::Target { name, arn, status })?;
        }
        Ok(())
    }
}
