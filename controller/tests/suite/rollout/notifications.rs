//! Events sent to receivers, and deployments started by bucket notifications.

use std::sync::{Arc, Mutex};

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::{TagFilter, TagFilterType, TriggerConfig, TriggerEventType};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::support::{Agent, Controller, eventually, shop, text};

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:ops";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A receiver that at first rejects messages.
#[derive(Clone, Default)]
struct Receiver {
    refusals: Arc<Mutex<usize>>,
    told: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

impl Receiver {
    /// Starts it; returns its URL.
    async fn start(refusals: usize) -> (Self, String) {
        let receiver = Receiver {
            refusals: Arc::new(Mutex::new(refusals)),
            ..Receiver::default()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let taker = receiver.clone();
        let take =
            post(move |headers: HeaderMap, body: Bytes| async move { taker.take(headers, &body) });
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/hook", take)).await },
        );
        (receiver, url)
    }

    fn take(&self, headers: HeaderMap, body: &Bytes) -> StatusCode {
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return StatusCode::BAD_GATEWAY;
        }
        self.told
            .lock()
            .unwrap()
            .push((headers, serde_json::from_slice(body).unwrap()));
        StatusCode::OK
    }

    /// The messages that it received, once there are this many.
    async fn told(&self, number: usize) -> Vec<(HeaderMap, Value)> {
        eventually("the messages", async || {
            let told = self.told.lock().unwrap();
            (told.len() >= number).then(|| told.clone())
        })
        .await
    }
}

async fn open_shop(client: &Client) {
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let filter = TagFilter::builder()
        .key("env")
        .value("prod")
        .r#type(TagFilterType::KeyAndValue)
        .build();
    let trigger = TriggerConfig::builder()
        .trigger_name("ops")
        .trigger_target_arn(TOPIC)
        .trigger_events(TriggerEventType::DeploymentStart)
        .trigger_events(TriggerEventType::DeploymentSuccess)
        .trigger_events(TriggerEventType::DeploymentFailure)
        .trigger_events(TriggerEventType::DeploymentRollback)
        .trigger_events(TriggerEventType::InstanceFailure)
        .build();
    client
        .create_deployment_group()
        .application_name("shop")
        .deployment_group_name("web")
        .service_role_arn("arn:aws:iam::123456789012:role/cd")
        .deployment_config_name("CodeDeployDefault.AllAtOnce")
        .on_premises_instance_tag_filters(filter)
        .trigger_configurations(trigger)
        .send()
        .await
        .unwrap();
}

/// Sends a notification; returns the status of the response.
async fn notify(controller: &Controller, token: &str, key: &str, version: &str) -> u16 {
    let notification = json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": {
        "bucket": {"name": "revisions"},
        "object": {"key": key, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "versionId": version}}}]});
    let request = Request::post(format!("http://{}/events", controller.address))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(notification.to_string()));
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    client
        .request(request.unwrap())
        .await
        .unwrap()
        .status()
        .as_u16()
}

const STARTED: &str = "1 deployment will be started.";
const KNOWN: &str = "Nothing new";

/// Sends a notification of an object in an unversioned bucket; returns the response.
async fn notify_unversioned(
    controller: &Controller,
    etag: &str,
    sequencer: Option<&str>,
) -> String {
    let mut notification = json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": {
        "bucket": {"name": "revisions"}, "object": {"key": "shop/app.zip", "eTag": etag}}}]});
    if let Some(sequencer) = sequencer {
        notification["Records"][0]["s3"]["object"]["sequencer"] = json!(sequencer);
    }
    let request = Request::post(format!("http://{}/events", controller.address))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Body::from(notification.to_string()));
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.unwrap()).await.unwrap();
    let text = axum::body::to_bytes(Body::new(answer.into_body()), 1000)
        .await
        .unwrap();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

#[tokio::test]
async fn content_that_comes_back_is_deployed_again_and_a_late_notification_is_not() {
    let controller = Controller::start(
        &json!({"timers": {"poll": 5}, "events": {"token": TOKEN, "watches": [
            {"bucket": "revisions", "application": "shop", "deployment_group": "web"}]}})
        .to_string(),
    );
    let client = controller.client("operator");
    let host = controller.host("box1", &["env=prod"]);
    open_shop(&client).await;
    let (one, two) = (
        "d41d8cd98f00b204e9800998ecf8427e",
        "0cc175b9c0f1b6a831c399e269772661",
    );
    for (number, (etag, sequencer, expected)) in [
        (one, Some("0A"), STARTED),
        (two, Some("0B"), STARTED),
        // The first content is uploaded again.
        (one, Some("0C"), STARTED),
        (one, Some("0C"), KNOWN),
        (two, Some("0B"), KNOWN),
        // From a store without a sequencer.
        (one, None, KNOWN),
        (two, None, STARTED),
        (one, None, STARTED),
    ]
    .into_iter()
    .enumerate()
    {
        let wishes = notify_unversioned(&controller, etag, sequencer).await;
        assert!(wishes.starts_with(expected), "{number}: {wishes}");
        if expected == STARTED {
            host.run_to("ValidateService").await;
        }
    }
    assert_eq!(deployments(&client).await.len(), 5);
}

async fn deployments(client: &Client) -> Vec<String> {
    client
        .list_deployments()
        .send()
        .await
        .unwrap()
        .deployments()
        .to_vec()
}

#[tokio::test]
async fn a_new_object_is_deployed_and_everyone_is_told_though_they_were_away() {
    let (webhook, webhook_url) = Receiver::start(2).await;
    let (topic, topic_url) = Receiver::start(1).await;
    let settings = json!({
        "timers": {"poll": 5},
        "events": {
            "webhooks": [{"url": webhook_url, "authorization": "Bearer of news"}],
            "topics": {TOPIC: {"url": topic_url}},
            "token": TOKEN,
            "watches": [{"bucket": "revisions", "key_prefix": "shop/", "application": "shop", "deployment_group": "web"}],
        },
    });
    let mut controller = Controller::start(&settings.to_string());
    let client = controller.client("operator");
    let host = controller.host("box1", &["env=prod"]);
    open_shop(&client).await;

    assert_eq!(
        notify(&controller, "guessed", "shop/app.zip", "1").await,
        401
    );
    assert_eq!(notify(&controller, TOKEN, "other/app.zip", "1").await, 200);
    assert_eq!(deployments(&client).await, Vec::<String>::new());
    // It arrives twice, as notifications may.
    for _ in 0..2 {
        assert_eq!(notify(&controller, TOKEN, "shop/app.zip", "1").await, 200);
    }
    let first = eventually("the deployment", async || deployments(&client).await.pop()).await;
    // While it is active, a newer version must wait; the pending deployment is on disk.
    assert_eq!(notify(&controller, TOKEN, "shop/app.zip", "2").await, 200);
    controller.crash_and_restart();
    let client = controller.client("operator");
    let host = Agent {
        address: controller.address,
        ..host
    };
    host.run_to("ValidateService").await;
    let both = eventually("the second deployment", async || {
        let found = deployments(&client).await;
        (found.len() == 2).then_some(found)
    })
    .await;
    let second = both.iter().find(|id| **id != first).unwrap();
    let found = client
        .get_deployment()
        .deployment_id(second)
        .send()
        .await
        .unwrap();
    let location = found
        .deployment_info()
        .unwrap()
        .revision()
        .unwrap()
        .s3_location()
        .unwrap()
        .clone();
    assert_eq!(
        (location.key(), location.version()),
        (Some("shop/app.zip"), Some("2"))
    );

    let told = webhook.told(5).await;
    let said: Vec<_> = told
        .iter()
        .map(|(_, event)| {
            let kind = event["detail-type"]
                .as_str()
                .unwrap()
                .split(' ')
                .nth(1)
                .unwrap()
                .to_owned();
            (
                kind,
                event["detail"]["state"].as_str().unwrap().to_owned(),
                event["detail"]["deploymentId"] == first.as_str(),
            )
        })
        .collect();
    let expected = [
        ("Deployment", "START"),
        ("Instance", "START"),
        ("Instance", "SUCCESS"),
        ("Deployment", "SUCCESS"),
    ];
    let of_first: Vec<_> = said.iter().filter(|(.., of_first)| *of_first).collect();
    assert_eq!(of_first.len(), 4, "{said:?}");
    for ((kind, state, _), (expected_kind, expected_state)) in of_first.into_iter().zip(expected) {
        assert_eq!(
            (kind.as_str(), state.as_str()),
            (expected_kind, expected_state)
        );
    }
    assert_eq!(told[0].0["authorization"], "Bearer of news");
    assert_eq!(told[1].1["detail"]["instanceId"], "box1");

    let told = topic.told(2).await;
    assert_eq!(told[0].0["x-amz-sns-message-type"], "Notification");
    let statuses: Vec<_> = told
        .iter()
        .map(|(_, notification)| {
            let message: Value =
                serde_json::from_str(notification["Message"].as_str().unwrap()).unwrap();
            (
                message["status"].as_str().unwrap().to_owned(),
                message["eventTriggerName"].clone(),
            )
        })
        .collect();
    assert_eq!(
        statuses[..2],
        [
            ("CREATED".to_owned(), json!("ops")),
            ("SUCCEEDED".to_owned(), json!("ops"))
        ]
    );
}

/// The statuses, deployments and errors that a topic received.
fn of_topic(told: &[(HeaderMap, Value)]) -> Vec<(String, String, String)> {
    let read = |text: &Value| serde_json::from_str(text.as_str().unwrap_or("{}")).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    told.iter()
        .map(|(_, notification)| {
            let message: Value = read(&notification["Message"]);
            let error: Value = read(&message["errorInformation"]);
            (
                text(&message["status"]),
                text(&message["deploymentId"]),
                text(&error["ErrorCode"]),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_deployment_whose_group_is_deleted_ends_for_everyone() {
    let (webhook, webhook_url) = Receiver::start(0).await;
    let (topic, topic_url) = Receiver::start(0).await;
    let events = json!({"webhooks": [{"url": webhook_url}], "topics": {TOPIC: {"url": topic_url}}});
    let controller =
        Controller::start(&json!({"timers": {"poll": 5}, "events": events}).to_string());
    let client = controller.client("operator");
    let host = controller.host("box1", &["env=prod"]);
    let mut expected = Vec::new();
    for whole in [false, true] {
        open_shop(&client).await;
        let id = shop::deploy(&client, "app.zip").await;
        let command = host.poll().await.unwrap();
        host.acknowledge(&command).await;
        let error = if whole {
            client
                .delete_application()
                .application_name("shop")
                .send()
                .await
                .unwrap();
            "APPLICATION_MISSING"
        } else {
            let group = client
                .delete_deployment_group()
                .application_name("shop")
                .deployment_group_name("web");
            group.send().await.unwrap();
            client
                .delete_application()
                .application_name("shop")
                .send()
                .await
                .unwrap();
            "DEPLOYMENT_GROUP_MISSING"
        };
        // The host was still working on it.
        host.succeed(&command).await;
        assert_eq!(host.acknowledge(&command).await, "Failed");
        expected.push(("CREATED".to_owned(), id.clone(), String::new()));
        expected.push(("FAILED".to_owned(), id, error.to_owned()));
        assert_eq!(of_topic(&topic.told(expected.len()).await), expected);
    }
    let told = webhook.told(6).await;
    let states: Vec<_> = told
        .iter()
        .map(|(_, event)| event["detail"]["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["START", "START", "FAILURE"].repeat(2));
}

#[tokio::test]
async fn a_rollback_begins_once_for_a_trigger_of_both_kinds() {
    let (topic, topic_url) = Receiver::start(0).await;
    let settings =
        json!({"timers": {"poll": 5}, "events": {"topics": {TOPIC: {"url": topic_url}}}});
    let controller = Controller::start(&settings.to_string());
    let client = controller.client("operator");
    let host = controller.host("box1", &["env=prod"]);
    open_shop(&client).await;
    let good = shop::deploy(&client, "good.zip").await;
    host.run_to("ValidateService").await;
    shop::ended(&client, &good).await;
    let bad = shop::deploy(&client, "bad.zip").await;
    let command = host.poll().await.unwrap();
    host.acknowledge(&command).await;
    client
        .stop_deployment()
        .deployment_id(&bad)
        .auto_rollback_enabled(true)
        .send()
        .await
        .unwrap();
    host.succeed(&command).await;
    host.run_to("ValidateService").await;
    let told = of_topic(&topic.told(5).await);
    let statuses: Vec<_> = told.iter().map(|(status, ..)| status.as_str()).collect();
    assert_eq!(
        statuses,
        ["CREATED", "SUCCEEDED", "CREATED", "CREATED", "SUCCEEDED"],
        "{told:?}"
    );
    assert_eq!(told[3].1, told[4].1);
    let last = &topic.told(5).await[4].1;
    let message = last["Message"].as_str().unwrap();
    let keys = [
        "region",
        "accountId",
        "eventTriggerName",
        "deploymentOverview",
        "status",
        "rollbackInformation",
    ];
    let places: Vec<_> = keys
        .iter()
        .map(|key| message.find(&format!("\"{key}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{message}");
}

#[tokio::test]
async fn a_deployment_whose_group_is_deleted_ends_for_those_who_are_told() {
    let (webhook, url) = Receiver::start(0).await;
    let controller =
        Controller::start(&json!({"events": {"webhooks": [{"url": url}]}}).to_string());
    let client = controller.client("operator");
    // More than one transaction removes.
    let hosts: Vec<_> = (0..600).map(|number| format!("box{number:03}")).collect();
    let database =
        rusqlite::Connection::open(controller.data().join("codedeploy.sqlite3")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    for name in &hosts {
        let insert = "INSERT INTO instances (arn, name, principal, registered, tags)
            VALUES ('arn:' || ?1, ?1, 'arn:user/' || ?1, 0, '[{\"Key\":\"env\",\"Value\":\"prod\"}]')";
        database.execute(insert, [name]).unwrap();
    }
    database.execute_batch("COMMIT").unwrap();
    open_shop(&client).await;
    let location = aws_sdk_codedeploy::types::S3Location::builder()
        .bucket("bkt")
        .key("app.zip")
        .bundle_type(aws_sdk_codedeploy::types::BundleType::Zip)
        .build();
    let revision = aws_sdk_codedeploy::types::RevisionLocation::builder()
        .revision_type(aws_sdk_codedeploy::types::RevisionLocationType::S3)
        .s3_location(location)
        .build();
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let id = request
        .revision(revision)
        .send()
        .await
        .unwrap()
        .deployment_id()
        .unwrap()
        .to_owned();
    eventually("the start of the deployment", async || {
        let found = client
            .list_deployment_targets()
            .deployment_id(&id)
            .send()
            .await
            .ok()?;
        (!found.target_ids().is_empty()).then_some(())
    })
    .await;
    client
        .delete_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let gone = client
        .get_deployment()
        .deployment_id(&id)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(gone.is_deployment_does_not_exist_exception(), "{gone:?}");
    let states: Vec<_> = webhook
        .told(2)
        .await
        .iter()
        .map(|(_, event)| event["detail"]["state"].clone())
        .collect();
    assert_eq!(states, ["START", "FAILURE"]);
    let left = "SELECT (SELECT count(*) FROM targets) + (SELECT count(*) FROM commands)";
    assert_eq!(
        database
            .query_row(left, [], |row| row.get::<_, i64>(0))
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn receivers_hear_of_hosts_that_are_drained() {
    let (webhook, url) = Receiver::start(0).await;
    let controller =
        Controller::start(&json!({"events": {"webhooks": [{"url": url}]}}).to_string());
    controller.host("box1", &["env=prod"]);
    for command in ["drain", "drain", "undrain"] {
        assert!(controller.admin(&[command, "box1"]).status.success());
    }
    let told = webhook.told(2).await;
    let states: Vec<_> = told
        .iter()
        .map(|(_, message)| text(&message["detail"], "state"))
        .collect();
    assert_eq!(states, ["DRAINED", "UNDRAINED"]);
    let (_, first) = &told[0];
    assert_eq!(text(first, "source"), "codedeploy-controller");
    assert_eq!(text(&first["detail"], "instanceId"), "box1");
}
