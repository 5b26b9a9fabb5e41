//! One target of a deployment, and its next step. Pure.

use std::time::Duration;

use codedeploy_api::codedeploy::{
    Diagnostics, LifecycleErrorCode, TargetLabel, TargetStatus, Timestamp,
};
use codedeploy_api::lifecycle::LifecycleEvent;
use serde::{Deserialize, Serialize};

use crate::deployment_state::Stage;
use crate::event_state::{EventInput, EventState, IllegalEvent};
use crate::rules::Rules;
use crate::strategy::is_performed_here;
use crate::timers::Timers;

/// One target: its lifecycle events in order.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetState {
    /// Its fleet, in a blue/green deployment.
    pub label: Option<TargetLabel>,
    pub events: Vec<Event>,
    /// Its host is no longer registered: nobody performs its commands.
    pub departed: bool,
    /// Its host is drained: a command that it performs is finished, and none begins.
    pub drained: bool,
}

/// One lifecycle event of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub name: LifecycleEvent,
    #[serde(default)]
    pub stage: Stage,
    #[serde(flatten)]
    pub state: EventState,
}

/// The progress of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetProgress {
    /// No command is out; this event comes next.
    Next(usize),
    /// The command of this event is out.
    Running(usize),
    Succeeded,
    Failed,
    /// Stopped before its last event without a failure, or never attempted.
    Skipped,
}

/// The timer of the service that expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timeout {
    /// The host did not acknowledge the command.
    PickUp,
    /// The host acknowledged the command, and did not report its end.
    Run,
    /// The service did not finish its work at a load balancer.
    Traffic,
    /// The host was deregistered, and cannot report anything.
    Departure,
}

/// The additional time of a load balancer's event: the service itself reports its timeouts.
const MARGIN: Duration = Duration::from_secs(60);

/// Derives a target's progress from its events.
pub fn standing(target: &TargetState, rules: &Rules) -> TargetProgress {
    for (index, event) in target.events.iter().enumerate() {
        match &event.state {
            EventState::Succeeded { .. } => {}
            EventState::Failed { .. } if rules.ignores(&event.name) => {}
            EventState::Failed { .. } => return TargetProgress::Failed,
            EventState::Skipped { .. } => return TargetProgress::Skipped,
            EventState::Pending => return TargetProgress::Next(index),
            EventState::Queued { .. }
            | EventState::Leased { .. }
            | EventState::Acknowledged { .. } => {
                return TargetProgress::Running(index);
            }
        }
    }
    TargetProgress::Succeeded
}

impl TargetState {
    /// A target without any progress.
    pub fn new(rules: &Rules, label: Option<TargetLabel>) -> Self {
        let events = rules.strategy.events(label.as_ref());
        let event = |(stage, name)| Event {
            name,
            stage,
            state: EventState::Pending,
        };
        TargetState {
            label,
            events: events.into_iter().map(event).collect(),
            departed: false,
            drained: false,
        }
    }

    /// The same target without the events of earlier stages.
    pub fn beginning_at(mut self, stage: Stage) -> Self {
        self.events.retain(|event| event.stage >= stage);
        self
    }

    /// The status that clients see.
    pub fn status(&self, rules: &Rules) -> TargetStatus {
        match standing(self, rules) {
            TargetProgress::Next(0) => TargetStatus::Pending,
            TargetProgress::Running(0) if !self.was_attempted() => TargetStatus::Pending,
            TargetProgress::Next(event) if !self.has_begun_stage_of(event) => TargetStatus::Ready,
            TargetProgress::Next(_) | TargetProgress::Running(_) => TargetStatus::InProgress,
            TargetProgress::Succeeded => TargetStatus::Succeeded,
            TargetProgress::Failed => TargetStatus::Failed,
            TargetProgress::Skipped => TargetStatus::Skipped,
        }
    }

    /// The stage of the event that is next or running; for an ended target, its last stage.
    pub fn stage(&self, rules: &Rules) -> Stage {
        let event = match standing(self, rules) {
            TargetProgress::Next(event) | TargetProgress::Running(event) => self.events.get(event),
            TargetProgress::Succeeded | TargetProgress::Failed | TargetProgress::Skipped => {
                self.events.last()
            }
        };
        event.map_or(Stage::default(), |event| event.stage)
    }

    /// Whether any command was leased to the target's host, or expired while it waited.
    pub fn was_attempted(&self) -> bool {
        let attempted =
            |event: &Event| event.state.started().is_some() || event.state.diagnostics().is_some();
        self.events.iter().any(attempted)
    }

    /// Whether a load balancer was asked to send traffic to it.
    pub fn was_given_traffic(&self) -> bool {
        let allowed = |event: &Event| {
            event.name == LifecycleEvent::AllowTraffic && event.state.started().is_some()
        };
        self.events.iter().any(allowed)
    }

    /// The time at which the service gives up on the running command.
    pub fn deadline(&self, rules: &Rules, timers: &Timers) -> Option<Timestamp> {
        self.running(rules)
            .and_then(|event| self.timeout(event, timers))
            .map(|(deadline, _)| deadline)
    }

    /// Restarts the pick-up period of the offered command at `now`. Its host could not reach the
    /// service while the service was down.
    pub fn prolong(&mut self, rules: &Rules, timers: &Timers, now: Timestamp) {
        let TargetProgress::Running(event) = standing(self, rules) else {
            return;
        };
        let (deadline, margin) = match self
            .events
            .get(event)
            .and_then(|event| self.timeout(event, timers))
        {
            Some((deadline, Timeout::PickUp | Timeout::Run)) => (deadline, Duration::ZERO),
            Some((deadline, Timeout::Traffic)) => (deadline, MARGIN),
            Some((_, Timeout::Departure)) | None => return,
        };
        if let Some(event) = self.events.get_mut(event) {
            event
                .state
                .postpone((now + timers.pick_up + margin).since(deadline));
        }
    }

    /// The event whose command is out.
    pub fn running(&self, rules: &Rules) -> Option<&Event> {
        match standing(self, rules) {
            TargetProgress::Running(event) => self.events.get(event),
            _ => None,
        }
    }

    /// The time at which the service gives up on an event whose command is out, and the reason.
    fn timeout(&self, event: &Event, timers: &Timers) -> Option<(Timestamp, Timeout)> {
        let (since, timeout) = match event.state {
            EventState::Queued { since } => (since, Timeout::PickUp),
            EventState::Leased { queued, .. } => (queued, Timeout::PickUp),
            EventState::Acknowledged { since, .. } => (since, Timeout::Run),
            _ => return None,
        };
        let timeout = match timeout {
            _ if is_performed_here(&event.name) => Timeout::Traffic,
            _ if self.departed => Timeout::Departure,
            timeout => timeout,
        };
        let limit = match timeout {
            Timeout::PickUp => timers.pick_up,
            Timeout::Run => timers.run,
            Timeout::Traffic => timers.traffic + MARGIN,
            Timeout::Departure => Duration::ZERO,
        };
        Some((since + limit, timeout))
    }

    fn has_begun_stage_of(&self, event: usize) -> bool {
        let stage = |index: usize| self.events.get(index).map(|event| event.stage);
        event
            .checked_sub(1)
            .is_some_and(|before| stage(before) == stage(event))
    }

    /// Issues the next event's command. The deployment decides when a target begins a stage.
    pub fn begin(&mut self, rules: &Rules, now: Timestamp) -> Result<Option<usize>, IllegalEvent> {
        let TargetProgress::Next(event) = standing(self, rules) else {
            return Ok(None);
        };
        self.advance(event, EventInput::Issue, now)?;
        Ok(Some(event))
    }

    /// Applies everything that follows from the target's events, the rules and the time: an expired
    /// command fails, a failure skips the rest, a success brings the next event of the same stage.
    /// Returns the event whose command was issued.
    ///
    /// If the deployment is `closing`, or the host is drained, nothing begins, and commands that
    /// their host has not acknowledged are withdrawn.
    pub fn settle(
        &mut self,
        rules: &Rules,
        closing: bool,
        timers: &Timers,
        now: Timestamp,
    ) -> Result<Option<usize>, IllegalEvent> {
        if let TargetProgress::Running(event) = standing(self, rules)
            && let Some((deadline, timeout)) = self
                .events
                .get(event)
                .and_then(|event| self.timeout(event, timers))
            && deadline <= now
        {
            self.advance(
                event,
                EventInput::Expire {
                    diagnostics: timeout.diagnostics(),
                },
                now,
            )?;
        }
        let closing = closing || self.drained;
        match standing(self, rules) {
            TargetProgress::Next(event) if !closing && self.has_begun_stage_of(event) => {
                self.begin(rules, now)
            }
            TargetProgress::Next(_) if closing => self.skip_rest(now).map(|()| None),
            TargetProgress::Running(event) if closing && self.is_offered(event) => {
                self.skip_rest(now).map(|()| None)
            }
            TargetProgress::Failed => self.skip_rest(now).map(|()| None),
            _ => Ok(None),
        }
    }

    fn is_offered(&self, event: usize) -> bool {
        self.events
            .get(event)
            .is_some_and(|event| event.state.is_offered())
    }

    /// Skips all remaining events of the target.
    pub(crate) fn skip_rest(&mut self, now: Timestamp) -> Result<(), IllegalEvent> {
        for event in self
            .events
            .iter_mut()
            .filter(|event| event.state.ended().is_none())
        {
            event.state = event.state.next(EventInput::Skip, now)?;
        }
        Ok(())
    }

    /// Applies one input to one event.
    pub fn advance(
        &mut self,
        event: usize,
        input: EventInput,
        now: Timestamp,
    ) -> Result<(), IllegalEvent> {
        if let Some(event) = self.events.get_mut(event) {
            event.state = event.state.next(input, now)?;
        }
        Ok(())
    }
}

impl Timeout {
    /// The diagnostics that clients see for an event that the service failed.
    fn diagnostics(self) -> Diagnostics {
        let message = match self {
            Timeout::PickUp => {
                "CodeDeploy agent was not able to receive the lifecycle event. Check the CodeDeploy agent logs on \
                 your host and make sure the agent is running and can connect to the CodeDeploy server."
            }
            Timeout::Run => {
                "CodeDeploy agent received the lifecycle event and did not report how it ended in time. Check the \
                 CodeDeploy agent logs on your host and make sure the agent is running."
            }
            Timeout::Traffic => {
                "The CodeDeploy service did not change the traffic of the instance at its load balancers in time. Check \
                 the service's log."
            }
            Timeout::Departure => {
                "The on-premises instance was deregistered before its CodeDeploy agent reported how the lifecycle event \
                 ended. Register the instance again if it is to have the revision."
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
