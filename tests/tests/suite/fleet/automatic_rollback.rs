//! The host after a deployment fails, is stopped, or meets an alarm: real agents, and their files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_sdk_codedeploy::types::{
    Alarm, AlarmConfiguration, AutoRollbackEvent, DeploymentStatus, ErrorCode, StopStatus,
};
use axum::Router;
use axum::http::Uri;
use axum::routing::get;
use codedeploy_tests::fleet::{APPLICATION, Fleet, GROUP};
use codedeploy_tests::scripts::{Scripted, hold, runs, set_failing};
use codedeploy_tests::{tree, wait};
use serde_json::json;

/// The hooks of a deployment in place without a load balancer.
const HOOKS: [&str; 5] = [
    "ApplicationStop",
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
];

/// Creates a deployment of a revision with a file common to all revisions, and one of its own.
async fn create(fleet: &Fleet, name: &str) -> String {
    let own = format!("only-in-{name}");
    let files = [("page", name), (own.as_str(), "")];
    fleet
        .create(
            Scripted::new(name)
                .installs(&fleet.path("app"), &files)
                .push(fleet)
                .await,
        )
        .await
}

/// Deploys a revision successfully; returns the id and the files on disk.
async fn deploy(fleet: &Fleet, name: &str) -> (String, String) {
    let id = create(fleet, name).await;
    let deployed = fleet.outcome(&id).await;
    assert_eq!(deployed.status(), "Succeeded", "{:#?}", deployed.events);
    (id, installed(fleet))
}

fn installed(fleet: &Fleet) -> String {
    tree::listing(&fleet.path("app"))
}

async fn last_successful(fleet: &Fleet) -> Option<String> {
    fleet
        .group()
        .await
        .last_successful_deployment?
        .deployment_id
}

/// The scripts of `name` for `events`.
fn scripts(name: &str, events: &[&str]) -> Vec<String> {
    events
        .iter()
        .map(|event| format!("{name}.{event}"))
        .collect()
}

#[tokio::test]
async fn a_deployment_that_fails_is_rolled_back_once() {
    let fleet = Fleet::start(1, "").await;
    fleet
        .roll_back_on(&[AutoRollbackEvent::DeploymentFailure])
        .await;
    let host = &fleet.hosts[0];

    // There is nothing to roll back to.
    set_failing(host, "one.ApplicationStart", true);
    let first = fleet.outcome(&create(&fleet, "one").await).await;
    assert_eq!(
        (first.status(), first.failed_event().name.as_str()),
        ("Failed", "ApplicationStart")
    );
    let rollback = first.info.rollback_info.clone().unwrap();
    assert_eq!(rollback.rollback_deployment_id, None);
    let message = rollback.rollback_message.unwrap();
    assert!(
        message.contains("no earlier deployment of the deployment group has succeeded"),
        "{message}"
    );
    assert_eq!(fleet.deployments().await, 1);
    assert_eq!(last_successful(&fleet).await, None);

    set_failing(host, "one.ApplicationStart", false);
    let (good, as_good) = deploy(&fleet, "one").await;

    set_failing(host, "two.ApplicationStart", true);
    let failed = fleet.outcome(&create(&fleet, "two").await).await;
    assert_eq!(
        (failed.status(), failed.failed_event().name.as_str()),
        ("Failed", "ApplicationStart")
    );
    assert_eq!(
        failed.info.error_information.as_ref().unwrap().code,
        Some(ErrorCode::HealthConstraints)
    );
    let log = failed
        .failed_event()
        .diagnostics
        .as_ref()
        .unwrap()
        .log_tail
        .clone()
        .unwrap();
    assert!(
        log.contains("two.ApplicationStart was told to fail"),
        "{log}"
    );
    let by = fleet.rollback_of(&failed.id).await;
    let rollback = fleet.outcome(&by).await;
    assert_eq!(rollback.status(), "Succeeded", "{:#?}", rollback.events);
    assert_eq!(installed(&fleet), as_good);
    // The failed revision was on the host: its script stops the application that it had started.
    assert_eq!(
        runs(host, &by),
        [scripts("two", &HOOKS[..1]), scripts("one", &HOOKS[1..])].concat(),
        "in the order of the events"
    );
    let group = fleet.group().await;
    let revision = fleet.service.deployment(&good).await.revision;
    assert_eq!(
        group
            .last_successful_deployment
            .unwrap()
            .deployment_id
            .as_deref(),
        Some(by.as_str())
    );
    assert_eq!(
        group
            .last_attempted_deployment
            .unwrap()
            .deployment_id
            .as_deref(),
        Some(by.as_str())
    );
    assert_eq!(
        (group.target_revision, rollback.info.revision),
        (revision.clone(), revision)
    );
    assert_eq!(fleet.deployments().await, 4);

    // A rollback that fails as well is the last attempt.
    set_failing(host, "one.ValidateService", true);
    let failed = fleet.outcome(&create(&fleet, "two").await).await;
    let second = fleet.outcome(&fleet.rollback_of(&failed.id).await).await;
    assert_eq!(
        (second.status(), second.failed_event().name.as_str()),
        ("Failed", "ValidateService")
    );
    assert_eq!(
        second.info.rollback_info.unwrap().rollback_deployment_id,
        None
    );
    assert_eq!(last_successful(&fleet).await, Some(by));
    assert_eq!(fleet.deployments().await, 6);
    assert_eq!(
        installed(&fleet),
        as_good,
        "its files are back all the same"
    );
    fleet.stop().await;
}

#[tokio::test]
async fn a_host_that_has_gone_back_by_itself_is_rolled_back_to_the_same() {
    let fleet = Fleet::start(1, "rollback_on_failure: true\n").await;
    fleet
        .roll_back_on(&[AutoRollbackEvent::DeploymentFailure])
        .await;
    let (_, as_good) = deploy(&fleet, "one").await;
    set_failing(&fleet.hosts[0], "two.ApplicationStart", true);
    let held = hold(&fleet.hosts[0], "one.BeforeInstall");
    let failed = fleet.outcome(&create(&fleet, "two").await).await;
    assert_eq!(
        (failed.status(), failed.failed_event().name.as_str()),
        ("Failed", "ApplicationStart")
    );
    let by = fleet.rollback_of(&failed.id).await;
    held.runs(&by).await;
    assert_eq!(
        installed(&fleet),
        as_good,
        "the host did not wait for the service"
    );
    drop(held);
    let back = fleet.outcome(&by).await;
    assert_eq!(back.status(), "Succeeded", "{:#?}", back.events);
    assert_eq!(installed(&fleet), as_good);
    assert_eq!(last_successful(&fleet).await, Some(by));
    fleet.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_the_script_that_runs_and_is_rolled_back_when_it_says_so() {
    let fleet = Fleet::start(1, "").await;
    let host = &fleet.hosts[0];
    let (good, as_good) = deploy(&fleet, "one").await;
    let stop = async |id: &str, rollback: bool| {
        let request = fleet.service.client.stop_deployment().deployment_id(id);
        request
            .auto_rollback_enabled(rollback)
            .send()
            .await
            .map(|answer| answer.status.unwrap())
    };
    for rollback in [false, true] {
        let id = create(&fleet, "two").await;
        let held = hold(host, "two.AfterInstall");
        held.runs(&id).await;
        assert_eq!(stop(&id, !rollback).await.unwrap(), StopStatus::Pending);
        // The last request counts.
        assert_eq!(stop(&id, rollback).await.unwrap(), StopStatus::Pending);
        let running = fleet.service.deployment(&id).await;
        assert_eq!(
            (running.status, running.rollback_info),
            (Some(DeploymentStatus::InProgress), None)
        );
        let refused = fleet
            .service
            .client
            .create_deployment()
            .application_name(APPLICATION);
        let refused = refused
            .deployment_group_name(GROUP)
            .revision(running.revision.unwrap())
            .send()
            .await;
        assert!(
            refused
                .unwrap_err()
                .into_service_error()
                .is_deployment_limit_exceeded_exception()
        );
        drop(held);

        let stopped = fleet.outcome(&id).await;
        assert_eq!(stopped.status(), "Stopped");
        assert_eq!(
            stopped.info.error_information.unwrap().code,
            Some(ErrorCode::ManualStop)
        );
        // The last successful revision stops it.
        assert_eq!(
            runs(host, &id),
            [scripts("one", &HOOKS[..1]), scripts("two", &HOOKS[1..3])].concat(),
            "the script that ran did so to its end, and none came after it"
        );
        let statuses = stopped.events.iter().map(|event| event.status.as_str());
        let counted = |wanted| statuses.clone().filter(|status| *status == wanted).count();
        assert_eq!(
            (counted("Succeeded"), counted("Skipped")),
            (5, 2),
            "{:#?}",
            stopped.events
        );
        assert_eq!(stop(&id, rollback).await.unwrap(), StopStatus::Succeeded);
        if rollback {
            let back = fleet.outcome(&fleet.rollback_of(&id).await).await;
            assert_eq!(back.status(), "Succeeded", "{:#?}", back.events);
            assert_eq!(installed(&fleet), as_good);
            assert_eq!(last_successful(&fleet).await, Some(back.id));
        } else {
            assert_eq!(stopped.info.rollback_info, None);
            assert_eq!(
                fs::read_to_string(fleet.path("app/page")).unwrap(),
                "two",
                "it is left as it is"
            );
            assert_eq!(
                last_successful(&fleet).await.as_deref(),
                Some(good.as_str())
            );
            // This makes the next one replace the same files.
            deploy(&fleet, "one").await;
        }
    }
    fleet.stop().await;
}

/// The alert `slow` of a server that responds like Prometheus.
#[derive(Default)]
struct Alert {
    fires: AtomicBool,
    /// The number of responses in which it fired.
    told: AtomicUsize,
}

/// Returns the server's URL.
async fn prometheus(alert: Arc<Alert>) -> String {
    let answer = async move |uri: Uri| {
        let asked = uri
            .query()
            .unwrap_or_default()
            .contains("alertname%3D%22slow%22");
        let active = asked && alert.fires.load(Ordering::SeqCst);
        alert.told.fetch_add(usize::from(active), Ordering::SeqCst);
        let sample = json!({"metric": {"alertname": "slow"}, "value": [1, "1"]});
        let result = if active { vec![sample] } else { Vec::new() };
        json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/api/v1/query", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test]
async fn an_alarm_stops_a_deployment_and_does_not_stop_its_rollback() {
    let alert = Arc::new(Alert::default());
    let url = prometheus(Arc::clone(&alert)).await;
    let settings =
        format!("timers: {{alarms: 0.05}}\nalarms:\n  slow: {{prometheus: {{url: '{url}'}}}}\n");
    let fleet = Fleet::start_with(1, "", |_: &Path| settings).await;
    let host = &fleet.hosts[0];
    let alarms = AlarmConfiguration::builder()
        .enabled(true)
        .alarms(Alarm::builder().name("slow").build());
    let update = fleet
        .service
        .client
        .update_deployment_group()
        .application_name(APPLICATION);
    update
        .current_deployment_group_name(GROUP)
        .alarm_configuration(alarms.build())
        .send()
        .await
        .unwrap();
    fleet
        .roll_back_on(&[AutoRollbackEvent::DeploymentStopOnAlarm])
        .await;
    let (_, as_good) = deploy(&fleet, "one").await;

    let id = create(&fleet, "two").await;
    let held = hold(host, "two.ApplicationStart");
    held.runs(&id).await;
    alert.fires.store(true, Ordering::SeqCst);
    // The second request shows that the first response has had its effect.
    wait::until("the alarm has stopped it", async || {
        let told = alert.told.load(Ordering::SeqCst);
        if told > 1 { Ok(()) } else { Err(told) }
    })
    .await;
    drop(held);
    let stopped = fleet.outcome(&id).await;
    assert_eq!(stopped.status(), "Stopped");
    let error = stopped.info.error_information.unwrap();
    assert_eq!(error.code, Some(ErrorCode::AlarmActive));
    assert_eq!(error.message.as_deref(), Some("The alarm slow is active."));
    assert!(!runs(host, &id).contains(&"two.ValidateService".to_owned()));

    // It is still firing.
    let back = fleet.outcome(&fleet.rollback_of(&id).await).await;
    assert_eq!(back.status(), "Succeeded", "{:#?}", back.events);
    assert_eq!(installed(&fleet), as_good);
    assert_eq!(last_successful(&fleet).await, Some(back.id));
    fleet.stop().await;
}

#[tokio::test]
async fn a_controller_that_dies_in_a_rollback_goes_on_with_it() {
    let mut fleet =
        Fleet::start_with(3, "", |_: &Path| "timers: {poll: 2, lease: 2}\n".into()).await;
    fleet
        .roll_back_on(&[AutoRollbackEvent::DeploymentFailure])
        .await;
    let revision = async |name: &str| fleet.create(Scripted::new(name).push(&fleet).await).await;
    let good = fleet.outcome(&revision("one").await).await;
    assert_eq!(good.status(), "Succeeded");
    fleet
        .hosts
        .iter()
        .for_each(|host| set_failing(host, "two.BeforeInstall", true));
    let held: Vec<_> = fleet
        .hosts
        .iter()
        .map(|host| hold(host, "one.ApplicationStart"))
        .collect();
    let id = revision("two").await;
    assert_eq!(fleet.outcome(&id).await.status(), "Failed");
    let by = fleet.rollback_of(&id).await;
    for script in &held {
        script.runs(&by).await;
    }

    let killed = fleet.service.kill().await;
    // The scripts end while the controller is down.
    drop(held);
    for host in &fleet.hosts {
        wait::until("the script has ended", async || {
            let log = fs::read_to_string(host.agent_log()).unwrap_or_default();
            let ended =
                |line: &str| line.contains(&by) && line.contains("ApplicationStart succeeded");
            if log.lines().any(ended) {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }
    fleet.service = killed.restart().await;

    let back = fleet.outcome(&by).await;
    assert_eq!(back.status(), "Succeeded", "{:#?}", back.events);
    for host in &fleet.hosts {
        assert_eq!(runs(host, &by), scripts("one", &HOOKS), "{}", host.name);
    }
    assert_eq!(fleet.deployments().await, 3);
    assert_eq!(last_successful(&fleet).await, Some(by));
    fleet.stop().await;
}
