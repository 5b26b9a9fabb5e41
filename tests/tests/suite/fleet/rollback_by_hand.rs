//! A deployment that an operator takes back on a host: the controller hears of it, and the host is
//! outdated.

use aws_sdk_codedeploy::types::RevisionLocation;
use codedeploy_tests::fleet::{APPLICATION, Fleet, GROUP};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::scripts::{Scripted, hold};
use codedeploy_tests::wait;

async fn revision(fleet: &Fleet, name: &str) -> RevisionLocation {
    Scripted::new(name).push(fleet).await
}

async fn succeeds(fleet: &Fleet, id: &str) {
    let deployed = fleet.outcome(id).await;
    assert_eq!(deployed.status(), "Succeeded", "{:#?}", deployed.events);
}

/// Takes the last deployment back on `box1`, and waits until the controller has heard of it.
async fn take_back_on_box1(fleet: &Fleet, id: &str) {
    let host = &fleet.hosts[0];
    let configuration = host
        .folder
        .join("codedeployagent.yml")
        .display()
        .to_string();
    let words = [
        "rollback",
        "--deployment-group",
        GROUP,
        "--config-file",
        &configuration,
    ];
    let output = Programs::built().agent.output(words).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    wait::until("the controller knows of the rollback", async || {
        let log = std::fs::read_to_string(fleet.service.log()).unwrap();
        let heard = |line: &str| line.contains("this host was rolled back") && line.contains(id);
        if log.lines().any(heard) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

/// The hosts that a deployment of a revision to the outdated ones has.
async fn outdated(fleet: &Fleet, revision: &RevisionLocation) -> Vec<String> {
    let client = &fleet.service.client;
    let created = client
        .create_deployment()
        .application_name(APPLICATION)
        .deployment_group_name(GROUP);
    let created = created
        .revision(revision.clone())
        .update_outdated_instances_only(true)
        .send()
        .await
        .unwrap();
    let id = created.deployment_id.unwrap();
    wait::until("the deployment ends", async || {
        let info = fleet.service.deployment(&id).await;
        if info
            .status
            .as_ref()
            .is_some_and(|status| status.as_str() == "Succeeded")
        {
            Ok(())
        } else {
            Err(info)
        }
    })
    .await;
    client
        .list_deployment_targets()
        .deployment_id(&id)
        .send()
        .await
        .unwrap()
        .target_ids
        .unwrap_or_default()
}

#[tokio::test]
async fn a_host_whose_deployment_was_taken_back_is_outdated_and_gets_it_again() {
    let fleet = Fleet::start(2, "").await;
    let [one, two] = [revision(&fleet, "one").await, revision(&fleet, "two").await];
    succeeds(&fleet, &fleet.create(one).await).await;
    let id = fleet.create(two.clone()).await;
    succeeds(&fleet, &id).await;
    take_back_on_box1(&fleet, &id).await;
    assert_eq!(outdated(&fleet, &two).await, ["box1"]);
    assert_eq!(outdated(&fleet, &two).await, [""; 0]);
    fleet.stop().await;
}

#[tokio::test]
async fn a_host_stays_outdated_when_its_deployment_was_taken_back_before_it_ended_elsewhere() {
    let fleet = Fleet::start(2, "").await;
    let [one, two] = [revision(&fleet, "one").await, revision(&fleet, "two").await];
    succeeds(&fleet, &fleet.create(one).await).await;
    let held = hold(&fleet.hosts[1], "two.ValidateService");
    let id = fleet.create(two.clone()).await;
    held.runs(&id).await;
    wait::until("box1 is done", async || {
        let events = fleet.service.events(&id, "box1").await;
        if events.iter().any(|event| event.name == "ValidateService") {
            Ok(())
        } else {
            Err(events)
        }
    })
    .await;
    take_back_on_box1(&fleet, &id).await;
    drop(held);
    succeeds(&fleet, &id).await;
    assert_eq!(outdated(&fleet, &two).await, ["box1"]);
    fleet.stop().await;
}
