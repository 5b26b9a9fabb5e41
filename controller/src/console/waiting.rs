//! The reason why a deployment waits, in words, and the time that it still needs. Pure.

use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::controller::{CommandState, GetDeploymentStatusOutput, HostCommand};
use codedeploy_planner::Timers;
use codedeploy_planner::deployment_state::{DeploymentState, Stage};
use codedeploy_planner::health::{Budget, Tally};
use codedeploy_planner::plan::{Class, deadline};

use super::view::in_stage;
use crate::records::Record;
use crate::records::squares::Square;
use crate::transaction::Context;
use crate::words;

/// The longest time that is told as the time left.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The facts about a deployment that its words depend on.
pub(super) struct Situation<'a> {
    record: &'a Record,
    waits_for: Option<&'a str>,
    commands: &'a [HostCommand],
    timers: &'a Timers,
    now: Timestamp,
    /// The progress of the fleet of the present stage.
    tally: Tally,
}

impl<'a> Situation<'a> {
    pub(super) fn new(
        record: &'a Record,
        found: &'a GetDeploymentStatusOutput,
        all: &[Square],
        context: &Context<'a>,
    ) -> Self {
        let stage = match record.progress {
            DeploymentState::InProgress { stage, .. } => stage,
            _ => record.rules.strategy.first_stage(),
        };
        Situation {
            record,
            waits_for: found
                .deployment
                .as_ref()
                .and_then(|deployment| deployment.waits_for.as_deref()),
            commands: found.commands.as_deref().unwrap_or_default(),
            timers: context.timers,
            now: context.now,
            tally: tally(record, stage, all),
        }
    }

    /// The time at which it fails unless it has ended.
    pub(super) fn limit(&self) -> Option<Timestamp> {
        let is_running = matches!(
            self.record.progress,
            DeploymentState::InProgress { stop: None, .. }
        );
        deadline(&self.record.rules, &self.record.progress, self.timers).filter(|_| is_running)
    }
}

fn tally(record: &Record, stage: Stage, all: &[Square]) -> Tally {
    let fleet = record.rules.strategy.fleet(stage);
    let mut tally = Tally::default();
    for square in all
        .iter()
        .filter(|square| fleet.is_none() || square.label == fleet)
    {
        let field = match in_stage(square, stage) {
            Class::Waiting => &mut tally.not_attempted,
            Class::Offered | Class::Performing => &mut tally.in_progress,
            Class::Succeeded => &mut tally.succeeded,
            Class::Failed | Class::Skipped => &mut tally.failed,
        };
        *field += 1;
    }
    tally
}

/// Returns the sentences about what a deployment waits for; none once it has ended.
pub(super) fn sentences(situation: &Situation<'_>) -> Vec<String> {
    let mut said: Vec<String> = situation
        .waits_for
        .map(|event| format!("It waits for {event}."))
        .into_iter()
        .collect();
    if let DeploymentState::InProgress {
        stage, stop: None, ..
    } = situation.record.progress
    {
        let targets = situation.tally.not_attempted
            + situation.tally.in_progress
            + situation.tally.succeeded
            + situation.tally.failed;
        let minimum = situation.record.rules.minimum_healthy;
        if stage == Stage::Deploy
            && let Ok(budget) = minimum.budget(targets)
        {
            said.extend(about_budget(budget, situation.tally, targets));
        }
        said.extend(about_slowest(situation));
    }
    said
}

/// Why no further host may begin, and how many may still fail.
fn about_budget(budget: Budget, tally: Tally, targets: usize) -> Vec<String> {
    let mut said = Vec::new();
    let hosts = |number: usize| words::number(number, "host", "hosts");
    if tally.not_attempted > 0 {
        let verb = if tally.not_attempted == 1 {
            "waits"
        } else {
            "wait"
        };
        let minimum = targets - budget.unavailable;
        let room = budget
            .parallel
            .min(budget.unavailable.saturating_sub(tally.failed));
        let least = match minimum {
            0 => String::new(),
            minimum => format!("at least {minimum} of {targets} must stay healthy, so "),
        };
        let failed = match tally.failed {
            0 => String::new(),
            failed => format!(
                " (it would be {}, but {failed} failed)",
                budget.parallel.min(budget.unavailable).max(room)
            ),
        };
        said.push(format!(
            "{} {verb}: {least}{} at a time may change{failed}, and {} in progress.",
            hosts(tally.not_attempted),
            hosts(room),
            match tally.in_progress {
                1 => "1 is".to_owned(),
                number => format!("{number} are"),
            }
        ));
    }
    let left = tally.not_attempted + tally.in_progress;
    if tally.failed > 0 && left > 0 {
        let more = budget.unavailable.saturating_sub(tally.failed);
        said.push(match more {
            0 => "The next failure ends the deployment.".to_owned(),
            more => format!(
                "{} failed; the deployment goes on as long as no more than {} fail in all.",
                hosts(tally.failed),
                tally.failed + more
            ),
        });
    }
    said
}

/// The command that has been out for the longest time.
fn about_slowest(situation: &Situation<'_>) -> Option<String> {
    let slowest = situation
        .commands
        .iter()
        .min_by_key(|command| command.since)?;
    let (host, event) = (
        slowest.instance_name.as_deref()?,
        slowest.lifecycle_event_name.as_deref()?,
    );
    let time = words::span(situation.now.since(slowest.since?));
    Some(match slowest.state {
        Some(CommandState::Offered) => {
            format!("{host} has not fetched its command {event} for {time}.")
        }
        _ => format!("{host} has been at {event} for {time}."),
    })
}

/// Estimates the time that a running deployment still needs, from that of the hosts that are done.
pub(super) fn left(situation: &Situation<'_>) -> Option<Duration> {
    let DeploymentState::InProgress {
        started,
        stage: Stage::Deploy,
        stop: None,
    } = situation.record.progress
    else {
        return None;
    };
    let done = situation.tally.succeeded + situation.tally.failed;
    let left = situation.tally.not_attempted + situation.tally.in_progress;
    estimate(situation.now.since(started), done, left)
}

fn estimate(passed: Duration, done: usize, left: usize) -> Option<Duration> {
    let (done, left) = (u32::try_from(done).ok()?, u32::try_from(left).ok()?);
    if done == 0 || left == 0 {
        return None;
    }
    let estimate = passed.checked_mul(left)? / done;
    (estimate <= LONGEST).then_some(estimate)
}

#[cfg(test)]
mod tests {
    use codedeploy_planner::health::MinimumHealthy;

    use super::*;

    fn said(
        minimum: MinimumHealthy,
        waiting: usize,
        busy: usize,
        done: usize,
        failed: usize,
    ) -> String {
        let targets = waiting + busy + done + failed;
        let tally = Tally {
            not_attempted: waiting,
            in_progress: busy,
            succeeded: done,
            failed,
        };
        about_budget(minimum.budget(targets).unwrap(), tally, targets).join(" ")
    }

    #[test]
    fn the_reason_of_a_wait_has_its_numbers() {
        use MinimumHealthy::{FleetPercent, HostCount, OneAtATime};
        for (words, expected) in [
            (
                said(HostCount(8), 7, 2, 1, 0),
                "7 hosts wait: at least 8 of 10 must stay healthy, so 2 hosts at a time may change, and 2 are in progress.",
            ),
            (
                said(OneAtATime, 1, 1, 1, 0),
                "1 host waits: at least 2 of 3 must stay healthy, so 1 host at a time may change, and 1 is in progress.",
            ),
            (
                said(HostCount(7), 5, 2, 2, 1),
                "5 hosts wait: at least 7 of 10 must stay healthy, so 2 hosts at a time may change (it would be 3, but 1 failed), and 2 are in progress. 1 host failed; the deployment goes on as long as no more than 3 fail in all.",
            ),
            (said(FleetPercent(0), 0, 3, 1, 0), ""),
        ] {
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn the_time_left_follows_from_the_time_so_far() {
        let seconds = Duration::from_secs;
        assert_eq!(estimate(seconds(60), 2, 4), Some(seconds(120)));
        assert_eq!(estimate(seconds(60), 0, 4), None);
        assert_eq!(estimate(seconds(60), 4, 0), None);
        assert_eq!(estimate(seconds(100_000), 1, 9), None);
    }
}
