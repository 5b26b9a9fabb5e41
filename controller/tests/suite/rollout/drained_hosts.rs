//! Hosts that an operator drains: without commands and without traffic, while others are deployed to.

use serde_json::{Value, json};

use crate::support::fleet::{Conduct, Fleet};
use crate::support::{Agent, Controller, Forgery, shop, text};

async fn call(controller: &Controller, operation: &str, input: Value) -> Value {
    let forgery = Forgery {
        service: "codedeploy",
        target: format!("CodeDeployController_20261201.{operation}"),
        ..Forgery::none("")
    };
    let (status, answer) = controller.operator().send(forgery, input).await;
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

async fn drain(controller: &Controller, name: &str) -> Value {
    let input = json!({"instanceName": name, "reason": "new memory"});
    call(controller, "DrainHost", input).await["host"].clone()
}

async fn undrain(controller: &Controller, name: &str) -> Value {
    call(controller, "UndrainHost", json!({"instanceName": name})).await
}

/// Polls until nothing waits for the host, and completes what comes.
async fn work(agent: &Agent) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(command) = agent.poll().await {
        agent.acknowledge(&command).await;
        agent.succeed(&command).await;
        names.push(command.name);
    }
    names
}

const SHORT: &str = "timers: {poll: 0.05}";

#[tokio::test]
async fn a_new_deployment_leaves_a_drained_host_out_and_it_is_behind_when_it_returns() {
    let (controller, client, one) = shop::one_host(SHORT).await;
    let two = controller.host("box2", &["env=prod"]);
    let id = shop::deploy(&client, "1.zip").await;
    work(&one).await;
    work(&two).await;
    shop::ended(&client, &id).await;

    let host = drain(&controller, "box2").await;
    assert_eq!(host["drain"]["reason"], "new memory");
    assert_eq!(host["drain"]["traffic"], "None");
    assert!(
        text(&host["drain"], "by").starts_with("arn:aws:iam::"),
        "{host}"
    );
    let fleet = call(&controller, "GetFleetStatus", json!({})).await;
    assert_eq!(fleet["groups"][0]["hosts"]["drained"], 1);
    let id = shop::deploy(&client, "2.zip").await;
    assert_eq!(work(&one).await.len(), 7);
    assert!(two.poll().await.is_none());
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status().unwrap().as_str(), "Succeeded");
    assert_eq!(
        info.deployment_status_messages(),
        ["Drained hosts are left out: box2."]
    );
    assert_eq!(info.deployment_overview().unwrap().succeeded(), 1);

    let shown = String::from_utf8(controller.admin(&["hosts", "box2"]).stdout).unwrap();
    assert!(shown.contains("new memory"), "{shown}");
    let shown = String::from_utf8(controller.admin(&["hosts", "--drained"]).stdout).unwrap();
    assert!(
        shown.contains("box2") && shown.contains("DRAINED") && !shown.contains("box1"),
        "{shown}"
    );
    let shown = String::from_utf8(controller.admin(&["status"]).stdout).unwrap();
    assert!(
        shown.contains("1 host is drained: codedeploy-controller hosts"),
        "{shown}"
    );
    let shown = String::from_utf8(controller.admin(&["undrain", "box2"]).stdout).unwrap();
    assert!(
        shown.contains("box2 lacks the revision of shop/web"),
        "{shown}"
    );
    let again = undrain(&controller, "box2").await;
    assert_eq!(again["host"].get("drain"), None, "{again}");

    // The whole group drained is no group.
    for name in ["box1", "box2"] {
        drain(&controller, name).await;
    }
    let id = shop::deploy(&client, "3.zip").await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(
        info.error_information().unwrap().code().unwrap().as_str(),
        "NO_INSTANCES"
    );

    let audit = call(&controller, "ListAuditEntries", json!({})).await;
    let entries = audit["entries"].as_array().unwrap();
    let first = entries
        .iter()
        .rfind(|entry| entry["operation"] == "DrainHost")
        .unwrap();
    assert_eq!(
        first["names"],
        json!({"instances": "box2", "reason": "new memory"})
    );
    assert!(
        entries
            .iter()
            .any(|entry| entry["operation"] == "UndrainHost")
    );
}

#[tokio::test]
async fn a_drained_host_finishes_its_command_and_gets_no_other_one() {
    let (controller, client, one) = shop::one_host(SHORT).await;
    let two = controller.host("box2", &["env=prod"]);
    let three = controller.host("box3", &["env=prod"]);
    let id = shop::deploy(&client, "1.zip").await;
    let running = one.poll().await.unwrap();
    one.acknowledge(&running).await;
    let fetched = two.poll().await.unwrap();
    for name in ["box1", "box2", "box3"] {
        drain(&controller, name).await;
    }
    // A command that nobody has begun is withdrawn.
    assert_eq!(two.acknowledge(&fetched).await, "Failed");
    assert!(two.poll().await.is_none() && three.poll().await.is_none());
    one.succeed(&running).await;
    assert!(one.poll().await.is_none());
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status().unwrap().as_str(), "Failed");
    let message = info
        .error_information()
        .unwrap()
        .message()
        .unwrap()
        .to_owned();
    assert!(message.contains("3 were drained"), "{message}");
    let target = shop::target(&client, &id, "box1").await;
    assert_eq!(shop::letters(&target), "SSSSSSS");
    assert_eq!(target.status().unwrap().as_str(), "Skipped");
}

#[tokio::test]
async fn only_an_operator_drains_and_only_a_registered_host() {
    let (controller, _client, one) = shop::one_host(SHORT).await;
    let input = json!({"instanceName": "box1"});
    for operation in ["DrainHost", "UndrainHost"] {
        let forgery = || Forgery {
            service: "codedeploy",
            target: format!("CodeDeployController_20261201.{operation}"),
            ..Forgery::none("")
        };
        let (status, answer) = one.send(forgery(), input.clone()).await;
        assert_eq!(
            (status, text(&answer, "__type")),
            (400, "AccessDeniedException".into())
        );
        let unknown = json!({"instanceName": "box9"});
        let (_, answer) = controller.operator().send(forgery(), unknown).await;
        assert_eq!(text(&answer, "__type"), "InstanceNotRegisteredException");
    }
    let long = json!({"instanceName": "box1", "reason": "x".repeat(2000)});
    let forgery = Forgery {
        service: "codedeploy",
        target: "CodeDeployController_20261201.DrainHost".into(),
        ..Forgery::none("")
    };
    let (status, _) = controller.operator().send(forgery, long).await;
    assert_eq!(status, 400);
}

#[test]
fn the_minimum_is_one_of_the_hosts_in_service() {
    // Of three hosts, two must stay healthy.
    let count = json!({"type": "HOST_COUNT", "value": 2});
    let mut fleet = Fleet::new(json!({}));
    fleet.configure("two", count);
    fleet.update(json!({"deploymentConfigName": "two"}));
    for name in ["box1", "box2", "box3"] {
        fleet.enroll(name, "blue");
    }
    assert_eq!(
        fleet.deploy("1.zip").status.unwrap().to_string(),
        "Succeeded"
    );
    fleet.drain("box3");
    // The two in service cannot be touched: the number is one of hosts, drained or not.
    let info = fleet.deploy("2.zip");
    assert_eq!(
        info.error_information.unwrap().code.unwrap().to_string(),
        "HEALTH_CONSTRAINTS_INVALID"
    );
    fleet.undrain("box3");
    assert_eq!(
        fleet.deploy("3.zip").status.unwrap().to_string(),
        "Succeeded"
    );

    // A drain in the middle: the others succeed, or the deployment ends before it breaks the minimum.
    fleet.let_host("box1", Conduct::Holds);
    let id = fleet.create("4.zip", json!({}));
    fleet.settle();
    fleet.drain("box3");
    fleet.let_host("box1", Conduct::Good);
    fleet.finish();
    assert_eq!(fleet.status(&id), "Failed");
    assert_eq!(fleet.error(&id).unwrap().to_string(), "HEALTH_CONSTRAINTS");

    // One at a time, of those that are left.
    fleet.update(json!({"deploymentConfigName": "CodeDeployDefault.OneAtATime"}));
    assert_eq!(
        fleet.deploy("5.zip").status.unwrap().to_string(),
        "Succeeded"
    );
    fleet.undrain("box3");
    fleet.let_host("box3", Conduct::Holds);
    let id = fleet.create("6.zip", json!({}));
    fleet.settle();
    fleet.drain("box3");
    fleet.settle();
    assert_eq!(fleet.status(&id), "InProgress", "its command is not over");
    fleet.complete("box3");
    fleet.finish();
    assert_eq!(fleet.status(&id), "Succeeded");
}
