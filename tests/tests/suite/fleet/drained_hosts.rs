//! A host that an operator drains, behind a real HAProxy: no traffic and no deployment until it
//! returns, whatever happens to the controller.

use codedeploy_tests::balancer::request;
use codedeploy_tests::fleet::{APPLICATION, GROUP};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::scripts::runs;
use codedeploy_tests::site::Site;
use codedeploy_tests::wait;
use std::collections::BTreeSet;

async fn operate(site: &Site, words: &[&str]) -> String {
    let mut command = Programs::built().controller.command(words);
    let data = &site.fleet.service.data;
    let output = command.arg("--data-dir").arg(data).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{words:?}: {text}");
    text
}

/// The pages of twenty requests.
async fn pages(site: &Site) -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    for _ in 0..20 {
        pages.insert(request(site.balancer.address).await.unwrap());
    }
    pages
}

async fn pages_become(site: &Site, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    wait::until("the pages", async || {
        let found = pages(site).await;
        if found == expected {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_host_gets_neither_traffic_nor_deployments_until_it_returns() {
    let mut site = Site::start(2, 0, "").await;
    site.deploys_in_place().await;
    site.deploy("one").await;
    let drained = operate(
        &site,
        &["drain", "box2", "--reason", "new memory", "--wait"],
    )
    .await;
    assert!(
        drained.contains("box2 is drained; it gets no traffic"),
        "{drained}"
    );
    let id = site.deploy("two").await;
    assert_eq!(pages(&site).await, BTreeSet::from(["two".to_owned()]));
    assert_eq!(runs(site.host("box2"), &id), [""; 0]);

    // The controller remembers it.
    site.fleet.service = site.fleet.service.kill_and_restart().await;
    let shown = operate(&site, &["hosts", "box2"]).await;
    assert!(shown.contains("new memory; it gets no traffic"), "{shown}");
    assert_eq!(pages(&site).await, BTreeSet::from(["two".to_owned()]));

    let returned = operate(&site, &["undrain", "box2"]).await;
    assert!(
        returned.contains("box2 lacks the revision of shop/web"),
        "{returned}"
    );
    pages_become(&site, &["one", "two"]).await;
    let client = &site.fleet.service.client;
    let current = site.fleet.service.deployment(&id).await.revision.unwrap();
    let outdated = client
        .create_deployment()
        .application_name(APPLICATION)
        .deployment_group_name(GROUP)
        .revision(current)
        .update_outdated_instances_only(true)
        .send()
        .await
        .unwrap();
    let id = outdated.deployment_id.unwrap();
    let ended = site.fleet.service.follow(&id, "box2", |_| {}).await;
    assert_eq!(ended.status.unwrap().as_str(), "Succeeded");
    pages_become(&site, &["two"]).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_drained_amid_a_deployment_gets_traffic_from_the_next_one() {
    let site = Site::start(2, 0, "").await;
    site.deploys_in_place().await;
    site.deploy("one").await;
    let held = codedeploy_tests::scripts::hold(site.host("box2"), "two.AfterInstall");
    let id = site.create("two").await;
    held.runs(&id).await;
    operate(&site, &["drain", "box2"]).await;
    drop(held);
    let ended = site.fleet.outcome(&id).await;
    assert_eq!(ended.status(), "Succeeded", "{:?}", ended.event_statuses());
    let ran = runs(site.host("box2"), &id);
    assert_eq!(ran.last().map(String::as_str), Some("two.AfterInstall"));
    let returned = operate(&site, &["undrain", "box2"]).await;
    assert!(returned.contains("did not complete on box2"), "{returned}");
    assert_eq!(pages(&site).await, BTreeSet::from(["two".to_owned()]));
    let status = operate(&site, &["hosts", "box2"]).await;
    assert!(status.contains("FAILED"), "{status}");
    site.deploy("three").await;
    pages_become(&site, &["three"]).await;
    site.stop().await;
}
