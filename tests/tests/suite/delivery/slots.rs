//! Blue/green on one host with a service: its events are those of a deployment in place.

use std::fs;

use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::wait;
use serde_json::Value;

use crate::noted::text;

const GROUP: &str = "web";

/// Defines a deployment of `version` in slots. `traffic` and `stop` are lines of its scripts.
fn revision(host: &Lone, version: &str, traffic: &str, stop: &str) {
    let notes = host.path("notes").display().to_string();
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: {app}\nstrategy:\n  type: blue_green\n  \
         link: {app}\n  drain: 0\n  traffic:\n    command: {{location: traffic.sh}}\nhooks:\n  ApplicationStop:\n    \
         - location: stop.sh\n",
        app = host.path("app").display()
    );
    let script = |line: &str| {
        format!(
            "#!/bin/sh\necho \"{version} $LIFECYCLE_EVENT ${{SLOT:-to $TO_SLOT}}\" >> {notes}\n{line}\n"
        )
    };
    host.deployment(
        GROUP,
        version,
        &[
            ("appspec.yml", &appspec),
            ("site/VERSION", version),
            ("traffic.sh", &script(traffic)),
            ("stop.sh", &script(stop)),
        ],
    );
}

async fn up_to_validation(host: &Lone, deployment: &str) {
    for event in [
        "ApplicationStop",
        "DownloadBundle",
        "Install",
        "ApplicationStart",
    ] {
        let completion = host.perform(deployment, event).await;
        assert_eq!(completion.error_code, 0, "{event}: {completion:?}");
    }
}

fn slot(host: &Lone) -> String {
    let target = fs::read_link(host.path("app")).unwrap_or_default();
    target
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[tokio::test]
async fn the_switch_comes_with_validate_service_and_a_failing_stop_is_named_in_its_report() {
    let host = Lone::start("").await;
    revision(&host, "d-1", "true", "exit 5");
    up_to_validation(&host, "d-1").await;
    assert_eq!(slot(&host), "", "nothing serves yet");
    assert_eq!(host.perform("d-1", "ValidateService").await.error_code, 0);
    assert_eq!(
        (slot(&host), text(&host, "app/VERSION")),
        ("blue".into(), "d-1".into())
    );

    revision(&host, "d-2", "true", "true");
    up_to_validation(&host, "d-2").await;
    assert_eq!(
        text(&host, "notes"),
        "d-1 AllowTraffic to blue",
        "the old one runs"
    );
    let completion = host.perform("d-2", "ValidateService").await;
    assert_eq!(completion.error_code, 0, "{completion:?}");
    assert!(
        completion
            .message
            .contains("the new revision serves, but ApplicationStop of the old one, d-1, failed"),
        "{completion:?}"
    );
    assert_eq!(
        (slot(&host), text(&host, "app/VERSION")),
        ("green".into(), "d-2".into())
    );
    assert_eq!(
        text(&host, "notes"),
        "d-1 AllowTraffic to blue\nd-2 AllowTraffic to green\nd-1 ApplicationStop blue"
    );

    let status = host.ask(&["status", "--json"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["slots"][0]["serves"], "green", "{status}");
    assert_eq!(
        status["slots"][0]["blue"]["deployment_id"], "d-1",
        "{status}"
    );
    let doctor = host.ask(&["doctor"]).await;
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("is the slot green since"), "{doctor}");
}

#[tokio::test]
async fn traffic_that_does_not_move_fails_the_deployment_and_the_old_slot_goes_on() {
    let host = Lone::start("").await;
    revision(&host, "d-1", "true", "true");
    up_to_validation(&host, "d-1").await;
    assert_eq!(host.perform("d-1", "ValidateService").await.error_code, 0);
    revision(&host, "d-2", "test $TO_SLOT = blue", "true");
    up_to_validation(&host, "d-2").await;
    let completion = host.perform("d-2", "ValidateService").await;
    assert_eq!(completion.error_code, 5, "{completion:?}");
    assert!(
        completion
            .message
            .contains("traffic was not moved to the slot green"),
        "{completion:?}"
    );
    assert!(
        completion.log.contains("d-1 serves, in the slot blue"),
        "{completion:?}"
    );
    assert_eq!(
        (slot(&host), text(&host, "app/VERSION")),
        ("blue".into(), "d-1".into())
    );
    assert!(text(&host, "notes").ends_with("d-2 ApplicationStop green"));
}

#[tokio::test]
async fn an_agent_that_is_killed_in_the_switch_finishes_it_and_reports_a_success() {
    let mut host = Lone::start("").await;
    revision(&host, "d-1", "true", "true");
    up_to_validation(&host, "d-1").await;
    assert_eq!(host.perform("d-1", "ValidateService").await.error_code, 0);
    let (hold, pid) = (host.path("hold"), host.path("pid"));
    fs::write(&hold, "").unwrap();
    let held = format!(
        "if rm {} 2>/dev/null; then echo $$ > {}; exec sleep 1000; fi",
        hold.display(),
        pid.display()
    );
    revision(&host, "d-2", &held, "true");
    up_to_validation(&host, "d-2").await;
    let id = host.command("d-2", "ValidateService");
    let script = wait::until("traffic moves", async || {
        text(&host, "pid")
            .trim()
            .parse::<u32>()
            .map_err(|_| host.log())
    })
    .await;
    host.agent.kill().await;
    let killed = std::process::Command::new("kill")
        .args(["-9", &script.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(slot(&host), "blue");
    let journal = host.ask(&["journal"]).await;
    let said = String::from_utf8_lossy(&journal.stdout).into_owned();
    assert!(
        !journal.status.success()
            && said.contains("The switch to the slot green ended before traffic moved to it"),
        "{said}"
    );

    host.restart();
    let completion = host.stub.completed(&id, 1).await;
    assert_eq!(completion.error_code, 0, "{completion:?}");
    assert_eq!(
        (slot(&host), text(&host, "app/VERSION")),
        ("green".into(), "d-2".into())
    );
    assert!(text(&host, "notes").ends_with("d-1 ApplicationStop blue"));
    assert!(host.ask(&["journal"]).await.status.success());
}
