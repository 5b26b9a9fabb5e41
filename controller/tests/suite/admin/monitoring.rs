//! A running service as its operator sees it: its hosts, its keys, the results of notifications,
//! its readiness.

use serde_json::json;

use crate::support::{Controller, QUICK, eventually, shop};

#[tokio::test]
async fn hosts_are_listed_with_what_is_known_of_their_agents() {
    let controller = Controller::start("timers: {poll: 0.05}");
    let agent = controller.host("box1", &["env=prod", "tier=web"]);
    controller.host("box2", &[]);
    controller.host("box3", &[]);
    assert!(
        controller
            .admin(&["host", "remove", "box3"])
            .status
            .success()
    );
    assert!(agent.poll().await.is_none());
    let shown = String::from_utf8(controller.admin(&["host", "list"]).stdout).unwrap();
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let time = "0000-00-00T00:00:00Z";
    assert_eq!(rows[1][2].len(), time.len(), "{shown}");
    insta::assert_snapshot!("hosts", shown.replace(rows[1][2], time));
    let mut listed = controller.admin_json(&["host", "list", "--json"]);
    listed[0]["last_seen"] = json!(time);
    insta::assert_snapshot!("hosts_json", serde_json::to_string_pretty(&listed).unwrap());
}

#[test]
fn keys_are_listed_with_their_times_and_revoked_ones_when_asked() {
    let controller = Controller::start(QUICK);
    let create = ["credentials", "create", "--role", "operator", "--json"];
    let revoked = controller.admin_json(&create)["access_key_id"]
        .as_str()
        .unwrap()
        .to_owned();
    controller.admin_json(&[&create[..], &["--expires-in", "12h"]].concat());
    let said = controller.admin(&["credentials", "revoke", &revoked]);
    assert!(
        String::from_utf8(said.stdout)
            .unwrap()
            .contains("is revoked")
    );
    let list = |args: &[&str]| {
        let output = controller.admin(&[&["credentials", "list"], args].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let good = list(&[]);
    assert!(
        good.starts_with("ACCESS KEY ID") && good.contains("EXPIRES") && !good.contains(&revoked),
        "{good}"
    );
    let row: Vec<&str> = good.lines().nth(1).unwrap().split_whitespace().collect();
    assert!(row[3].ends_with('Z') && row[4].ends_with('Z'), "{good}");
    assert!(list(&["--all"]).contains(&revoked));
}

/// Sends an unsigned request; returns the status and the text of the response.
async fn send(request: axum::http::request::Builder, body: &str) -> (u16, String) {
    let request = request
        .body(axum::body::Body::from(body.to_owned()))
        .unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let client = hyper_util::client::legacy::Client::builder(executor).build_http();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), 1024)
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_notification_is_told_what_becomes_of_it() {
    let watch = "{bucket: revisions, key_prefix: shop/, application: shop, deployment_group: web}";
    let settings = format!("events: {{token: 0123456789abcdef0123, watches: [{watch}]}}");
    let controller = Controller::start(&settings);
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    for (bucket, expected) in [
        ("revisions", "1 deployment will be started.\n"),
        (
            "other",
            "No watch of events.watches matches other/shop/a.zip.\n",
        ),
    ] {
        let object = json!({"bucket": {"name": bucket}, "object": {"key": "shop/a.zip"}});
        let notice = json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": object}]});
        let request = axum::http::Request::post(format!("http://{}/events", controller.address));
        let request = request.header("authorization", "Bearer 0123456789abcdef0123");
        assert_eq!(
            send(request, &notice.to_string()).await,
            (200, expected.to_owned())
        );
    }
}

#[tokio::test]
async fn a_monitor_can_ask_whether_the_service_can_write() {
    let controller = Controller::start(QUICK);
    let ask = async || {
        let url = format!("http://{}/-/ready", controller.address);
        send(axum::http::Request::get(url), "").await.0
    };
    assert_eq!(ask().await, 200);
    // A database that rejects writes, like one on a full disk.
    let database =
        rusqlite::Connection::open(controller.data().join("codedeploy.sqlite3")).unwrap();
    let refuse =
        "CREATE TRIGGER full BEFORE UPDATE ON own_partition BEGIN SELECT RAISE(FAIL, 'full'); END";
    database.execute_batch(refuse).unwrap();
    eventually("the refusal", async || (ask().await == 503).then_some(())).await;
    database.execute_batch("DROP TRIGGER full").unwrap();
    eventually("the recovery", async || (ask().await == 200).then_some(())).await;
}
