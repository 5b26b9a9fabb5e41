//! Traffic that a real nginx moves between two slots.

use std::error::Error as _;
use std::time::Duration;

use codedeploy_agent::slots::traffic::Drained;
use codedeploy_hooks::slots::SlotName::{Blue, Green};
use codedeploy_tests::balancer::request;
use codedeploy_tests::nginx::Nginx;
use codedeploy_tests::visitors::Visitors;
use codedeploy_tests::{sweep, wait};

use super::bed::{Bed, DRAIN};
use super::traffic;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_moves_traffic_and_no_request_fails() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path()).await;
    let traffic = traffic(&nginx.traffic());
    let mut bed = Bed::new();
    bed.release(&traffic, Blue, "release 0").await;

    let visitors = Visitors::start(nginx.address, 6);
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
    nginx.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_drained_when_the_workers_of_before_have_answered() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path()).await;
    let traffic = traffic(&nginx.traffic());
    let mut bed = Bed::new();
    bed.release(&traffic, Blue, "old").await;
    bed.hold(Blue, true);
    let slow = tokio::spawn(request(nginx.address));
    let short = Duration::from_millis(1);
    wait::until("the request is under way", async || {
        match bed.drained(&traffic, Blue, short).await {
            Drained::Open(1..) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    bed.serve(Green, "new").await;
    bed.move_to(&traffic, Green).await.unwrap();
    assert_eq!(request(nginx.address).await.unwrap(), "new");
    let drained = bed.drained(&traffic, Blue, short).await;
    assert!(matches!(drained, Drained::Open(1..)), "{drained:?}");
    bed.hold(Blue, false);
    assert_eq!(bed.drained(&traffic, Blue, DRAIN).await, Drained::Empty);
    assert_eq!(slow.await.unwrap().unwrap(), "old");
    nginx.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_nginx_rejects_keeps_the_old_address() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path()).await;
    let right = traffic(&nginx.traffic());
    let mut bed = Bed::new();
    bed.release(&right, Blue, "old").await;
    let before = std::fs::read(nginx.include()).unwrap();
    bed.serve(Green, "new").await;
    let main = folder.path().join("nginx.conf");
    let config = std::fs::read_to_string(&main).unwrap();
    let elsewhere = nginx.traffic().replace("upstream.conf", "unread.conf");
    let stopped = nginx.traffic().replace("nginx.pid", "none.pid");
    let broken = format!("{config}\nnonsense;\n");
    let cases = [
        (&nginx.traffic(), &broken, "unknown directive \"nonsense\""),
        (&elsewhere, &config, "nginx does not read"),
        (&stopped, &config, "nginx does not run"),
    ];
    for (provider, config, expected) in cases {
        std::fs::write(&main, config).unwrap();
        let error = bed.move_to(&traffic(provider), Green).await.unwrap_err();
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(
            format!("{error}: {source}").contains(expected),
            "{error}: {source}"
        );
        assert_eq!(
            std::fs::read(nginx.include()).unwrap(),
            before,
            "{expected}"
        );
        assert!(!folder.path().join("unread.conf").exists());
        assert_eq!(request(nginx.address).await.unwrap(), "old", "{expected}");
    }
    nginx.stop().await;
}
