//! What a host reads about its deployment, checked by a program that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/shop.rs"]
mod shop;
mod support;

use serde_json::{Value, json};
use support::{Controller, QUICK, command, eventually, text};

#[tokio::test]
async fn a_specification_is_signed_and_carries_everything_an_agent_needs() {
    let mut controller = Controller::start(QUICK);
    let mut agent = controller.host("box1", &["env=prod"]);
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    let id = shop::deploy(&client, "app.zip").await;
    let held = agent.poll().await.unwrap();
    let expected_id = format!("CodeDeploy/us-east-1/Prod/arn:aws:sds:us-east-1:123456789012:deployment/{id}");
    assert_eq!(held.execution, expected_id);
    let shown = controller.admin(&["signer"]);
    let shown = String::from_utf8(shown.stdout).unwrap();

    let output = agent.specification(&held).await;
    assert_eq!(output["DeploymentSystem"], "CodeDeploy");
    let envelope = &output["DeploymentSpecification"]["GenericEnvelope"];
    assert_eq!(envelope["Format"], "PKCS7/JSON");
    let payload = text(envelope, "Payload");
    assert!(payload.starts_with("-----BEGIN PKCS7-----\n"));
    let document = verified(&controller, &payload, &shown);
    let group = client
        .get_deployment_group()
        .application_name("shop")
        .deployment_group_name("web")
        .send()
        .await
        .unwrap();
    assert_eq!(
        document,
        json!({
            "DeploymentId": id,
            "DeploymentGroupId": group.deployment_group_info().unwrap().deployment_group_id(),
            "DeploymentGroupName": "web",
            "ApplicationName": "shop",
            "DeploymentCreator": "user",
            "DeploymentType": "IN_PLACE",
            "AppSpecFilename": "appspec.yml",
            "AgentActionOverrides": {"AgentOverrides": {"FileExistsBehavior": "DISALLOW"}},
            "Revision": {
                "RevisionType": "S3",
                "S3Revision": {"Bucket": "bkt", "Key": "app.zip", "BundleType": "zip"},
            },
        })
    );

    // The key outlives the process.
    controller.crash_and_restart();
    agent.address = controller.address;
    let payload =
        text(&agent.specification(&held).await["DeploymentSpecification"]["GenericEnvelope"], "Payload");
    assert_eq!(verified(&controller, &payload, &shown), document);
    eventually("the pin", async || shown.contains("deployment_signer_pin: ").then_some(())).await;
}

/// The content, when `openssl` finds it signed by the certificate that the service shows, with the pin it shows.
fn verified(controller: &Controller, payload: &str, shown: &str) -> Value {
    let folder = controller.folder.path();
    std::fs::write(folder.join("spec.pem"), payload).unwrap();
    let (certificate, pin) = shown.split_once("deployment_signer_pin: ").unwrap();
    std::fs::write(folder.join("cert.pem"), certificate).unwrap();
    let openssl = |script: &str| {
        let output = command("sh").args(["-euc", script]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let hash = openssl(
        "openssl x509 -in cert.pem -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r",
    );
    assert_eq!(String::from_utf8(hash).unwrap().split(' ').next(), Some(pin.trim()));
    let content =
        openssl("openssl smime -verify -inform PEM -in spec.pem -CAfile cert.pem -purpose any -binary");
    serde_json::from_slice(&content).unwrap()
}
