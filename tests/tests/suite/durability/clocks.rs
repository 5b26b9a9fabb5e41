//! A clock that was wrong while a command began costs a repetition at most, never an outcome.

use std::fs;

use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::wait;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Shifts every time in the record of a command in progress.
fn move_clock(host: &Lone, command: &str, days: i64) {
    let path = host.record("in-progress", command);
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let moved = (OffsetDateTime::now_utc() + time::Duration::days(days))
        .format(&Rfc3339)
        .unwrap();
    record["received_at"] = json!(moved);
    record["begun"]["began_at"] = json!(moved);
    record["begun"]["noted"]["at"] = json!(moved);
    fs::write(path, record.to_string()).unwrap();
}

/// A command whose script runs until its agent is killed.
async fn interrupted(host: &mut Lone, id: &str, event: &str) -> String {
    let appspec = format!("version: 0.0\nos: linux\nhooks:\n  {event}:\n    - location: hook.sh\n");
    let runs = host.path(&format!("runs-{id}"));
    let script = format!(
        "#!/bin/sh\necho run >> {}\nwhile echo; do sleep 0.05; done\n",
        runs.display()
    );
    host.deployment(
        "web",
        id,
        &[("appspec.yml", &appspec), ("hook.sh", &script)],
    );
    assert_eq!(host.perform(id, "DownloadBundle").await.status, "Succeeded");
    let command = host.command(id, event);
    wait::until("the script runs", async || {
        runs.exists().then_some(()).ok_or_else(|| host.log())
    })
    .await;
    host.agent.kill().await;
    command
}

#[tokio::test]
async fn a_command_of_two_days_ago_or_of_tomorrow_is_reported_as_failed() {
    let mut host = Lone::start("").await;
    for (id, days) in [("d-1", -2), ("d-2", 1)] {
        let command = interrupted(&mut host, id, "BeforeInstall").await;
        move_clock(&host, &command, days);
        host.restart();
        let lost = host.stub.taken(&command).await;
        assert_eq!(
            (lost.status.as_str(), lost.error_code),
            ("Failed", 7),
            "{lost:?}"
        );
        assert!(lost.message.contains("the agent was restarted"), "{lost:?}");
        let runs = fs::read_to_string(host.path(&format!("runs-{id}"))).unwrap();
        assert_eq!(runs.lines().count(), 1, "the script is not run again");
    }
}

#[tokio::test]
async fn an_install_of_two_days_ago_is_not_done_again_and_its_outcome_is_reported() {
    let mut host = Lone::start("").await;
    let target = host.path("target");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\n",
        target.display()
    );
    host.deployment(
        "web",
        "d-1",
        &[("appspec.yml", &appspec), ("page", "hello")],
    );
    assert_eq!(
        host.perform("d-1", "DownloadBundle").await.status,
        "Succeeded"
    );
    host.agent.kill().await;
    let command = "d-1/Install";
    let record = json!({
        "version": 1, "command": codedeploy_tests::stub::lone::command(command, "d-1", "Install"),
        "received_at": "2026-11-23T00:00:00Z", "starts": 1, "begun": {
            "began_at": "2026-11-23T00:00:00Z", "deployment_id": "d-1", "deployment_group_id": "web",
            "deployment_group": "web", "application": "shop",
            "specification": {"Format": "PKCS7/JSON", "Payload": ""}
        }
    });
    fs::write(host.record("in-progress", command), record.to_string()).unwrap();
    move_clock(&host, command, -2);
    let mut record: Value =
        serde_json::from_slice(&fs::read(host.record("in-progress", command)).unwrap()).unwrap();
    record["begun"].as_object_mut().unwrap().remove("noted");
    fs::write(host.record("in-progress", command), record.to_string()).unwrap();
    host.restart();
    let lost = host.stub.taken(command).await;
    assert_eq!(
        (lost.status.as_str(), lost.error_code),
        ("Failed", 7),
        "{lost:?}"
    );
    assert!(!target.exists());
}
