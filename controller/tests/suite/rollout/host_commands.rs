//! Deployments as operators and agents see them.

use std::time::{Duration, Instant};

use aws_sdk_codedeploy::error::ProvideErrorMetadata as _;
use aws_sdk_codedeploy::types::{DeploymentStatus, ErrorCode, LifecycleErrorCode, TargetStatus};
use serde_json::json;

use crate::support::{Controller, Forgery, QUICK, shop, text};

const ALL: &str = "CodeDeployDefault.AllAtOnce";
const ONE: &str = "CodeDeployDefault.OneAtATime";
const EVENTS: [&str; 7] = [
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
];

#[tokio::test]
async fn a_deployment_runs_its_seven_events_and_succeeds() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    let id = shop::deploy(&client, "app.zip").await;
    assert!(id.starts_with("d-") && id.len() == 11);
    assert_eq!(agent.run_to("ValidateService").await, EVENTS);
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Succeeded));
    assert_eq!(info.deployment_overview().unwrap().succeeded(), 1);
    let target = shop::target(&client, &id, "box1").await;
    assert_eq!(
        (target.status(), shop::letters(&target).as_str()),
        (Some(&TargetStatus::Succeeded), "SSSSSSS")
    );
    for (event, name) in target.lifecycle_events().iter().zip(EVENTS) {
        assert_eq!(event.lifecycle_event_name(), Some(name));
        assert_eq!(
            event.diagnostics().unwrap().error_code(),
            Some(&LifecycleErrorCode::Success)
        );
        assert!(event.start_time() <= event.end_time());
    }
    let group = client
        .get_deployment_group()
        .application_name("shop")
        .deployment_group_name("web")
        .send()
        .await
        .unwrap();
    let group = group.deployment_group_info().unwrap().clone();
    assert_eq!(
        group.last_successful_deployment().unwrap().deployment_id(),
        Some(id.as_str())
    );
    assert_eq!(group.target_revision(), Some(&shop::revision("app.zip")));
    #[allow(deprecated, reason = "clients still call it")]
    let instances = client
        .list_deployment_instances()
        .deployment_id(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(instances.instances_list(), ["box1"]);
}

#[tokio::test]
async fn a_waiting_poll_is_answered_the_moment_a_deployment_is_created() {
    let (_controller, client, agent) = shop::one_host("timers: {poll: 45}").await;
    let poll = tokio::spawn({
        let agent = agent.clone();
        async move { agent.poll().await }
    });
    // Other clients are served while the poll is held.
    for _ in 0..3 {
        client.list_applications().send().await.unwrap();
    }
    let asked = Instant::now();
    shop::deploy(&client, "app.zip").await;
    assert_eq!(poll.await.unwrap().unwrap().name, "ApplicationStop");
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_first_completion_counts_and_the_rest_of_the_target_is_skipped() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    let id = shop::deploy(&client, "app.zip").await;
    agent.run_to("Install").await;
    let command = agent.poll().await.unwrap();
    agent.acknowledge(&command).await;
    agent.fail(&command).await;
    agent
        .complete(
            &command,
            "Failed",
            r#"{"error_code":5,"script_name":"","message":"later","log":""}"#,
        )
        .await;
    agent.succeed(&command).await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Failed));
    assert_eq!(
        info.error_information().unwrap().code(),
        Some(&ErrorCode::HealthConstraints)
    );
    let target = shop::target(&client, &id, "box1").await;
    // S ucceeded, F ailed, S kipped.
    assert_eq!(shop::letters(&target), "SSSSFSS");
    let failed = &target.lifecycle_events()[4];
    assert_eq!(
        failed.diagnostics().unwrap().error_code(),
        Some(&LifecycleErrorCode::ScriptFailed)
    );
    assert_eq!(
        failed.diagnostics().unwrap().script_name(),
        Some("scripts/after.sh")
    );
    let skipped = &target.lifecycle_events()[5];
    assert!(
        skipped.start_time().is_none()
            && skipped.end_time().is_some()
            && skipped.diagnostics().is_none()
    );
    assert_eq!(agent.acknowledge(&command).await, "Failed");
}

#[tokio::test]
async fn agents_may_complete_before_acknowledging_and_acknowledge_before_reading_the_specification()
{
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    let id = shop::deploy(&client, "app.zip").await;
    let first = agent.poll().await.unwrap();
    agent.succeed(&first).await;
    assert_eq!(agent.acknowledge(&first).await, "Succeeded");
    let second = agent.poll().await.unwrap();
    let (status, output) = agent
        .call(
            "PutHostCommandAcknowledgement",
            json!({"HostCommandIdentifier": second.id}),
        )
        .await;
    assert_eq!(
        (status, output),
        (200, json!({"CommandStatus": "InProgress"}))
    );
    agent.specification(&second).await;
    let (status, output) = agent
        .call(
            "PostHostCommandUpdate",
            json!({"HostCommandIdentifier": second.id}),
        )
        .await;
    assert_eq!(
        (status, output),
        (200, json!({"CommandStatus": "InProgress"}))
    );
    // A restarted agent reports its interrupted command.
    agent
        .complete(
            &second,
            "Failed",
            r#"{"error_code":7,"script_name":"","message":"restarted","log":""}"#,
        )
        .await;
    shop::ended(&client, &id).await;
    let target = shop::target(&client, &id, "box1").await;
    let diagnostics = target.lifecycle_events()[1].diagnostics().unwrap();
    assert_eq!(
        diagnostics.error_code(),
        Some(&LifecycleErrorCode::UnknownError)
    );
    assert_eq!(diagnostics.message(), Some("restarted"));
}

#[tokio::test]
async fn odd_diagnostics_are_kept_as_far_as_they_can_be_read() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    let payload = format!(
        r#"{{"error_code":"Unknown","script_name":null,"message":"é\u0000😀","log":"{}"}}"#,
        "x".repeat(8100)
    );
    let id = shop::deploy(&client, "app.zip").await;
    let command = agent.poll().await.unwrap();
    agent.complete(&command, "Failed", &payload).await;
    shop::ended(&client, &id).await;
    let target = shop::target(&client, &id, "box1").await;
    let diagnostics = target.lifecycle_events()[0].diagnostics().unwrap();
    assert_eq!(
        diagnostics.error_code(),
        Some(&LifecycleErrorCode::UnknownError)
    );
    assert_eq!(diagnostics.message(), Some("é\0😀"));
    assert_eq!(diagnostics.log_tail().unwrap().len(), 4096);
}

#[tokio::test]
async fn a_result_is_worth_more_than_its_form() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    for diagnostics in [
        r#"{}"#,
        r#"{"Format":"JSON"}"#,
        r#"{"Format":null,"Payload":null}"#,
        "null",
    ] {
        let id = shop::deploy(&client, "app.zip").await;
        let command = agent.poll().await.unwrap();
        let body = |status: &str| {
            let id = &command.id;
            let body = format!(
                r#"{{"HostCommandIdentifier":"{id}"{status},"Diagnostics":{diagnostics}}}"#
            );
            body.into_bytes()
        };
        let acknowledgement = Forgery::none("PutHostCommandAcknowledgement");
        let acknowledged = agent
            .attempt_bytes(acknowledgement, body(""))
            .await
            .unwrap();
        assert_eq!(
            acknowledged,
            (200, json!({"CommandStatus": "InProgress"})),
            "{diagnostics}"
        );
        let completion = Forgery::none("PutHostCommandComplete");
        let completed = agent
            .attempt_bytes(completion, body(r#","CommandStatus":"Failed""#))
            .await
            .unwrap();
        assert_eq!(completed.0, 200, "{diagnostics}: {}", completed.1);
        assert_eq!(
            shop::ended(&client, &id).await.status(),
            Some(&DeploymentStatus::Failed)
        );
        let target = shop::target(&client, &id, "box1").await;
        let shown = target.lifecycle_events()[0].diagnostics().unwrap();
        assert_eq!(
            shown.message(),
            Some("The agent gave no diagnostics."),
            "{diagnostics}"
        );
    }
    let id = shop::deploy(&client, "app.zip").await;
    let command = agent.poll().await.unwrap();
    let mut body = format!(
        r#"{{"HostCommandIdentifier":"{}","CommandStatus":"Failed","Diagnostics":{{"Format":"JSON","Payload":"{{\"error_code\":4,\"log\":\"caf"#,
        command.id
    )
    .into_bytes();
    // Latin 1, as a script may print it.
    body.extend(b"\xe9");
    body.extend(br#" is closed\"}"}}"#);
    let completion = Forgery::none("PutHostCommandComplete");
    assert_eq!(agent.attempt_bytes(completion, body).await.unwrap().0, 200);
    shop::ended(&client, &id).await;
    let target = shop::target(&client, &id, "box1").await;
    let shown = target.lifecycle_events()[0].diagnostics().unwrap();
    assert_eq!(
        (shown.error_code(), shown.log_tail()),
        (
            Some(&LifecycleErrorCode::ScriptFailed),
            Some("caf\u{fffd} is closed")
        )
    );
    let listed = json!({"HostCommandIdentifier": command.id, "CommandStatus": "Failed", "Diagnostics": ["JSON", "{}"]});
    let (status, answer) = agent.call("PutHostCommandComplete", listed).await;
    assert_eq!(
        (status, &answer["__type"]),
        (400, &json!("SerializationException"))
    );
}

#[tokio::test]
async fn a_leased_command_is_given_to_one_poll_and_again_when_the_lease_is_over() {
    let (_controller, client, agent) = shop::one_host("timers: {poll: 10, lease: 1}").await;
    shop::deploy(&client, "app.zip").await;
    let (first, second) = tokio::join!(agent.poll(), agent.poll());
    // One of the polls got it at once, the other when the lease ended: it is the same command.
    assert_eq!(first, second);
    let command = first.unwrap();
    agent.acknowledge(&command).await;
    agent.succeed(&command).await;
    assert_eq!(agent.poll().await.unwrap().name, "DownloadBundle");
}

#[tokio::test]
async fn an_acknowledged_command_is_not_given_again() {
    let (_controller, client, agent) = shop::one_host("timers: {poll: 1.5, lease: 0.5}").await;
    shop::deploy(&client, "app.zip").await;
    let command = agent.poll().await.unwrap();
    agent.acknowledge(&command).await;
    assert_eq!(agent.poll().await, None);
}

#[tokio::test]
async fn one_at_a_time_goes_by_name_and_stops_at_the_first_failure() {
    let controller = Controller::start(QUICK);
    let first = controller.host("box1", &["env=prod"]);
    let second = controller.host("box2", &["env=prod"]);
    controller.host("box3", &["env=test"]);
    let client = controller.client("operator");
    shop::open(&client, ONE).await;
    let id = shop::deploy(&client, "app.zip").await;
    let command = first.poll().await.unwrap();
    let targets = client
        .list_deployment_targets()
        .deployment_id(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(targets.target_ids(), ["box1", "box2"]);
    let refused = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let refused = refused
        .revision(shop::revision("app.zip"))
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(refused.is_deployment_limit_exceeded_exception());
    assert!(
        refused
            .message()
            .unwrap()
            .contains(&format!("already has an active Deployment '{id}'"))
    );
    first.fail(&command).await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Failed));
    let overview = info.deployment_overview().unwrap();
    assert_eq!((overview.failed(), overview.skipped()), (1, 1));

    // Both are unhealthy or untried, so they are ordered by name again; the last failure is free.
    let id = shop::deploy(&client, "app.zip").await;
    first.run_to("ValidateService").await;
    let command = second.poll().await.unwrap();
    second.fail(&command).await;
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    // Now box2 is the unhealthy one.
    let id = shop::deploy(&client, "app-2.zip").await;
    second.run_to("ValidateService").await;
    first.run_to("ValidateService").await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.previous_revision(), Some(&shop::revision("app.zip")));
}

#[tokio::test]
async fn a_group_without_hosts_fails_its_deployment() {
    let controller = Controller::start(QUICK);
    let client = controller.client("operator");
    shop::open(&client, ALL).await;
    let id = shop::deploy(&client, "app.zip").await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(
        info.error_information().unwrap().code(),
        Some(&ErrorCode::NoInstances)
    );
}

#[tokio::test]
async fn ignored_failures_of_application_stop_go_on() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let request = request
        .revision(shop::revision("app.zip"))
        .ignore_application_stop_failures(true);
    let id = request
        .send()
        .await
        .unwrap()
        .deployment_id()
        .unwrap()
        .to_owned();
    let command = agent.poll().await.unwrap();
    agent.fail(&command).await;
    agent.run_to("ValidateService").await;
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    assert_eq!(
        shop::letters(&shop::target(&client, &id, "box1").await),
        "FSSSSSS"
    );
}

#[tokio::test]
async fn hosts_are_served_about_themselves_only() {
    let controller = Controller::start(QUICK);
    let first = controller.host("box1", &["env=prod"]);
    let other = controller.host("box2", &[]);
    let client = controller.client("operator");
    shop::open(&client, ALL).await;
    shop::deploy(&client, "app.zip").await;
    let command = first.poll().await.unwrap();
    let kind = |answer: &(u16, serde_json::Value)| (answer.0, text(&answer.1, "__type"));
    let denied = (400, "AccessDeniedException".to_owned());
    let refused = (400, "ClientException".to_owned());
    let answer = other
        .call(
            "PollHostCommand",
            json!({"HostIdentifier": first.identifier}),
        )
        .await;
    assert_eq!(kind(&answer), denied);
    let input =
        json!({"DeploymentExecutionId": command.execution, "HostIdentifier": other.identifier});
    assert_eq!(
        kind(&other.call("GetDeploymentSpecification", input).await),
        refused
    );
    let input = json!({"HostCommandIdentifier": command.id, "CommandStatus": "Succeeded"});
    assert_eq!(
        kind(&other.call("PutHostCommandComplete", input).await),
        refused
    );
    let unknown = json!({"HostCommandIdentifier": "x"});
    assert_eq!(
        kind(&first.call("PutHostCommandAcknowledgement", unknown).await),
        refused
    );
    // A deregistered host is rejected, though its access key is valid.
    client
        .deregister_on_premises_instance()
        .instance_name("box1")
        .send()
        .await
        .unwrap();
    let answer = first
        .call(
            "PollHostCommand",
            json!({"HostIdentifier": first.identifier}),
        )
        .await;
    assert_eq!(kind(&answer), denied);
}

#[tokio::test]
async fn both_endpoints_of_agents_are_served_and_no_other() {
    let (_controller, _client, agent) = shop::one_host("timers: {poll: 0.05}").await;
    let input = || json!({"HostIdentifier": agent.identifier});
    let secure = Forgery {
        service: "codedeploy-commands-secure",
        target: "CodeDeployCommandService.PollHostCommand".into(),
        ..Forgery::none("")
    };
    assert_eq!(agent.send(secure, input()).await, (200, json!({})));
    let wrong = Forgery {
        target: "ApolloDeployControlService.PollHostCommand".into(),
        ..Forgery::none("")
    };
    let (status, output) = agent.send(wrong, input()).await;
    assert_eq!(
        (status, text(&output, "__type").as_str()),
        (400, "UnknownOperationException")
    );
}
