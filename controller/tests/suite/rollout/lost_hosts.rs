//! Hosts that are lost for good during a deployment: they are deregistered, and nobody waits for
//! them.

use aws_sdk_codedeploy::types::{DeploymentStatus, InstanceTarget, TargetStatus};

use crate::support::{Controller, QUICK, shop};

const ONE_AT_A_TIME: &str = "CodeDeployDefault.OneAtATime";

/// The target's first failed event: its name, its error and its message.
fn failure(target: &InstanceTarget) -> (String, String, String) {
    let failed = target.lifecycle_events().iter().find_map(|event| {
        let diagnostics = event
            .diagnostics()
            .filter(|_| event.status().unwrap().as_str() == "Failed")?;
        let code = diagnostics.error_code()?.as_str().to_owned();
        Some((
            event.lifecycle_event_name()?.to_owned(),
            code,
            diagnostics.message()?.to_owned(),
        ))
    });
    failed.unwrap()
}

#[tokio::test]
async fn a_host_that_is_removed_while_it_runs_a_hook_fails_at_once_and_its_group_is_free() {
    let controller = Controller::start(QUICK);
    let agent = controller.host("box1", &["env=prod"]);
    let client = controller.client("operator");
    shop::open(&client, ONE_AT_A_TIME).await;
    let id = shop::deploy(&client, "app.zip").await;
    let held = agent.poll().await.unwrap();
    agent.acknowledge(&held).await;
    client
        .stop_deployment()
        .deployment_id(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(
        shop::info(&client, &id).await.status(),
        Some(&DeploymentStatus::InProgress)
    );
    assert!(
        controller
            .admin(&["host", "remove", "box1"])
            .status
            .success()
    );
    let ended = shop::ended(&client, &id).await;
    assert_eq!(ended.status(), Some(&DeploymentStatus::Stopped));
    let target = shop::target(&client, &id, "box1").await;
    assert_eq!(target.status(), Some(&TargetStatus::Failed));
    let (event, code, message) = failure(&target);
    assert_eq!(
        (event.as_str(), code.as_str()),
        ("ApplicationStop", "UnknownError")
    );
    assert!(message.contains("deregistered"), "{message}");
    shop::deploy(&client, "next.zip").await;
}

#[tokio::test]
async fn a_deployment_goes_on_without_a_host_that_is_deregistered() {
    let controller = Controller::start(QUICK);
    let [lost, good] = ["box1", "box2"].map(|name| controller.host(name, &["env=prod"]));
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    let id = shop::deploy(&client, "app.zip").await;
    lost.run_to("BeforeInstall").await;
    good.run_to("ValidateService").await;
    client
        .deregister_on_premises_instance()
        .instance_name("box1")
        .send()
        .await
        .unwrap();
    let ended = shop::ended(&client, &id).await;
    assert_eq!(ended.status(), Some(&DeploymentStatus::Succeeded));
    let (event, code, message) = failure(&shop::target(&client, &id, "box1").await);
    assert_eq!((event.as_str(), code.as_str()), ("Install", "UnknownError"));
    assert!(message.contains("deregistered"), "{message}");
}

#[tokio::test]
async fn a_host_that_is_gone_before_its_turn_fails_when_its_turn_comes() {
    let controller = Controller::start(QUICK);
    let agents = ["box1", "box2"].map(|name| controller.host(name, &["env=prod"]));
    let client = controller.client("operator");
    shop::open(&client, ONE_AT_A_TIME).await;
    let id = shop::deploy(&client, "app.zip").await;
    let first = agents[0].poll().await.unwrap();
    assert!(
        controller
            .admin(&["host", "remove", "box2"])
            .status
            .success()
    );
    agents[0].acknowledge(&first).await;
    agents[0].succeed(&first).await;
    agents[0].run_to("ValidateService").await;
    // OneAtATime ignores that the last host fails.
    let ended = shop::ended(&client, &id).await;
    assert_eq!(ended.status(), Some(&DeploymentStatus::Succeeded));
    let (event, _, message) = failure(&shop::target(&client, &id, "box2").await);
    assert!(
        event == "ApplicationStop" && message.contains("deregistered"),
        "{event}: {message}"
    );
}
