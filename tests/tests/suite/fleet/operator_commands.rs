//! The commands of operators against a controller with real agents.

use aws_sdk_codedeploy::types::RevisionLocation;
use codedeploy_tests::fleet::{APPLICATION, Fleet, GROUP};
use codedeploy_tests::programs::Programs;
use serde_json::Value;

/// Runs a command on the controller's own host; returns its exit code and its output.
async fn operate(fleet: &Fleet, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Programs::built().controller.command(words);
    let data = &fleet.service.data;
    let output = command.arg("--data-dir").arg(data).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

async fn json(fleet: &Fleet, words: &[&str]) -> Value {
    let (code, text) = operate(fleet, &[words, &["--json"]].concat()).await;
    assert_eq!(code, Some(0), "{words:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn url(revision: &RevisionLocation) -> String {
    let object = revision.s3_location.as_ref().unwrap();
    let version = object.version.as_deref().unwrap_or_default();
    format!(
        "s3://{}/{}?versionId={version}",
        object.bucket.as_deref().unwrap(),
        object.key.as_deref().unwrap()
    )
}

const APPSPEC: &str =
    "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: after.sh\n";

/// Pushes a revision whose script ends with an exit code.
async fn push(fleet: &Fleet, code: u8) -> String {
    let script = format!("#!/bin/sh\necho 'table items is missing' >&2\nexit {code}\n");
    let files = [("appspec.yml", APPSPEC), ("after.sh", script.as_str())];
    url(&fleet.push(&files).await)
}

#[tokio::test]
async fn a_failing_script_is_found_and_taken_back_in_one_command_each() {
    let fleet = Fleet::start(2, "").await;
    let [good, bad] = [push(&fleet, 0).await, push(&fleet, 7).await];
    let deploy = async |revision: &str| {
        operate(&fleet, &["deploy", APPLICATION, GROUP, revision, "--wait"]).await
    };
    let (code, text) = deploy(&good).await;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = deploy(&bad).await;
    assert_eq!(code, Some(3), "{text}");
    for expected in [
        "failed at AfterInstall",
        "after.sh",
        "exit code   7",
        "table items is missing",
        "codedeploy-controller rollback shop web",
    ] {
        assert!(
            text.contains(expected),
            "{expected} is missing from:\n{text}"
        );
    }
    let why = json(&fleet, &["why"]).await;
    assert_eq!(why["failures"].as_array().unwrap().len(), 2);
    assert_eq!(why["failures"][0]["errorCode"], "ScriptFailed");

    let status = json(&fleet, &["status", APPLICATION, GROUP]).await;
    assert_eq!(status[0]["hosts"]["behind"], 2);
    let (code, text) = operate(&fleet, &["rollback", APPLICATION, GROUP, "--wait"]).await;
    assert_eq!(code, Some(0), "{text}");
    let status = json(&fleet, &["status"]).await;
    let hosts = &status[0]["hosts"];
    assert_eq!(
        (&hosts["healthy"], &hosts["behind"], &hosts["silent"]),
        (&2.into(), &0.into(), &0.into()),
        "{status}"
    );
    let hosts = json(&fleet, &["hosts"]).await;
    assert_eq!(hosts[1]["revisions"][0]["revisionHealth"], "Current");
    assert!(hosts[0]["agentVersion"].is_string(), "{hosts}");
    fleet.stop().await;
}
