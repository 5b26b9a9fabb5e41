//! Every pair of state and input, and that states on disk read back.

use codedeploy_api::codedeploy::{Diagnostics, ErrorInformation, Timestamp};
use codedeploy_planner::deployment_state::{DeploymentInput, DeploymentState, Ending, Stage, Stop};
use codedeploy_planner::event_state::{EventInput, EventState};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn event_states() -> Vec<EventState> {
    let diagnostics = Diagnostics::default();
    vec![
        EventState::Pending,
        EventState::Queued { since: at(1) },
        EventState::Leased {
            queued: at(1),
            started: at(2),
            until: at(10),
        },
        EventState::Acknowledged {
            started: at(2),
            since: at(3),
        },
        EventState::Succeeded {
            started: at(2),
            ended: at(4),
            diagnostics: diagnostics.clone(),
        },
        EventState::Failed {
            started: None,
            ended: at(4),
            diagnostics,
        },
        EventState::Skipped { ended: at(4) },
    ]
}

fn event_inputs() -> Vec<EventInput> {
    let diagnostics = Diagnostics::default();
    vec![
        EventInput::Issue,
        EventInput::Lease { until: at(30) },
        EventInput::Acknowledge,
        EventInput::Complete {
            succeeded: true,
            diagnostics: diagnostics.clone(),
        },
        EventInput::Complete {
            succeeded: false,
            diagnostics: diagnostics.clone(),
        },
        EventInput::Expire { diagnostics },
        EventInput::Skip,
    ]
}

/// Rows: states; columns: inputs, in the orders above. `-` is illegal.
#[test]
fn every_pair_of_event_state_and_input() {
    let expected = [
        "Queued - - - - - Skipped",
        "- Leased Acknowledged Succeeded Failed Failed Skipped",
        "- - Acknowledged Succeeded Failed Failed Skipped",
        "- - Acknowledged Succeeded Failed Failed -",
        "- - - - - - -",
        "- - - - - - -",
        "- - - - - - -",
    ];
    for (state, row) in event_states().iter().zip(expected) {
        let found: Vec<_> = event_inputs()
            .into_iter()
            .map(|input| state.next(input, at(9)).map_or("-", |next| next.name()))
            .collect();
        assert_eq!(found.join(" "), row, "from {}", state.name());
    }
}

#[test]
fn an_expired_lease_is_given_again_and_keeps_the_first_start() {
    let leased = EventState::Leased {
        queued: at(1),
        started: at(2),
        until: at(10),
    };
    assert_eq!(
        leased.next(EventInput::Lease { until: at(70) }, at(10)),
        Ok(EventState::Leased {
            queued: at(1),
            started: at(2),
            until: at(70)
        })
    );
}

#[test]
fn every_pair_of_progress_and_input() {
    let error = ErrorInformation::default();
    let started = at(1);
    let ended = |retire_at| DeploymentState::Ended {
        started: None,
        completed: at(2),
        ending: Ending::Succeeded,
        retire_at,
    };
    let states = [
        DeploymentState::Created,
        DeploymentState::InProgress {
            started,
            stage: Stage::Deploy,
            stop: None,
        },
        DeploymentState::InProgress {
            started,
            stage: Stage::Deploy,
            stop: Some(Stop::Request { rollback: None }),
        },
        DeploymentState::Ready {
            started,
            until: at(9),
        },
        ended(None),
        ended(Some(at(9))),
    ];
    let end = |ending| DeploymentInput::End {
        ending,
        retire_at: None,
    };
    let inputs = || {
        [
            DeploymentInput::Start(Stage::Deploy),
            DeploymentInput::RequestStop(Stop::Alarm {
                message: "too hot".into(),
            }),
            DeploymentInput::AwaitContinue { until: at(20) },
            DeploymentInput::Enter(Stage::Allow),
            end(Ending::Succeeded),
            end(Ending::Failed(error.clone())),
            end(Ending::Stopped(error.clone())),
            DeploymentInput::Retire,
        ]
    };
    let expected = [
        "InProgress - - - - Failed Stopped -",
        "- InProgress Ready InProgress Succeeded Failed Stopped -",
        "- InProgress - - Succeeded Failed Stopped -",
        "- InProgress - InProgress Succeeded Failed Stopped -",
        "- - - - - - - Succeeded",
        "- - - - - - - Succeeded",
    ];
    for (state, row) in states.iter().zip(expected) {
        let found: Vec<_> = inputs()
            .into_iter()
            .map(|input| {
                let next = state.next(input, at(9));
                next.map_or("-".to_owned(), |next| next.status().to_string())
            })
            .collect();
        assert_eq!(found.join(" "), row, "from {state:?}");
    }
}

#[test]
fn states_on_disk_read_back() {
    for state in event_states() {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(
            serde_json::from_str::<EventState>(&text).unwrap(),
            state,
            "{text}"
        );
    }
}

#[test]
fn the_first_reason_to_end_counts() {
    let reasons = [
        Stop::Request {
            rollback: Some(true),
        },
        Stop::Alarm {
            message: "too hot".into(),
        },
        Stop::Failure(ErrorInformation::default()),
        Stop::NotContinued,
    ];
    let running = DeploymentState::InProgress {
        started: at(1),
        stage: Stage::Allow,
        stop: None,
    };
    for first in &reasons {
        let ending = running
            .next(DeploymentInput::RequestStop(first.clone()), at(2))
            .unwrap();
        for second in &reasons {
            assert_eq!(
                ending
                    .next(DeploymentInput::RequestStop(second.clone()), at(3))
                    .unwrap(),
                ending
            );
        }
        let text = serde_json::to_string(&ending).unwrap();
        assert_eq!(
            serde_json::from_str::<DeploymentState>(&text).unwrap(),
            ending,
            "{text}"
        );
    }
}
