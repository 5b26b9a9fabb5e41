//! The guarantees of the scheduling decision, whatever hosts do.

use std::time::Duration;

use codedeploy_api::codedeploy::{Diagnostics, TargetLabel, Timestamp};
use codedeploy_planner::Timers;
use codedeploy_planner::deployment_state::{DeploymentInput, DeploymentState, Ending, Stage, Stop};
use codedeploy_planner::event_state::{EventInput, EventState};
use codedeploy_planner::health::MinimumHealthy;
use codedeploy_planner::plan::{Class, Count, Move, closing, plan};
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy as DeploymentStrategy;
use codedeploy_planner::target_state::{Event, TargetProgress, TargetState, standing};
use proptest::prelude::*;

const TIMERS: Timers = Timers {
    poll: Duration::from_secs(1),
    request: Duration::from_secs(30),
    lease: Duration::from_secs(10),
    pick_up: Duration::from_secs(50),
    run: Duration::from_secs(100),
    deployment: Duration::from_secs(5000),
    blue_green: Duration::from_secs(5000),
    traffic: Duration::from_secs(60),
    alarms: Duration::from_secs(10),
};

/// A deployment in memory; decisions are made as the service makes them on its database.
struct Deployment {
    rules: Rules,
    progress: DeploymentState,
    targets: Vec<TargetState>,
    /// The commands that the last decision issued.
    issued: usize,
}

impl Deployment {
    fn new(minimum_healthy: MinimumHealthy, targets: usize, ignore: bool) -> Deployment {
        let rules = Rules {
            minimum_healthy,
            ignore_application_stop_failures: ignore,
            strategy: DeploymentStrategy::InPlace,
            alarms: None,
        };
        let targets = vec![TargetState::new(&rules, None); targets];
        Deployment {
            targets,
            progress: begun(rules.strategy),
            rules,
            issued: 0,
        }
    }

    /// A deployment of two fleets: this many replacements and originals.
    fn rerouting(
        strategy: DeploymentStrategy,
        minimum_healthy: MinimumHealthy,
        green: usize,
        blue: usize,
    ) -> Deployment {
        let rules = Rules {
            minimum_healthy,
            ignore_application_stop_failures: false,
            strategy,
            alarms: None,
        };
        let fleet =
            |label: TargetLabel, number| vec![TargetState::new(&rules, Some(label)); number];
        let targets = [
            fleet(TargetLabel::Green, green),
            fleet(TargetLabel::Blue, blue),
        ]
        .concat();
        Deployment {
            targets,
            progress: begun(strategy),
            rules,
            issued: 0,
        }
    }

    fn counts(&self) -> Vec<Count> {
        let count = |target: &TargetState| Count {
            label: target.label.clone(),
            class: Class::of(target, &self.rules),
            stage: target.stage(&self.rules),
            targets: 1,
        };
        self.targets.iter().map(count).collect()
    }

    /// Does everything that can be done now.
    fn decide(&mut self, now: Timestamp) {
        self.issued = 0;
        let closing = closing(&self.rules, &self.progress, &TIMERS, now).is_some();
        for target in &mut self.targets {
            let issued = target.settle(&self.rules, closing, &TIMERS, now).unwrap();
            self.issued += usize::from(issued.is_some());
        }
        loop {
            match plan(&self.rules, &self.progress, &self.counts(), &TIMERS, now) {
                Move::Wait => return,
                Move::Begin(number) => {
                    assert!(number > 0, "a move that moves nothing");
                    let DeploymentState::InProgress { stage, .. } = self.progress else {
                        panic!("a command while nothing is in progress");
                    };
                    let fleet = self.rules.strategy.fleet(stage);
                    let waiting = |target: &&mut TargetState| match standing(target, &self.rules) {
                        TargetProgress::Next(event) => {
                            target.label == fleet && target.events[event].stage == stage
                        }
                        _ => false,
                    };
                    for target in self.targets.iter_mut().filter(waiting).take(number) {
                        target.begin(&self.rules, now).unwrap();
                        self.issued += 1;
                    }
                }
                Move::Stop(stop) => self.take(DeploymentInput::RequestStop(stop), now),
                Move::Close => {
                    for target in &mut self.targets {
                        assert_eq!(
                            target.settle(&self.rules, true, &TIMERS, now).unwrap(),
                            None
                        );
                    }
                }
                Move::End { ending, retire_at } => {
                    self.take(DeploymentInput::End { ending, retire_at }, now);
                }
                Move::Enter(stage) => self.take(DeploymentInput::Enter(stage), now),
                Move::AwaitContinue { until } => {
                    self.take(DeploymentInput::AwaitContinue { until }, now)
                }
            }
        }
    }

    fn take(&mut self, input: DeploymentInput, now: Timestamp) {
        self.progress = self.progress.next(input, now).unwrap();
    }

    fn request_stop(&mut self, now: Timestamp) {
        let input = DeploymentInput::RequestStop(Stop::Request { rollback: None });
        if let Ok(stopping) = self.progress.next(input, now) {
            self.progress = stopping;
        }
    }

    fn is_stopping(&self) -> bool {
        matches!(
            self.progress,
            DeploymentState::InProgress { stop: Some(_), .. }
        )
    }

    fn count(&self, wanted: impl Fn(TargetProgress) -> bool) -> usize {
        self.targets
            .iter()
            .filter(|target| wanted(standing(target, &self.rules)))
            .count()
    }

    /// The number of a fleet's targets with this progress.
    fn of(&self, label: &TargetLabel, wanted: impl Fn(TargetProgress) -> bool) -> usize {
        let fleet = self
            .targets
            .iter()
            .filter(|target| target.label.as_ref() == Some(label));
        fleet
            .filter(|target| wanted(standing(target, &self.rules)))
            .count()
    }

    /// Whether any target of a fleet ever got a command.
    fn was_begun(&self, label: &TargetLabel) -> bool {
        let mut fleet = self
            .targets
            .iter()
            .filter(|target| target.label.as_ref() == Some(label));
        fleet.any(|target| {
            !matches!(
                target.events[0].state,
                EventState::Pending | EventState::Skipped { .. }
            )
        })
    }

    /// Every host succeeds with its commands, until nothing more follows.
    fn all_is_well(&mut self) {
        for second in 0..200 {
            self.decide(at(second));
            for target in &mut self.targets {
                if let Some(event) = target
                    .events
                    .iter_mut()
                    .find(|event| event.state.ended().is_none())
                {
                    act(event, Deed::Succeed, at(second));
                }
            }
        }
    }
}

fn begun(strategy: DeploymentStrategy) -> DeploymentState {
    DeploymentState::InProgress {
        started: at(0),
        stage: strategy.first_stage(),
        stop: None,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn running(standing: TargetProgress) -> bool {
    matches!(standing, TargetProgress::Running(_))
        || matches!(standing, TargetProgress::Next(event) if event > 0)
}

/// The reaction of a host to its command at one step of time.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Nothing,
    Lease,
    Acknowledge,
    Succeed,
    Fail,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        2 => Just(Deed::Nothing),
        4 => Just(Deed::Lease),
        4 => Just(Deed::Acknowledge),
        4 => Just(Deed::Succeed),
        1 => Just(Deed::Fail),
    ]
}

impl Deployment {
    /// Each host reacts to its current event.
    fn act(&mut self, deeds: &[Deed], now: Timestamp) {
        for (target, deed) in self.targets.iter_mut().zip(deeds) {
            if let Some(event) = target
                .events
                .iter_mut()
                .find(|event| event.state.ended().is_none())
            {
                act(event, *deed, now);
            }
        }
    }
}

fn act(event: &mut Event, deed: Deed, now: Timestamp) {
    let complete = |succeeded| EventInput::Complete {
        succeeded,
        diagnostics: Diagnostics::default(),
    };
    let input = match deed {
        Deed::Nothing => return,
        Deed::Lease => EventInput::Lease {
            until: now + TIMERS.lease,
        },
        Deed::Acknowledge => EventInput::Acknowledge,
        Deed::Succeed => complete(true),
        Deed::Fail => complete(false),
    };
    // The state rejects an illegal input.
    if let Ok(next) = event.state.next(input, now) {
        event.state = next;
    }
}

fn minimum() -> impl Strategy<Value = MinimumHealthy> {
    prop_oneof![
        Just(MinimumHealthy::OneAtATime),
        Just(MinimumHealthy::HalfAtATime),
        (0..99u8).prop_map(MinimumHealthy::FleetPercent),
        (0..8u32).prop_map(MinimumHealthy::HostCount),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_whatever_hosts_do(
        minimum in minimum(),
        targets in 1..12usize,
        ignore: bool,
        deeds in prop::collection::vec(prop::collection::vec(deed(), 12), 60),
        stop_at in prop::option::of(0..30i64),
    ) {
        let Ok(budget) = minimum.budget(targets) else { return Ok(()); };
        let mut deployment = Deployment::new(minimum, targets, ignore);
        let mut second = 0;
        for step in 0.. {
            let now = at(second);
            if stop_at == Some(step) {
                deployment.request_stop(now);
            }
            let stopping = deployment.is_stopping();
            deployment.decide(now);
            prop_assert!(!stopping || deployment.issued == 0, "a command after the stop");
            let failed = deployment.count(|s| s == TargetProgress::Failed);
            let in_progress = deployment.count(running);
            if !stopping {
                prop_assert!(failed + in_progress <= budget.unavailable, "healthy below the minimum");
                prop_assert!(in_progress <= budget.parallel);
            }
            if let DeploymentState::Ended { ending, .. } = &deployment.progress {
                prop_assert_eq!(in_progress, 0, "ended with a command out");
                prop_assert_eq!(deployment.count(|s| s == TargetProgress::Next(0)), 0);
                let succeeded = deployment.count(|s| s == TargetProgress::Succeeded);
                match ending {
                    Ending::Succeeded => prop_assert!(succeeded >= 1 && succeeded + failed == targets),
                    Ending::Stopped(_) => prop_assert!(stopping),
                    Ending::Failed(_) => prop_assert!(succeeded == 0 || failed >= budget.unavailable),
                }
                return Ok(());
            }
            // The hosts act for a while, then fall silent; the timers must end the deployment.
            match deeds.get(step as usize) {
                Some(deeds) => {
                    deployment.act(deeds, now);
                    second += 1;
                }
                None => second += 10,
            }
            prop_assert!(second < 5200, "the deployment never ended");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn traffic_has_somewhere_to_go_whatever_hosts_do(
        minimum in minimum(),
        green in 1..7usize,
        blue in 0..7usize,
        way in prop_oneof![Just(Way::There), Just(Way::ThereAfterAWait), Just(Way::Back)],
        deeds in prop::collection::vec(prop::collection::vec(deed(), 12), 60),
        stop_at in prop::option::of(0..40i64),
        continue_at in prop::option::of(10..60i64),
    ) {
        let strategy = way.strategy();
        let budget = minimum.budget(green).map_or(0, |budget| budget.unavailable);
        if strategy != DeploymentStrategy::BlueGreenRollback && budget == 0 {
            return Ok(());
        }
        let mut deployment = Deployment::rerouting(strategy, minimum, green, blue);
        // The fleet that gets traffic, and the one that then loses it.
        let (gains, loses) = match way {
            Way::Back => (TargetLabel::Blue, TargetLabel::Green),
            Way::There | Way::ThereAfterAWait => (TargetLabel::Green, TargetLabel::Blue),
        };
        let (size, leaves) = if way == Way::Back { (blue, green) } else { (green, blue) };
        let mut second = 0;
        for step in 0.. {
            let now = at(second);
            if stop_at == Some(step) {
                deployment.request_stop(now);
            }
            if continue_at == Some(step) && matches!(deployment.progress, DeploymentState::Ready { .. }) {
                deployment.take(DeploymentInput::Enter(Stage::Allow), now);
            }
            let stopping = deployment.is_stopping();
            let ready = matches!(deployment.progress, DeploymentState::Ready { .. });
            deployment.decide(now);
            prop_assert!(!(stopping || ready) || deployment.issued == 0, "a command in a wait");

            let succeeded = deployment.of(&gains, |s| s == TargetProgress::Succeeded);
            let failed = deployment.of(&gains, |s| s == TargetProgress::Failed);
            let serving = succeeded > 0 && succeeded + failed == size && failed <= minimum.tolerated(size);
            prop_assert!(!deployment.was_begun(&loses) || serving, "traffic is taken, and nobody else has it");
            if let DeploymentState::InProgress { stage: Stage::Deploy, stop: None, .. } = deployment.progress {
                let installs = |target: &&TargetState| {
                    let rules = &deployment.rules;
                    target.stage(rules) == Stage::Deploy && running(standing(target, rules))
                };
                let out = failed + deployment.targets.iter().filter(installs).count();
                prop_assert!(out <= budget, "replacements below the minimum");
            }
            if let DeploymentState::Ended { ending, .. } = &deployment.progress {
                prop_assert_eq!(deployment.count(running), 0, "ended with a command out");
                let left = deployment.of(&loses, |s| s == TargetProgress::Succeeded);
                match ending {
                    Ending::Succeeded => prop_assert!(serving && left == leaves, "{left} of {leaves}"),
                    Ending::Stopped(_) => prop_assert!(stopping || ready),
                    Ending::Failed(_) => prop_assert!(!serving || left < leaves),
                }
                return Ok(());
            }
            match deeds.get(step as usize) {
                Some(deeds) => {
                    deployment.act(deeds, now);
                    second += 1;
                }
                None => second += 10,
            }
            prop_assert!(second < 5200, "the deployment never ended");
        }
    }

    #[test]
    fn good_hosts_succeed(minimum in minimum(), green in 1..9usize, blue in 0..9usize) {
        let can_begin = minimum.budget(green).is_ok();
        let rerouting = |way: Way| Deployment::rerouting(way.strategy(), minimum, green, blue);
        let deployments = [
            (can_begin, Deployment::new(minimum, green, false)),
            (can_begin, rerouting(Way::There)),
            // A rollback needs only a fleet to return to.
            (blue > 0, rerouting(Way::Back)),
        ];
        for (_, mut deployment) in deployments.into_iter().filter(|(can_succeed, _)| *can_succeed) {
            deployment.all_is_well();
            let succeeded = matches!(&deployment.progress, DeploymentState::Ended { ending: Ending::Succeeded, .. });
            prop_assert!(succeeded, "{:?}: {:?}", deployment.rules.strategy, deployment.progress);
        }
    }
}

/// The ways of a deployment to two fleets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    There,
    ThereAfterAWait,
    Back,
}

impl Way {
    fn strategy(self) -> DeploymentStrategy {
        match self {
            Way::There => DeploymentStrategy::BlueGreen {
                wait_minutes: None,
                retire_minutes: None,
            },
            Way::ThereAfterAWait => DeploymentStrategy::BlueGreen {
                wait_minutes: Some(2),
                retire_minutes: Some(1),
            },
            Way::Back => DeploymentStrategy::BlueGreenRollback,
        }
    }
}

#[test]
fn a_stop_withdraws_what_is_offered_and_waits_for_what_runs() {
    let mut deployment = Deployment::new(MinimumHealthy::FleetPercent(0), 3, false);
    deployment.decide(at(0));
    act(&mut deployment.targets[1].events[0], Deed::Lease, at(1));
    act(&mut deployment.targets[2].events[0], Deed::Lease, at(1));
    act(
        &mut deployment.targets[2].events[0],
        Deed::Acknowledge,
        at(1),
    );
    deployment.request_stop(at(2));
    deployment.decide(at(2));
    let standings: Vec<_> = deployment
        .targets
        .iter()
        .map(|t| standing(t, &deployment.rules))
        .collect();
    assert_eq!(
        standings,
        [
            TargetProgress::Skipped,
            TargetProgress::Skipped,
            TargetProgress::Running(0)
        ]
    );
    assert!(deployment.is_stopping());
    act(&mut deployment.targets[2].events[0], Deed::Succeed, at(3));
    deployment.decide(at(3));
    assert!(matches!(
        &deployment.progress,
        DeploymentState::Ended {
            ending: Ending::Stopped(_),
            ..
        }
    ));
    assert_eq!(
        standing(&deployment.targets[2], &deployment.rules),
        TargetProgress::Skipped
    );
}

#[test]
fn a_deployment_that_takes_too_long_fails() {
    let mut deployment = Deployment::new(MinimumHealthy::FleetPercent(0), 1, false);
    deployment.decide(at(5000));
    assert!(matches!(
        &deployment.progress,
        DeploymentState::Ended {
            ending: Ending::Failed(_),
            ..
        }
    ));
}

fn traffic_goes_back(minimum_healthy: MinimumHealthy) -> Rules {
    let (strategy, ignore_application_stop_failures) =
        (DeploymentStrategy::BlueGreenRollback, false);
    Rules {
        minimum_healthy,
        ignore_application_stop_failures,
        strategy,
        alarms: None,
    }
}

#[test]
fn traffic_goes_back_to_a_fleet_that_is_smaller_than_the_minimum_for_the_other() {
    let progress = DeploymentState::InProgress {
        started: at(0),
        stage: Stage::Allow,
        stop: None,
    };
    let rules = traffic_goes_back(MinimumHealthy::HostCount(3));
    let count = |label, class, stage, targets| Count {
        label: Some(label),
        class,
        stage,
        targets,
    };
    let green = count(TargetLabel::Green, Class::Waiting, Stage::Block, 4);
    for (succeeded, failed, goes_on) in [(2, 0, true), (1, 1, false), (0, 2, false), (0, 0, false)]
    {
        let blue = |class, targets| count(TargetLabel::Blue, class, Stage::Allow, targets);
        let counts = [
            blue(Class::Succeeded, succeeded),
            blue(Class::Failed, failed),
            green.clone(),
        ];
        let next = plan(&rules, &progress, &counts, &TIMERS, at(1));
        assert!(
            matches!(next, Move::Enter(Stage::Block)) == goes_on,
            "{succeeded} {failed} {next:?}"
        );
        assert!(
            matches!(next, Move::Stop(Stop::Failure(_))) != goes_on,
            "{succeeded} {failed} {next:?}"
        );
    }
}

#[test]
fn a_replacement_loses_its_traffic_in_a_rollback_whatever_its_scripts_say() {
    let rules = traffic_goes_back(MinimumHealthy::OneAtATime);
    let mut green = TargetState::new(&rules, Some(TargetLabel::Green));
    assert_eq!(green.begin(&rules, at(0)), Ok(Some(0)));
    act(&mut green.events[0], Deed::Fail, at(1));
    assert_eq!(
        green.settle(&rules, false, &TIMERS, at(1)),
        Ok(Some(1)),
        "BlockTraffic comes next"
    );
    act(&mut green.events[1], Deed::Succeed, at(2));
    assert_eq!(green.settle(&rules, false, &TIMERS, at(2)), Ok(Some(2)));
    // Its host is silent.
    assert_eq!(green.settle(&rules, false, &TIMERS, at(1000)), Ok(None));
    assert_eq!(standing(&green, &rules), TargetProgress::Succeeded);
}
