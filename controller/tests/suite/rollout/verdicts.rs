//! The endings of deployments in place, their effect on the group's history, and their rollbacks.

use std::time::Duration;

use codedeploy_api::codedeploy::ErrorCode;
use serde_json::json;

use crate::support::fleet::{Conduct, Fleet};

const ROLLS_BACK: [&str; 2] = ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_REQUEST"];

fn in_place(hosts: usize, rolls_back_on: &[&str]) -> Fleet {
    let rolls_back = json!({"enabled": !rolls_back_on.is_empty(), "events": rolls_back_on});
    let mut fleet = Fleet::new(json!({"autoRollbackConfiguration": rolls_back}));
    for number in 1..=hosts {
        fleet.enroll(&format!("box{number}"), "blue");
    }
    fleet
}

fn update_outdated(fleet: &mut Fleet, key: &str) -> Vec<String> {
    let id = fleet.create(key, json!({"updateOutdatedInstancesOnly": true}));
    fleet.finish();
    assert_eq!(fleet.status(&id), "Succeeded");
    fleet.targets(&id, &[])
}

#[test]
fn a_host_that_was_registered_anew_is_outdated() {
    let mut fleet = in_place(2, &[]);
    fleet.deploy("r1.zip");
    assert_eq!(update_outdated(&mut fleet, "r1.zip"), [""; 0]);
    fleet.deregister("box1");
    fleet.enroll("box1", "blue");
    assert_eq!(update_outdated(&mut fleet, "r1.zip"), ["box1"]);
}

#[test]
fn a_host_whose_last_deployment_failed_is_outdated() {
    let mut fleet = in_place(2, &[]);
    fleet.deploy("r1.zip");
    // box1 keeps r1 while the group continues.
    fleet.let_host("box1", Conduct::Fails("BeforeInstall"));
    fleet.deploy("r2.zip");
    // In addition, half of r3 is installed.
    fleet.let_host("box1", Conduct::Fails("AfterInstall"));
    fleet.deploy("r3.zip");
    fleet.let_host("box1", Conduct::Good);
    assert_eq!(update_outdated(&mut fleet, "r1.zip"), ["box1", "box2"]);
    assert_eq!(update_outdated(&mut fleet, "r1.zip"), [""; 0]);
}

#[test]
fn a_host_whose_deployment_was_taken_back_by_hand_has_the_revision_of_before() {
    for ends_first in [true, false] {
        let mut fleet = in_place(2, &[]);
        let first = fleet.deploy("r1.zip").deployment_id.unwrap();
        fleet.pass(Duration::from_secs(1));
        fleet.let_host(
            "box2",
            if ends_first {
                Conduct::Good
            } else {
                Conduct::Holds
            },
        );
        let second = fleet.create("r2.zip", json!({}));
        fleet.settle();
        assert_eq!(fleet.status(&second) == "Succeeded", ends_first);
        fleet.take_back("box1", &second, Some(&first));
        fleet.let_host("box2", Conduct::Good);
        fleet.finish();
        assert_eq!(fleet.status(&second), "Succeeded");
        fleet.pass(Duration::from_secs(1));
        assert_eq!(
            update_outdated(&mut fleet, "r2.zip"),
            ["box1"],
            "{ends_first}"
        );
        fleet.pass(Duration::from_secs(1));
        assert_eq!(
            update_outdated(&mut fleet, "r2.zip"),
            [""; 0],
            "{ends_first}"
        );
        assert_eq!(
            update_outdated(&mut fleet, "r1.zip"),
            ["box1", "box2"],
            "{ends_first}"
        );
    }
}

#[test]
fn a_host_whose_first_deployment_was_taken_back_by_hand_is_outdated() {
    for ends_first in [true, false] {
        let mut fleet = in_place(2, &[]);
        fleet.let_host(
            "box2",
            if ends_first {
                Conduct::Good
            } else {
                Conduct::Holds
            },
        );
        let id = fleet.create("r1.zip", json!({}));
        fleet.settle();
        fleet.take_back("box1", &id, None);
        fleet.let_host("box2", Conduct::Good);
        fleet.finish();
        fleet.pass(Duration::from_secs(1));
        assert_eq!(
            update_outdated(&mut fleet, "r1.zip"),
            ["box1"],
            "{ends_first}"
        );
    }
}

#[test]
fn a_stop_does_not_replace_the_verdict_of_a_deployment_that_ran_out_of_time() {
    let mut fleet = in_place(1, &["DEPLOYMENT_FAILURE"]);
    fleet.deploy("good.zip");
    fleet.let_host("box1", Conduct::Holds);
    let id = fleet.create("slow.zip", json!({}));
    for _ in 0..6 {
        fleet.settle();
        fleet.pass(Duration::from_secs(4150));
        fleet.complete("box1");
    }
    fleet.settle();
    fleet.pass(Duration::from_secs(3900));
    fleet.settle();
    assert_eq!(fleet.status(&id), "InProgress", "a command runs");
    fleet.stop(&id);
    fleet.let_host("box1", Conduct::Good);
    fleet.finish();
    assert_eq!(
        (fleet.status(&id).as_str(), fleet.error(&id)),
        ("Failed", Some(ErrorCode::Timeout))
    );
    assert!(fleet.rollback(&id).is_some());
}

#[test]
fn a_stop_does_not_replace_the_verdict_of_a_deployment_that_failed() {
    let mut fleet = in_place(1, &["DEPLOYMENT_FAILURE"]);
    fleet.deploy("good.zip");
    fleet.update(json!({"deploymentConfigName": "CodeDeployDefault.OneAtATime"}));
    // More hosts than one transaction skips; the first fails.
    for number in 100..400 {
        fleet.enroll(&format!("box{number}"), "blue");
    }
    fleet.let_host("box100", Conduct::Fails("ApplicationStop"));
    let id = fleet.create("bad.zip", json!({}));
    fleet.decide();
    fleet.hosts_act();
    fleet.decide();
    assert_eq!(fleet.status(&id), "InProgress", "there is more to cut off");
    fleet.stop(&id);
    while fleet.status(&id) == "InProgress" {
        fleet.decide();
    }
    assert_eq!(
        (fleet.status(&id).as_str(), fleet.error(&id)),
        ("Failed", Some(ErrorCode::HealthConstraints))
    );
    assert!(fleet.rollback(&id).is_some());
}

#[test]
fn what_touched_no_host_is_not_rolled_back() {
    let mut fleet = in_place(2, &ROLLS_BACK);
    fleet.deploy("good.zip");
    fleet.configure("all", json!({"type": "HOST_COUNT", "value": 2}));

    // Stopped before its targets are known.
    let created = fleet.create("new.zip", json!({}));
    fleet.stop(&created);
    // Stopped before any host takes a command.
    for name in ["box1", "box2"] {
        fleet.let_host(name, Conduct::Silent);
    }
    let offered = fleet.create("new.zip", json!({}));
    fleet.settle();
    fleet.stop(&offered);
    // A minimum that leaves no host.
    let invalid = fleet.create("new.zip", json!({"deploymentConfigName": "all"}));
    fleet.settle();
    assert_eq!(
        fleet.error(&invalid),
        Some(ErrorCode::HealthConstraintsInvalid)
    );
    // A group without hosts.
    fleet.serve_from("nowhere");
    let empty = fleet.create("new.zip", json!({}));
    fleet.settle();
    assert_eq!(fleet.error(&empty), Some(ErrorCode::NoInstances));

    for id in [created, offered, invalid, empty] {
        assert_eq!(fleet.rollback(&id), None);
        assert!(
            fleet
                .rollback_message(&id)
                .contains("was not begun on any instance"),
            "{}",
            fleet.rollback_message(&id)
        );
    }
}

#[test]
fn what_one_host_began_is_rolled_back() {
    let mut fleet = in_place(2, &ROLLS_BACK);
    fleet.deploy("good.zip");
    fleet.let_host("box1", Conduct::Silent);
    fleet.let_host("box2", Conduct::Holds);
    let id = fleet.create("new.zip", json!({}));
    fleet.settle();
    fleet.stop(&id);
    for name in ["box1", "box2"] {
        fleet.let_host(name, Conduct::Good);
    }
    fleet.finish();
    let rollback = fleet.rollback(&id).unwrap();
    assert_eq!(fleet.status(&rollback), "Succeeded");
    assert_eq!(fleet.targets(&rollback, &[]).len(), 2);
}
