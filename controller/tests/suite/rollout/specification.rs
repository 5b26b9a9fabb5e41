//! The specification that a host reads, checked by an independent program.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::signed::verified;
use crate::support::{Controller, QUICK, eventually, shop, text};

/// Removes the signing time, which must be at most five minutes ago.
fn signed_at(document: &mut Value) {
    let at = document
        .as_object_mut()
        .unwrap()
        .remove("SignedAt")
        .unwrap()
        .as_f64()
        .unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(
        (0.0..310.0).contains(&(now - at)),
        "signed at {at}, and it is {now}"
    );
}

#[tokio::test]
async fn a_specification_is_signed_and_carries_everything_an_agent_needs() {
    let mut controller = Controller::start(QUICK);
    let mut agent = controller.host("box1", &["env=prod"]);
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    let id = shop::deploy(&client, "app.zip").await;
    let held = agent.poll().await.unwrap();
    let expected_id =
        format!("CodeDeploy/us-east-1/Prod/arn:aws:sds:us-east-1:123456789012:deployment/{id}");
    assert_eq!(held.execution, expected_id);
    let shown = controller.admin(&["signer"]);
    let shown = String::from_utf8(shown.stdout).unwrap();

    let output = agent.specification(&held).await;
    assert_eq!(output["DeploymentSystem"], "CodeDeploy");
    let envelope = &output["DeploymentSpecification"]["GenericEnvelope"];
    assert_eq!(envelope["Format"], "PKCS7/JSON");
    let payload = text(envelope, "Payload");
    assert!(payload.starts_with("-----BEGIN PKCS7-----\n"));
    let mut document = verified(&controller, &payload, &shown);
    signed_at(&mut document);
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
            "HostIdentifier": "arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1",
            "DeploymentExecutionId": expected_id,
            "AgentActionOverrides": {"AgentOverrides": {"FileExistsBehavior": "DISALLOW"}},
            "Revision": {
                "RevisionType": "S3",
                "S3Revision": {"Bucket": "bkt", "Key": "app.zip", "BundleType": "zip"},
            },
        })
    );

    // The key survives the process.
    controller.crash_and_restart();
    agent.address = controller.address;
    let payload = text(
        &agent.specification(&held).await["DeploymentSpecification"]["GenericEnvelope"],
        "Payload",
    );
    let mut again = verified(&controller, &payload, &shown);
    signed_at(&mut again);
    assert_eq!(again, document);
    eventually("the pin", async || {
        shown.contains("deployment_signer_pin: ").then_some(())
    })
    .await;
}
