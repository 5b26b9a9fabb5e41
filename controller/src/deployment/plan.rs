//! The scheduling decision: what to do about a deployment now, and when to look again. Pure; it touches nothing.

use codedeploy_api::codedeploy::{Diagnostics, ErrorCode, LifecycleErrorCode, TargetStatus, Timestamp};
use codedeploy_api::lifecycle::LifecycleEvent;
use serde::{Deserialize, Serialize};

use super::health::{MinimumHealthy, Tally, Verdict};
use super::state::{DeploymentInput, Ending, EventInput, EventState, IllegalEvent, Progress};
use crate::config::Timers;

/// What was decided about a deployment when it was created, and the planner needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub minimum_healthy: MinimumHealthy,
    /// A failure of an event that runs the previous revision's scripts does not fail the target.
    pub ignore_application_stop_failures: bool,
}

/// A deployment as the planner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentState {
    pub rules: Rules,
    pub progress: Progress,
    /// In the order in which they are attempted.
    pub targets: Vec<TargetState>,
}

/// One target: its lifecycle events in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetState {
    pub events: Vec<Event>,
}

/// One lifecycle event of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub name: LifecycleEvent,
    #[serde(flatten)]
    pub state: EventState,
}

/// A step of a decision. Indexes are those of [`DeploymentState::targets`] and [`TargetState::events`].
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Offer the event's command to its host.
    Issue {
        target: usize,
        event: usize,
    },
    /// Fail the event: its host was silent for too long.
    Expire {
        target: usize,
        event: usize,
        silence: Silence,
    },
    /// Perform nothing more on the target; a command not acknowledged yet is withdrawn.
    SkipRest {
        target: usize,
    },
    End(Ending),
}

/// Which of the service's timers ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The host did not acknowledge the command.
    PickUp,
    /// The host acknowledged the command, and did not say how it ended.
    Run,
}

/// What to do now, in this order, and when to decide again if nothing happens before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    pub actions: Vec<Action>,
    pub again_at: Option<Timestamp>,
}

/// How far a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    NotAttempted,
    /// The command of this event is out.
    Running(usize),
    /// This event comes next.
    Next(usize),
    Succeeded,
    Failed,
    /// Cut off before its last event without a failure, or never attempted.
    Skipped,
}

/// Reads a target's standing off its events.
pub fn standing(target: &TargetState, rules: &Rules) -> Standing {
    for (index, event) in target.events.iter().enumerate() {
        match &event.state {
            EventState::Succeeded { .. } => {}
            EventState::Failed { .. } if rules.ignores(&event.name) => {}
            EventState::Failed { .. } => return Standing::Failed,
            EventState::Skipped { .. } => return Standing::Skipped,
            EventState::Pending if index == 0 => return Standing::NotAttempted,
            EventState::Pending => return Standing::Next(index),
            EventState::Queued { .. } | EventState::Leased { .. } | EventState::Acknowledged { .. } => {
                return Standing::Running(index);
            }
        }
    }
    Standing::Succeeded
}

/// The status of a target that clients are shown.
pub fn target_status(target: &TargetState, rules: &Rules) -> TargetStatus {
    match standing(target, rules) {
        Standing::NotAttempted => TargetStatus::Pending,
        Standing::Running(0) if target.events.first().is_some_and(|e| e.state.started().is_none()) => {
            TargetStatus::Pending
        }
        Standing::Running(_) | Standing::Next(_) => TargetStatus::InProgress,
        Standing::Succeeded => TargetStatus::Succeeded,
        Standing::Failed => TargetStatus::Failed,
        Standing::Skipped => TargetStatus::Skipped,
    }
}

impl Rules {
    fn ignores(&self, event: &LifecycleEvent) -> bool {
        use LifecycleEvent::{AfterBlockTraffic, ApplicationStop, BeforeBlockTraffic};
        self.ignore_application_stop_failures
            && matches!(event, ApplicationStop | BeforeBlockTraffic | AfterBlockTraffic)
    }
}

/// Decides about a deployment whose targets are known; about any other there is nothing to decide here.
pub fn plan(state: &DeploymentState, timers: &Timers, now: Timestamp) -> Decision {
    let Progress::InProgress { started, stop_requested } = state.progress else {
        return Decision::default();
    };
    let mut decision = Decision::default();
    let standings = expire(state, timers, now, &mut decision);
    let deadline = started + timers.deployment;
    if let Some(ending) = cut_short(stop_requested, deadline, now) {
        wind_down(state, &standings, timers, ending, &mut decision);
    } else {
        decision.look_again(deadline);
        advance(state, &standings, timers, now, &mut decision);
    }
    decision
}

/// Why the deployment must end now, whatever its targets do.
fn cut_short(stop_requested: Option<Timestamp>, deadline: Timestamp, now: Timestamp) -> Option<Ending> {
    if stop_requested.is_some() {
        let message = "The deployment was stopped by a user; no more commands were scheduled.";
        Some(Ending::stopped(ErrorCode::ManualStop, message))
    } else if deadline <= now {
        let message = "The deployment did not end within the time that deployments are given.";
        Some(Ending::failed(ErrorCode::Timeout, message))
    } else {
        None
    }
}

/// Fails the commands whose hosts were silent too long; gives every target's standing after that.
fn expire(
    state: &DeploymentState,
    timers: &Timers,
    now: Timestamp,
    decision: &mut Decision,
) -> Vec<Standing> {
    let mut standings = Vec::with_capacity(state.targets.len());
    for (index, target) in state.targets.iter().enumerate() {
        let standing = standing(target, &state.rules);
        standings.push(match overdue(target, standing, timers, now) {
            Overdue::No => standing,
            Overdue::At(deadline) => {
                decision.look_again(deadline);
                standing
            }
            Overdue::Yes { event, silence } => {
                decision.actions.push(Action::Expire { target: index, event, silence });
                after_failure(target, event, &state.rules)
            }
        });
    }
    standings
}

enum Overdue {
    /// No timer runs.
    No,
    At(Timestamp),
    Yes {
        event: usize,
        silence: Silence,
    },
}

fn overdue(target: &TargetState, standing: Standing, timers: &Timers, now: Timestamp) -> Overdue {
    let Standing::Running(event) = standing else {
        return Overdue::No;
    };
    match target.events.get(event).and_then(|event| timeout(&event.state, timers)) {
        None => Overdue::No,
        Some((deadline, silence)) if deadline <= now => Overdue::Yes { event, silence },
        Some((deadline, _)) => Overdue::At(deadline),
    }
}

fn after_failure(target: &TargetState, event: usize, rules: &Rules) -> Standing {
    match target.events.get(event) {
        Some(failed) if rules.ignores(&failed.name) && event + 1 < target.events.len() => {
            Standing::Next(event + 1)
        }
        Some(failed) if rules.ignores(&failed.name) => Standing::Succeeded,
        _ => Standing::Failed,
    }
}

fn timeout(state: &EventState, timers: &Timers) -> Option<(Timestamp, Silence)> {
    match *state {
        EventState::Queued { since } => Some((since + timers.pick_up, Silence::PickUp)),
        EventState::Leased { queued, .. } => Some((queued + timers.pick_up, Silence::PickUp)),
        EventState::Acknowledged { since, .. } => Some((since + timers.run, Silence::Run)),
        _ => None,
    }
}

/// Goes on with every target, starts what the budget allows, and ends the deployment when nothing is left to do.
fn advance(
    state: &DeploymentState,
    standings: &[Standing],
    timers: &Timers,
    now: Timestamp,
    decision: &mut Decision,
) {
    let mut tally = Tally::default();
    for (index, standing) in standings.iter().enumerate() {
        match *standing {
            Standing::NotAttempted => tally.not_attempted += 1,
            Standing::Running(_) => tally.in_progress += 1,
            Standing::Next(event) => {
                tally.in_progress += 1;
                decision.issue(index, event, timers, now);
            }
            Standing::Succeeded => tally.succeeded += 1,
            Standing::Failed => {
                tally.failed += 1;
                decision.skip_rest(index, state);
            }
            // Only the end of a deployment skips a target.
            Standing::Skipped => tally.failed += 1,
        }
    }
    let verdict = match state.rules.minimum_healthy.budget(state.targets.len()) {
        Ok(budget) => budget.judge(tally),
        Err(_) => Verdict::Failed,
    };
    match verdict {
        Verdict::Continue { start } => {
            let waiting =
                standings.iter().enumerate().filter(|(_, standing)| **standing == Standing::NotAttempted);
            for (index, _) in waiting.take(start) {
                decision.issue(index, 0, timers, now);
            }
        }
        Verdict::Succeeded => decision.end(state, standings, Ending::Succeeded),
        Verdict::Failed => {
            let message = format!(
                "The deployment failed because too many individual instances failed deployment, too few healthy \
                 instances are available for deployment, or some instances are experiencing problems: {} failed, {} \
                 succeeded, {} were not attempted.",
                tally.failed, tally.succeeded, tally.not_attempted
            );
            decision.end(state, standings, Ending::failed(ErrorCode::HealthConstraints, message));
        }
    }
}

/// Withdraws what can be withdrawn, and ends the deployment once no host runs a command of it.
fn wind_down(
    state: &DeploymentState,
    standings: &[Standing],
    timers: &Timers,
    ending: Ending,
    decision: &mut Decision,
) {
    decision.again_at = None;
    for (index, (target, standing)) in state.targets.iter().zip(standings).enumerate() {
        match in_flight(target, *standing) {
            Some(event) => {
                let deadline = timeout(event, timers).map(|(deadline, _)| deadline);
                decision.again_at = decision.again_at.into_iter().chain(deadline).min();
            }
            None => decision.skip_rest(index, state),
        }
    }
    // Every command in flight has a timer.
    if decision.again_at.is_none() {
        decision.actions.push(Action::End(ending));
    }
}

/// The state of the event whose command the host runs, and which cannot be withdrawn.
fn in_flight(target: &TargetState, standing: Standing) -> Option<&EventState> {
    let Standing::Running(event) = standing else {
        return None;
    };
    let state = &target.events.get(event)?.state;
    (!state.is_offered()).then_some(state)
}

impl Decision {
    fn look_again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn issue(&mut self, target: usize, event: usize, timers: &Timers, now: Timestamp) {
        self.actions.push(Action::Issue { target, event });
        self.look_again(now + timers.pick_up);
    }

    /// Nothing is said about a target with nothing left to skip.
    fn skip_rest(&mut self, target: usize, state: &DeploymentState) {
        let expired = |index: usize| {
            self.actions.iter().rev().any(|action| {
                matches!(action, Action::Expire { target: t, event: e, .. } if *t == target && *e == index)
            })
        };
        let left = state.targets.get(target).is_some_and(|target| {
            let mut events = target.events.iter().enumerate();
            events.any(|(index, event)| event.state.ended().is_none() && !expired(index))
        });
        if left {
            self.actions.push(Action::SkipRest { target });
        }
    }

    fn end(&mut self, state: &DeploymentState, standings: &[Standing], ending: Ending) {
        for (index, standing) in standings.iter().enumerate() {
            if *standing == Standing::NotAttempted {
                self.skip_rest(index, state);
            }
        }
        self.actions.push(Action::End(ending));
        self.again_at = None;
    }
}

impl DeploymentState {
    /// Carries out one step of a decision; the targets it changed are those the step names.
    pub fn apply(&mut self, action: &Action, now: Timestamp) -> Result<(), IllegalEvent> {
        match action {
            Action::Issue { target, event } => self.advance_event(*target, *event, EventInput::Issue, now),
            Action::Expire { target, event, silence } => {
                let diagnostics = silence.diagnostics();
                self.advance_event(*target, *event, EventInput::Expire { diagnostics }, now)
            }
            Action::SkipRest { target } => {
                let events = self.targets.get_mut(*target).into_iter().flat_map(|t| &mut t.events);
                for event in events.filter(|event| event.state.ended().is_none()) {
                    event.state = event.state.next(EventInput::Skip, now)?;
                }
                Ok(())
            }
            Action::End(ending) => {
                self.progress = self.progress.next(DeploymentInput::End(ending.clone()), now)?;
                Ok(())
            }
        }
    }

    fn advance_event(
        &mut self,
        target: usize,
        event: usize,
        input: EventInput,
        now: Timestamp,
    ) -> Result<(), IllegalEvent> {
        if let Some(event) = self.targets.get_mut(target).and_then(|t| t.events.get_mut(event)) {
            event.state = event.state.next(input, now)?;
        }
        Ok(())
    }
}

impl Silence {
    /// What clients are shown of an event that the service failed.
    fn diagnostics(self) -> Diagnostics {
        let message = match self {
            Silence::PickUp => {
                "CodeDeploy agent was not able to receive the lifecycle event. Check the CodeDeploy agent logs on \
                 your host and make sure the agent is running and can connect to the CodeDeploy server."
            }
            Silence::Run => {
                "CodeDeploy agent received the lifecycle event and did not report how it ended in time. Check the \
                 CodeDeploy agent logs on your host and make sure the agent is running."
            }
        };
        Diagnostics {
            error_code: Some(LifecycleErrorCode::UnknownError),
            script_name: Some(String::new()),
            message: Some(message.into()),
            log_tail: Some(String::new()),
        }
    }
}
