//! Hosts that send script logs which nobody wants, or which are not what they claim to be.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Agent, Controller, Forgery, Held, shop, text};

const PART: usize = 256 * 1024;

fn gzip(bytes: &[u8]) -> String {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    STANDARD.encode(encoder.finish().unwrap())
}

/// Completes a command as an agent of this project; returns the response.
async fn complete(agent: &Agent, command: &Held, status: &str, ours: bool) -> Value {
    let payload = r#"{"error_code":4,"script_name":"a.sh","message":"failed with exit code 1","log":"last line\n"}"#;
    let input = json!({"HostCommandIdentifier": command.id, "CommandStatus": status,
                       "Diagnostics": {"Format": "JSON", "Payload": payload}});
    let forgery = Forgery::none("PutHostCommandComplete");
    let mut headers = vec![
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("x-amz-target", forgery.target.clone()),
    ];
    if ours {
        headers.push(("x-codedeploy-accepted-signers", "any".to_owned()));
    }
    let body = input.to_string().into_bytes();
    let (status, answer) = agent.raw(forgery, "POST /", &headers, body).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn put(
    agent: &Agent,
    id: &str,
    (bytes, part): (usize, usize),
    content: &str,
) -> (u16, String) {
    let input =
        json!({"HostCommandIdentifier": id, "Bytes": bytes, "Part": part, "Content": content});
    let (status, answer) = agent.call("PutHostCommandLog", input).await;
    (
        status,
        answer["message"].as_str().unwrap_or_default().to_owned(),
    )
}

async fn get(controller: &Controller, input: Value) -> (u16, Value) {
    let forgery = Forgery {
        service: "codedeploy",
        target: "CodeDeployController_20261201.GetScriptLog".into(),
        ..Forgery::none("")
    };
    controller.operator().send(forgery, input).await
}

/// Begins the first command of a new deployment.
async fn begun(client: &aws_sdk_codedeploy::Client, agent: &Agent) -> (String, Held) {
    let id = shop::deploy(client, "app.zip").await;
    let command = agent.poll().await.expect("a command");
    agent.acknowledge(&command).await;
    (id, command)
}

#[tokio::test]
async fn only_a_wanted_log_of_the_size_that_it_claims_is_kept() {
    let settings = "script_logs: {max_bytes: 600000, max_bytes_per_deployment: 700000}";
    let (controller, client, agent) = shop::one_host(settings).await;
    let other = controller.host("box2", &["env=test"]);
    let (id, command) = begun(&client, &agent).await;
    let (first, last) = (vec![b'a'; PART], vec![b'z'; 600_000 - 2 * PART]);
    let whole = 600_000;
    let (status, reason) = put(&agent, &command.id, (whole, 0), &gzip(&first)).await;
    assert_eq!(status, 400, "not before its end");
    assert!(reason.contains("is not wanted"), "{reason}");
    assert_eq!(
        complete(&agent, &command, "Failed", false).await,
        json!({}),
        "AWS's agents"
    );
    let asked = complete(&agent, &command, "Failed", true).await;
    assert_eq!(asked, json!({"ScriptLog": {"MaxBytes": whole}}));

    let bomb = gzip(&vec![0; 64 << 20]);
    for (bytes, part, content, expected) in [
        (0, 0, gzip(b""), "expected 1 to"),
        (usize::MAX, 0, gzip(b"a"), "expected 1 to"),
        (
            600_001,
            2,
            gzip(&vec![b'a'; 600_001 - 2 * PART]),
            "is not wanted",
        ),
        (whole, 3, gzip(b"a"), "expected 0"),
        (whole, usize::MAX, gzip(b"a"), "expected 0"),
        (whole, 0, gzip(&last), "expected 262144"),
        (whole, 2, gzip(&first), "expected 75712"),
        (whole, 0, bomb, "has 262145 bytes"),
        (whole, 0, "%".into(), "Base64"),
        (whole, 0, STANDARD.encode("text"), "gzip"),
        (whole, 0, String::new(), "gzip"),
    ] {
        let (status, reason) = put(&agent, &command.id, (bytes, part), &content).await;
        assert_eq!(status, 400, "{reason}");
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
    let (status, reason) = put(&other, &command.id, (whole, 0), &gzip(&first)).await;
    assert_eq!(status, 400, "another host's");
    assert!(reason.contains("not a command of this host"), "{reason}");

    let asks = json!({"deploymentId": id, "instanceName": "box1"});
    for part in [1, 0, 0] {
        put(&agent, &command.id, (whole, part), &gzip(&first)).await;
        let (_, found) = get(&controller, asks.clone()).await;
        assert_eq!(
            (text(&found, "logState"), text(&found, "log")),
            ("LastLines".into(), "last line\n".into())
        );
    }
    assert_eq!(
        put(&agent, &command.id, (whole, 2), &gzip(&last)).await.0,
        200
    );
    let (_, found) = get(&controller, asks.clone()).await;
    assert_eq!(text(&found, "logState"), "Whole");
    let log = text(&found, "log");
    assert_eq!(
        (log.len(), log.ends_with("zzz"), log.starts_with("aaa")),
        (whole, true, true)
    );
    assert_eq!(
        complete(&agent, &command, "Failed", true).await,
        json!({}),
        "it is there"
    );
    // A log of another size takes the place of the first.
    assert_eq!(
        put(&agent, &command.id, (9, 0), &gzip(b"all of it"))
            .await
            .0,
        200
    );
    assert_eq!(text(&get(&controller, asks).await.1, "log"), "all of it");

    let event =
        json!({"deploymentId": id, "instanceName": "box1", "lifecycleEventName": "Install"});
    assert_eq!(text(&get(&controller, event).await.1, "logState"), "None");
    for (wrong, error) in [
        (
            json!({"instanceName": "box1"}),
            "DeploymentIdRequiredException",
        ),
        (json!({"deploymentId": id}), "InstanceNameRequiredException"),
        (
            json!({"deploymentId": id, "instanceName": "box9"}),
            "DeploymentTargetDoesNotExistException",
        ),
        (
            json!({"deploymentId": id, "instanceName": "box1", "lifecycleEventName": "X"}),
            "InvalidInputException",
        ),
    ] {
        let (status, answer) = get(&controller, wrong).await;
        assert_eq!((status, text(&answer, "__type")), (400, error.to_owned()));
    }
}

#[tokio::test]
async fn the_logs_of_a_deployment_have_a_limit_and_can_be_turned_off() {
    let settings = "script_logs: {keep: all, max_bytes: 20000, max_bytes_per_deployment: 25000}";
    let (_controller, client, agent) = shop::one_host(settings).await;
    let (_, stop) = begun(&client, &agent).await;
    let asked = complete(&agent, &stop, "Succeeded", true).await;
    assert_eq!(asked, json!({"ScriptLog": {"MaxBytes": 20000}}));
    assert_eq!(
        put(&agent, &stop.id, (20_000, 0), &gzip(&[b'a'; 20_000]))
            .await
            .0,
        200
    );
    let download = agent.poll().await.unwrap();
    agent.acknowledge(&download).await;
    assert_eq!(
        complete(&agent, &download, "Failed", true).await,
        json!({}),
        "no room is left"
    );
    let (status, reason) = put(&agent, &download.id, (6000, 0), &gzip(&[b'a'; 6000])).await;
    assert_eq!(status, 400);
    assert!(reason.contains("more than 25000 bytes"), "{reason}");

    let (_controller, client, agent) = shop::one_host("script_logs: {keep: none}").await;
    let (_, command) = begun(&client, &agent).await;
    assert_eq!(complete(&agent, &command, "Failed", true).await, json!({}));
    assert_eq!(put(&agent, &command.id, (1, 0), &gzip(b"a")).await.0, 400);
}
