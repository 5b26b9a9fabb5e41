//! What the scheduling decision promises, whatever hosts do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use codedeploy_api::codedeploy::{Diagnostics, TargetLabel, Timestamp};
use codedeploy_controller::config::Timers;
use codedeploy_controller::deployment::MinimumHealthy;
use codedeploy_controller::deployment::course::Course;
use codedeploy_controller::deployment::plan::{Class, Count, Move, Rules, closing, plan};
use codedeploy_controller::deployment::progress::{DeploymentInput, Ending, Progress, Stage, Stop};
use codedeploy_controller::deployment::state::EventInput;
use codedeploy_controller::deployment::target::{Event, Standing, TargetState, standing};
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

/// A deployment in memory, decided about as the service does on its database.
struct Deployment {
    rules: Rules,
    progress: Progress,
    targets: Vec<TargetState>,
    /// Commands taken out by the last decision.
    issued: usize,
}

impl Deployment {
    fn new(minimum_healthy: MinimumHealthy, targets: usize, ignore: bool) -> Deployment {
        let rules = Rules {
            minimum_healthy,
            ignore_application_stop_failures: ignore,
            course: Course::InPlace,
            alarms: None,
        };
        let progress = Progress::InProgress { started: at(0), stage: Stage::Deploy, stop: None };
        Deployment { targets: vec![TargetState::new(&rules, None); targets], rules, progress, issued: 0 }
    }

    fn counts(&self) -> Vec<Count> {
        let count = |target: &TargetState| Count {
            label: None,
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
                    let waiting = |target: &&mut TargetState| {
                        matches!(standing(target, &self.rules), Standing::Next(0))
                    };
                    for target in self.targets.iter_mut().filter(waiting).take(number) {
                        target.begin(&self.rules, now).unwrap();
                        self.issued += 1;
                    }
                }
                Move::Stop(stop) => {
                    let input = DeploymentInput::RequestStop(stop);
                    self.progress = self.progress.next(input, now).unwrap();
                }
                Move::Close => {
                    for target in &mut self.targets {
                        assert_eq!(target.settle(&self.rules, true, &TIMERS, now).unwrap(), None);
                    }
                }
                Move::End { ending, retire_at } => {
                    self.progress =
                        self.progress.next(DeploymentInput::End { ending, retire_at }, now).unwrap();
                }
                Move::Enter(_) | Move::AwaitContinue { .. } => panic!("in place, there is one stage"),
            }
        }
    }

    fn request_stop(&mut self, now: Timestamp) {
        let input = DeploymentInput::RequestStop(Stop::Request { rollback: None });
        if let Ok(stopping) = self.progress.next(input, now) {
            self.progress = stopping;
        }
    }

    fn is_stopping(&self) -> bool {
        matches!(self.progress, Progress::InProgress { stop: Some(_), .. })
    }

    fn count(&self, wanted: impl Fn(Standing) -> bool) -> usize {
        self.targets.iter().filter(|target| wanted(standing(target, &self.rules))).count()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn running(standing: Standing) -> bool {
    matches!(standing, Standing::Running(_)) || matches!(standing, Standing::Next(event) if event > 0)
}

/// What a host does with its command at one step of time.
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

fn act(event: &mut Event, deed: Deed, now: Timestamp) {
    let complete = |succeeded| EventInput::Complete { succeeded, diagnostics: Diagnostics::default() };
    let input = match deed {
        Deed::Nothing => return,
        Deed::Lease => EventInput::Lease { until: now + TIMERS.lease },
        Deed::Acknowledge => EventInput::Acknowledge,
        Deed::Succeed => complete(true),
        Deed::Fail => complete(false),
    };
    // What the state does not allow does not happen.
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
            let failed = deployment.count(|s| s == Standing::Failed);
            let in_progress = deployment.count(running);
            if !stopping {
                prop_assert!(failed + in_progress <= budget.unavailable, "healthy below the minimum");
                prop_assert!(in_progress <= budget.parallel);
            }
            if let Progress::Ended { ending, .. } = &deployment.progress {
                prop_assert_eq!(in_progress, 0, "ended with a command out");
                prop_assert_eq!(deployment.count(|s| s == Standing::Next(0)), 0);
                let succeeded = deployment.count(|s| s == Standing::Succeeded);
                match ending {
                    Ending::Succeeded => prop_assert!(succeeded >= 1 && succeeded + failed == targets),
                    Ending::Stopped(_) => prop_assert!(stopping),
                    Ending::Failed(_) => prop_assert!(succeeded == 0 || failed >= budget.unavailable),
                }
                return Ok(());
            }
            // The hosts act for a while, then they are silent; the timers must end it.
            match deeds.get(step as usize) {
                Some(deeds) => {
                    for (target, deed) in deployment.targets.iter_mut().zip(deeds) {
                        if let Some(event) = target.events.iter_mut().find(|event| event.state.ended().is_none()) {
                            act(event, *deed, now);
                        }
                    }
                    second += 1;
                }
                None => second += 10,
            }
            prop_assert!(second < 5200, "the deployment never ended");
        }
    }
}

#[test]
fn a_stop_withdraws_what_is_offered_and_waits_for_what_runs() {
    let mut deployment = Deployment::new(MinimumHealthy::FleetPercent(0), 3, false);
    deployment.decide(at(0));
    act(&mut deployment.targets[1].events[0], Deed::Lease, at(1));
    act(&mut deployment.targets[2].events[0], Deed::Lease, at(1));
    act(&mut deployment.targets[2].events[0], Deed::Acknowledge, at(1));
    deployment.request_stop(at(2));
    deployment.decide(at(2));
    let standings: Vec<_> = deployment.targets.iter().map(|t| standing(t, &deployment.rules)).collect();
    assert_eq!(standings, [Standing::Skipped, Standing::Skipped, Standing::Running(0)]);
    assert!(deployment.is_stopping());
    act(&mut deployment.targets[2].events[0], Deed::Succeed, at(3));
    deployment.decide(at(3));
    assert!(matches!(&deployment.progress, Progress::Ended { ending: Ending::Stopped(_), .. }));
    assert_eq!(standing(&deployment.targets[2], &deployment.rules), Standing::Skipped);
}

#[test]
fn a_deployment_that_takes_too_long_fails() {
    let mut deployment = Deployment::new(MinimumHealthy::FleetPercent(0), 1, false);
    deployment.decide(at(5000));
    assert!(matches!(&deployment.progress, Progress::Ended { ending: Ending::Failed(_), .. }));
}

fn traffic_goes_back(minimum_healthy: MinimumHealthy) -> Rules {
    let (course, ignore_application_stop_failures) = (Course::BlueGreenRollback, false);
    Rules { minimum_healthy, ignore_application_stop_failures, course, alarms: None }
}

#[test]
fn traffic_goes_back_to_a_fleet_that_is_smaller_than_the_minimum_for_the_other() {
    let progress = Progress::InProgress { started: at(0), stage: Stage::Allow, stop: None };
    let rules = traffic_goes_back(MinimumHealthy::HostCount(3));
    let count = |label, class, stage, targets| Count { label: Some(label), class, stage, targets };
    let green = count(TargetLabel::Green, Class::Waiting, Stage::Block, 4);
    for (succeeded, failed, goes_on) in [(2, 0, true), (1, 1, false), (0, 2, false), (0, 0, false)] {
        let blue = |class, targets| count(TargetLabel::Blue, class, Stage::Allow, targets);
        let counts = [blue(Class::Succeeded, succeeded), blue(Class::Failed, failed), green.clone()];
        let next = plan(&rules, &progress, &counts, &TIMERS, at(1));
        assert!(matches!(next, Move::Enter(Stage::Block)) == goes_on, "{succeeded} {failed} {next:?}");
        assert!(matches!(next, Move::Stop(Stop::Failure(_))) != goes_on, "{succeeded} {failed} {next:?}");
    }
}

#[test]
fn a_replacement_loses_its_traffic_in_a_rollback_whatever_its_scripts_say() {
    let rules = traffic_goes_back(MinimumHealthy::OneAtATime);
    let mut green = TargetState::new(&rules, Some(TargetLabel::Green));
    assert_eq!(green.begin(&rules, at(0)), Ok(Some(0)));
    act(&mut green.events[0], Deed::Fail, at(1));
    assert_eq!(green.settle(&rules, false, &TIMERS, at(1)), Ok(Some(1)), "BlockTraffic comes next");
    act(&mut green.events[1], Deed::Succeed, at(2));
    assert_eq!(green.settle(&rules, false, &TIMERS, at(2)), Ok(Some(2)));
    // Its host is silent.
    assert_eq!(green.settle(&rules, false, &TIMERS, at(1000)), Ok(None));
    assert_eq!(standing(&green, &rules), Standing::Succeeded);
}
