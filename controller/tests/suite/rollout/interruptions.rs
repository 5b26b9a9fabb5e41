//! Deployments that are stopped, time out, or lose their service on the way.

use std::time::Duration;

use aws_sdk_codedeploy::types::{DeploymentStatus, ErrorCode, StopStatus, TargetStatus};

use crate::support::{Agent, Controller, QUICK, eventually, shop};

const ALL: &str = "CodeDeployDefault.AllAtOnce";

#[tokio::test]
async fn silent_hosts_fail_their_deployment_in_time() {
    let (_controller, client, agent) =
        shop::one_host("timers: {poll: 1, pick_up: 0.5, run: 0.5}").await;
    let id = shop::deploy(&client, "app.zip").await;
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Failed)
    );
    let target = shop::target(&client, &id, "box1").await;
    assert_eq!(shop::letters(&target), "FSSSSSS");
    let message = target.lifecycle_events()[0]
        .diagnostics()
        .unwrap()
        .message()
        .unwrap();
    assert!(message.contains("not able to receive"), "{message}");

    let id = shop::deploy(&client, "app.zip").await;
    let command = agent.poll().await.unwrap();
    agent.acknowledge(&command).await;
    shop::ended(&client, &id).await;
    let target = shop::target(&client, &id, "box1").await;
    let message = target.lifecycle_events()[0]
        .diagnostics()
        .unwrap()
        .message()
        .unwrap();
    assert!(message.contains("did not report"), "{message}");
    // The late completion is accepted and changes nothing.
    agent.succeed(&command).await;
    assert_eq!(
        shop::letters(&shop::target(&client, &id, "box1").await),
        "FSSSSSS"
    );
}

#[tokio::test]
async fn stopping_waits_for_a_running_command_and_withdraws_one_that_is_not() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    let id = shop::deploy(&client, "app.zip").await;
    let running = agent.poll().await.unwrap();
    agent.acknowledge(&running).await;
    let stop = client
        .stop_deployment()
        .deployment_id(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(stop.status(), Some(&StopStatus::Pending));
    assert_eq!(
        shop::info(&client, &id).await.status(),
        Some(&DeploymentStatus::InProgress)
    );
    agent.succeed(&running).await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Stopped));
    assert_eq!(
        info.error_information().unwrap().code(),
        Some(&ErrorCode::ManualStop)
    );
    assert_eq!(
        shop::target(&client, &id, "box1").await.status(),
        Some(&TargetStatus::Skipped)
    );
    let again = client
        .stop_deployment()
        .deployment_id(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), Some(&StopStatus::Succeeded));

    let id = shop::deploy(&client, "app.zip").await;
    let leased = agent.poll().await.unwrap();
    let stop = client
        .stop_deployment()
        .deployment_id(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(stop.status(), Some(&StopStatus::Succeeded));
    assert_eq!(agent.acknowledge(&leased).await, "Failed");
}

#[tokio::test]
async fn a_killed_service_goes_on_where_it_was() {
    let mut controller = Controller::start(QUICK);
    let agents = ["box1", "box2", "box3"].map(|name| controller.host(name, &["env=prod"]));
    let client = controller.client("operator");
    shop::open(&client, ALL).await;
    let id = shop::deploy(&client, "app.zip").await;
    let [mut acknowledged, mut leased, mut queued] = agents;
    let running = acknowledged.poll().await.unwrap();
    acknowledged.acknowledge(&running).await;
    let given = leased.poll().await.unwrap();
    controller.crash_and_restart();
    for agent in [&mut acknowledged, &mut leased, &mut queued] {
        agent.address = controller.address;
    }
    acknowledged.succeed(&running).await;
    leased.succeed(&given).await;
    for agent in [&acknowledged, &leased, &queued] {
        agent.run_to("ValidateService").await;
    }
    let key = controller.client("operator");
    assert_eq!(
        shop::ended(&key, &id)
            .await
            .deployment_overview()
            .unwrap()
            .succeeded(),
        3
    );
}

#[tokio::test]
async fn timers_go_on_over_a_restart() {
    let mut controller = Controller::start("timers: {pick_up: 2}");
    controller.host("box1", &["env=prod"]);
    let client = controller.client("operator");
    shop::open(&client, ALL).await;
    let id = shop::deploy(&client, "app.zip").await;
    controller.crash_and_restart();
    let client = controller.client("operator");
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Failed)
    );
}

/// Moves the times of a command in progress back by an hour in the database of a stopped service,
/// as if it had been down for that hour.
fn age(controller: &Controller) {
    let database =
        rusqlite::Connection::open(controller.data().join("codedeploy.sqlite3")).unwrap();
    let aged = "UPDATE targets SET deadline = deadline - 3600000, events = (
        SELECT json_group_array(json_set(value,
            '$.since', (value ->> '$.since') - 3600, '$.queued', (value ->> '$.queued') - 3600))
        FROM json_each(events)) WHERE deadline IS NOT NULL";
    assert_eq!(database.execute(aged, []).unwrap(), 3);
}

#[tokio::test]
async fn the_service_being_away_is_not_charged_to_hosts() {
    let config = "timers: {poll: 1, pick_up: 5, run: 1800}";
    let mut controller = Controller::start(config);
    let agents = ["box1", "box2", "box3"].map(|name| controller.host(name, &["env=prod"]));
    let client = controller.client("operator");
    shop::open(&client, ALL).await;
    let id = shop::deploy(&client, "app.zip").await;
    let [acknowledged, leased, _silent] = &agents;
    let running = acknowledged.poll().await.unwrap();
    acknowledged.acknowledge(&running).await;
    let given = leased.poll().await.unwrap();
    controller.terminate();
    age(&controller);
    controller.start_again();
    let back = |agent: &Agent| Agent {
        address: controller.address,
        ..agent.clone()
    };
    assert_eq!(back(leased).acknowledge(&given).await, "InProgress");
    back(leased).succeed(&given).await;
    back(acknowledged).succeed(&running).await;
    for agent in [acknowledged, leased] {
        back(agent).run_to("ValidateService").await;
    }
    let client = controller.client("operator");
    for name in ["box1", "box2"] {
        assert_eq!(
            shop::letters(&shop::target(&client, &id, name).await),
            "SSSSSSS"
        );
    }
    // A silent host still times out.
    shop::ended(&client, &id).await;
    assert_eq!(
        shop::letters(&shop::target(&client, &id, "box3").await),
        "FSSSSSS"
    );
}

#[tokio::test]
async fn a_stopping_service_answers_held_polls_at_once() {
    let (mut controller, client, agent) = shop::one_host("timers: {poll: 60}").await;
    let poll = tokio::spawn({
        let agent = agent.clone();
        async move { agent.poll().await }
    });
    // While the poll is held, the service serves others.
    eventually("an answer", async || {
        client.list_applications().send().await.ok()
    })
    .await;
    let took = tokio::task::spawn_blocking(move || controller.terminate())
        .await
        .unwrap();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(poll.await.unwrap(), None);
}
