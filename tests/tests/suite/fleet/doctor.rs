//! `codedeploy-agent doctor` on a host of a real controller.

use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::programs::Programs;
use serde_json::Value;

/// Expects this verdict about the signing key; returns the finding and the advice.
async fn signer(fleet: &Fleet, verdict: &str) -> (String, String) {
    let configuration = fleet.hosts[0].folder.join("codedeployagent.yml");
    let arguments = [
        "doctor",
        "--json",
        "--config-file",
        configuration.to_str().unwrap(),
    ];
    let output = Programs::built().agent.output(arguments).await;
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let checks = report["checks"].as_array().unwrap();
    let check = checks
        .iter()
        .find(|check| check["name"] == "signer")
        .unwrap_or_else(|| panic!("{report:#}"));
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("verdict"), verdict, "{report:#}");
    (text("text"), text("advice"))
}

#[tokio::test]
async fn a_pin_that_does_not_fit_the_controllers_key_is_found_before_a_deployment_is_lost() {
    let mut fleet = Fleet::start(1, "").await;
    let (text, _) = signer(&fleet, "ok").await;
    assert!(text.ends_with("signs, and is pinned"), "{text}");
    let key = text
        .split_whitespace()
        .find(|word| word.len() == 64)
        .unwrap()
        .to_owned();

    fleet.hosts[0].configure(
        &fleet.bucket,
        &format!("deployment_signer_pin: {}\n", "0".repeat(64)),
    );
    let (text, advice) = signer(&fleet, "problem").await;
    assert!(
        text.contains(&key) && advice.contains("codedeploy-controller signer"),
        "{text}: {advice}"
    );

    // The next key is announced; hosts are to accept it before it signs.
    fleet.hosts[0].configure(&fleet.bucket, "");
    let data = fleet.service.data.display().to_string();
    let announce = [
        "replace-key",
        "signer",
        "--next",
        "--data-dir",
        data.as_str(),
    ];
    let announced = Programs::built().controller.output(announce).await;
    assert!(announced.status.success(), "{announced:?}");
    fleet.service = fleet.service.kill_and_restart().await;
    let (text, advice) = signer(&fleet, "warning").await;
    assert!(text.contains("will sign") && !text.contains(&key), "{text}");
    assert!(advice.contains("before the key is replaced"), "{advice}");

    // The line with both keys goes into the hosts' configuration; the advice is not in it.
    let pins = String::from_utf8(announced.stdout).unwrap();
    let advice = String::from_utf8(announced.stderr).unwrap();
    assert!(pins.starts_with("deployment_signer_pin: "), "{pins}");
    assert_eq!(pins.lines().count(), 1, "{pins}");
    assert!(advice.contains("codedeployagent.yml"), "{advice}");
    fleet.hosts[0].configure(&fleet.bucket, &pins);
    signer(&fleet, "ok").await;
    fleet.stop().await;
}
