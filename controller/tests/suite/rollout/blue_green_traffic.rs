//! Blue/green deployments and their rollback: who gets traffic, who loses it, and the group's
//! records.

use std::time::Duration;

use codedeploy_api::codedeploy::ErrorCode;
use serde_json::json;

use crate::support::fleet::{Conduct, Fleet, key, reroutes};

const MINUTE: Duration = Duration::from_secs(60);

/// Begins a deployment to green and stops it when `moment` has been performed, so that it is rolled
/// back.
fn stop_after(fleet: &mut Fleet, moment: &str) -> String {
    let (host, _) = moment.split_once(' ').unwrap();
    let id = fleet.create_to("green", "new.zip");
    fleet.let_host(host, Conduct::Holds);
    fleet.settle();
    assert!(
        fleet.performed().contains(&moment.to_owned()),
        "{moment} comes"
    );
    fleet.stop(&id);
    fleet.let_host(host, Conduct::Good);
    id
}

fn events_of<'a>(performed: &'a [String], host: &str) -> Vec<&'a str> {
    performed
        .iter()
        .filter_map(|line| line.strip_prefix(&format!("{host} ")))
        .collect()
}

#[test]
fn a_rollback_takes_traffic_from_green_hosts_that_had_it_though_their_agents_are_dead() {
    let mut fleet = Fleet::blue_green(1, 3, json!({}));
    fleet.let_host("green3", Conduct::Fails("Install"));
    let id = stop_after(&mut fleet, "blue1 BeforeBlockTraffic");
    // Since then, an agent has died.
    fleet.let_host("green1", Conduct::Silent);
    fleet.finish();
    let rollback = fleet.rollback(&id).unwrap();
    let performed = fleet.performed();
    assert_eq!(events_of(&performed, "green1"), ["BlockTraffic"]);
    assert_eq!(
        events_of(&performed, "green2"),
        ["BeforeBlockTraffic", "BlockTraffic", "AfterBlockTraffic"]
    );
    assert_eq!(
        events_of(&performed, "green3"),
        [""; 0],
        "it never had traffic"
    );
    assert_eq!(fleet.targets(&rollback, &["Green"]), ["green1", "green2"]);
    assert_eq!(fleet.targets(&rollback, &["Blue"]), ["blue1"]);
    assert_eq!(fleet.status(&rollback), "Succeeded");
}

#[test]
fn green_hosts_keep_their_traffic_when_no_blue_host_takes_it_back() {
    let mut fleet = Fleet::blue_green(1, 1, json!({}));
    let id = stop_after(&mut fleet, "blue1 BeforeBlockTraffic");
    fleet.finish();
    let rollback = fleet.rollback(&id).unwrap();
    assert_eq!(fleet.status(&rollback), "Succeeded");

    let id = stop_after(&mut fleet, "blue1 BeforeBlockTraffic");
    fleet.let_host("blue1", Conduct::Fails("BeforeAllowTraffic"));
    fleet.finish();
    let rollback = fleet.rollback(&id).unwrap();
    assert_eq!(fleet.status(&rollback), "Failed");
    assert_eq!(events_of(&fleet.performed(), "green1"), [""; 0]);
}

#[test]
fn nothing_is_rolled_back_while_no_green_host_was_given_traffic() {
    let mut fleet = Fleet::blue_green(1, 2, json!({}));
    fleet.let_host("green1", Conduct::Fails("BeforeAllowTraffic"));
    fleet.let_host("green2", Conduct::Fails("BeforeAllowTraffic"));
    let id = fleet.create_to("green", "new.zip");
    fleet.finish();
    assert_eq!(fleet.status(&id), "Failed");
    assert_eq!(fleet.rollback(&id), None);
    assert!(
        fleet
            .rollback_message(&id)
            .contains("have kept their traffic")
    );
}

#[test]
fn a_rollback_goes_back_to_a_fleet_smaller_than_the_minimum_of_healthy_hosts() {
    for (minimum, blue, green) in [
        (json!({"type": "FLEET_PERCENT", "value": 50}), 1, 2),
        (json!({"type": "HOST_COUNT", "value": 3}), 2, 5),
    ] {
        let mut fleet = Fleet::blue_green(blue, green, json!({}));
        fleet.configure("own", minimum.clone());
        fleet.update(json!({"deploymentConfigName": "own"}));
        let id = stop_after(&mut fleet, "blue1 BeforeBlockTraffic");
        fleet.finish();
        let rollback = fleet.rollback(&id).unwrap();
        assert_eq!(fleet.status(&rollback), "Succeeded", "{minimum}");
        let blocked = fleet
            .performed()
            .iter()
            .filter(|line| line.starts_with("green"))
            .count();
        assert_eq!(blocked, 3 * green, "{minimum}");
    }
}

#[test]
fn original_instances_that_serve_again_are_not_deregistered() {
    let mut fleet = Fleet::blue_green(
        2,
        2,
        json!({"blueGreenDeploymentConfiguration": reroutes("TERMINATE")}),
    );
    fleet.enroll("blue3", "blue");
    let there = fleet.create_to("green", "r1.zip");
    fleet.settle();
    assert_eq!(fleet.status(&there), "Succeeded");
    // Back to the original instances, except for one that is no longer needed.
    fleet.serve_from("green");
    fleet.pass(10 * MINUTE);
    let named = |name: &str| json!({"Key": "name", "Value": name, "Type": "KEY_AND_VALUE"});
    let two = json!({"tagFilters": [named("blue1"), named("blue2")]});
    let back = fleet.create("r1.zip", json!({"targetInstances": two}));
    fleet.settle();
    assert_eq!(fleet.status(&back), "Succeeded");
    // The termination wait of the first deployment's original instances ends.
    fleet.pass(51 * MINUTE);
    fleet.settle();
    assert!(fleet.is_registered("blue1") && fleet.is_registered("blue2"));
    assert!(!fleet.is_registered("blue3"));
    assert!(fleet.is_registered("green1"), "its time has not come");
    fleet.pass(10 * MINUTE);
    fleet.settle();
    assert!(!fleet.is_registered("green1") && !fleet.is_registered("green2"));
    assert!(fleet.is_registered("blue1") && fleet.is_registered("blue2"));
}

#[test]
fn original_instances_are_deregistered_though_the_next_deployment_goes_on_to_a_third_fleet() {
    let mut fleet = Fleet::blue_green(
        1,
        1,
        json!({"blueGreenDeploymentConfiguration": reroutes("TERMINATE")}),
    );
    fleet.enroll("red1", "red");
    let first = fleet.create_to("green", "r1.zip");
    fleet.settle();
    assert_eq!(fleet.status(&first), "Succeeded");
    fleet.serve_from("green");
    let second = fleet.create_to("red", "r2.zip");
    fleet.settle();
    assert_eq!(fleet.status(&second), "Succeeded");
    fleet.proceed(&first, "TERMINATION_WAIT").unwrap();
    assert!(!fleet.is_registered("blue1"));
    assert!(fleet.is_registered("green1") && fleet.is_registered("red1"));
}

#[test]
fn green_hosts_that_have_the_revision_get_traffic_without_another_install() {
    let outdated_only = |key: &str, fleet: &mut Fleet| {
        let filter = json!([{"Key": "fleet", "Value": "green", "Type": "KEY_AND_VALUE"}]);
        fleet.create(
            key,
            json!({"targetInstances": {"tagFilters": filter}, "updateOutdatedInstancesOnly": true}),
        )
    };
    let mut fleet = Fleet::blue_green(1, 2, json!({}));
    let first = outdated_only("r1.zip", &mut fleet);
    fleet.settle();
    assert_eq!(fleet.status(&first), "Succeeded");
    assert_eq!(events_of(&fleet.performed(), "green1").len(), 10);

    fleet.enroll("green3", "green");
    let second = outdated_only("r1.zip", &mut fleet);
    fleet.settle();
    assert_eq!(fleet.status(&second), "Succeeded");
    let performed = fleet.performed();
    let allow = ["BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic"];
    assert_eq!(events_of(&performed, "green1"), allow);
    assert_eq!(events_of(&performed, "green2"), allow);
    assert_eq!(events_of(&performed, "green3").len(), 10);
    assert_eq!(events_of(&performed, "blue1").len(), 3);

    let third = outdated_only("r1.zip", &mut fleet);
    fleet.settle();
    assert_eq!(fleet.status(&third), "Succeeded");
    let performed = fleet.performed();
    for green in ["green1", "green2", "green3"] {
        assert_eq!(events_of(&performed, green), allow);
    }
    assert_eq!(events_of(&performed, "blue1").len(), 3);
}

#[test]
fn the_rollback_of_a_first_deployment_leaves_the_group_without_a_revision() {
    let mut fleet = Fleet::blue_green(1, 1, json!({}));
    let id = stop_after(&mut fleet, "blue1 BeforeBlockTraffic");
    fleet.finish();
    let rollback = fleet.rollback(&id).unwrap();
    assert_eq!(fleet.status(&rollback), "Succeeded");
    let group = fleet.group();
    assert_eq!(group.last_successful_deployment, None);
    assert_eq!(key(group.target_revision.as_ref()), None);
    let id = fleet.create_to("green", "next.zip");
    assert_eq!(fleet.info(&id).previous_revision, None);
    fleet.finish();
    assert_eq!(fleet.status(&id), "Succeeded");

    // After an earlier success, the rollback deploys that revision.
    let failed = stop_after(&mut fleet, "blue1 BeforeBlockTraffic");
    fleet.finish();
    let rollback = fleet.rollback(&failed).unwrap();
    let group = fleet.group();
    assert_eq!(
        group.last_successful_deployment.unwrap().deployment_id,
        Some(rollback.clone())
    );
    assert_eq!(key(group.target_revision.as_ref()), Some("next.zip"));
    assert_eq!(
        key(fleet.info(&rollback).revision.as_ref()),
        Some("next.zip")
    );
}

#[test]
fn a_wait_that_ran_out_ends_the_deployment_in_whatever_steps_it_takes() {
    let mut waits = reroutes("KEEP_ALIVE");
    waits["deploymentReadyOption"] =
        json!({"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 5});
    // More hosts than one transaction handles.
    let mut fleet = Fleet::blue_green(300, 1, json!({"blueGreenDeploymentConfiguration": waits}));
    let id = fleet.create_to("green", "r1.zip");
    fleet.settle();
    assert_eq!(fleet.status(&id), "Ready");
    fleet.pass(5 * MINUTE);
    assert!(fleet.decide());
    assert_ne!(fleet.status(&id), "Stopped", "there is more to do");
    let refused = fleet.proceed(&id, "READY_WAIT").unwrap_err();
    assert_eq!(
        refused.name.to_string(),
        "DeploymentIsNotInReadyStateException"
    );
    fleet.settle();
    assert_eq!(
        (fleet.status(&id).as_str(), fleet.error(&id)),
        ("Stopped", Some(ErrorCode::Timeout))
    );
    assert_eq!(fleet.rollback(&id), None);
}
