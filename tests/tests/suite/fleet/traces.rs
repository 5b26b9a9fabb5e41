//! Scripts of a real agent know their place in the deployment's trace, and are in it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::wait;
use serde_json::Value;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_script_sees_its_place_in_the_trace_that_the_collector_gets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = listener.local_addr().unwrap();
    let received: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = Arc::clone(&received);
    let take = async move |body: Bytes| {
        let document: Value = serde_json::from_slice(&body).unwrap();
        let spans = &document["resourceSpans"][0]["scopeSpans"][0]["spans"];
        kept.lock()
            .unwrap()
            .extend(spans.as_array().unwrap().clone());
    };
    let router = Router::new().fallback(take);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let settings = format!("traces: {{endpoint: 'http://{collector}'}}\n");
    let fleet = Fleet::start_with(1, "", |_| settings).await;
    let seen = fleet.path("seen");
    let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: a.sh\n    - location: b.sh\n";
    let script = format!("#!/bin/sh\necho $TRACEPARENT >> {}\n", seen.display());
    let done = fleet
        .deploy(&[
            ("appspec.yml", appspec),
            ("a.sh", &script),
            ("b.sh", "#!/bin/sh\nsleep 0.1\n"),
        ])
        .await;
    assert_eq!(done.status(), "Succeeded");
    let spans = wait::until("the trace", async || {
        let received = received.lock().unwrap();
        if received.is_empty() {
            Err("nothing came")
        } else {
            Ok(received.clone())
        }
    })
    .await;
    let named = |name: &str| {
        let mut found = spans.iter().filter(|span| span["name"] == name);
        found
            .next()
            .unwrap_or_else(|| panic!("no {name} in {spans:?}"))
    };
    let event = named("AfterInstall");
    let text = |span: &Value, member: &str| span[member].as_str().unwrap().to_owned();
    let place = format!(
        "00-{}-{}-01\n",
        text(event, "traceId"),
        text(event, "spanId")
    );
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), place);
    for script in ["a.sh", "b.sh"] {
        assert_eq!(text(named(script), "parentSpanId"), text(event, "spanId"));
    }
    let time = |span: &Value, member: &str| text(span, member).parse::<u64>().unwrap();
    let (first, second) = (named("a.sh"), named("b.sh"));
    let took = time(second, "endTimeUnixNano") - time(second, "startTimeUnixNano");
    assert!(took >= 100_000_000, "{took} ns");
    assert!(time(first, "endTimeUnixNano") <= time(second, "startTimeUnixNano"));
    fleet.stop().await;
}
