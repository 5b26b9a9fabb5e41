//! The revision that each event runs from, and the result if that is gone.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::host::Host;

const HOOKS: [&str; 9] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

/// A revision whose scripts record its name.
fn revision(host: &Host, name: &str) -> PathBuf {
    let hooks: String = HOOKS
        .iter()
        .map(|event| format!("  {event}:\n    - location: note.sh\n"))
        .collect();
    let note = format!(
        "#!/bin/sh\necho {name} >> {}\n",
        host.path("noted").display()
    );
    host.revision(
        &format!("hooks:\n{hooks}"),
        &[("note.sh", &note), ("site/page", name)],
    )
}

/// A host where one deployment succeeded, and the next one failed after its download.
async fn host() -> Host {
    let host = Host::new();
    let good = revision(&host, "good");
    host.succeed(
        &["DownloadBundle", "Install"],
        "d-GOOD00001",
        &good,
        &json!({}),
    )
    .await;
    let failed = revision(&host, "failed");
    host.succeed(&["DownloadBundle"], "d-FAILED001", &failed, &json!({}))
        .await;
    host
}

/// The revision whose script ran for `event` of the deployment d-NEW000001; empty if none did,
/// `None` if the event failed.
async fn ran(host: &Host, event: &str, kind: &Value) -> Option<String> {
    let _ = fs::remove_file(host.path("noted"));
    let report = host
        .perform(event, "d-NEW000001", &host.path("revision"), kind)
        .await;
    let noted = fs::read_to_string(host.path("noted")).unwrap_or_default();
    report.outcome.succeeded().then(|| noted.trim().to_owned())
}

#[tokio::test]
async fn events_before_the_download_run_from_an_earlier_deployment_and_all_others_from_this_one() {
    let usual = json!({});
    let swap_back =
        json!({"DeploymentCreator": "codeDeployRollback", "DeploymentType": "BLUE_GREEN"});
    let in_place_rollback =
        json!({"DeploymentCreator": "codeDeployRollback", "DeploymentType": "IN_PLACE"});
    let blue_green = json!({"DeploymentCreator": "user", "DeploymentType": "BLUE_GREEN"});
    for kind in [&usual, &swap_back, &in_place_rollback, &blue_green] {
        let host = host().await;
        revision(&host, "new");
        let swaps = kind == &swap_back;
        for event in HOOKS {
            let expected = match event {
                "BeforeBlockTraffic" | "AfterBlockTraffic" if swaps => Some("failed"),
                "BeforeBlockTraffic" | "AfterBlockTraffic" | "ApplicationStop" => Some("good"),
                "BeforeAllowTraffic" | "AfterAllowTraffic" if swaps => Some("good"),
                // There is no revision yet to run it from.
                _ => None,
            };
            assert_eq!(
                ran(&host, event, kind).await.as_deref(),
                expected,
                "{event}, {kind}"
            );
        }
        host.succeed(
            &["DownloadBundle"],
            "d-NEW000001",
            &host.path("revision"),
            kind,
        )
        .await;
        for event in HOOKS {
            assert_eq!(
                ran(&host, event, kind).await.as_deref(),
                Some("new"),
                "{event}, {kind}"
            );
        }
    }
}

#[tokio::test]
async fn an_earlier_revision_that_is_gone_has_nothing_to_stop() {
    type Lose = fn(&Host);
    let lost: [(&str, Lose); 3] = [
        ("the deployment", |host| {
            fs::remove_dir_all(host.deployment("d-GOOD00001")).unwrap()
        }),
        ("its archive", |host| {
            fs::remove_dir_all(host.archive("d-GOOD00001")).unwrap()
        }),
        ("its AppSpec", |host| {
            fs::remove_file(host.archive("d-GOOD00001").join("appspec.yml")).unwrap()
        }),
    ];
    for (what, lose) in lost {
        let host = host().await;
        lose(&host);
        for event in ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"] {
            assert_eq!(
                ran(&host, event, &json!({})).await.as_deref(),
                Some(""),
                "{what}, {event}"
            );
        }
        let new = revision(&host, "new");
        host.succeed(
            &["DownloadBundle", "Install"],
            "d-NEW000001",
            &new,
            &json!({}),
        )
        .await;
        assert_eq!(
            fs::read_to_string(host.path("app/page")).unwrap(),
            "new",
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_group_without_an_earlier_deployment_has_nothing_to_stop() {
    let host = Host::new();
    revision(&host, "new");
    for event in ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"] {
        assert_eq!(
            ran(&host, event, &json!({})).await.as_deref(),
            Some(""),
            "{event}"
        );
    }
}

#[tokio::test]
async fn the_earlier_revision_may_have_another_name_for_its_appspec() {
    let host = host().await;
    let renamed = host.archive("d-GOOD00001");
    fs::rename(renamed.join("appspec.yml"), renamed.join("appspec.yaml")).unwrap();
    let named = json!({"AppSpecFilename": "deploy.yml"});
    assert_eq!(
        ran(&host, "ApplicationStop", &named).await.as_deref(),
        Some("good")
    );
}
