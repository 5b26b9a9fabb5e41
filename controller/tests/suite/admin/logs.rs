//! The log for operators: changes and their authors, rejected requests, and failures with their
//! reasons.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_sdk_codedeploy::operation::RequestId as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Agent, Controller, QUICK, command, eventually, shop, text};

const OPERATOR: &str = "arn:aws:iam::123456789012:user/operator";

/// Waits for a line that has these fields.
async fn line(controller: &Controller, message: &str, fields: Value) -> Value {
    let has = |line: &Value| {
        fields
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, value)| line[name] == *value)
    };
    eventually(&format!("{message} {fields}"), async || {
        controller.logged(message).into_iter().find(has)
    })
    .await
}

#[tokio::test]
async fn every_change_is_a_line_with_who_made_it_from_where() {
    let controller = Controller::start(&format!("{QUICK}\ns3: {{}}"));
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let id = text(&key, "access_key_id");
    let client = controller.client_with(&key);
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    let deployment = shop::deploy(&client, "v1.zip").await;
    client.list_applications().send().await.unwrap();

    let group = json!({"operation": "CreateDeploymentGroup", "application": "shop", "deployment_group": "web"});
    let created = json!({"deployment_id": deployment, "application": "shop", "deployment_group": "web",
                         "revision": "s3://bkt/v1.zip"});
    for line in [
        line(
            &controller,
            "changed by a request",
            json!({"operation": "CreateApplication"}),
        )
        .await,
        line(&controller, "changed by a request", group).await,
        line(&controller, "deployment created", created).await,
    ] {
        assert_eq!(
            (&line["by"], &line["access_key_id"]),
            (&json!(OPERATOR), &json!(id)),
            "{line}"
        );
        assert!(
            text(&line, "client").starts_with("127.0.0.1:") && line["level"] == "INFO",
            "{line}"
        );
    }
    assert_eq!(
        controller.logged("changed by a request").len(),
        2,
        "what only looks is no change"
    );

    let (address, secret) = (controller.address, text(&key, "secret_access_key"));
    let operator = Agent {
        address,
        identifier: OPERATOR.into(),
        access_key_id: id.clone(),
        secret,
    };
    for (method, operation) in [("PUT", "PutObject"), ("DELETE", "DeleteObject")] {
        let head = operator.s3_head(&format!("{method} /revisions/app/v2.zip"));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}content-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        let change = json!({"operation": operation, "bucket": "revisions", "key": "app/v2.zip", "by": OPERATOR});
        line(&controller, "changed by a request", change).await;
    }

    controller.admin_json(&["host", "add", "box1", "--json"]);
    assert!(
        controller
            .admin(&["host", "remove", "box1"])
            .status
            .success()
    );
    assert!(
        controller
            .admin(&["credentials", "revoke", &id])
            .status
            .success()
    );
    for (operation, resource) in [
        ("credentials create", id.as_str()),
        ("host add", "box1"),
        ("host remove", "box1"),
        ("credentials revoke", id.as_str()),
    ] {
        let line = line(
            &controller,
            "changed at the command line",
            json!({"operation": operation}),
        )
        .await;
        assert!(text(&line, "resource").starts_with(resource), "{line}");
        assert!(text(&line, "by").starts_with("command line"), "{line}");
    }
    assert!(
        !controller
            .logged("changed at the command line")
            .iter()
            .any(|line| { line.to_string().contains(&text(&key, "secret_access_key")) })
    );
}

#[tokio::test]
async fn who_is_refused_is_named() {
    let controller = Controller::start(&format!(
        "{QUICK}\nevents: {{token: a-token-that-is-long-enough}}"
    ));
    let mut key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    key["secret_access_key"] = json!("another");
    controller
        .client_with(&key)
        .list_applications()
        .send()
        .await
        .unwrap_err();
    let fields = json!({"error": "InvalidSignatureException", "access_key_id": key["access_key_id"],
                        "operation": "ListApplications"});
    let refused = line(&controller, "request refused", fields).await;
    assert!(
        text(&refused, "client").starts_with("127.0.0.1:"),
        "{refused}"
    );
    assert!(
        refused.get("by").is_none(),
        "nobody has proved to be anyone: {refused}"
    );

    let mut stream = TcpStream::connect(controller.address).await.unwrap();
    let notification = "POST /events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\n\
                        content-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(notification.as_bytes()).await.unwrap();
    let message = "a notification was rejected: its token is not that of events.token";
    let refused = line(&controller, message, json!({})).await;
    assert_eq!(
        text(&refused, "client"),
        stream.local_addr().unwrap().to_string()
    );
}

#[tokio::test]
async fn the_cause_of_an_internal_failure_is_under_the_id_that_its_client_has() {
    let controller = Controller::start(QUICK);
    let client = controller.client("operator");
    let database =
        rusqlite::Connection::open(controller.data().join("codedeploy.sqlite3")).unwrap();
    database
        .execute_batch("PRAGMA foreign_keys = off; ALTER TABLE applications RENAME TO lost")
        .unwrap();
    let failed = client.list_applications().send().await.unwrap_err();
    let id = failed.request_id().expect("an id").to_owned();
    let cause = line(
        &controller,
        "a request failed inside the service",
        json!({"request_id": id}),
    )
    .await;
    assert!(
        text(&cause, "error").contains("applications") && cause["level"] == "ERROR",
        "{cause}"
    );
}

#[tokio::test]
async fn what_fails_is_a_warning_with_host_event_and_reason() {
    let controller = Controller::start(QUICK);
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    let host = controller.host("box1", &["env=prod"]);
    let deployment = shop::deploy(&client, "v1.zip").await;
    let command = host.poll().await.expect("a command");
    host.acknowledge(&command).await;
    host.fail(&command).await;
    let ended = line(
        &controller,
        "deployment ended",
        json!({"deployment_id": deployment}),
    )
    .await;
    assert_eq!(
        (&ended["level"], &ended["status"]),
        (&json!("WARN"), &json!("Failed")),
        "{ended}"
    );
    assert!(!text(&ended, "reason").is_empty());

    let events = controller.logged("lifecycle event changed");
    let [event] = events.as_slice() else {
        panic!("one line of the event: {events:?}")
    };
    let expected = json!({"level": "WARN", "deployment_id": deployment, "host": "box1", "state": "Failed",
                          "lifecycle_event": command.name, "reason": "failed with exit code 1"});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(event[name], *value, "{event}");
    }
}

#[test]
fn the_journal_is_told_the_priority_of_every_line() {
    let folder = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let file = log.metadata().unwrap();
    let (device, inode) = (file.dev(), file.ino());
    for (stream, prefix) in [
        (format!("{device}:{inode}"), "<6>{"),
        (format!("{device}:1"), "{"),
    ] {
        log.set_len(0).unwrap();
        let mut child = command(env!("CARGO_BIN_EXE_codedeploy-controller"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .env("JOURNAL_STREAM", stream)
            .stderr(
                File::options()
                    .append(true)
                    .open(folder.path().join("log"))
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        let read = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        while !read().contains("going on with active deployments") {
            assert!(child.try_wait().unwrap().is_none(), "{}", read());
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            read().lines().all(|line| line.starts_with(prefix)),
            "{}",
            read()
        );
    }
}

#[test]
fn level_format_and_what_a_reload_does_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("controller.yml");
    std::fs::write(&config, "log_format: text\nlog_level: debug").unwrap();
    let mut child = command(env!("CARGO_BIN_EXE_codedeploy-controller"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config-file"])
        .arg(&config)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut until = |text: &str| {
        let found = lines.by_ref().find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no line with {text}"))
    };
    let signal = |name: &str| {
        assert!(
            command("kill")
                .args(["-s", name, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    };
    let ready = until(" INFO  ready ");
    let file = format!(" config_file={} ", config.display());
    assert!(
        ready.contains(&file) && ready.contains(env!("CARGO_PKG_VERSION")),
        "{ready}"
    );
    until("going on with active deployments");
    std::fs::write(&config, "log_format: json").unwrap();
    signal("HUP");
    let told = until(" WARN  the configuration file has changed");
    assert!(told.contains("restart the service"), "{told}");
    signal("TERM");
    until(" INFO  stopping");
    until(" INFO  stopped");
    // An agent that retries for two seconds must reach the restarted service.
    let stopped = Instant::now();
    assert!(child.wait().unwrap().success());
    assert!(
        stopped.elapsed() < Duration::from_millis(500),
        "{:?}",
        stopped.elapsed()
    );
    assert!(lines.next().is_none());
}
