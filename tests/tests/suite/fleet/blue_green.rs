//! Blue/green deployments of real web servers, by real agents, behind a real HAProxy: the path of
//! requests in good and bad cases. No request may fail.

use aws_sdk_codedeploy::types::{
    AutoRollbackEvent, DeploymentInfo, DeploymentStatus, DeploymentWaitType, StopStatus,
};
use codedeploy_tests::balancer::Clients;
use codedeploy_tests::scripts::{hold, runs, set_failing};
use codedeploy_tests::site::{Site, Waits};
use codedeploy_tests::wait;

const ALLOW: [&str; 3] = ["BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic"];
const BLOCK: [&str; 3] = ["BeforeBlockTraffic", "BlockTraffic", "AfterBlockTraffic"];

/// One original instance that serves `blue`, one replacement instance, and clients.
async fn start(waits: Waits, more: &str) -> (Site, Clients) {
    let site = Site::start(1, 1, more).await;
    site.deploy("blue").await;
    site.deploys_blue_green(waits).await;
    let clients = site.visit().await;
    (site, clients)
}

async fn stop_all(site: Site, clients: Clients) {
    let tally = clients.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{:?}", tally.answers);
    site.stop().await;
}

/// The end of a deployment.
async fn ended(site: &Site, id: &str) -> DeploymentInfo {
    site.fleet.service.follow(id, "green1", |_| ()).await
}

/// `<event> <status>` of every event of an instance.
async fn rows(site: &Site, id: &str, instance: &str) -> Vec<String> {
    let events = site.fleet.service.events(id, instance).await;
    events
        .iter()
        .map(|event| format!("{} {}", event.name, event.status.as_str()))
        .collect()
}

fn all(events: &[&str], status: &str) -> Vec<String> {
    events
        .iter()
        .map(|event| format!("{event} {status}"))
        .collect()
}

async fn until_ready(site: &Site, id: &str) {
    wait::until("the replacement instance is ready", async || {
        let status = site.fleet.service.deployment(id).await.status;
        if status == Some(DeploymentStatus::Ready) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_moves_when_it_is_told_to_and_the_originals_go_when_they_are_told_to() {
    let (mut site, clients) = start(
        Waits {
            ready: true,
            termination: Some(60),
        },
        "",
    )
    .await;
    let id = site.create_green("green").await;
    until_ready(&site, &id).await;
    assert_eq!(
        clients.pages().await,
        ["blue"],
        "traffic moved before it was asked to"
    );
    let service = &site.fleet.service;
    let proceed = async |wait: DeploymentWaitType| {
        let request = service
            .client
            .continue_deployment()
            .deployment_id(&id)
            .deployment_wait_type(wait);
        request
            .send()
            .await
            .map(drop)
            .map_err(|error| error.into_service_error())
    };
    let early = proceed(DeploymentWaitType::TerminationWait)
        .await
        .unwrap_err();
    assert!(
        early.is_deployment_is_not_in_ready_state_exception(),
        "{early:?}"
    );
    proceed(DeploymentWaitType::ReadyWait).await.unwrap();
    let info = ended(&site, &id).await;
    assert_eq!(info.status, Some(DeploymentStatus::Succeeded), "{info:#?}");
    assert!(info.instance_termination_wait_time_started, "{info:#?}");
    assert_eq!(rows(&site, &id, "box1").await, all(&BLOCK, "Succeeded"));
    let green = rows(&site, &id, "green1").await;
    assert_eq!(
        (green.len(), &green[7..]),
        (10, all(&ALLOW, "Succeeded").as_slice())
    );
    assert_eq!(clients.pages().await, ["green"]);
    assert_eq!(
        runs(site.host("box1"), &id),
        ["blue.BeforeBlockTraffic", "blue.AfterBlockTraffic"]
    );

    let deregistered = async |name: &str| {
        let answer = service
            .client
            .get_on_premises_instance()
            .instance_name(name)
            .send()
            .await
            .unwrap();
        answer.instance_info.unwrap().deregister_time.is_some()
    };
    assert!(!deregistered("box1").await, "it has an hour");
    proceed(DeploymentWaitType::TerminationWait).await.unwrap();
    assert!(deregistered("box1").await && !deregistered("green1").await);
    let again = proceed(DeploymentWaitType::TerminationWait)
        .await
        .unwrap_err();
    assert!(
        again.is_deployment_already_completed_exception(),
        "{again:?}"
    );
    assert_eq!(
        site.fleet.agents[0].ended(),
        None,
        "machines and agents are left as they are"
    );
    assert_eq!(clients.pages().await, ["green"]);
    stop_all(site, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_before_traffic_moves_leaves_it_with_the_originals() {
    let (site, clients) = start(
        Waits {
            ready: true,
            termination: Some(0),
        },
        "",
    )
    .await;
    let events = [
        AutoRollbackEvent::DeploymentFailure,
        AutoRollbackEvent::DeploymentStopOnRequest,
    ];
    site.fleet.roll_back_on(&events).await;
    let good = site.fleet.group().await.last_successful_deployment;

    // A replacement that fails.
    set_failing(site.host("green1"), "bad.ValidateService", true);
    let failed = site.create_green("bad").await;
    let info = ended(&site, &failed).await;
    assert_eq!(info.status, Some(DeploymentStatus::Failed));
    assert_eq!(
        rows(&site, &failed, "green1").await[6..],
        [
            &all(&["ValidateService"], "Failed")[..],
            &all(&ALLOW, "Skipped")
        ]
        .concat()
    );

    // A good one that nobody continues.
    let stopped = site.create_green("green").await;
    until_ready(&site, &stopped).await;
    let answer = site
        .fleet
        .service
        .client
        .stop_deployment()
        .deployment_id(&stopped)
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.status,
        Some(StopStatus::Succeeded),
        "nothing runs that it would have to wait for"
    );
    assert_eq!(
        ended(&site, &stopped).await.status,
        Some(DeploymentStatus::Stopped)
    );
    assert_eq!(
        rows(&site, &stopped, "green1").await[7..],
        all(&ALLOW, "Skipped")
    );

    for id in [&failed, &stopped] {
        assert_eq!(rows(&site, id, "box1").await, all(&BLOCK, "Skipped"));
        let rollback = site
            .fleet
            .service
            .deployment(id)
            .await
            .rollback_info
            .unwrap();
        assert_eq!(rollback.rollback_deployment_id, None);
        let message = "Nothing was rolled back: the original instances have kept their traffic.";
        assert_eq!(rollback.rollback_message.as_deref(), Some(message));
    }
    assert_eq!(site.fleet.deployments().await, 3);
    assert_eq!(site.fleet.group().await.last_successful_deployment, good);
    let tally = clients.tally();
    assert_eq!(tally.answers.keys().collect::<Vec<_>>(), ["blue"]);
    stop_all(site, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_once_traffic_has_moved_gives_it_back_to_the_originals() {
    let (mut site, clients) = start(Waits::default(), "timers: {poll: 2, lease: 2}\n").await;
    site.fleet
        .roll_back_on(&[AutoRollbackEvent::DeploymentFailure])
        .await;
    let good = site
        .fleet
        .service
        .deployment(&last_successful(&site).await)
        .await
        .revision;
    // In the last case, the originals are out of rotation when it fails.
    for (instance, script, controller_dies) in [
        ("green1", "green.AfterAllowTraffic", false),
        ("box1", "blue.BeforeBlockTraffic", false),
        ("box1", "blue.AfterBlockTraffic", true),
    ] {
        set_failing(site.host(instance), script, true);
        let held = hold(site.host(instance), script);
        let id = site.create_green("green").await;
        held.runs(&id).await;
        assert!(
            clients.pages().await.contains(&"green".to_owned()),
            "{script}: traffic has moved"
        );
        let back = hold(site.host("box1"), "blue.BeforeAllowTraffic");
        drop(held);
        assert_eq!(
            ended(&site, &id).await.status,
            Some(DeploymentStatus::Failed),
            "{script}"
        );
        set_failing(site.host(instance), script, false);
        let by = site.fleet.rollback_of(&id).await;
        back.runs(&by).await;
        if controller_dies {
            let killed = site.fleet.service.kill().await;
            drop(back);
            site.fleet.service = killed.restart().await;
        } else {
            drop(back);
        }
        let rollback = ended(&site, &by).await;
        assert_eq!(
            rollback.status,
            Some(DeploymentStatus::Succeeded),
            "{script}: {rollback:#?}"
        );
        assert_eq!(rows(&site, &by, "box1").await, all(&ALLOW, "Succeeded"));
        assert_eq!(rows(&site, &by, "green1").await, all(&BLOCK, "Succeeded"));
        assert_eq!(
            runs(site.host("box1"), &by),
            ["blue.BeforeAllowTraffic", "blue.AfterAllowTraffic"]
        );
        assert_eq!(
            runs(site.host("green1"), &by),
            ["green.BeforeBlockTraffic", "green.AfterBlockTraffic"]
        );
        assert_eq!(clients.pages().await, ["blue"], "{script}");
        assert_eq!(
            (last_successful(&site).await, rollback.revision),
            (by, good.clone())
        );
    }
    stop_all(site, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_the_move_takes_it_back_when_it_says_so() {
    let (site, clients) = start(Waits::default(), "").await;
    let held = hold(site.host("box1"), "blue.BeforeBlockTraffic");
    let id = site.create_green("green").await;
    held.runs(&id).await;
    let stop = site
        .fleet
        .service
        .client
        .stop_deployment()
        .deployment_id(&id)
        .auto_rollback_enabled(true);
    assert_eq!(stop.send().await.unwrap().status, Some(StopStatus::Pending));
    drop(held);
    assert_eq!(
        ended(&site, &id).await.status,
        Some(DeploymentStatus::Stopped)
    );
    let of_blue = [
        "BeforeBlockTraffic Succeeded",
        "BlockTraffic Skipped",
        "AfterBlockTraffic Skipped",
    ];
    assert_eq!(rows(&site, &id, "box1").await, of_blue);
    let by = site.fleet.rollback_of(&id).await;
    assert_eq!(
        ended(&site, &by).await.status,
        Some(DeploymentStatus::Succeeded)
    );
    assert_eq!(rows(&site, &by, "green1").await, all(&BLOCK, "Succeeded"));
    assert_eq!(clients.pages().await, ["blue"]);
    stop_all(site, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_whose_agent_is_dead_loses_its_traffic_all_the_same() {
    let (mut site, clients) = start(Waits::default(), "timers: {pick_up: 5}\n").await;
    site.fleet
        .roll_back_on(&[AutoRollbackEvent::DeploymentFailure])
        .await;
    set_failing(site.host("green1"), "green.AfterAllowTraffic", true);
    let held = hold(site.host("box1"), "blue.BeforeAllowTraffic");
    let id = site.create_green("green").await;
    assert_eq!(
        ended(&site, &id).await.status,
        Some(DeploymentStatus::Failed)
    );
    let by = site.fleet.rollback_of(&id).await;
    held.runs(&by).await;

    // Its server still responds.
    site.fleet.agents.pop().unwrap().kill().await;
    let green = site.fleet.hosts.pop().unwrap();
    assert_eq!(clients.pages().await, ["blue", "green"]);
    drop(held);

    let rollback = ended(&site, &by).await;
    assert_eq!(rows(&site, &by, "box1").await, all(&ALLOW, "Succeeded"));
    let of_green = [
        "BeforeBlockTraffic Failed",
        "BlockTraffic Succeeded",
        "AfterBlockTraffic Failed",
    ];
    assert_eq!(rows(&site, &by, "green1").await, of_green);
    assert_eq!(
        rollback.status,
        Some(DeploymentStatus::Succeeded),
        "{rollback:#?}"
    );
    assert_eq!(
        runs(site.host("box1"), &by),
        ["blue.BeforeAllowTraffic", "blue.AfterAllowTraffic"]
    );
    assert_eq!(runs(&green, &by), Vec::<String>::new());
    assert_eq!(clients.pages().await, ["blue"]);
    stop_all(site, clients).await;
}

async fn last_successful(site: &Site) -> String {
    site.fleet
        .group()
        .await
        .last_successful_deployment
        .unwrap()
        .deployment_id
        .unwrap()
}
