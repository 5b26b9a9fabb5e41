//! What the scheduling decision promises, whatever hosts do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use codedeploy_api::codedeploy::{Diagnostics, Timestamp};
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_controller::config::Timers;
use codedeploy_controller::deployment::MinimumHealthy;
use codedeploy_controller::deployment::plan::{
    Action, DeploymentState, Event, Rules, Standing, TargetState, plan, standing,
};
use codedeploy_controller::deployment::state::{DeploymentInput, Ending, EventInput, EventState, Progress};
use proptest::prelude::*;

const TIMERS: Timers = Timers {
    poll: Duration::from_secs(1),
    request: Duration::from_secs(30),
    lease: Duration::from_secs(10),
    pick_up: Duration::from_secs(50),
    run: Duration::from_secs(100),
    deployment: Duration::from_secs(5000),
};

fn deployment(minimum_healthy: MinimumHealthy, targets: usize, ignore: bool) -> DeploymentState {
    let names = [LifecycleEvent::ApplicationStop, LifecycleEvent::Install, LifecycleEvent::ValidateService];
    let event = |name: &LifecycleEvent| Event { name: name.clone(), state: EventState::Pending };
    DeploymentState {
        rules: Rules { minimum_healthy, ignore_application_stop_failures: ignore },
        progress: Progress::InProgress { started: at(0), stop_requested: None },
        targets: vec![TargetState { events: names.iter().map(event).collect() }; targets],
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
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

fn count(state: &DeploymentState, wanted: impl Fn(Standing) -> bool) -> usize {
    state.targets.iter().filter(|target| wanted(standing(target, &state.rules))).count()
}

fn running(standing: Standing) -> bool {
    matches!(standing, Standing::Running(_) | Standing::Next(_))
}

proptest! {
    #[test]
    fn whatever_hosts_do(
        minimum in minimum(),
        targets in 1..12usize,
        ignore: bool,
        deeds in prop::collection::vec(prop::collection::vec(deed(), 12), 40),
        stop_at in prop::option::of(0..30i64),
    ) {
        let Ok(budget) = minimum.budget(targets) else { return Ok(()); };
        let mut state = deployment(minimum, targets, ignore);
        let mut second = 0;
        for step in 0.. {
            let now = at(second);
            if stop_at == Some(step)
                && let Ok(stopping) = state.progress.next(DeploymentInput::RequestStop, now)
            {
                state.progress = stopping;
            }
            let stopping = matches!(state.progress, Progress::InProgress { stop_requested: Some(_), .. });
            let decision = plan(&state, &TIMERS, now);
            for action in &decision.actions {
                let issues = matches!(action, Action::Issue { .. });
                prop_assert!(!(stopping && issues), "a command after the stop");
                prop_assert!(state.apply(action, now).is_ok(), "{action:?} does not fit");
            }
            prop_assert_eq!(&plan(&state, &TIMERS, now).actions, &vec![], "a decision leaves nothing to decide");
            let failed = count(&state, |s| s == Standing::Failed);
            let in_progress = count(&state, running);
            if !stopping {
                prop_assert!(failed + in_progress <= budget.unavailable, "healthy below the minimum");
                prop_assert!(in_progress <= budget.parallel);
            }
            if let Progress::Ended { ending, .. } = &state.progress {
                prop_assert_eq!(in_progress, 0, "ended with a command out");
                prop_assert_eq!(count(&state, |s| s == Standing::NotAttempted), 0);
                let succeeded = count(&state, |s| s == Standing::Succeeded);
                match ending {
                    Ending::Succeeded => prop_assert!(succeeded >= 1 && succeeded + failed == targets),
                    Ending::Stopped(_) => prop_assert!(stopping),
                    Ending::Failed(_) => prop_assert!(succeeded == 0 || failed >= budget.unavailable),
                }
                return Ok(());
            }
            prop_assert!(decision.again_at.is_some() || stopping, "nothing would wake it");
            // The hosts act for a while, then they are silent; the timers must end it.
            match deeds.get(step as usize) {
                Some(deeds) => {
                    for (target, deed) in state.targets.iter_mut().zip(deeds) {
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
    let mut state = deployment(MinimumHealthy::FleetPercent(0), 3, false);
    for action in plan(&state, &TIMERS, at(0)).actions {
        state.apply(&action, at(0)).unwrap();
    }
    act(&mut state.targets[1].events[0], Deed::Lease, at(1));
    act(&mut state.targets[2].events[0], Deed::Lease, at(1));
    act(&mut state.targets[2].events[0], Deed::Acknowledge, at(1));
    state.progress = state.progress.next(DeploymentInput::RequestStop, at(2)).unwrap();
    let decision = plan(&state, &TIMERS, at(2));
    assert_eq!(decision.actions, [Action::SkipRest { target: 0 }, Action::SkipRest { target: 1 }]);
    assert_eq!(decision.again_at, Some(at(101)));
}

#[test]
fn a_deployment_that_takes_too_long_fails() {
    let state = deployment(MinimumHealthy::FleetPercent(0), 1, false);
    let decision = plan(&state, &TIMERS, at(5000));
    assert!(matches!(decision.actions.last(), Some(Action::End(Ending::Failed(_)))));
}
