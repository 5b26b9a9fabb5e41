//! Traffic that a real HAProxy moves between two slots.

use std::path::Path;
use std::time::Duration;

use codedeploy_agent::slots::traffic::Drained;
use codedeploy_hooks::appspec::strategy::Traffic;
use codedeploy_hooks::slots::SlotName::{Blue, Green};
use codedeploy_tests::balancer::{BACKEND, Balancer, Server, request, socket};
use codedeploy_tests::visitors::Visitors;
use codedeploy_tests::{sweep, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::bed::Bed;
use super::traffic;

/// Starts HAProxy with a server for each slot.
async fn balancer(folder: &Path, bed: &Bed) -> Balancer {
    let server = |name| Server {
        name: format!("{name}"),
        port: bed.port(name),
        enabled: true,
    };
    Balancer::start(folder, &[server(Blue), server(Green)]).await
}

/// The strategy's provider for the socket in `folder`.
fn provider(folder: &Path, backend: &str) -> Traffic {
    let socket = socket(folder);
    traffic(&format!(
        "haproxy: {{socket: {}, backend: {backend}}}",
        socket.display()
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_moves_traffic_and_no_request_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut bed = Bed::new();
    let balancer = balancer(folder.path(), &bed).await;
    let traffic = provider(folder.path(), BACKEND);
    bed.release(&traffic, Blue, "release 0").await;
    wait::until("the site answers", async || request(balancer.address).await).await;

    let visitors = Visitors::start(balancer.address, 6);
    let rounds = if sweep::long() { 50 } else { 6 };
    for round in 1..=rounds {
        let to = if round % 2 == 0 { Blue } else { Green };
        let text = format!("release {round}");
        bed.release(&traffic, to, &text).await;
        visitors.see(&text).await;
    }
    let seen = visitors.stop().await;
    seen.nothing_failed();
    assert_eq!(seen.answers.len(), rounds + 1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_drained_when_its_last_request_has_been_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut bed = Bed::new();
    let balancer = balancer(folder.path(), &bed).await;
    let traffic = provider(folder.path(), BACKEND);
    bed.release(&traffic, Blue, "old").await;
    wait::until("the site answers", async || request(balancer.address).await).await;
    bed.hold(Blue, true);
    let slow = tokio::spawn(request(balancer.address));
    let short = Duration::from_millis(1);
    wait::until("the request is under way", async || {
        match bed.drained(&traffic, Blue, short).await {
            Drained::Open(1) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    bed.serve(Green, "new").await;
    bed.move_to(&traffic, Green).await.unwrap();
    assert_eq!(request(balancer.address).await.unwrap(), "new");
    assert_eq!(bed.drained(&traffic, Blue, short).await, Drained::Open(1));
    bed.hold(Blue, false);
    let drained = bed.drained(&traffic, Blue, super::bed::DRAIN).await;
    assert_eq!(drained, Drained::Empty);
    assert_eq!(slow.await.unwrap().unwrap(), "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_does_not_fit_keeps_its_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let (mut bed, other) = (Bed::new(), Bed::new());
    let balancer = balancer(folder.path(), &bed).await;
    bed.release(&provider(folder.path(), BACKEND), Blue, "old")
        .await;
    wait::until("the site answers", async || request(balancer.address).await).await;
    let none = provider(folder.path(), "elsewhere");
    let unnamed = traffic(&format!(
        "haproxy: {{socket: {}, backend: {BACKEND}, servers: {{blue: blue, green: teal}}}}",
        socket(folder.path()).display()
    ));
    let cases = [
        (&none, &bed, "in the backend \"elsewhere\""),
        (&unnamed, &bed, "shows no server \"teal\""),
        (
            &provider(folder.path(), BACKEND),
            &other,
            "expected the port",
        ),
    ];
    for (traffic, bed, expected) in cases {
        let error = bed.move_to(traffic, Green).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(
            request(balancer.address).await.unwrap(),
            "old",
            "{expected}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_haproxy_finds_down_gets_no_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let mut bed = Bed::new();
    let balancer = balancer(folder.path(), &bed).await;
    let traffic = provider(folder.path(), BACKEND);
    bed.release(&traffic, Blue, "old").await;
    wait::until("the site answers", async || request(balancer.address).await).await;
    let visitors = Visitors::start(balancer.address, 2);
    let error = bed.move_to(&traffic, Green).await.unwrap_err().to_string();
    assert!(error.contains("web/green is DOWN"), "{error}");
    visitors.see("old").await;
    visitors.stop().await.nothing_failed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_answer_ends_the_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket(folder.path())).unwrap();
    let flood = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read_u8().await;
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            });
        }
    });
    let bed = Bed::new();
    let traffic = provider(folder.path(), BACKEND);
    let error = bed.move_to(&traffic, Green).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let expected = "the answer ends after 16777216 bytes";
    assert!(
        source
            .as_deref()
            .is_some_and(|text| text.contains(expected)),
        "{error}: {source:?}"
    );
    flood.abort();
}
