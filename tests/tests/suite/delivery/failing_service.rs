//! A command service that fails in every way at each of its calls: its final reports, and an agent
//! that continues unharmed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use codedeploy_tests::cases::side_by_side;
use codedeploy_tests::stub::lone::{IDENTIFIER, Lone, command, specification};
use codedeploy_tests::stub::{ACKNOWLEDGE, COMPLETE, Completion, Fault, POLL, SPECIFICATION};
use codedeploy_tests::wait;
use serde_json::{Value, json};

const HOOK: &str = "BeforeInstall";

/// A revision whose only script counts how often it runs.
fn counting(counter: &Path) -> [(&'static str, String); 2] {
    let appspec = format!("version: 0.0\nos: linux\nhooks:\n  {HOOK}:\n    - location: hook.sh\n");
    [
        ("appspec.yml", appspec),
        (
            "hook.sh",
            format!("#!/bin/sh\necho run >> {}\n", counter.display()),
        ),
    ]
}

/// Makes the deployment known and has the host download it.
async fn downloaded(host: &Lone, id: &str) {
    let files = counting(&host.path(id));
    host.deployment(
        "web",
        id,
        &files.each_ref().map(|(name, text)| (*name, text.as_str())),
    );
    succeeded(&host.perform(id, "DownloadBundle").await);
}

fn runs(host: &Lone, id: &str) -> usize {
    fs::read_to_string(host.path(id))
        .unwrap_or_default()
        .lines()
        .count()
}

fn succeeded(completion: &Completion) {
    assert_eq!(
        (completion.status.as_str(), completion.error_code),
        ("Succeeded", 0),
        "{completion:?}"
    );
}

fn failed(completion: &Completion, expected: &str) {
    assert_eq!(
        (completion.status.as_str(), completion.error_code),
        ("Failed", 5),
        "{completion:?}"
    );
    assert!(
        completion.message.contains(expected),
        "{:?} not in {:?}",
        expected,
        completion.message
    );
}

/// Checks that the agent still works.
async fn works(host: &Lone) {
    downloaded(host, "d-next").await;
    succeeded(&host.perform("d-next", HOOK).await);
    assert_eq!(runs(host, "d-next"), 1);
}

/// Transient faults.
fn passing() -> Vec<(&'static str, Fault)> {
    vec![
        ("an internal error", Fault::Error(500, "ServerException")),
        ("unavailable", Fault::Error(503, "ServiceUnavailable")),
        ("throttling", Fault::Error(400, "ThrottlingException")),
        (
            "too many requests",
            Fault::Answer(429, "text/plain", b"slow down".to_vec()),
        ),
        (
            "a proxy's refusal",
            Fault::Answer(403, "text/html", b"<h1>Blocked</h1>".to_vec()),
        ),
        (
            "a proxy's page",
            Fault::Answer(200, "text/html", b"<h1>Please log in</h1>".to_vec()),
        ),
        (
            "a portal's document",
            Fault::Answer(200, "application/json", b"{\"login\":true}".to_vec()),
        ),
        (
            "nothing",
            Fault::Answer(200, "application/x-amz-json-1.1", Vec::new()),
        ),
        (
            "noise",
            Fault::Answer(200, "application/x-amz-json-1.1", vec![0xff; 1000]),
        ),
        (
            "a wrong type",
            Fault::Answer(200, "application/x-amz-json-1.1", b"\"text\"".to_vec()),
        ),
        (
            "a huge answer",
            Fault::Answer(200, "application/x-amz-json-1.1", vec![b' '; 64 << 20]),
        ),
        ("silence", Fault::Hang),
        ("a reset", Fault::Reset),
        ("half an answer", Fault::CutBody),
        ("half an answer, then silence", Fault::HangInBody),
    ]
}

#[tokio::test]
async fn a_fault_that_passes_costs_time_and_nothing_else() {
    let mut cases = Vec::new();
    for call in [SPECIFICATION, ACKNOWLEDGE, COMPLETE] {
        let lost = ("an answer that is lost", Fault::LostAnswer);
        for (what, fault) in passing().into_iter().chain([lost]) {
            cases.push(async move {
                let host = Lone::start("http_read_timeout: 5\n").await;
                downloaded(&host, "d-1").await;
                host.stub.fail(call, &fault, 1);
                let id = host.command("d-1", HOOK);
                let attempts = if call == COMPLETE { 2 } else { 1 };
                succeeded(&host.stub.completed(&id, attempts).await);
                works(&host).await;
                assert_eq!(
                    host.stub.completions(&id).len(),
                    attempts,
                    "{what} at {call}"
                );
                assert_eq!(runs(&host, "d-1"), 1, "{what} at {call}");
                assert!(host.agent.stop().await.success());
            });
        }
    }
    side_by_side(cases).await;
}

#[tokio::test]
async fn a_poll_that_fails_is_repeated_after_a_pause() {
    let mut cases = Vec::new();
    for (what, fault) in passing() {
        cases.push(async move {
            let host = Lone::start("http_read_timeout: 5\n").await;
            host.stub.requested(POLL, 1).await;
            host.stub.fail(POLL, &fault, 1);
            let throttled = ["throttling", "too many requests"].contains(&what);
            if throttled {
                let pause = wait::until("the pause is logged", async || {
                    let log = host.log();
                    let seconds = log
                        .split("retry_in_seconds\":")
                        .nth(1)
                        .map(|rest| rest[..2].to_owned());
                    seconds.and_then(|text| text.parse::<u64>().ok()).ok_or(log)
                })
                .await;
                assert!((60..=66).contains(&pause), "{pause} s after {what}");
            } else {
                works(&host).await;
                assert!(
                    host.log().contains("cannot poll for commands"),
                    "{what}:\n{}",
                    host.log()
                );
                assert!(
                    host.log().contains("the service answers again"),
                    "{what}:\n{}",
                    host.log()
                );
            }
            assert!(host.agent.stop().await.success());
        });
    }
    side_by_side(cases).await;
}

#[tokio::test]
async fn a_refusal_fails_the_command_once_and_only_that() {
    let mut cases = Vec::new();
    let faults = [
        (
            Fault::Error(400, "ClientException"),
            "ClientException (HTTP 400): as the test wants it",
        ),
        (
            Fault::Error(400, "ExpiredTokenException"),
            "ExpiredTokenException",
        ),
    ];
    for (call, says) in [
        (
            SPECIFICATION,
            "the deployment specification cannot be fetched",
        ),
        (ACKNOWLEDGE, "the command cannot be acknowledged"),
    ] {
        for (fault, why) in faults.clone() {
            cases.push(async move {
                let host = Lone::start("").await;
                downloaded(&host, "d-1").await;
                let before = host.stub.requests(call).len();
                host.stub.fail(call, &fault, 1);
                let id = host.command("d-1", HOOK);
                let completion = host.stub.completed(&id, 1).await;
                failed(&completion, says);
                failed(&completion, why);
                assert_eq!(
                    host.stub.requests(call).len() - before,
                    1,
                    "{why} at {call}"
                );
                works(&host).await;
                assert_eq!(host.stub.completions(&id).len(), 1);
                assert_eq!(runs(&host, "d-1"), 0, "it was reported as failed");
            });
        }
    }
    side_by_side(cases).await;
}

#[tokio::test]
async fn a_service_that_is_away_is_waited_for_and_fails_no_command() {
    let mut cases = Vec::new();
    for call in [SPECIFICATION, ACKNOWLEDGE] {
        for fault in [Fault::Error(503, "ServiceUnavailable"), Fault::Reset] {
            cases.push(async move {
                let host = Lone::start("").await;
                downloaded(&host, "d-1").await;
                let before = host.stub.requests(call).len();
                host.stub.fail(call, &fault, 6);
                let id = host.command("d-1", HOOK);
                host.stub.requested(call, before + 5).await;
                assert_eq!(
                    host.stub.completions(&id),
                    [],
                    "nothing is told of what has not begun"
                );
                succeeded(&host.stub.completed(&id, 1).await);
                assert_eq!(runs(&host, "d-1"), 1);
            });
        }
    }
    side_by_side(cases).await;
}

#[tokio::test]
async fn a_command_that_waits_for_the_service_is_the_next_agents() {
    let mut host = Lone::start("").await;
    downloaded(&host, "d-1").await;
    host.stub.fail(SPECIFICATION, &Fault::Reset, 1000);
    let before = host.stub.requests(SPECIFICATION).len();
    let id = host.command("d-1", HOOK);
    host.stub.requested(SPECIFICATION, before + 2).await;
    assert_eq!(host.stub.completions(&id), []);
    host.stub.recover();
    host.kill_and_restart().await;
    succeeded(&host.stub.completed(&id, 1).await);
    assert_eq!(runs(&host, "d-1"), 1);
}

#[tokio::test]
async fn an_outcome_is_told_until_it_is_taken_or_refused_for_good() {
    let host = Lone::start("").await;
    downloaded(&host, "d-1").await;
    // Somebody renews the credentials; until then the outcome waits.
    host.stub
        .fail(COMPLETE, &Fault::Error(400, "ExpiredTokenException"), 2);
    let id = host.command("d-1", HOOK);
    succeeded(&host.stub.completed(&id, 3).await);
    host.stub
        .fail(COMPLETE, &Fault::Error(400, "ClientException"), 1);
    let refused = host.command("d-1", "AfterInstall");
    host.stub.completed(&refused, 1).await;
    works(&host).await;
    assert_eq!(
        (
            host.stub.completions(&id).len(),
            host.stub.completions(&refused).len()
        ),
        (3, 1)
    );
    wait::until("nothing is in progress", async || {
        let left = fs::read_dir(host.path("root/ongoing-deployment"))
            .unwrap()
            .count();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn a_specification_counts_for_its_host_its_command_and_its_time_only() {
    let mut host = Lone::start("").await;
    let files = counting(&host.path("d-1"));
    let revision = host.path("revision-d-1");
    host.deployment(
        "web",
        "d-1",
        &files.each_ref().map(|(name, text)| (*name, text.as_str())),
    );
    let signed = |members: Value| {
        let mut specification = specification("web", "d-1", &revision);
        specification
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        specification
    };
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let bound =
        json!({"HostIdentifier": IDENTIFIER, "DeploymentExecutionId": "d-1", "SignedAt": now});
    let but = |member: &str, value: Value| {
        let mut changed = bound.clone();
        changed[member] = value;
        changed
    };
    // For the command's host, signed, but about another deployment.
    host.stub.specify("d-2", &signed(json!({})));
    failed(
        &host.perform("d-2", "DownloadBundle").await,
        "about the deployment d-1",
    );
    for (members, expected) in [
        (
            but("HostIdentifier", json!(format!("{IDENTIFIER}0"))),
            "signed for the host",
        ),
        (
            but("DeploymentExecutionId", json!("x/d-1")),
            "the command is of",
        ),
        (but("SignedAt", json!(now - 7200)), "at most an hour"),
        (but("SignedAt", json!(now + 7200)), "at most an hour"),
        (but("SignedAt", json!("now")), "SignedAt: expected a number"),
    ] {
        host.stub.specify("d-1", &signed(members));
        let id = format!("d-1/{expected}/{now}");
        host.stub.deliver(command(&id, "d-1", HOOK));
        let before = host.stub.completions(&id).len();
        failed(&host.stub.completed(&id, before + 1).await, expected);
        host.stub.forget();
    }

    // A trusted signer that has once sent the binding must always send it.
    let configuration = fs::read_to_string(host.path("agent.yml")).unwrap();
    let authority = format!(
        "{configuration}deployment_signer_ca: {}\n",
        host.path("cert.pem").display()
    );
    fs::write(host.path("agent.yml"), authority).unwrap();
    host.kill_and_restart().await;
    host.stub.specify("d-1", &signed(json!({})));
    succeeded(&host.perform("d-1", "DownloadBundle").await);
    host.stub.specify("d-1", &signed(bound.clone()));
    succeeded(&host.perform("d-1", "BeforeInstall").await);
    host.stub.specify("d-1", &signed(json!({})));
    host.kill_and_restart().await;
    failed(
        &host.perform("d-1", "AfterInstall").await,
        "does not say HostIdentifier",
    );
    let mut part = command("part", "d-1", HOOK);
    part["HostIdentifier"] = json!("user/box1");
    host.stub.deliver(part);
    failed(
        &host.stub.completed("part", 1).await,
        "the command is for the host \"user/box1\"",
    );
    assert_eq!(runs(&host, "d-1"), 1);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_command_is_reported_once() {
    let host = Lone::start("").await;
    let good = command("c", "d-good", HOOK);
    downloaded(&host, "d-good").await;
    let but = |member: &str, value: Value| {
        let mut changed = good.clone();
        changed[member] = value;
        changed
    };
    let without = |member: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(member);
        changed
    };
    let long = "x".repeat(100_000);
    let cases = [
        (without("CommandName"), "the command has no name"),
        (but("CommandName", json!(null)), "the command has no name"),
        (but("CommandName", json!("")), "the command has no name"),
        (
            but("CommandName", json!("../etc")),
            "name is not a lifecycle event",
        ),
        (
            but("CommandName", json!(long)),
            "name is not a lifecycle event",
        ),
        (
            but("CommandName", json!("UpdateDeploymentAgent")),
            "upgrade the codedeploy-agent package",
        ),
        (
            but("CommandName", json!("BlockTraffic")),
            "performed by the service",
        ),
        (
            but(
                "HostIdentifier",
                json!("arn:aws:iam::123456789012:user/box2"),
            ),
            "user/box2\", but this is arn",
        ),
        (but("HostIdentifier", json!(long)), "but this is arn"),
        (without("HostIdentifier"), "but this is arn"),
        (
            without("DeploymentExecutionId"),
            "contains no deployment specification",
        ),
        (
            but("DeploymentExecutionId", json!("unheard of")),
            "expected CodeDeploy",
        ),
    ];
    for (number, (mut command, expected)) in cases.into_iter().enumerate() {
        let id = format!("command {number}");
        command["HostCommandIdentifier"] = json!(id);
        if command.get("DeploymentExecutionId").is_none() {
            host.stub
                .specify_answer("", json!({"DeploymentSystem": "CodeDeploy"}));
        }
        host.stub.deliver(command);
        failed(&host.stub.completed(&id, 1).await, expected);
        assert_eq!(host.stub.completions(&id).len(), 1, "{expected}");
    }
    works(&host).await;
    assert_eq!(runs(&host, "d-good"), 0);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_specification_is_reported_once() {
    let host = Lone::start("").await;
    let folder = host.path("revision");
    let envelope = |format: &str, payload: &str| json!({"Format": format, "Payload": payload});
    let answer = |envelope: Value| json!({"DeploymentSystem": "CodeDeploy", "DeploymentSpecification": {"GenericEnvelope": envelope}});
    let mut broken = specification("web", "d-1", &folder);
    broken["DeploymentGroupId"] = json!("../web");
    host.stub.specify("broken", &broken);
    host.stub.specify("number", &json!(7));
    let plain = specification("web", "d-1", &folder).to_string();
    let cases = [
        (
            "system",
            json!({"DeploymentSystem": "Other"}),
            "is for \"Other\"",
        ),
        (
            "null",
            json!({"DeploymentSystem": null}),
            "expected CodeDeploy",
        ),
        (
            "empty",
            json!({"DeploymentSystem": "CodeDeploy", "DeploymentSpecification": {}}),
            "contains no deployment",
        ),
        (
            "unsigned",
            answer(envelope("TEXT/JSON", &plain)),
            "expected PKCS7/JSON",
        ),
        (
            "noise",
            answer(envelope("PKCS7/JSON", "\u{1}\u{2}")),
            "neither PEM",
        ),
        (
            "other",
            answer(envelope("PKCS7/JSON", "aGVsbG8=")),
            "the specification",
        ),
        (
            "large",
            answer(envelope("PKCS7/JSON", &"A".repeat(1_500_000))),
            "expected at most",
        ),
    ];
    let expected = cases
        .iter()
        .map(|(name, _, expected)| (*name, *expected))
        .collect::<Vec<_>>();
    for (name, answer, _) in cases {
        host.stub.specify_answer(name, answer);
    }
    let signed = [
        ("broken", "DeploymentGroupId: \"../web\""),
        ("number", "expected an object"),
    ];
    for (name, expected) in expected.into_iter().chain(signed) {
        let completion = host.perform(name, "Install").await;
        failed(&completion, expected);
        assert_eq!(
            host.stub.completions(&format!("{name}/Install")).len(),
            1,
            "{name}"
        );
    }
    works(&host).await;
}

#[tokio::test]
async fn the_service_may_have_ended_a_command_before_it_began() {
    let host = Lone::start("").await;
    downloaded(&host, "d-1").await;
    for status in ["Succeeded", "Failed"] {
        host.stub
            .acknowledge("d-1/BeforeInstall", json!({"CommandStatus": status}));
        let before = host.stub.requests(ACKNOWLEDGE).len();
        host.command("d-1", HOOK);
        host.stub.requested(ACKNOWLEDGE, before + 1).await;
        succeeded(&host.perform("d-1", &format!("Noop{status}")).await);
        assert_eq!(
            host.stub.completions("d-1/BeforeInstall").len(),
            0,
            "it was over"
        );
        assert_eq!(runs(&host, "d-1"), 0);
    }
    // No AppSpec can have scripts for an unknown command.
    let acknowledged = host.stub.requests(ACKNOWLEDGE);
    let mut unknown = acknowledged.iter().filter(|request| {
        request.body["HostCommandIdentifier"]
            .as_str()
            .is_some_and(|id| id.contains("/Noop"))
    });
    assert!(
        unknown.clone().count() == 2
            && unknown.all(|request| payload(request) == json!({"IsCommandNoop": true}))
    );
    host.stub
        .acknowledge("d-1/AfterInstall", json!({"CommandStatus": "Failed"}));
    let noop = host.perform("d-1", "AfterInstall").await;
    succeeded(&noop);
    assert_eq!(noop.message, "Succeeded: CompletedNoopCommand");
    for (number, answer) in [
        json!({"CommandStatus": "Pending"}),
        json!({"CommandStatus": null}),
        json!({}),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("again {number}");
        host.stub.acknowledge(&id, answer);
        host.stub.deliver(command(&id, "d-1", HOOK));
        succeeded(&host.stub.completed(&id, 1).await);
        assert_eq!(runs(&host, "d-1"), number + 1);
    }
    let noops: Vec<_> = host
        .stub
        .requests(ACKNOWLEDGE)
        .iter()
        .map(payload)
        .collect();
    assert!(
        noops.contains(&json!({"IsCommandNoop": true}))
            && noops.contains(&json!({"IsCommandNoop": false}))
    );
}

fn payload(request: &codedeploy_tests::stub::Request) -> Value {
    assert_eq!(request.body["Diagnostics"]["Format"], "JSON");
    serde_json::from_str(request.body["Diagnostics"]["Payload"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn requests_look_as_the_official_agents_make_them_and_share_a_connection() {
    let host = Lone::start("").await;
    works(&host).await;
    let polls = host.stub.requests(POLL);
    assert!(
        polls
            .iter()
            .all(|poll| poll.body == json!({"HostIdentifier": IDENTIFIER}))
    );
    let headers = &polls[0].headers;
    assert_eq!(headers["content-type"], "application/x-amz-json-1.1");
    assert_eq!(
        headers["x-amz-target"],
        "CodeDeployCommandService_v20141006.PollHostCommand"
    );
    assert!(headers["authorization"].contains("/us-east-1/codedeploy-commands/aws4_request"));
    assert!(headers.contains_key("x-amz-codedeploy-agent-version"));
    let more = host.stub.requests(POLL).len() + 5;
    host.stub.requested(POLL, more).await;
    let highest = host
        .stub
        .requests(POLL)
        .iter()
        .map(|poll| poll.connection)
        .max()
        .unwrap();
    assert!(
        highest <= 2,
        "{highest} connections for polls of an idle agent and two commands"
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_recorded_is_not_performed() {
    let host = Lone::prepared("", Duration::from_millis(200), |root, _| {
        fs::create_dir_all(root.join("ongoing-deployment/d-blocked/by-a-folder")).unwrap();
        let noise = vec![b'x'; 10 << 20];
        fs::write(root.join("ongoing-deployment/d-noise"), noise).unwrap();
        fs::write(root.join("ongoing-deployment/d-binary"), b"\xff\xfe\0").unwrap();
        nix::unistd::mkfifo(
            &root.join("ongoing-deployment/d-fifo"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        fs::write(
            root.join("ongoing-deployment/d-lost"),
            "a command of yesterday",
        )
        .unwrap();
    })
    .await;
    let lost = host.stub.completed("a command of yesterday", 1).await;
    assert_eq!((lost.status.as_str(), lost.error_code), ("Failed", 7));
    let files = counting(&host.path("d-blocked"));
    host.deployment(
        "web",
        "d-blocked",
        &files.each_ref().map(|(name, text)| (*name, text.as_str())),
    );
    let blocked = host.perform("d-blocked", "DownloadBundle").await;
    failed(&blocked, "ongoing-deployment/d-blocked, without which");
    works(&host).await;
    assert_eq!(
        host.stub.requests(COMPLETE).len(),
        4,
        "nothing else was in progress"
    );
}
