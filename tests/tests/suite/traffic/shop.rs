//! The examples with two slots, deployed by `codedeploy-local` again and again, half of them failing
//! at one event or another, while visitors come.

use codedeploy_tests::balancer::get;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::shop::{FAILING, Provider, Shop, Way};
use codedeploy_tests::visitors::Visitors;
use codedeploy_tests::{sweep, wait};

/// The page of a version.
fn hello(version: &str) -> String {
    format!("Hello from version {version}")
}

/// Deploys in one way, and lets each other deployment fail; no request may.
async fn nobody_notices(provider: Provider) {
    let shop = Shop::open(Programs::built(), provider, Way::Slots).await;
    let (succeeded, output) = shop.deploy("0", None).await;
    assert!(succeeded, "{output}");
    let visitors = Visitors::start(shop.address(), 6);
    visitors.see(&hello("0")).await;

    let rounds = if sweep::long() { 25 } else { FAILING.len() };
    for round in 1..=rounds {
        let event = FAILING[(round - 1) % FAILING.len()];
        let wrong = format!("{round} with a failing {event}");
        let (succeeded, output) = shop.deploy(&wrong, Some(event)).await;
        assert!(!succeeded, "{wrong}: {output}");
        let version = round.to_string();
        let (succeeded, output) = shop.deploy(&version, None).await;
        assert!(succeeded, "{version}: {output}");
        visitors.see(&hello(&version)).await;
        let seen = visitors.seen();
        assert_eq!(
            seen.failed, 0,
            "after a failing {event}: {seen:#?}\n{output}"
        );
    }
    let seen = visitors.stop().await;
    seen.nothing_failed();
    for event in [
        "BeforeInstall",
        "Install",
        "AfterInstall",
        "ApplicationStart",
        "ValidateService",
    ] {
        let wrong = seen.answers.keys().find(|page| page.ends_with(event));
        assert_eq!(wrong, None, "a version that was not valid was shown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_behind_haproxy_are_never_noticed_which_takes_minutes() {
    nobody_notices(Provider::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_behind_nginx_are_never_noticed_which_takes_minutes() {
    nobody_notices(Provider::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_with_a_script_that_moves_traffic_are_never_noticed_which_takes_minutes() {
    nobody_notices(Provider::Command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_do_notice_a_deployment_in_place() {
    let shop = Shop::open(Programs::built(), Provider::Haproxy, Way::InPlace).await;
    let (succeeded, output) = shop.deploy("0", None).await;
    assert!(succeeded, "{output}");
    wait::until("the shop answers", async || get(shop.address(), "/").await).await;
    let visitors = Visitors::start(shop.address(), 6);
    visitors.see(&hello("0")).await;
    let (succeeded, output) = shop.deploy("1", None).await;
    assert!(succeeded, "{output}");
    visitors.see(&hello("1")).await;
    let seen = visitors.stop().await;
    assert!(seen.failed > 0 && !seen.down.is_zero(), "{seen:?}");
}
