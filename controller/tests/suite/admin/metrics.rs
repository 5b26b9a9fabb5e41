//! The service's metrics, as a scraper sees them.

use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use codedeploy_support::metrics::table;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::support::{Agent, Controller, Forgery, eventually, shop};

const TOKEN: &str = "0123456789abcdef0123";

/// Requests the metrics with an `Authorization` header, if one is given; returns the status, the
/// media type and the text.
async fn scrape(address: SocketAddr, authorization: Option<&str>) -> (u16, String, String) {
    let mut request = Request::get(format!("http://{address}/metrics"));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let response = client
        .request(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let kind = response.headers().get("content-type");
    let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let text = to_bytes(Body::new(response.into_body()), usize::MAX)
        .await
        .unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    (status, kind.unwrap_or_default(), text)
}

async fn by_token(controller: &Controller) -> String {
    let (status, _, text) = scrape(controller.address, Some(&format!("Bearer {TOKEN}"))).await;
    assert_eq!(status, 200, "{text}");
    text
}

/// The status of a signed request for the metrics.
async fn by_key(agent: &Agent) -> u16 {
    let mut forgery = Forgery::none("");
    forgery.service = "codedeploy";
    agent
        .raw(forgery, "GET /metrics", &[], Vec::new())
        .await
        .unwrap()
        .0
}

/// Calls an operation of the controller's own API.
async fn call_own(agent: &Agent, operation: &str) {
    let forgery = Forgery {
        service: "codedeploy",
        target: format!("CodeDeployController_20261201.{operation}"),
        ..Forgery::none("")
    };
    assert_eq!(agent.send(forgery, json!({})).await.0, 200);
}

/// The value of a sample, such as `hosts{state="online"}` without the prefix of all names.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = format!("codedeploy_controller_{sample} ");
    let value = text.lines().find_map(|found| found.strip_prefix(&line))?;
    Some(value.parse().unwrap())
}

fn own_listener(controller: &Controller) -> SocketAddr {
    let facts = std::fs::read(controller.data().join("service.json")).unwrap();
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    facts["metrics"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn there_are_none_unless_they_are_configured() {
    let controller = Controller::start("{}");
    let (status, _, text) = scrape(controller.address, None).await;
    assert!(
        status != 200 && !text.contains("codedeploy_controller_"),
        "{status} {text}"
    );
    assert_ne!(by_key(&controller.operator()).await, 200);
}

#[tokio::test]
async fn keys_that_read_and_the_token_are_let_in_and_nobody_else() {
    let controller = Controller::start(&format!(
        "metrics: {{token: {TOKEN}, listen: '127.0.0.1:0'}}"
    ));
    let unsigned = scrape(controller.address, None).await;
    assert!(
        unsigned.0 == 401 && unsigned.2.contains("metrics.token"),
        "{unsigned:?}"
    );
    let wrong = scrape(controller.address, Some("Bearer 0123456789abcdef0124")).await;
    assert!(
        wrong.0 == 401 && wrong.2.contains("The token is not that of metrics.token"),
        "{wrong:?}"
    );
    assert!(
        by_token(&controller)
            .await
            .contains("build_info{version=\"")
    );
    let reader = ["credentials", "create", "--role", "read-only", "--json"];
    let reader = controller.caller(&controller.admin_json(&reader));
    assert_eq!(by_key(&reader).await, 200);
    assert_eq!(by_key(&controller.operator()).await, 200);
    assert_eq!(by_key(&controller.host("box1", &[])).await, 403);
    let scoped = ["--role", "read-only", "--application", "shop", "--json"];
    let scoped = [&["credentials", "create"][..], &scoped].concat();
    let scoped = controller.caller(&controller.admin_json(&scoped));
    assert_eq!(by_key(&scoped).await, 403);
    let stranger = Agent {
        secret: "wrong".into(),
        ..controller.operator()
    };
    assert_eq!(by_key(&stranger).await, 403);
    let (status, kind, text) = scrape(own_listener(&controller), None).await;
    assert_eq!(
        (status, kind.as_str()),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    call_own(&controller.operator(), "GetController").await;
    let (_, _, again) = scrape(own_listener(&controller), None).await;
    let counted = "requests_total{api=\"controller\",operation=\"GetController\",code=\"200\"}";
    assert_eq!(value(&again, counted), Some(1.0), "{again}");
    let refused = value(&text, "refused_requests_total{reason=\"InvalidSignature\"}");
    assert_eq!(refused, Some(1.0), "{text}");
}

#[tokio::test]
async fn the_token_can_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let controller = Controller::start(&format!("metrics: {{token_file: {}}}", file.display()));
    by_token(&controller).await;
}

#[tokio::test]
async fn a_deployment_is_counted_by_its_group_until_the_group_is_deleted() {
    let settings = format!("metrics: {{token: {TOKEN}}}\ntimers: {{poll: 5}}");
    let (controller, client, agent) = shop::one_host(&settings).await;
    let series = |creator: &str, outcome: &str| {
        format!(
            "deployments_total{{application=\"shop\",group=\"web\",creator=\"{creator}\",outcome=\"{outcome}\"}}"
        )
    };
    let text = by_token(&controller).await;
    assert_eq!(
        value(&text, &series("user", "Succeeded")),
        Some(0.0),
        "{text}"
    );
    assert_eq!(value(&text, "hosts{state=\"never_seen\"}"), Some(1.0));
    let polling = tokio::spawn(async move {
        let first = agent.poll().await.unwrap();
        (agent, first)
    });
    eventually("the held poll", async || {
        (value(&by_token(&controller).await, "held_polls") == Some(1.0)).then_some(())
    })
    .await;
    let failed = shop::deploy(&client, "a.zip").await;
    let (agent, first) = polling.await.unwrap();
    let text = by_token(&controller).await;
    assert_eq!(value(&text, "held_polls"), Some(0.0));
    assert_eq!(value(&text, "hosts{state=\"polling\"}"), Some(1.0));
    assert_eq!(
        value(&text, "deployments{status=\"InProgress\"}"),
        Some(1.0)
    );
    assert_eq!(value(&text, "targets{status=\"InProgress\"}"), Some(1.0));
    assert_eq!(value(&text, "command_pickup_seconds_count"), Some(1.0));
    agent.acknowledge(&first).await;
    agent.fail(&first).await;
    shop::ended(&client, &failed).await;
    let repaired = shop::deploy(&client, "b.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &repaired).await;
    let text = by_token(&controller).await;
    for (sample, expected) in [
        (series("user", "Failed"), 1.0),
        (series("user", "Succeeded"), 1.0),
        (series("codeDeployRollback", "Succeeded"), 0.0),
        (
            "deployment_duration_seconds_count{outcome=\"Failed\"}".into(),
            1.0,
        ),
        (
            "deployment_lead_time_seconds_count{application=\"shop\"}".into(),
            1.0,
        ),
        (
            "deployment_restore_seconds_count{application=\"shop\"}".into(),
            1.0,
        ),
        ("targets{status=\"InProgress\"}".into(), 0.0),
        ("store_queue".into(), 0.0),
        (
            "requests_total{api=\"commands\",operation=\"PutHostCommandComplete\",code=\"200\"}"
                .into(),
            8.0,
        ),
    ] {
        assert_eq!(value(&text, &sample), Some(expected), "{sample} in {text}");
    }
    let deleted = client
        .delete_deployment_group()
        .application_name("shop")
        .deployment_group_name("web");
    deleted.send().await.unwrap();
    let text = by_token(&controller).await;
    assert!(!text.contains("group=\"web\""), "{text}");
}

#[tokio::test]
async fn nothing_that_a_stranger_sends_becomes_a_label() {
    let controller = Controller::start(&format!("metrics: {{token: {TOKEN}}}\ns3: {{}}"));
    let stranger = Agent {
        access_key_id: "AKIANOBODY".into(),
        ..controller.operator()
    };
    for target in [
        "CodeDeploy_20141006.Nonsense1",
        "CodeDeployCommandService_v20141006.Nonsense2",
        "Nonsense3.Nonsense4",
    ] {
        let mut forgery = Forgery::none("");
        forgery.target = target.into();
        assert_ne!(stranger.send(forgery, json!({})).await.0, 200);
    }
    let mut forgery = Forgery::none("");
    forgery.service = "s3";
    stranger
        .raw(forgery, "GET /nonsense5?nonsense6", &[], Vec::new())
        .await;
    let text = by_token(&controller).await;
    assert!(!text.to_lowercase().contains("nonsense"), "{text}");
    let unknown = "requests_total{api=\"codedeploy\",operation=\"unknown\",code=\"400\"}";
    assert_eq!(value(&text, unknown), Some(1.0), "{text}");
}

#[tokio::test]
async fn a_bucket_can_have_the_name_of_the_metrics() {
    let settings = format!("metrics: {{token: {TOKEN}}}\ns3: {{buckets: [metrics]}}");
    let controller = Controller::start(&settings);
    let mut forgery = Forgery::none("");
    forgery.service = "s3";
    let listed = controller
        .operator()
        .raw(forgery, "GET /metrics", &[], Vec::new())
        .await;
    let (status, text) = listed.unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(
        status == 200 && text.contains("<ListBucketResult"),
        "{text}"
    );
    eventually("the bucket's size", async || {
        value(
            &by_token(&controller).await,
            "object_bytes{bucket=\"metrics\"}",
        )
    })
    .await;
}

#[tokio::test]
async fn keys_certificates_and_receivers_are_told_of_in_time() {
    let settings = format!(
        "metrics: {{listen: '127.0.0.1:0', token: {TOKEN}}}\n\
         events: {{webhooks: [{{url: 'http://127.0.0.1:1/hidden?token=SECRET'}}]}}"
    );
    let (controller, client, agent) = shop::one_host(&settings).await;
    controller.admin_json(&[
        "credentials",
        "create",
        "--role",
        "read-only",
        "--expires-in",
        "12h",
        "--json",
    ]);
    shop::deploy(&client, "a.zip").await;
    agent.poll().await.unwrap();
    let receiver = "{receiver=\"http://127.0.0.1:1\"}";
    let text = eventually("the message", async || {
        let text = scrape(own_listener(&controller), None).await.2;
        let delayed = "messages_total{receiver=\"http://127.0.0.1:1\",outcome=\"delayed\"}";
        value(&text, delayed).map(|_| text)
    })
    .await;
    assert!(
        value(&text, &format!("outbox_messages{receiver}")) > Some(0.0),
        "{text}"
    );
    let oldest = value(&text, &format!("outbox_oldest_timestamp_seconds{receiver}"));
    assert!(oldest > Some(1.7e9), "{text}");
    assert_eq!(
        value(&text, "credentials_expiring{role=\"read-only\"}"),
        Some(1.0)
    );
    assert!(
        !text.contains("SECRET") && !text.contains("hidden"),
        "{text}"
    );
    assert!(!text.contains("certificate_expiry"), "{text}");
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "snapshots are updated in the same way"
)]
fn the_page_lists_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once("\n## The controller\n").unwrap();
    let listed: String = section
        .lines()
        .skip_while(|line| !line.starts_with("| metric "))
        .take_while(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    let declared = table(&codedeploy_controller::metrics::descriptions());
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, page.replacen(&listed, &declared, 1)).unwrap();
    } else {
        assert_eq!(
            listed, declared,
            "INSTA_UPDATE=always writes docs/metrics.md anew"
        );
    }
}
