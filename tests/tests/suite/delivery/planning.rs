//! Each command of a deployment is planned once, before the service hears that it begins.

use codedeploy_tests::stub::ACKNOWLEDGE;
use codedeploy_tests::stub::lone::Lone;
use serde_json::Value;

const EVENTS: [&str; 7] = [
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
];

/// An AppSpec that is accepted with a warning.
const ODD: &str = "version: 0.0\nos: linux\npermissions:\n  - object: scripts/\n    mode: 755\nhooks:\n  \
                   AfterInstall:\n    - location: hook.sh\n  ValidateService:\n    - location: hook.sh\n";

fn warnings(host: &Lone) -> usize {
    host.log().matches("AppSpec: ").count()
}

#[tokio::test]
async fn what_is_odd_about_an_appspec_is_in_the_log_once_per_deployment() {
    let host = Lone::start("").await;
    for (number, id) in ["d-1", "d-2"].into_iter().enumerate() {
        host.deployment(
            "web",
            id,
            &[("appspec.yml", ODD), ("hook.sh", "#!/bin/sh\n")],
        );
        for event in EVENTS {
            let completion = host.perform(id, event).await;
            assert_eq!(completion.status, "Succeeded", "{completion:?}");
        }
        assert_eq!(warnings(&host), number + 1, "{}", host.log());
    }
}

#[tokio::test]
async fn only_an_event_without_scripts_is_acknowledged_as_nothing_to_do() {
    let host = Lone::start("").await;
    host.deployment(
        "web",
        "d-1",
        &[("appspec.yml", ODD), ("hook.sh", "#!/bin/sh\n")],
    );
    for event in EVENTS {
        host.perform("d-1", event).await;
    }
    host.deployment(
        "web",
        "d-2",
        &[("appspec.yml", "version: 0.0\nos: windows\n")],
    );
    assert_eq!(
        host.perform("d-2", "DownloadBundle").await.status,
        "Succeeded"
    );
    let broken = host.perform("d-2", "BeforeInstall").await;
    assert_eq!(
        (broken.status.as_str(), broken.error_code),
        ("Failed", 5),
        "{broken:?}"
    );
    let noops: Vec<bool> = host
        .stub
        .requests(ACKNOWLEDGE)
        .iter()
        .map(|request| {
            let payload = request.body["Diagnostics"]["Payload"].as_str().unwrap();
            let payload: Value = serde_json::from_str(payload).unwrap();
            payload["IsCommandNoop"].as_bool().unwrap()
        })
        .collect();
    // An AppSpec file that cannot be used is found out by the command, not by its acknowledgement.
    assert_eq!(
        noops,
        [true, false, true, false, false, true, false, false, false]
    );
}
