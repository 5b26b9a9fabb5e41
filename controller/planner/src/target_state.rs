//! One target of a deployment, and what it does next by itself. Pure.

use std::time::Duration;

use codedeploy_api::codedeploy::{Diagnostics, LifecycleErrorCode, TargetLabel, TargetStatus, Timestamp};
use codedeploy_api::lifecycle::LifecycleEvent;
use serde::{Deserialize, Serialize};

use crate::deployment_state::Stage;
use crate::event_state::{EventInput, EventState, IllegalEvent};
use crate::rules::Rules;
use crate::strategy::is_performed_here;
use crate::timers::Timers;

/// One target: its lifecycle events in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetState {
    /// Its fleet, in a blue/green deployment.
    pub label: Option<TargetLabel>,
    pub events: Vec<Event>,
    /// Its host is registered no more: nobody performs its commands.
    pub departed: bool,
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

/// How far a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetProgress {
    /// Nothing is out; this event comes next.
    Next(usize),
    /// The command of this event is out.
    Running(usize),
    Succeeded,
    Failed,
    /// Cut off before its last event without a failure, or never attempted.
    Skipped,
}

/// Which of the service's timers ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// The host did not acknowledge the command.
    PickUp,
    /// The host acknowledged the command, and did not say how it ended.
    Run,
    /// The service did not do at a load balancer what it is to do itself.
    Traffic,
    /// The host was deregistered, and cannot say anything.
    Departure,
}

/// How much longer than a load balancer's patience its event has: the service says by itself how it went.
const MARGIN: Duration = Duration::from_secs(60);

/// Reads a target's standing off its events.
pub fn standing(target: &TargetState, rules: &Rules) -> TargetProgress {
    for (index, event) in target.events.iter().enumerate() {
        match &event.state {
            EventState::Succeeded { .. } => {}
            EventState::Failed { .. } if rules.ignores(&event.name) => {}
            EventState::Failed { .. } => return TargetProgress::Failed,
            EventState::Skipped { .. } => return TargetProgress::Skipped,
            EventState::Pending => return TargetProgress::Next(index),
            EventState::Queued { .. } | EventState::Leased { .. } | EventState::Acknowledged { .. } => {
                return TargetProgress::Running(index);
            }
        }
    }
    TargetProgress::Succeeded
}

impl TargetState {
    /// A target that nothing was done about.
    pub fn new(rules: &Rules, label: Option<TargetLabel>) -> Self {
        let events = rules.strategy.events(label.as_ref());
        let event = |(stage, name)| Event { name, stage, state: EventState::Pending };
        TargetState { label, events: events.into_iter().map(event).collect(), departed: false }
    }

    /// The same target, which performs nothing of earlier stages.
    pub fn beginning_at(mut self, stage: Stage) -> Self {
        self.events.retain(|event| event.stage >= stage);
        self
    }

    /// The status that clients are shown.
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

    /// The stage of the event that comes next or is out; of an ended target, its last.
    pub fn stage(&self, rules: &Rules) -> Stage {
        let event = match standing(self, rules) {
            TargetProgress::Next(event) | TargetProgress::Running(event) => self.events.get(event),
            TargetProgress::Succeeded | TargetProgress::Failed | TargetProgress::Skipped => {
                self.events.last()
            }
        };
        event.map_or(Stage::default(), |event| event.stage)
    }

    /// Whether any command was handed to the target's host, or ran out of time waiting for it.
    pub fn was_attempted(&self) -> bool {
        let attempted =
            |event: &Event| event.state.started().is_some() || event.state.diagnostics().is_some();
        self.events.iter().any(attempted)
    }

    /// Whether a load balancer was asked to give it traffic.
    pub fn was_given_traffic(&self) -> bool {
        let allowed =
            |event: &Event| event.name == LifecycleEvent::AllowTraffic && event.state.started().is_some();
        self.events.iter().any(allowed)
    }

    /// When the service gives up on the command that is out.
    pub fn deadline(&self, rules: &Rules, timers: &Timers) -> Option<Timestamp> {
        self.running(rules).and_then(|event| self.timeout(event, timers)).map(|(deadline, _)| deadline)
    }

    /// Lets the command that is out wait for a whole pick-up period from `now` on, however long it is out already. Its
    /// host could not reach the service while that was away.
    pub fn prolong(&mut self, rules: &Rules, timers: &Timers, now: Timestamp) {
        let TargetProgress::Running(event) = standing(self, rules) else { return };
        let (deadline, margin) = match self.events.get(event).and_then(|event| self.timeout(event, timers)) {
            Some((deadline, Silence::PickUp | Silence::Run)) => (deadline, Duration::ZERO),
            Some((deadline, Silence::Traffic)) => (deadline, MARGIN),
            Some((_, Silence::Departure)) | None => return,
        };
        if let Some(event) = self.events.get_mut(event) {
            event.state.postpone((now + timers.pick_up + margin).since(deadline));
        }
    }

    /// The event whose command is out.
    pub fn running(&self, rules: &Rules) -> Option<&Event> {
        match standing(self, rules) {
            TargetProgress::Running(event) => self.events.get(event),
            _ => None,
        }
    }

    /// When the service gives up on an event whose command is out, and why.
    fn timeout(&self, event: &Event, timers: &Timers) -> Option<(Timestamp, Silence)> {
        let (since, silence) = match event.state {
            EventState::Queued { since } => (since, Silence::PickUp),
            EventState::Leased { queued, .. } => (queued, Silence::PickUp),
            EventState::Acknowledged { since, .. } => (since, Silence::Run),
            _ => return None,
        };
        let silence = match silence {
            _ if is_performed_here(&event.name) => Silence::Traffic,
            _ if self.departed => Silence::Departure,
            silence => silence,
        };
        let patience = match silence {
            Silence::PickUp => timers.pick_up,
            Silence::Run => timers.run,
            Silence::Traffic => timers.traffic + MARGIN,
            Silence::Departure => Duration::ZERO,
        };
        Some((since + patience, silence))
    }

    fn has_begun_stage_of(&self, event: usize) -> bool {
        let stage = |index: usize| self.events.get(index).map(|event| event.stage);
        event.checked_sub(1).is_some_and(|before| stage(before) == stage(event))
    }

    /// Takes the next event's command out. The deployment decides when a target begins a stage.
    pub fn begin(&mut self, rules: &Rules, now: Timestamp) -> Result<Option<usize>, IllegalEvent> {
        let TargetProgress::Next(event) = standing(self, rules) else {
            return Ok(None);
        };
        self.advance(event, EventInput::Issue, now)?;
        Ok(Some(event))
    }

    /// Does everything about the target that follows from its events, the rules and the time: a command whose host was
    /// silent too long fails, a failure skips the rest, a success brings the next event of the same stage. Gives the
    /// event whose command it took out.
    ///
    /// When the deployment is `closing`, nothing is begun, and what its host has not acknowledged is withdrawn.
    pub fn settle(
        &mut self,
        rules: &Rules,
        closing: bool,
        timers: &Timers,
        now: Timestamp,
    ) -> Result<Option<usize>, IllegalEvent> {
        if let TargetProgress::Running(event) = standing(self, rules)
            && let Some((deadline, silence)) =
                self.events.get(event).and_then(|event| self.timeout(event, timers))
            && deadline <= now
        {
            self.advance(event, EventInput::Expire { diagnostics: silence.diagnostics() }, now)?;
        }
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
        self.events.get(event).is_some_and(|event| event.state.is_offered())
    }

    /// Performs nothing more on the target.
    pub(crate) fn skip_rest(&mut self, now: Timestamp) -> Result<(), IllegalEvent> {
        for event in self.events.iter_mut().filter(|event| event.state.ended().is_none()) {
            event.state = event.state.next(EventInput::Skip, now)?;
        }
        Ok(())
    }

    /// Takes one event a step further.
    pub fn advance(&mut self, event: usize, input: EventInput, now: Timestamp) -> Result<(), IllegalEvent> {
        if let Some(event) = self.events.get_mut(event) {
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
            Silence::Traffic => {
                "The CodeDeploy service did not change the traffic of the instance at its load balancers in time. Check \
                 the service's log."
            }
            Silence::Departure => {
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
