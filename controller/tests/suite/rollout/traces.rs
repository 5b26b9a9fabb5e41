//! Traces of deployments, as a collector gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_sdk_codedeploy::types::{AutoRollbackConfiguration, AutoRollbackEvent};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::signed::verified;
use crate::support::{Agent, Controller, Held, command, eventually, shop, text};

/// A receiver of OTLP/HTTP on loopback, which checks the form of everything.
struct Collector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<Value>>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let status = Arc::new(Mutex::new(StatusCode::OK));
        let (kept, answer) = (Arc::clone(&requests), Arc::clone(&status));
        let take = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let answer = *answer.lock().unwrap();
            if answer == StatusCode::OK {
                assert_eq!(uri.path(), "/v1/traces");
                assert_eq!(headers["content-type"], "application/json");
                assert_eq!(headers["authorization"], "Bearer secret");
                let document = serde_json::from_slice(&body).unwrap();
                kept.lock().unwrap().push(spans(&document));
            }
            (answer, "{}")
        };
        let router = Router::new().fallback(take);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Collector {
            address,
            requests,
            status,
        }
    }

    fn settings(&self) -> String {
        format!(
            "timers: {{poll: 5}}\nmetrics: {{listen: '127.0.0.1:0'}}\ntraces:\n  endpoint: http://{}\n  headers: {{Authorization: Bearer \
             secret}}\n",
            self.address
        )
    }

    fn answer_with(&self, status: StatusCode) {
        *self.status.lock().unwrap() = status;
    }

    /// Waits for a number of requests, and returns all spans in them.
    async fn spans(&self, requests: usize) -> Vec<Value> {
        let received = eventually("the trace", async || {
            let received = self.requests.lock().unwrap();
            (received.len() >= requests).then(|| received.clone())
        })
        .await;
        assert_eq!(received.len(), requests);
        received.concat()
    }
}

fn members(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().unwrap();
    object.keys().map(String::as_str).collect()
}

/// Checks a text in lower-case hexadecimal digits.
fn is_hex(value: &Value, bytes: usize) -> bool {
    let text = value.as_str().unwrap();
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() == 2 * bytes && text.chars().all(is_digit) && text.chars().any(|c| c != '0')
}

fn check_attributes(attributes: &Value) {
    for attribute in attributes.as_array().unwrap() {
        assert_eq!(members(attribute), BTreeSet::from(["key", "value"]));
        assert!(!attribute["key"].as_str().unwrap().is_empty());
        assert_eq!(
            members(&attribute["value"]),
            BTreeSet::from(["stringValue"])
        );
        assert!(attribute["value"]["stringValue"].is_string());
    }
}

/// Returns the spans of an ExportTraceServiceRequest, by the rules of its JSON encoding: names in
/// lowerCamelCase, ids in hexadecimal digits, 64-bit numbers as texts, enumerations as numbers.
fn spans(document: &Value) -> Vec<Value> {
    assert_eq!(members(document), BTreeSet::from(["resourceSpans"]));
    let [resource] = document["resourceSpans"].as_array().unwrap().as_slice() else {
        panic!("{document}");
    };
    assert_eq!(
        members(resource),
        BTreeSet::from(["resource", "scopeSpans"])
    );
    check_attributes(&resource["resource"]["attributes"]);
    let of_resource = attributes(&resource["resource"]);
    assert_eq!(of_resource["service.name"], "codedeploy-controller");
    let [scope] = resource["scopeSpans"].as_array().unwrap().as_slice() else {
        panic!("{document}");
    };
    assert!(scope["scope"]["name"].is_string());
    let spans = scope["spans"].as_array().unwrap();
    let known = [
        "traceId",
        "spanId",
        "parentSpanId",
        "name",
        "kind",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "status",
        "links",
    ];
    for span in spans {
        assert!(members(span).is_subset(&BTreeSet::from(known)), "{span}");
        assert!(
            is_hex(&span["traceId"], 16) && is_hex(&span["spanId"], 8),
            "{span}"
        );
        if let Some(parent) = span.get("parentSpanId") {
            assert!(is_hex(parent, 8), "{span}");
        }
        assert!(!span["name"].as_str().unwrap().is_empty());
        assert_eq!(span["kind"], 1);
        let nanoseconds = |member: &str| span[member].as_str().unwrap().parse::<u64>().unwrap();
        assert!(
            nanoseconds("startTimeUnixNano") <= nanoseconds("endTimeUnixNano"),
            "{span}"
        );
        assert!(
            nanoseconds("startTimeUnixNano") > 1_700_000_000_000_000_000,
            "{span}"
        );
        check_attributes(&span["attributes"]);
        let status = members(&span["status"]);
        assert!(
            status.is_subset(&BTreeSet::from(["code", "message"])),
            "{span}"
        );
        assert!(
            span["status"]["code"].as_u64().is_none_or(|code| code <= 2),
            "{span}"
        );
        for link in span
            .get("links")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            assert!(
                is_hex(&link["traceId"], 16) && is_hex(&link["spanId"], 8),
                "{span}"
            );
        }
    }
    spans.clone()
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    let attributes = value["attributes"].as_array().unwrap();
    let pair = |attribute: &Value| {
        let value = text(&attribute["value"], "stringValue");
        (text(attribute, "key"), value)
    };
    attributes.iter().map(pair).collect()
}

/// The tree of spans: `name(children)`, in the order of their names; every parent is there, and
/// every span is of one trace.
fn tree(spans: &[Value]) -> String {
    let ids: BTreeSet<String> = spans.iter().map(|span| text(span, "spanId")).collect();
    assert_eq!(ids.len(), spans.len(), "ids are unique");
    let traces: BTreeSet<String> = spans.iter().map(|span| text(span, "traceId")).collect();
    assert_eq!(traces.len(), 1);
    for span in spans {
        let parent = span["parentSpanId"].as_str();
        assert!(parent.is_none_or(|parent| ids.contains(parent)), "{span}");
    }
    below(spans, None)
}

fn below(spans: &[Value], parent: Option<&str>) -> String {
    let mut names: Vec<String> = spans
        .iter()
        .filter(|span| span["parentSpanId"].as_str() == parent)
        .map(|span| {
            let children = below(spans, span["spanId"].as_str());
            let name = text(span, "name");
            if children.is_empty() {
                name
            } else {
                format!("{name}({children})")
            }
        })
        .collect();
    names.sort();
    names.join(" ")
}

fn named<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    let mut found = spans.iter().filter(|span| span["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {name}"))
}

/// The host's place in the trace, as its agent reads it.
async fn trace_parent(controller: &Controller, agent: &Agent, held: &Held) -> Value {
    let shown = String::from_utf8(controller.admin(&["signer"]).stdout).unwrap();
    let specification = agent.specification(held).await;
    let payload = text(
        &specification["DeploymentSpecification"]["GenericEnvelope"],
        "Payload",
    );
    verified(controller, &payload, &shown)["TraceParent"].clone()
}

/// Completes a command as this project's agent does when it has a place in a trace.
async fn complete(agent: &Agent, held: &Held, status: &str, scripts: Value) {
    assert_eq!(agent.acknowledge(held).await, "InProgress");
    let code = if status == "Succeeded" { 0 } else { 4 };
    let payload =
        json!({"error_code": code, "script_name": "stop.sh", "message": "exit code 3", "log": ""});
    let input = json!({
        "HostCommandIdentifier": held.id, "CommandStatus": status, "Scripts": scripts,
        "Diagnostics": {"Format": "JSON", "Payload": payload.to_string()},
    });
    let (code, answer) = agent.call("PutHostCommandComplete", input).await;
    assert_eq!(code, 200, "{answer}");
}

fn metric(controller: &Controller, sample: &str) -> Option<String> {
    let announced = std::fs::read_to_string(controller.data().join("service.json")).unwrap();
    let announced: Value = serde_json::from_str(&announced).unwrap();
    let url = format!("http://{}/metrics", text(&announced, "metrics"));
    let output = command("curl").args(["-s", &url]).output().unwrap();
    let metrics = String::from_utf8(output.stdout).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
    line.map(|value| value.trim().to_owned())
}

#[tokio::test]
async fn a_collector_gets_a_trace_of_each_deployment() {
    let collector = Collector::start().await;
    let (controller, client, agent) = shop::one_host(&collector.settings()).await;
    let id = shop::deploy(&client, "1.zip").await;
    let first = agent.poll().await.unwrap();
    let parent = trace_parent(&controller, &agent, &first).await;
    let runs = json!([
        {"Location": "one.sh", "Started": 1_790_000_000.5, "Ended": 1_790_000_001.5, "ErrorCode": 0},
        {"Location": "two.sh", "Started": 1_790_000_002.0, "Ended": 1_790_000_002.0, "ErrorCode": 0},
    ]);
    complete(&agent, &first, "Succeeded", runs).await;
    // A report that cannot be read is no reason to lose an outcome.
    let second = agent.poll().await.unwrap();
    assert_eq!(trace_parent(&controller, &agent, &second).await, parent);
    complete(&agent, &second, "Succeeded", json!([{"Location": 7}])).await;
    let last = agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;

    let trace = collector.spans(1).await;
    let events = [
        "ApplicationStop(one.sh two.sh)".to_owned(),
        "DownloadBundle".to_owned(),
    ];
    let mut events: Vec<String> = events.into_iter().chain(last).collect();
    events.sort();
    assert_eq!(
        tree(&trace),
        format!("deployment(host({}))", events.join(" "))
    );
    let root = named(&trace, "deployment");
    let of_root = attributes(root);
    assert_eq!(of_root["deployment.id"], id);
    assert_eq!(of_root["deployment.status"], "succeeded");
    assert_eq!(of_root["deployment.name"], "shop/web");
    assert_eq!(root["status"], json!({"code": 1}));
    let host = named(&trace, "host");
    assert_eq!(attributes(host)["host.name"], "box1");
    // The specification names the host's span.
    let place = format!("00-{}-{}-01", text(host, "traceId"), text(host, "spanId"));
    assert_eq!(parent, place);
    let script = named(&trace, "one.sh");
    assert_eq!(script["startTimeUnixNano"], "1790000000500000000");
    assert_eq!(script["endTimeUnixNano"], "1790000001500000000");
    let stop = named(&trace, "ApplicationStop");
    assert_eq!(attributes(stop)["codedeploy.error_code"], "Success");
    let sent = "codedeploy_controller_traces_total{outcome=\"sent\"}";
    eventually("the count", async || {
        (metric(&controller, sent)? == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_in_the_trace_and_a_rollback_refers_to_what_it_undoes() {
    let collector = Collector::start().await;
    let (controller, client, agent) = shop::one_host(&collector.settings()).await;
    let good = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &good).await;
    let rollback = AutoRollbackConfiguration::builder()
        .enabled(true)
        .events(AutoRollbackEvent::DeploymentFailure);
    let update = client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web")
        .auto_rollback_configuration(rollback.build());
    update.send().await.unwrap();
    let bad = shop::deploy(&client, "2.zip").await;
    let held = agent.poll().await.unwrap();
    let runs = json!([{"Location": "stop.sh", "Started": 1_790_000_000, "Ended": 1_790_000_001, "ErrorCode": 4}]);
    complete(&agent, &held, "Failed", runs).await;
    shop::ended(&client, &bad).await;
    agent.run_to("ValidateService").await;
    let by = shop::info(&client, &bad).await.rollback_info.unwrap();
    shop::ended(&client, by.rollback_deployment_id().unwrap()).await;

    let all = collector.spans(3).await;
    let of = |id: &str| {
        let root = all
            .iter()
            .find(|span| span["name"] == "deployment" && attributes(span)["deployment.id"] == id);
        let trace = text(root.unwrap(), "traceId");
        let spans = all.iter().filter(|span| span["traceId"] == trace.as_str());
        spans.cloned().collect::<Vec<_>>()
    };
    let failed = of(&bad);
    assert_eq!(tree(&failed), "deployment(host(ApplicationStop(stop.sh)))");
    for name in ["deployment", "host", "ApplicationStop", "stop.sh"] {
        assert_eq!(named(&failed, name)["status"]["code"], 2, "{name}");
    }
    assert_eq!(
        named(&failed, "stop.sh")["status"]["message"],
        "exit code 3"
    );
    assert_eq!(
        attributes(named(&failed, "deployment"))["deployment.status"],
        "failed"
    );
    let rollback = of(by.rollback_deployment_id().unwrap());
    let undone = named(&failed, "deployment");
    let link = json!([{"traceId": undone["traceId"], "spanId": undone["spanId"]}]);
    assert_eq!(named(&rollback, "deployment")["links"], link);
    assert_eq!(
        controller.logged("a trace was dropped"),
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn a_collector_that_refuses_or_is_away_costs_its_traces_and_nothing_else() {
    let collector = Collector::start().await;
    let (controller, client, agent) = shop::one_host(&collector.settings()).await;
    collector.answer_with(StatusCode::BAD_REQUEST);
    let deploy = async |key| {
        let id = shop::deploy(&client, key).await;
        agent.run_to("ValidateService").await;
        shop::ended(&client, &id).await
    };
    deploy("1.zip").await;
    let dropped = "codedeploy_controller_traces_total{outcome=\"dropped\"}";
    eventually("the count", async || {
        (metric(&controller, dropped)? == "1").then_some(())
    })
    .await;
    let told = controller.logged("a trace was dropped");
    assert_eq!(told.len(), 1);
    assert!(text(&told[0], "error").contains("400"), "{told:?}");
    assert!(!told[0].to_string().contains("secret"));
    // One that is away for a moment misses nothing.
    collector.answer_with(StatusCode::SERVICE_UNAVAILABLE);
    deploy("2.zip").await;
    collector.answer_with(StatusCode::OK);
    assert!(tree(&collector.spans(1).await).starts_with("deployment(host("));
}

#[tokio::test]
async fn the_trace_of_many_hosts_comes_in_parts() {
    let collector = Collector::start().await;
    let (mut controller, client, agent) = shop::one_host(&collector.settings()).await;
    let done = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &done).await;
    collector.spans(1).await;
    let id = shop::deploy(&client, "2.zip").await;
    controller.crash_while(|data| {
        let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
        let copies = "
            WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 150)
            INSERT INTO targets (deployment_id, position, target_id, arn, host, status, updated, events, class, stage, label, attempted)
                SELECT ?2, n, printf('copy%03d', n), arn || n, host || n, status, updated, events, class, stage, label, attempted
                FROM targets, n WHERE deployment_id = ?1";
        assert_eq!(database.execute(copies, [&done, &id]).unwrap(), 150);
    });
    let agent = Agent {
        address: controller.address,
        ..agent
    };
    agent.run_to("ValidateService").await;
    shop::ended(&controller.client("operator"), &id).await;
    let spans = collector.spans(3).await;
    let root = spans.iter().find(|span| {
        span["name"] == "deployment" && attributes(span)["deployment.id"] == id.as_str()
    });
    let trace = text(root.unwrap(), "traceId");
    let spans: Vec<Value> = spans
        .into_iter()
        .filter(|span| span["traceId"] == trace.as_str())
        .collect();
    let hosts = spans.iter().filter(|span| span["name"] == "host").count();
    assert_eq!(hosts, 151);
    assert!(tree(&spans).starts_with("deployment(host("));
}

#[tokio::test]
async fn without_a_collector_nothing_of_it_is_in_a_specification() {
    let (controller, client, agent) = shop::one_host("timers: {poll: 5}").await;
    let id = shop::deploy(&client, "1.zip").await;
    let held = agent.poll().await.unwrap();
    assert_eq!(trace_parent(&controller, &agent, &held).await, Value::Null);
    let runs = json!([{"Location": "stop.sh", "Started": 1, "Ended": 2, "ErrorCode": 0}]);
    complete(&agent, &held, "Succeeded", runs).await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;
    let database =
        rusqlite::Connection::open(controller.data().join("codedeploy.sqlite3")).unwrap();
    let kept: usize = database
        .query_row("SELECT count(*) FROM script_runs", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 0);
}
