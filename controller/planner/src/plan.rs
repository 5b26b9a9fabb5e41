//! The scheduling decision: the next move of a deployment as a whole. Pure; it changes nothing.
//!
//! [`target_state`](crate::target_state) decides about one target; this module decides how many
//! targets may begin, which stage follows, and when and how the deployment ends.

use std::time::Duration;

use codedeploy_api::codedeploy::{ErrorCode, TargetLabel, Timestamp};

use crate::deployment_state::{DeploymentState, Ending, Stage, Stop};
use crate::health::{Budget, Tally, Verdict};
use crate::rules::Rules;
use crate::strategy::Strategy;
use crate::target_state::{TargetProgress, TargetState, standing};
use crate::timers::Timers;

/// The classes in which targets are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// No command is out.
    Waiting,
    /// A command is offered, and its host has not acknowledged it.
    Offered,
    /// A host, or the service at a load balancer, performs a command.
    Performing,
    Succeeded,
    Failed,
    Skipped,
}

impl Class {
    pub fn of(target: &TargetState, rules: &Rules) -> Class {
        match standing(target, rules) {
            TargetProgress::Next(_) => Class::Waiting,
            TargetProgress::Running(event) => match target.events.get(event) {
                Some(event) if event.state.is_offered() => Class::Offered,
                _ => Class::Performing,
            },
            TargetProgress::Succeeded => Class::Succeeded,
            TargetProgress::Failed => Class::Failed,
            TargetProgress::Skipped => Class::Skipped,
        }
    }
}

/// A number of targets that the planner need not distinguish.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    pub label: Option<TargetLabel>,
    pub class: Class,
    /// See [`TargetState::stage`].
    pub stage: Stage,
    pub targets: usize,
}

/// The next move of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Nothing; its targets continue by themselves.
    Wait,
    /// Let this number of waiting targets begin the stage, in their order.
    Begin(usize),
    /// Go on to the next stage.
    Enter(Stage),
    /// The replacement instances are ready: wait for somebody to let it continue.
    AwaitContinue { until: Timestamp },
    /// Begin to end.
    Stop(Stop),
    /// Let no target begin anything, and withdraw offered commands.
    Close,
    /// Nothing is left to do.
    End {
        ending: Ending,
        retire_at: Option<Timestamp>,
    },
}

/// The reason why a deployment must end now, whatever its targets do.
pub fn closing(
    rules: &Rules,
    progress: &DeploymentState,
    timers: &Timers,
    now: Timestamp,
) -> Option<Stop> {
    match progress {
        DeploymentState::InProgress {
            stop: Some(stop), ..
        } => Some(stop.clone()),
        DeploymentState::InProgress { started, .. }
            if *started + rules.time_limit(timers) <= now =>
        {
            let message = "The deployment did not end within the time that deployments are given.";
            Some(Stop::failure(ErrorCode::Timeout, message))
        }
        DeploymentState::Ready { until, .. } if *until <= now => Some(Stop::NotContinued),
        _ => None,
    }
}

/// The time of the next decision about a deployment if nothing else happens, apart from its
/// targets' timers.
pub fn deadline(rules: &Rules, progress: &DeploymentState, timers: &Timers) -> Option<Timestamp> {
    match progress {
        DeploymentState::InProgress {
            stop: None,
            started,
            ..
        } => Some(*started + rules.time_limit(timers)),
        DeploymentState::Ready { until, .. } => Some(*until),
        DeploymentState::Ended { retire_at, .. } => *retire_at,
        DeploymentState::InProgress { .. } | DeploymentState::Created => None,
    }
}

/// Decides about a deployment whose targets are settled; waits if the deployment is not under way.
pub fn plan(
    rules: &Rules,
    progress: &DeploymentState,
    counts: &[Count],
    timers: &Timers,
    now: Timestamp,
) -> Move {
    if let DeploymentState::InProgress {
        stop: Some(stop), ..
    } = progress
    {
        return close(counts, stop);
    }
    if let Some(stop) = closing(rules, progress, timers, now) {
        return Move::Stop(stop);
    }
    let DeploymentState::InProgress { stage, .. } = *progress else {
        return Move::Wait;
    };
    let (tally, drained) = tally(rules, stage, counts);
    match judge(rules, stage, tally, drained) {
        Verdict::Continue { start: 0 } => Move::Wait,
        Verdict::Continue { start } => Move::Begin(start),
        Verdict::Succeeded => proceed(rules, stage, now),
        Verdict::Failed => Move::Stop(failure(rules, stage, counts)),
    }
}

fn close(counts: &[Count], stop: &Stop) -> Move {
    let left = |wanted: &[Class]| {
        counts
            .iter()
            .any(|count| count.targets > 0 && wanted.contains(&count.class))
    };
    if left(&[Class::Waiting, Class::Offered]) {
        Move::Close
    } else if left(&[Class::Performing]) {
        // Each has a timer.
        Move::Wait
    } else {
        Move::End {
            ending: stop.ending(),
            retire_at: None,
        }
    }
}

fn proceed(rules: &Rules, stage: Stage, now: Timestamp) -> Move {
    let minutes = |minutes: u32| now + Duration::from_secs(u64::from(minutes) * 60);
    match (rules.strategy, rules.strategy.stage_after(stage)) {
        (
            Strategy::BlueGreen {
                wait_minutes: Some(wait),
                ..
            },
            Some(Stage::Allow),
        ) => Move::AwaitContinue {
            until: minutes(wait),
        },
        (_, Some(stage)) => Move::Enter(stage),
        (Strategy::BlueGreen { retire_minutes, .. }, None) => Move::End {
            ending: Ending::Succeeded,
            retire_at: retire_minutes.map(minutes),
        },
        (_, None) => Move::End {
            ending: Ending::Succeeded,
            retire_at: None,
        },
    }
}

/// Counts the targets of a stage's fleet by their progress in that stage, and those that were
/// skipped: before a deployment is stopped, only targets on drained hosts are. These hosts do not
/// serve, so the minimum of healthy hosts is one of the others.
fn tally(rules: &Rules, stage: Stage, counts: &[Count]) -> (Tally, usize) {
    let fleet = rules.strategy.fleet(stage);
    let mut tally = Tally::default();
    let mut drained = 0;
    for count in counts
        .iter()
        .filter(|count| fleet.is_none() || count.label == fleet)
    {
        let field = match count.class {
            Class::Waiting if count.stage > stage => &mut tally.succeeded,
            Class::Waiting => &mut tally.not_attempted,
            Class::Offered | Class::Performing => &mut tally.in_progress,
            Class::Succeeded => &mut tally.succeeded,
            Class::Failed => &mut tally.failed,
            Class::Skipped => &mut drained,
        };
        *field += count.targets;
    }
    (tally, drained)
}

fn judge(rules: &Rules, stage: Stage, tally: Tally, drained: usize) -> Verdict {
    let targets = tally.not_attempted + tally.in_progress + tally.succeeded + tally.failed;
    match stage {
        // No instance is outdated.
        Stage::Deploy if targets == 0 && drained == 0 => Verdict::Succeeded,
        // Drained hosts can leave fewer than the minimum: then none may begin.
        Stage::Deploy => {
            let budget = rules.minimum_healthy.budget(targets);
            budget.unwrap_or(Budget::NONE).judge(tally)
        }
        // A load balancer accepts any number at a time: traffic is added before any is removed.
        Stage::Allow | Stage::Block if tally.not_attempted + tally.in_progress > 0 => {
            Verdict::Continue {
                start: tally.not_attempted,
            }
        }
        Stage::Allow
            if tally.succeeded > 0 && tally.failed <= rules.minimum_healthy.tolerated(targets) =>
        {
            Verdict::Succeeded
        }
        Stage::Allow => Verdict::Failed,
        Stage::Block if tally.failed == 0 => Verdict::Succeeded,
        Stage::Block => Verdict::Failed,
    }
}

fn failure(rules: &Rules, stage: Stage, counts: &[Count]) -> Stop {
    let fleet = rules.strategy.fleet(stage);
    let number = |class: Class| -> usize {
        let alike =
            |count: &&Count| count.class == class && (fleet.is_none() || count.label == fleet);
        counts.iter().filter(alike).map(|count| count.targets).sum()
    };
    let (failed, succeeded) = (number(Class::Failed), number(Class::Succeeded));
    let drained = match number(Class::Skipped) {
        0 => String::new(),
        drained => format!(", {drained} were drained"),
    };
    let message = match stage {
        Stage::Deploy | Stage::Allow => format!(
            "The deployment failed because too many individual instances failed deployment, too few healthy instances \
             are available for deployment, or some instances are experiencing problems: {failed} failed, {succeeded} \
             succeeded, {} did not go on{drained}.",
            number(Class::Waiting)
        ),
        Stage::Block => format!(
            "The deployment failed because traffic could not be taken from {failed} instances; it was from {succeeded}."
        ),
    };
    Stop::failure(ErrorCode::HealthConstraints, message)
}
