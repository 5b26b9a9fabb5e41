//! `codedeploy-agent status` beside deployments that succeeded, failed and are in progress.

use std::fs;

use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::wait;
use serde_json::{Value, json};

const APPSPEC: &str =
    "version: 0.0\nos: linux\nhooks:\n  ValidateService:\n    - location: validate.sh\n";

#[tokio::test]
async fn the_whole_status_is_a_document_and_the_text_is_that_of_the_official_agents() {
    let host = Lone::start("").await;
    let held = host.path("held").display().to_string();
    for (id, script) in [
        ("d-1", "true".to_owned()),
        ("d-2", "echo no luck; exit 3".to_owned()),
        (
            "d-3",
            format!("echo $$ > {held}; while [ -e {held} ]; do sleep 0.01; done"),
        ),
    ] {
        let script = format!("#!/bin/sh\n{script}\n");
        host.deployment(
            "web",
            id,
            &[("appspec.yml", APPSPEC), ("validate.sh", &script)],
        );
        assert_eq!(host.perform(id, "DownloadBundle").await.status, "Succeeded");
        if id != "d-3" {
            host.perform(id, "ValidateService").await;
        }
    }
    host.command("d-3", "ValidateService");
    wait::until("the script runs", async || {
        fs::read_to_string(&held).map_err(|_| host.log())
    })
    .await;

    let told = wait::until("outcomes are taken", async || {
        let told: Value =
            serde_json::from_slice(&host.ask(&["status", "--json"]).await.stdout).unwrap();
        if told["agent"]["outbox"]["waiting"] == 0 {
            Ok(told)
        } else {
            Err(told.to_string())
        }
    });
    let mut told = told.await;
    let pid = told["pid"].to_string();
    let text = host.ask(&["status"]).await;
    fs::remove_file(&held).unwrap();
    for (place, stands_for) in [
        ("/pid", json!("the process")),
        ("/agent/agent_version", json!("the version")),
        ("/agent/started_at", json!("a time")),
        ("/agent/last_poll_at", json!("a time")),
        ("/agent/commands/0/began_at", json!("a time")),
    ] {
        *told
            .pointer_mut(place)
            .unwrap_or_else(|| panic!("{place} is missing")) = stands_for;
    }
    for deployment in told["agent"]["deployments"].as_array_mut().unwrap() {
        for (key, value) in deployment.as_object_mut().unwrap() {
            if key.ends_with("_at") {
                *value = json!("a time");
            } else if key == "seconds" {
                *value = json!("a duration");
            }
        }
    }
    let text = String::from_utf8([text.stdout, text.stderr].concat()).unwrap();
    let document = serde_json::to_string_pretty(&told).unwrap();
    insta::assert_snapshot!(format!("{}\n{document}", text.replace(&pid, "the process")));
}
