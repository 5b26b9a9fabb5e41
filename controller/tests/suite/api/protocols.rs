//! The protocols other than JSON: CBOR, which AWS's own client can use, the query protocol of other
//! services, and S3.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::client::Waiters as _;
use aws_sdk_codedeploy::error::ProvideErrorMetadata as _;
use aws_sdk_codedeploy::operation::RequestId as _;
use aws_sdk_codedeploy::primitives::DateTime;
use aws_sdk_codedeploy::types::*;
use aws_smithy_cbor::protocol::RpcV2CborProtocol;
use serde_json::json;

use crate::support::{Agent, Controller, Forgery, QUICK, eventually};

/// A controller, and clients of it for JSON and for CBOR.
fn start() -> (Controller, Client, Client) {
    let controller = Controller::start(QUICK);
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let json = controller.client_with(&key);
    let cbor = Client::from_conf(
        controller
            .client_config(&key)
            .protocol(RpcV2CborProtocol::new())
            .build(),
    );
    (controller, json, cbor)
}

async fn make_group(client: &Client, application: &str) {
    client
        .create_application()
        .application_name(application)
        .send()
        .await
        .unwrap();
    let filter = TagFilter::builder()
        .key("env")
        .value("prod")
        .r#type(TagFilterType::KeyAndValue)
        .build();
    let group = client
        .create_deployment_group()
        .application_name(application)
        .deployment_group_name("web");
    let group = group.service_role_arn("arn:aws:iam::123456789012:role/cd");
    group
        .on_premises_instance_tag_filters(filter)
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn what_one_protocol_writes_the_other_reads() {
    let (_controller, json, cbor) = start();
    make_group(&cbor, "by-cbor").await;
    make_group(&json, "by-json").await;
    for application in ["by-cbor", "by-json"] {
        let [by_json, by_cbor] = [&json, &cbor].map(|client| {
            let get = client.get_deployment_group().application_name(application);
            get.deployment_group_name("web").send()
        });
        let [by_json, by_cbor] = [by_json.await.unwrap(), by_cbor.await.unwrap()];
        assert_eq!(
            by_json.deployment_group_info(),
            by_cbor.deployment_group_info()
        );
        let [by_json, by_cbor] = [&json, &cbor].map(|client| {
            client
                .get_application()
                .application_name(application)
                .send()
        });
        let [by_json, by_cbor] = [by_json.await.unwrap(), by_cbor.await.unwrap()];
        let [by_json, by_cbor] = [
            by_json.application().unwrap(),
            by_cbor.application().unwrap(),
        ];
        assert_eq!(by_json.application_id(), by_cbor.application_id());
        // This client keeps nanoseconds of a JSON number, and milliseconds of a CBOR number.
        let created = by_json.create_time().unwrap().as_nanos() + 500_000;
        assert_eq!(
            created / 1_000_000,
            by_cbor.create_time().unwrap().as_nanos() / 1_000_000
        );
    }
}

#[tokio::test]
async fn refusals_are_known_by_their_types() {
    let (controller, _, cbor) = start();
    cbor.create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let again = cbor
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap_err();
    assert!(again.request_id().is_some());
    let again = again.into_service_error();
    assert!(again.is_application_already_exists_exception(), "{again:?}");
    assert!(again.message().unwrap().contains("shop"), "{again:?}");
    let range = TimeRange::builder()
        .start(DateTime::from_millis(2500))
        .end(DateTime::from_secs(1))
        .build();
    let range = cbor
        .list_deployments()
        .create_time_range(range)
        .send()
        .await
        .unwrap_err();
    assert!(range.into_service_error().is_invalid_time_range_exception());
    let key = controller.admin_json(&["credentials", "create", "--role", "read-only", "--json"]);
    let reader = controller
        .client_config(&key)
        .protocol(RpcV2CborProtocol::new())
        .build();
    let reader = Client::from_conf(reader);
    let refused = reader
        .delete_application()
        .application_name("shop")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        refused.into_service_error().code(),
        Some("AccessDeniedException")
    );
    let key = json!({"access_key_id": key["access_key_id"], "secret_access_key": "wrong"});
    let forger = controller
        .client_config(&key)
        .protocol(RpcV2CborProtocol::new())
        .build();
    let refused = Client::from_conf(forger)
        .list_applications()
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        refused.into_service_error().code(),
        Some("InvalidSignatureException")
    );
    cbor.delete_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    assert!(
        reader
            .list_applications()
            .send()
            .await
            .unwrap()
            .applications()
            .is_empty()
    );
}

#[tokio::test]
async fn pages_are_turned_and_deployments_waited_for() {
    let (controller, _, cbor) = start();
    let host = controller.host("box1", &["env=prod"]);
    make_group(&cbor, "shop").await;
    let names: BTreeSet<String> = (0..101).map(|number| format!("n{number:03}")).collect();
    for name in &names {
        cbor.create_application()
            .application_name(name)
            .send()
            .await
            .unwrap();
    }
    let mut pages = cbor.list_applications().into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        found.push(page.unwrap().applications().to_vec());
    }
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [100, 2]);
    assert!(names.is_subset(&found.into_iter().flatten().collect()));

    let location = S3Location::builder()
        .bucket("bkt")
        .key("app.zip")
        .bundle_type(BundleType::Zip)
        .build();
    let revision = RevisionLocation::builder()
        .revision_type(RevisionLocationType::S3)
        .s3_location(location);
    let create = cbor
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let deployment = create.revision(revision.build()).send().await.unwrap();
    let id = deployment.deployment_id().unwrap();
    host.run_to("ValidateService").await;
    eventually("the end of the deployment", async || {
        let found = cbor
            .get_deployment()
            .deployment_id(id)
            .send()
            .await
            .unwrap();
        found.deployment_info()?.complete_time().cloned()
    })
    .await;
    let waiter = cbor.wait_until_deployment_successful().deployment_id(id);
    let waited = waiter.wait(Duration::from_secs(60)).await.unwrap();
    let info = waited.into_result().unwrap().deployment_info.unwrap();
    assert_eq!(info.status(), Some(&DeploymentStatus::Succeeded));
    assert!(info.start_time() >= info.create_time() && info.complete_time() >= info.start_time());
}

/// Sends a form, signed for a service and a region.
async fn form(
    caller: &Agent,
    service: &'static str,
    region: &'static str,
    form: &str,
) -> (u16, String) {
    let kind = [(
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8".to_owned(),
    )];
    let forgery = Forgery {
        service,
        region,
        ..Forgery::none("")
    };
    let (status, answer) = caller
        .raw(forgery, "POST /", &kind, form.into())
        .await
        .unwrap();
    (status, String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn every_key_learns_from_sts_whose_it_is() {
    let controller = Controller::start(&format!("{QUICK}\nregion: eu-west-1"));
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    let session = "arn:aws:sts::123456789012:assumed-role/fleet/box1";
    for (role, arn, session) in [
        ("operator", "arn:aws:iam::123456789012:user/ci", None),
        (
            "read-only",
            "arn:aws:iam::123456789012:user/path/eyes",
            None,
        ),
        ("host", session, Some("box1")),
    ] {
        let key = controller.admin_json(&[
            "credentials",
            "create",
            "--role",
            role,
            "--user-arn",
            arn,
            "--json",
        ]);
        let caller = controller.caller(&key);
        let id = session.map_or(caller.access_key_id.clone(), |name| {
            format!("{}:{name}", caller.access_key_id)
        });
        // Older clients sign for the region of the global endpoint.
        for region in ["eu-west-1", "us-east-1"] {
            let (status, answer) = form(&caller, "sts", region, who).await;
            assert_eq!(status, 200, "{answer}");
            for part in [
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">",
                &format!("<Arn>{arn}</Arn>"),
                "<Account>123456789012</Account>",
                &format!("<UserId>{id}</UserId>"),
            ] {
                assert!(answer.contains(part), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn other_services_of_the_query_protocol_are_refused_in_xml() {
    let controller = Controller::start(QUICK);
    let mut caller = controller.operator();
    for (service, action, start, words) in [
        (
            "iam",
            "GetUser",
            "<ErrorResponse",
            "AWS_ENDPOINT_URL_CODEDEPLOY",
        ),
        (
            "ec2",
            "DescribeInstances",
            "<Response><Errors><Error>",
            "no service &quot;ec2&quot;",
        ),
        ("sts", "AssumeRole", "<ErrorResponse", "credentials create"),
        ("sts", "<a>", "<ErrorResponse", "&lt;a&gt;"),
    ] {
        let action = format!("Version=2010-05-08&Action={action}");
        let (status, answer) = form(&caller, service, "us-east-1", &action).await;
        let answer = answer.replace('"', "&quot;");
        assert_eq!(status, 400, "{answer}");
        assert!(
            answer.contains(start) && answer.contains("<Code>InvalidAction</Code>"),
            "{answer}"
        );
        assert!(answer.contains(words), "{answer}");
    }
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    let (status, answer) = form(&caller, "sts", "ap-south-1", who).await;
    assert!(
        status == 403 && answer.contains("the region us-east-1"),
        "{answer}"
    );
    let (secret, id) = (
        std::mem::take(&mut caller.secret),
        caller.access_key_id.clone(),
    );
    let (status, answer) = form(&caller, "sts", "us-east-1", who).await;
    assert!(
        status == 403 && answer.contains("<Code>SignatureDoesNotMatch</Code>"),
        "{answer}"
    );
    caller.access_key_id = "AKIANOBODY".into();
    let (status, answer) = form(&caller, "sts", "us-east-1", who).await;
    assert!(
        status == 403 && answer.contains("<Code>InvalidClientTokenId</Code>"),
        "{answer}"
    );
    (caller.secret, caller.access_key_id) = (secret, id);
    let forgery = Forgery {
        service: "sts",
        ..Forgery::none("")
    };
    let (status, answer) = caller
        .raw(forgery, &format!("GET /?{who}"), &[], Vec::new())
        .await
        .unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn s3_where_none_is_served_is_refused_with_the_name_of_the_setting() {
    let controller = Controller::start(QUICK);
    let caller = controller.operator();
    for request in [
        "GET /revisions/shop.zip",
        "PUT /revisions/shop.zip",
        "GET /",
        "POST /revisions/shop.zip?uploads=",
    ] {
        let forgery = Forgery {
            service: "s3",
            ..Forgery::none("")
        };
        let (status, answer) = caller
            .raw(forgery, request, &[], b"x".to_vec())
            .await
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(status, 501, "{request}: {answer}");
        for part in [
            "<Error><Code>NotImplemented</Code>",
            "<Message>",
            "set s3 in its configuration",
        ] {
            assert!(answer.contains(part), "{request}: {answer}");
        }
    }
    // Other services have paths as well.
    for (service, path, start) in [
        (
            "lambda",
            "GET /2015-03-31/functions",
            r#"{"__type":"UnknownOperationException","#,
        ),
        (
            "route53",
            "GET /2013-04-01/hostedzone",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ErrorResponse",
        ),
    ] {
        let forgery = Forgery {
            service,
            ..Forgery::none("")
        };
        let (status, answer) = caller.raw(forgery, path, &[], Vec::new()).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            status == 404 && answer.starts_with(start) && answer.contains("has no service"),
            "{answer}"
        );
    }
}
