//! Deployments in place of real web servers, by real agents, behind a real HAProxy, under requests
//! that must not fail.

use aws_sdk_codedeploy::types::{AutoRollbackEvent, StopStatus};
use codedeploy_tests::balancer::{get, request};
use codedeploy_tests::scripts::{hold, runs, set_failing};
use codedeploy_tests::site::Site;
use codedeploy_tests::wait;

/// The hooks of the replaced revision, and those of the new one.
const OF_THE_OLD: [&str; 3] = ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"];
const OF_THE_NEW: [&str; 6] = [
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

fn scripts(old: &str, new: &str) -> Vec<String> {
    let of = |name: &str, events: &[&str]| -> Vec<_> {
        events
            .iter()
            .map(|event| format!("{name}.{event}"))
            .collect()
    };
    [of(old, &OF_THE_OLD), of(new, &OF_THE_NEW)].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_behind_a_load_balancer_no_request_fails() {
    let site = Site::start(2, 0, "").await;
    site.deploys_in_place().await;
    site.deploy("one").await;
    let clients = site.visit().await;
    let id = site.deploy("two").await;
    assert_eq!(clients.pages().await, ["two"]);
    let tally = clients.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{:?}", tally.answers);
    assert!(
        tally.answers["one"] > 20 && tally.answers["two"] > 20,
        "{:?}",
        tally.answers
    );
    for host in &site.fleet.hosts {
        let events = site.fleet.service.events(&id, &host.name).await;
        let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(
            names[..4],
            [
                "BeforeBlockTraffic",
                "BlockTraffic",
                "AfterBlockTraffic",
                "ApplicationStop"
            ]
        );
        assert_eq!(
            names[10..],
            ["BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic"]
        );
        assert_eq!(runs(host, &id), scripts("one", "two"));
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_new_server_is_bad_gets_no_request_until_the_rollback_has_made_it_good() {
    let site = Site::start(2, 0, "").await;
    site.deploys_in_place().await;
    site.fleet
        .roll_back_on(&[AutoRollbackEvent::DeploymentFailure])
        .await;
    site.deploy("one").await;
    let clients = site.visit().await;

    // Its server runs and responds, with a page that nobody should see.
    set_failing(site.host("box1"), "two.BeforeAllowTraffic", true);
    let held = hold(site.host("box1"), "one.BeforeInstall");
    let id = site.create("two").await;
    let failed = site.fleet.outcome(&id).await;
    assert_eq!(
        (failed.status(), failed.failed_event().name.as_str()),
        ("Failed", "BeforeAllowTraffic")
    );
    let untouched = site.fleet.service.events(&id, "box2").await;
    assert!(
        untouched
            .iter()
            .all(|event| event.status.as_str() == "Skipped"),
        "{untouched:#?}"
    );

    let by = site.fleet.rollback_of(&id).await;
    held.runs(&by).await;
    assert_eq!(clients.pages().await, ["one"], "from the host that is left");
    assert_eq!(
        runs(site.host("box2"), &by),
        Vec::<String>::new(),
        "the bad host comes first"
    );
    drop(held);
    let back = site.fleet.outcome(&by).await;
    assert_eq!(back.status(), "Succeeded", "{:#?}", back.events);
    assert_eq!(back.events.len(), 13);
    assert_eq!(runs(site.host("box1"), &by), scripts("two", "one"));
    assert_eq!(runs(site.host("box2"), &by), scripts("one", "one"));
    assert_eq!(clients.pages().await, ["one"]);
    // Both serve, because each must serve alone while the other is out.
    site.deploy("three").await;
    let tally = clients.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{:?}", tally.answers);
    assert!(!tally.answers.contains_key("two"), "{:?}", tally.answers);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_a_stop_left_in_the_middle_gets_no_request_until_it_is_deployed_to() {
    let site = Site::start(2, 0, "").await;
    site.deploys_in_place().await;
    site.deploy("one").await;
    let clients = site.visit().await;
    // Its server runs, but must not be visible.
    let held = hold(site.host("box1"), "two.ValidateService");
    let id = site.create("two").await;
    held.runs(&id).await;
    let stop = site
        .fleet
        .service
        .client
        .stop_deployment()
        .deployment_id(&id)
        .auto_rollback_enabled(false);
    assert_eq!(stop.send().await.unwrap().status, Some(StopStatus::Pending));
    drop(held);
    let stopped = site.fleet.outcome(&id).await;
    assert_eq!(
        (stopped.status(), &stopped.info.rollback_info),
        ("Stopped", &None)
    );
    assert_eq!(runs(site.host("box1"), &id), scripts("one", "two")[..7]);
    assert_eq!(
        clients.pages().await,
        ["one"],
        "from the host that was not reached"
    );
    // It is now the first: the other one serves meanwhile, and then has its turn.
    site.deploy("three").await;
    assert_eq!(clients.pages().await, ["three"]);
    let tally = clients.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{:?}", tally.answers);
    assert!(!tally.answers.contains_key("two"), "{:?}", tally.answers);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_dies_while_sessions_drain_waits_for_them_when_it_is_back() {
    let mut site = Site::start(2, 0, "timers: {poll: 2, lease: 2}\n").await;
    site.deploys_in_place().await;
    site.deploy("one").await;
    let held: Vec<_> = site
        .fleet
        .hosts
        .iter()
        .map(|host| host.folder.join("held"))
        .collect();
    held.iter()
        .for_each(|file| std::fs::write(file, "").unwrap());
    // As many requests as servers, twice: each gets one.
    let address = site.balancer.address;
    let sessions: Vec<_> = (0..4)
        .map(|_| tokio::spawn(async move { get(address, "/held").await }))
        .collect();
    let clients = site.visit().await;

    let id = site.create("two").await;
    site.fleet
        .service
        .until_in_progress(&id, "box1", "BlockTraffic")
        .await;
    let killed = site.fleet.service.kill().await;
    assert_eq!(clients.pages().await, ["one"]);
    site.fleet.service = killed.restart().await;
    site.fleet
        .service
        .until_in_progress(&id, "box1", "BlockTraffic")
        .await;
    assert!(
        sessions.iter().all(|session| !session.is_finished()),
        "they were waited for"
    );
    assert_eq!(runs(site.host("box1"), &id), ["one.BeforeBlockTraffic"]);
    held.iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());

    let deployed = site.fleet.outcome(&id).await;
    assert_eq!(deployed.status(), "Succeeded", "{:#?}", deployed.events);
    for session in sessions {
        assert_eq!(session.await.unwrap().as_deref(), Ok("one"));
    }
    for host in &site.fleet.hosts {
        assert_eq!(runs(host, &id), scripts("one", "two"), "{}", host.name);
    }
    wait::until("the new servers alone answer", async || {
        match request(address).await.as_deref() {
            Ok("two") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let tally = clients.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{:?}", tally.answers);
    site.stop().await;
}
