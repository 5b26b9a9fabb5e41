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

#[tokio::test]
async fn a_key_that_is_limited_or_only_reads_updates_no_agents() {
    let (controller, [one]) = able(SHORT).await;
    let begun = begin(&controller, 1).await;
    let own = |operation: &str| Forgery {
        service: "codedeploy",
        target: format!("CodeDeployController_20261201.{operation}"),
        ..Forgery::none("")
    };
    let create = ["credentials", "create", "--json", "--role"];
    let named = json!({"agentUpdateId": begun["agentUpdateId"]});
    let host = json!({"instanceName": "box1"});
    for (args, may_look) in [
        (&["operator", "--application", "shop"][..], false),
        (&["read-only"], true),
    ] {
        let key = controller.admin_json(&[&create[..], args].concat());
        let caller = controller.caller(&key);
        for (operation, input, expected) in [
            ("UpdateAgents", json!({"allHosts": true}), false),
            ("UpdateAgents", json!({"instanceNames": ["gone"]}), false),
            ("StopAgentUpdate", named.clone(), false),
            (
                "StopAgentUpdate",
                json!({"agentUpdateId": "u-ABSENT123"}),
                false,
            ),
            ("GetAgentUpdate", json!({}), may_look),
            ("GetAgentUpdate", named.clone(), may_look),
        ] {
            let (status, answer) = caller.send(own(operation), input).await;
            assert_eq!(status == 200, expected, "{args:?} {operation}: {answer}");
            let is_denied = answer.to_string().contains("AccessDeniedException");
            assert_eq!(is_denied, !expected, "{args:?} {operation}: {answer}");
        }
        let (_, seen) = caller.send(own("GetHostStatus"), host.clone()).await;
        assert_eq!(seen["host"]["instanceName"], "box1", "{seen}");
        assert_eq!(seen["host"]["agentUpdate"].is_object(), may_look, "{seen}");
    }
    assert_eq!(one.send(own("GetAgentUpdate"), json!({})).await.0, 400);
    assert_eq!(state(&controller).await, ("InProgress".into(), "O".into()));
}

#[tokio::test]
async fn requests_about_updates_that_mean_nothing_change_nothing() {
    let (controller, [_]) = able(SHORT).await;
    let long = "x".repeat(10_000);
    let names: Vec<String> = (0..2000).map(|number| format!("box{number}")).collect();
    let tags: Vec<Value> = (0..2000)
        .map(|_| json!({"Key": "env", "Value": "prod"}))
        .collect();
    for (operation, input) in [
        ("UpdateAgents", json!({"allHosts": true, "atATime": -1})),
        ("UpdateAgents", json!({"allHosts": true, "atATime": 1001})),
        ("UpdateAgents", json!({"allHosts": true, "atATime": 1e30})),
        ("UpdateAgents", json!({"allHosts": true, "atATime": "2"})),
        ("UpdateAgents", json!({"allHosts": "yes"})),
        ("UpdateAgents", json!({"allHosts": false})),
        ("UpdateAgents", json!({"instanceNames": "box1"})),
        (
            "UpdateAgents",
            json!({"instanceNames": ["box1", "box1/.."]}),
        ),
        ("UpdateAgents", json!({"instanceNames": [long]})),
        ("UpdateAgents", json!({"instanceNames": names})),
        ("UpdateAgents", json!({"tagFilters": tags})),
        (
            "UpdateAgents",
            json!({"tagFilters": [{"Type": "KEY_AND_VALUE"}]}),
        ),
        ("UpdateAgents", json!({"deploymentGroupName": "web"})),
        ("GetAgentUpdate", json!({"agentUpdateId": "u-ABSENT123"})),
        ("GetAgentUpdate", json!({"agentUpdateId": "d-ABSENT123"})),
        ("GetAgentUpdate", json!({"agentUpdateId": long})),
        ("StopAgentUpdate", json!({})),
        ("StopAgentUpdate", json!({"agentUpdateId": "u-ABSENT123"})),
        ("StopAgentUpdate", json!({"agentUpdateId": ["u-ABSENT123"]})),
    ] {
        let (status, refused) = ask(&controller, operation, input.clone()).await;
        let input: String = input.to_string().chars().take(80).collect();
        assert_eq!(status, 400, "{operation} {input}: {refused}");
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.len() < 1000, "{operation} {input}: {refused}");
    }
    let found = call(&controller, "GetAgentUpdate", json!({})).await;
    assert_eq!(found, json!({}));
}

#[tokio::test]
async fn an_update_survives_crashes_of_the_controller() {
    let (mut controller, [one, two]) = able(SHORT).await;
    let begun = begin(&controller, 1).await;
    controller.crash_and_return();
    let command = take(&one).await;
    controller.crash_and_return();
    // The agent does not know whether its word was heard, and gives it again.
    assert_eq!(one.acknowledge(&command).await, "InProgress");
    one.succeed(&command).await;
    controller.crash_and_return();
    one.succeed(&command).await;
    let command = take(&two).await;
    controller.crash_and_return();
    let stop = json!({"agentUpdateId": begun["agentUpdateId"]});
    call(&controller, "StopAgentUpdate", stop).await;
    controller.crash_and_return();
    two.succeed(&command).await;
    assert_eq!(state(&controller).await, ("Succeeded".into(), "SS".into()));
}

#[tokio::test]
async fn the_words_of_a_host_do_not_control_the_terminal_of_an_operator() {
    let (controller, [one]) = able(SHORT).await;
    begin(&controller, 1).await;
    let command = take(&one).await;
    let payload = json!({
        "error_code": 4, "script_name": "x", "message": "bad\u{1b}[2J\u{202e}\nbox2: updated",
        "log": "a\u{1b}]0;title\u{7}\nb\u{0}",
    });
    one.complete(&command, "Failed", &payload.to_string()).await;
    let shown = controller.admin(&["update-agents"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("FAILED") && shown.contains("bad"), "{shown}");
    assert!(
        !shown.contains(['\u{1b}', '\u{202e}', '\u{7}', '\u{0}']),
        "{shown}"
    );
    assert!(!shown.contains("\nbox2: updated"), "{shown}");
}
