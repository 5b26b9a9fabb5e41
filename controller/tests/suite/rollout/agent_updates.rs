//! Updates of agents, stage by stage; only agents that carry the command out themselves get it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Controller, Forgery, Held, eventually, shop, text};

const SHORT: &str = "timers: {poll: 0.05}";

async fn ask(controller: &Controller, operation: &str, input: Value) -> (u16, Value) {
    let forgery = Forgery {
        service: "codedeploy",
        target: format!("CodeDeployController_20261201.{operation}"),
        ..Forgery::none("")
    };
    controller.operator().send(forgery, input).await
}

async fn call(controller: &Controller, operation: &str, input: Value) -> Value {
    let (status, answer) = ask(controller, operation, input).await;
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

/// Polls with what an agent of this project says: that it has a command that updates it, or not.
async fn poll(agent: &Agent, can_update: bool) -> Option<Held> {
    let forgery = Forgery::none("PollHostCommand");
    let mut headers = vec![
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("x-amz-target", forgery.target.clone()),
        ("x-amz-codedeploy-agent-version", "TEST_1.0".to_owned()),
        ("x-codedeploy-accepted-signers", "any".to_owned()),
    ];
    if can_update {
        headers.push(("x-codedeploy-agent-update", "configured".to_owned()));
    }
    let input = json!({"HostIdentifier": agent.identifier}).to_string();
    let answer = agent.raw(forgery, "POST /", &headers, input.into()).await;
    let (status, answer) = answer.unwrap();
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let command = answer.get("HostCommand")?;
    Some(Held {
        id: text(command, "HostCommandIdentifier"),
        name: text(command, "CommandName"),
        execution: text(command, "DeploymentExecutionId"),
    })
}

/// Takes the update that waits for a host, and begins it.
async fn take(agent: &Agent) -> Held {
    let command = poll(agent, true).await.expect("it is the host's turn");
    assert_eq!(command.name, "UpdateDeploymentAgent");
    assert_eq!(agent.acknowledge(&command).await, "InProgress");
    command
}

/// A controller with hosts whose agents can be updated.
async fn able<const N: usize>(config: &str) -> (Controller, [Agent; N]) {
    let (controller, _, one) = shop::one_host(config).await;
    let mut one = Some(one);
    let agents = std::array::from_fn(|number| match number {
        0 => one.take().unwrap(),
        more => controller.host(&format!("box{}", more + 1), &["env=prod"]),
    });
    for agent in &agents {
        assert_eq!(poll(agent, true).await, None);
    }
    (controller, agents)
}

async fn begin(controller: &Controller, at_a_time: usize) -> Value {
    let input = json!({"allHosts": true, "atATime": at_a_time});
    call(controller, "UpdateAgents", input).await["agentUpdate"].clone()
}

/// The status of the last update, and the first letters of the statuses of its hosts.
async fn state(controller: &Controller) -> (String, String) {
    let found = call(controller, "GetAgentUpdate", json!({})).await;
    let update = &found["agentUpdate"];
    let hosts = update["hosts"].as_array().unwrap();
    let letters = hosts.iter().map(|host| text(host, "status").remove(0));
    (text(update, "status"), letters.collect())
}

async fn becomes(controller: &Controller, status: &str, hosts: &str) {
    let expected = (status.to_owned(), hosts.to_owned());
    eventually("the state of the update", async || {
        (state(controller).await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_of_aws_gets_no_update_whatever_the_host_ran_before() {
    let (controller, _, one) = shop::one_host(SHORT).await;
    assert_eq!(one.poll().await, None);
    let named = json!({"instanceNames": ["box1"]});
    let (status, refused) = ask(&controller, "UpdateAgents", named.clone()).await;
    assert_eq!(status, 400);
    assert!(
        text(&refused, "message").contains("its agent is AWS's"),
        "{refused}"
    );

    assert_eq!(poll(&one, false).await, None);
    let (_, refused) = ask(&controller, "UpdateAgents", named.clone()).await;
    assert!(
        text(&refused, "message").contains("no update_command"),
        "{refused}"
    );

    assert_eq!(poll(&one, true).await, None);
    call(&controller, "UpdateAgents", named).await;
    // AWS's agent took the host over in between.
    assert_eq!(one.poll().await, None);
    assert_eq!(state(&controller).await, ("InProgress".into(), "O".into()));
    // As did one of this project without the command, which ends the wait.
    assert_eq!(poll(&one, false).await, None);
    assert_eq!(state(&controller).await, ("Failed".into(), "F".into()));
}

#[tokio::test]
async fn a_stage_begins_after_the_reports_of_the_one_before_and_a_failure_ends_the_update() {
    let (controller, [one, two, three, four]) = able(SHORT).await;
    let begun = begin(&controller, 2).await;
    assert_eq!(begun["hosts"][3]["stage"], 2, "{begun}");
    let busy = call(
        &controller,
        "GetHostStatus",
        json!({"instanceName": "box1"}),
    )
    .await;
    assert_eq!(busy["host"]["agentUpdate"]["status"], "Offered", "{busy}");
    let (first, second) = (take(&one).await, take(&two).await);
    assert_eq!(poll(&three, true).await, None);
    one.succeed(&first).await;
    assert_eq!(poll(&three, true).await, None);
    two.succeed(&second).await;
    // Reported again by an agent that did not hear the answer.
    two.fail(&second).await;

    let third = take(&three).await;
    three.fail(&third).await;
    // The fourth had not begun.
    assert_eq!(poll(&four, true).await, None);
    let (_, again) = ask(&controller, "GetAgentUpdate", json!({})).await;
    let update = &again["agentUpdate"];
    assert_eq!(state(&controller).await, ("Failed".into(), "SSFS".into()));
    assert_eq!(update["hosts"][3]["status"], "Skipped");
    assert_eq!(update["hosts"][0]["versionAfter"], "TEST_1.0");
    assert!(
        text(&update["hosts"][2], "message").contains("exit code 1"),
        "{update}"
    );

    let audit = call(
        &controller,
        "ListAuditEntries",
        json!({"operation": "UpdateAgents"}),
    )
    .await;
    let names = &audit["entries"][0]["names"];
    assert_eq!(names["agentUpdateId"], begun["agentUpdateId"], "{audit}");
    assert_eq!(names["instances"], "all");
}

#[tokio::test]
async fn one_update_runs_at_a_time_and_a_stopped_one_waits_for_the_hosts_that_perform_it() {
    let (controller, [one, two, three]) = able(SHORT).await;
    let begun = begin(&controller, 2).await;
    let (status, refused) = ask(&controller, "UpdateAgents", json!({"allHosts": true})).await;
    assert_eq!(
        (status, text(&refused, "__type")),
        (400, "AgentUpdateInProgressException".into())
    );
    let command = take(&one).await;
    let stop = json!({"agentUpdateId": begun["agentUpdateId"]});
    let stopped = call(&controller, "StopAgentUpdate", stop.clone()).await;
    assert_eq!(stopped["agentUpdate"]["stopped"], true);
    assert_eq!(
        state(&controller).await,
        ("InProgress".into(), "RSS".into())
    );
    assert_eq!(poll(&two, true).await, None);
    one.succeed(&command).await;
    assert_eq!(state(&controller).await.0, "Stopped");
    assert_eq!(poll(&three, true).await, None);
    call(&controller, "StopAgentUpdate", stop).await;
    begin(&controller, 1).await;
}

#[tokio::test]
async fn a_host_that_does_not_report_or_is_deregistered_ends_the_update() {
    let config = "timers: {poll: 0.05, lease: 0.1, pick_up: 2, run: 3}";
    let (controller, [one, two]) = able(config).await;
    begin(&controller, 1).await;
    becomes(&controller, "Failed", "FS").await;
    begin(&controller, 1).await;
    take(&one).await;
    becomes(&controller, "Failed", "FS").await;
    let found = call(&controller, "GetAgentUpdate", json!({})).await;
    let message = text(&found["agentUpdate"]["hosts"][0], "message");
    assert!(message.contains("has not reported its end"), "{message}");

    begin(&controller, 1).await;
    take(&one).await;
    let client = controller.client("operator");
    let gone = client
        .deregister_on_premises_instance()
        .instance_name("box1");
    gone.send().await.unwrap();
    becomes(&controller, "Failed", "FS").await;
    assert_eq!(poll(&two, true).await, None);
}

#[tokio::test]
async fn a_host_finishes_its_lifecycle_event_before_its_agent_is_updated() {
    let (controller, [one]) = able(SHORT).await;
    let client = controller.client("operator");
    let id = shop::deploy(&client, "1.zip").await;
    let event = one.poll().await.unwrap();
    one.acknowledge(&event).await;
    begin(&controller, 1).await;
    let asked = tokio::time::timeout(Duration::from_secs(5), poll(&one, true)).await;
    assert_eq!(asked.unwrap(), None);
    one.succeed(&event).await;
    while let Some(event) = one.poll().await {
        one.acknowledge(&event).await;
        one.succeed(&event).await;
    }
    shop::ended(&client, &id).await;
    let command = take(&one).await;
    one.succeed(&command).await;
    assert_eq!(state(&controller).await, ("Succeeded".into(), "S".into()));
}

#[tokio::test]
async fn the_hosts_are_meant_in_one_way() {
    let (controller, [one, _]) = able(SHORT).await;
    for input in [
        json!({}),
        json!({"instanceNames": ["box1"], "allHosts": true}),
        json!({"applicationName": "shop"}),
        json!({"allHosts": true, "atATime": 0}),
        json!({"instanceNames": ["box9"]}),
        json!({"tagFilters": [{"Key": "env", "Value": "none"}]}),
    ] {
        let (status, refused) = ask(&controller, "UpdateAgents", input.clone()).await;
        assert_eq!(status, 400, "{input}: {refused}");
    }
    let silent = controller.host("box3", &["env=prod"]);
    let group = json!({"applicationName": "shop", "deploymentGroupName": "web"});
    let begun = call(&controller, "UpdateAgents", group).await;
    assert_eq!(begun["agentUpdate"]["hosts"].as_array().unwrap().len(), 2);
    assert_eq!(begun["leftOut"][0]["instanceName"], "box3", "{begun}");
    assert_eq!(begun["leftOut"][0]["reason"], "its agent was never seen");
    drop((one, silent));
}
