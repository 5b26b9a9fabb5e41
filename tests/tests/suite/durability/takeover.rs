//! AWS's agent takes over a host in the middle of a deployment, and ours comes back: each command's
//! outcome is reported by one of them.

use std::fs;
use std::path::{Path, PathBuf};

use codedeploy_tests::stub::lone::{Lone, command};
use codedeploy_tests::stub::{COMPLETE, Completion, Fault};
use codedeploy_tests::wait;
use serde_json::{Value, json};

const HOOK: &str = "BeforeInstall";

/// Makes a deployment known whose only script is this, and has the host download it.
async fn downloaded(host: &Lone, group: &str, id: &str, script: &str) {
    let appspec = format!("version: 0.0\nos: linux\nhooks:\n  {HOOK}:\n    - location: hook.sh\n");
    host.deployment(
        group,
        id,
        &[
            ("appspec.yml", &appspec),
            ("hook.sh", &format!("#!/bin/sh\n{script}")),
        ],
    );
    succeeded(&host.perform(id, "DownloadBundle").await);
}

/// Delivers a command whose script goes on until the host's agent is killed.
async fn in_progress(host: &Lone, group: &str, id: &str) -> String {
    let runs = host.path(&format!("runs-{id}"));
    // The script ends when the agent that reads its output does.
    let script = format!(
        "echo run >> {}\nwhile echo; do sleep 0.05; done\n",
        runs.display()
    );
    downloaded(host, group, id, &script).await;
    let command = host.command(id, HOOK);
    wait::until("the script runs", async || {
        runs.exists().then_some(()).ok_or_else(|| host.log())
    })
    .await;
    command
}

fn succeeded(completion: &Completion) {
    assert_eq!(
        (completion.status.as_str(), completion.error_code),
        ("Succeeded", 0),
        "{completion:?}"
    );
}

fn notes(host: &Lone) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.path("root/ongoing-deployment")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Does what AWS's agent does at its start: it reports the command of the newest note, and clears
/// the folder. Gives the command.
fn aws_agent_starts(host: &Lone) -> String {
    let time = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    let newest = notes(host)
        .into_iter()
        .max_by_key(time)
        .expect("a command in progress");
    let reported = fs::read_to_string(newest).unwrap();
    notes(host)
        .iter()
        .for_each(|note: &PathBuf| fs::remove_file(note).unwrap());
    reported
}

/// Waits until the agent has gone through what it found at its start.
async fn works(host: &Lone, id: &str) {
    downloaded(host, "other", id, "").await;
}

fn status_of(status: &Value, id: &str) -> Value {
    let deployments = status["agent"]["deployments"].as_array().unwrap();
    deployments
        .iter()
        .find(|known| known["deployment_id"] == id)
        .cloned()
        .unwrap_or_default()
}

async fn until_gone(path: &Path) {
    wait::until("the record is gone", async || {
        if path.exists() { Err(()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_script_that_awss_agent_reported_as_lost_is_not_reported_again() {
    let mut host = Lone::start("").await;
    let command = in_progress(&host, "web", "d-1").await;
    host.agent.kill().await;
    assert_eq!(aws_agent_starts(&host), command);
    host.restart();
    works(&host, "d-2").await;
    assert!(
        host.stub.completions(&command).is_empty(),
        "{:?}",
        host.stub.completions(&command)
    );
    assert!(
        host.log()
            .contains("another agent took over and reported it"),
        "{}",
        host.log()
    );
    assert!(!host.record("in-progress", &command).exists());
    let status: Value =
        serde_json::from_slice(&host.ask(&["status", "--json"]).await.stdout).unwrap();
    assert_eq!(status_of(&status, "d-1")["outcome"], "failed", "{status:#}");
    host.kill_and_restart().await;
    works(&host, "d-3").await;
    assert!(host.stub.completions(&command).is_empty());
}

#[tokio::test]
async fn an_outcome_that_awss_agent_replaced_by_its_own_is_not_reported_any_more() {
    let mut host = Lone::start("").await;
    downloaded(&host, "web", "d-1", "").await;
    host.stub
        .fail(COMPLETE, &Fault::Error(500, "ServerException"), 1000);
    let command = host.command("d-1", HOOK);
    host.stub.completed(&command, 1).await;
    host.agent.kill().await;
    assert_eq!(aws_agent_starts(&host), command);
    host.stub.recover();
    let told = host.stub.completions(&command).len();
    host.restart();
    works(&host, "d-2").await;
    assert_eq!(host.stub.completions(&command).len(), told);
    assert!(
        host.log()
            .contains("another agent took over and reported the command"),
        "{}",
        host.log()
    );
    assert_eq!(host.records("outbox").len(), 0);
}

#[tokio::test]
async fn what_awss_agent_forgot_is_reported() {
    let mut host = Lone::start("").await;
    let first = in_progress(&host, "web", "d-1").await;
    let second = in_progress(&host, "api", "d-2").await;
    host.agent.kill().await;
    // It knows of one command at a time.
    assert_eq!(aws_agent_starts(&host), second);
    host.restart();
    let lost = host.stub.taken(&first).await;
    assert_eq!((lost.status.as_str(), lost.error_code), ("Failed", 7));
    works(&host, "d-3").await;
    assert!(host.stub.completions(&second).is_empty());
}

#[tokio::test]
async fn without_another_agent_in_between_a_lost_script_is_reported_once() {
    let mut host = Lone::start("").await;
    let command = in_progress(&host, "web", "d-1").await;
    host.kill_and_restart().await;
    let lost = host.stub.taken(&command).await;
    assert_eq!((lost.status.as_str(), lost.error_code), ("Failed", 7));
    until_gone(&host.record("outbox", &command)).await;
    host.kill_and_restart().await;
    works(&host, "d-2").await;
    assert_eq!(host.stub.completions(&command).len(), 1);
}

#[tokio::test]
async fn a_note_that_was_written_before_its_command_began_does_not_outlive_it() {
    let mut host = Lone::start("").await;
    downloaded(&host, "web", "d-1", "").await;
    host.agent.kill().await;
    // As if the agent had been killed between the note and the record, and the service had given up
    // the command.
    let id = format!("d-1/{HOOK}");
    let record = json!({"version": 1, "command": command(&id, "d-1", HOOK), "received_at": "2026-11-23T00:00:00Z", "starts": 1});
    fs::write(host.record("in-progress", &id), record.to_string()).unwrap();
    fs::write(host.path("root/ongoing-deployment/d-1"), &id).unwrap();
    host.stub
        .acknowledge(&id, json!({"CommandStatus": "Failed"}));
    host.restart();
    until_gone(&host.record("in-progress", &id)).await;
    host.kill_and_restart().await;
    works(&host, "d-2").await;
    assert!(
        host.stub.completions(&id).is_empty(),
        "nothing was done, and the service has ended it"
    );
}
