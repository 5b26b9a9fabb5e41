//! Actions without an operator: rollbacks, alarms, traffic, and continuation after a crash.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::{
    Alarm, AlarmConfiguration, AutoRollbackConfiguration, AutoRollbackEvent, DeploymentCreator,
    DeploymentInfo, DeploymentMode, DeploymentOption, DeploymentStatus, DeploymentStyle,
    DeploymentType, ErrorCode, LoadBalancerInfo, TargetGroupInfo,
};
use axum::Router;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Agent, Controller, Forgery, QUICK, eventually, shop, text};

async fn roll_back_on(client: &Client, events: &[AutoRollbackEvent]) {
    let configuration = AutoRollbackConfiguration::builder()
        .enabled(true)
        .set_events(Some(events.to_vec()));
    client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web")
        .auto_rollback_configuration(configuration.build())
        .send()
        .await
        .unwrap();
}

/// Deploys `key` successfully.
async fn deploy_well(client: &Client, agent: &Agent, key: &str) -> String {
    let id = shop::deploy(client, key).await;
    agent.run_to("ValidateService").await;
    assert_eq!(
        shop::ended(client, &id).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    id
}

/// The deployment that rolls `id` back, checked from both ends.
async fn rollback_of(client: &Client, id: &str) -> DeploymentInfo {
    let info = shop::ended(client, id).await;
    let rollback = info.rollback_info().expect("it is rolled back");
    let by = rollback.rollback_deployment_id().expect("by a deployment");
    let undoing = shop::info(client, by).await;
    assert_eq!(
        undoing.creator(),
        Some(&DeploymentCreator::CodeDeployRollback)
    );
    let back = undoing.rollback_info().unwrap();
    assert_eq!(back.rollback_triggering_deployment_id(), Some(id));
    let message = format!("Deployment {by} is triggered to roll back deployment {id}.");
    assert_eq!(back.rollback_message(), Some(message.as_str()));
    undoing
}

fn key(info: &DeploymentInfo) -> &str {
    info.revision()
        .unwrap()
        .s3_location()
        .unwrap()
        .key()
        .unwrap()
}

#[tokio::test]
async fn a_failure_is_rolled_back_once_to_the_last_revision_that_succeeded() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    roll_back_on(&client, &[AutoRollbackEvent::DeploymentFailure]).await;
    // There is nothing to roll back to.
    let first = shop::deploy(&client, "bad.zip").await;
    agent.fail(&agent.poll().await.unwrap()).await;
    let info = shop::ended(&client, &first).await;
    assert_eq!(info.rollback_info().unwrap().rollback_deployment_id(), None);
    assert!(
        info.rollback_info()
            .unwrap()
            .rollback_message()
            .unwrap()
            .contains("no earlier deployment")
    );

    deploy_well(&client, &agent, "good.zip").await;
    let failed = shop::deploy(&client, "bad.zip").await;
    agent.fail(&agent.poll().await.unwrap()).await;
    let rollback = rollback_of(&client, &failed).await;
    assert_eq!(key(&rollback), "good.zip");
    assert_eq!(
        rollback
            .previous_revision()
            .unwrap()
            .s3_location()
            .unwrap()
            .key(),
        Some("good.zip")
    );
    // A rollback that fails is not rolled back.
    let command = agent.poll().await.unwrap();
    assert_eq!(
        agent.specification(&command).await["DeploymentSystem"],
        "CodeDeploy"
    );
    agent.fail(&command).await;
    let id = rollback.deployment_id().unwrap();
    assert_eq!(
        shop::ended(&client, id)
            .await
            .rollback_info()
            .unwrap()
            .rollback_deployment_id(),
        None
    );
    let all = client.list_deployments().send().await.unwrap();
    assert_eq!(all.deployments().len(), 4);
}

#[tokio::test]
async fn a_stop_is_rolled_back_when_it_asks_for_it_or_else_when_the_group_does() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    deploy_well(&client, &agent, "good.zip").await;
    for (configured, asked, expected) in [
        (false, None, false),
        (false, Some(true), true),
        (true, Some(false), false),
        (true, None, true),
    ] {
        let events: &[_] = if configured {
            &[AutoRollbackEvent::DeploymentStopOnRequest]
        } else {
            &[AutoRollbackEvent::DeploymentFailure]
        };
        roll_back_on(&client, events).await;
        let id = shop::deploy(&client, "new.zip").await;
        let running = agent.poll().await.unwrap();
        agent.acknowledge(&running).await;
        let stop = client
            .stop_deployment()
            .deployment_id(&id)
            .set_auto_rollback_enabled(asked);
        stop.send().await.unwrap();
        agent.succeed(&running).await;
        if expected {
            let rollback = rollback_of(&client, &id).await;
            assert_eq!(key(&rollback), "good.zip");
            agent.run_to("ValidateService").await;
            let id = rollback.deployment_id().unwrap();
            assert_eq!(
                shop::ended(&client, id).await.status(),
                Some(&DeploymentStatus::Succeeded)
            );
        } else {
            assert_eq!(
                shop::ended(&client, &id).await.rollback_info(),
                None,
                "{configured} {asked:?}"
            );
        }
    }
}

#[tokio::test]
async fn who_asks_again_to_stop_may_change_their_mind_until_it_is_too_late() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    deploy_well(&client, &agent, "good.zip").await;
    let used = || async {
        let revision = shop::revision("good.zip");
        let get = client
            .get_application_revision()
            .application_name("shop")
            .revision(revision);
        *get.send()
            .await
            .unwrap()
            .revision_info()
            .unwrap()
            .last_used_time()
            .unwrap()
    };
    let stop = async |id: &str, rollback: Option<bool>| {
        let stop = client
            .stop_deployment()
            .deployment_id(id)
            .set_auto_rollback_enabled(rollback);
        stop.send()
            .await
            .unwrap()
            .status_message()
            .unwrap()
            .to_owned()
    };
    let id = shop::deploy(&client, "new.zip").await;
    let running = agent.poll().await.unwrap();
    agent.acknowledge(&running).await;
    for wish in [Some(true), Some(false), None] {
        assert!(stop(&id, wish).await.contains("will be stopped"));
    }
    agent.succeed(&running).await;
    assert_eq!(shop::ended(&client, &id).await.rollback_info(), None);
    let late = "The deployment was already stopped; it is not rolled back.";
    assert_eq!(stop(&id, Some(true)).await, late);
    assert_ne!(stop(&id, None).await, late);

    let before = used().await;
    let id = shop::deploy(&client, "new.zip").await;
    let running = agent.poll().await.unwrap();
    agent.acknowledge(&running).await;
    for wish in [None, Some(false), Some(true)] {
        stop(&id, wish).await;
    }
    agent.succeed(&running).await;
    assert_eq!(key(&rollback_of(&client, &id).await), "good.zip");
    assert!(used().await > before, "the rollback uses the revision");
    assert!(stop(&id, Some(false)).await.contains("and is rolled back"));
}

#[tokio::test]
async fn before_a_deployment_has_started_its_instances_are_said_to_be_unknown() {
    // An unreadable alarm keeps the deployment from starting.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let alarms = json!({"timers": {"poll": 5}, "alarms": {"hot": {"webhook": {"url": url}}}});
    let (_controller, client, _agent) = shop::one_host(&alarms.to_string()).await;
    let alarm = Alarm::builder().name("hot").build();
    let alarms = AlarmConfiguration::builder()
        .enabled(true)
        .alarms(alarm)
        .build();
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let request = request
        .revision(shop::revision("app.zip"))
        .override_alarm_configuration(alarms);
    let created = request.send().await.unwrap();
    let id = created.deployment_id().unwrap();
    let expected = format!(
        "The deployment {id} hasn't completed adding instances: its instances are not known yet."
    );
    // Clients recognise by these words, which are AWS's, that they have to ask again.
    let targets = client
        .list_deployment_targets()
        .deployment_id(id)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(targets.is_deployment_not_started_exception(), "{targets:?}");
    assert!(
        targets
            .meta()
            .message()
            .unwrap()
            .contains("hasn't completed adding instances"),
        "{targets:?}"
    );
    #[allow(deprecated, reason = "clients still call it")]
    let one = client
        .get_deployment_instance()
        .deployment_id(id)
        .instance_id("box1")
        .send()
        .await;
    let one = one.unwrap_err().into_service_error();
    assert!(one.is_instance_does_not_exist_exception(), "{one:?}");
    assert_eq!(one.meta().message(), Some(expected.as_str()));
    #[allow(deprecated, reason = "clients still call it")]
    let batch = client
        .batch_get_deployment_instances()
        .deployment_id(id)
        .instance_ids("box1")
        .send()
        .await;
    assert_eq!(batch.unwrap().error_message(), Some(expected.as_str()));
}

#[tokio::test]
async fn a_restart_uses_the_archive_that_hosts_have() {
    let (_controller, client, agent) = shop::one_host(QUICK).await;
    let restart = || {
        let request = client
            .create_deployment()
            .application_name("shop")
            .deployment_group_name("web");
        request.deployment_mode(DeploymentMode::Restart)
    };
    let refused = restart().send().await.unwrap_err().into_service_error();
    assert!(
        refused.is_revision_does_not_exist_exception(),
        "{refused:?}"
    );
    let good = deploy_well(&client, &agent, "good.zip").await;
    let refused = restart()
        .revision(shop::revision("new.zip"))
        .send()
        .await
        .unwrap_err();
    assert!(refused.into_service_error().is_invalid_input_exception());
    let id = restart()
        .send()
        .await
        .unwrap()
        .deployment_id()
        .unwrap()
        .to_owned();
    let command = agent.poll().await.unwrap();
    let envelope = agent.specification(&command).await;
    let payload = envelope["DeploymentSpecification"]["GenericEnvelope"]["Payload"]
        .as_str()
        .unwrap();
    let pem: String = payload
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let signed = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, pem).unwrap();
    let document = String::from_utf8_lossy(&signed).into_owned();
    assert!(
        document.contains(&format!("\"ReuseArchiveFromDeploymentId\":\"{good}\"")),
        "{document}"
    );
    agent.succeed(&command).await;
    agent.run_to("ValidateService").await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.deployment_mode(), Some(&DeploymentMode::Restart));
    assert_eq!(key(&info), "good.zip");
}

/// An HTTP server on loopback.
async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn an_alarm_of_a_prometheus_stops_a_deployment_which_is_rolled_back() {
    // Whether the alarm is active, and how often it was read.
    let fires: Arc<Mutex<(bool, usize)>> = Arc::default();
    let answer = {
        let fires = Arc::clone(&fires);
        move |request: axum::http::Request<axum::body::Body>| {
            let asked = request.uri().query().unwrap_or_default().to_owned();
            let mut fires = fires.lock().unwrap();
            let active = fires.0 && asked.contains("too-hot");
            fires.1 += usize::from(active);
            let result = if active {
                json!([{"metric": {}, "value": [1, "1"]}])
            } else {
                json!([])
            };
            async move {
                json!({"status": "success", "data": {"resultType": "vector", "result": result}})
                    .to_string()
            }
        }
    };
    let prometheus = serve(Router::new().route("/api/v1/query", get(answer))).await;
    let config = format!(
        "timers: {{poll: 5, alarms: 0.05}}\nalarms:\n  too-hot: {{prometheus: {{url: 'http://{prometheus}'}}}}\n"
    );
    let (_controller, client, agent) = shop::one_host(&config).await;
    let alarm = Alarm::builder().name("too-hot").build();
    client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web")
        .alarm_configuration(
            AlarmConfiguration::builder()
                .enabled(true)
                .alarms(alarm)
                .build(),
        )
        .send()
        .await
        .unwrap();
    roll_back_on(&client, &[AutoRollbackEvent::DeploymentStopOnAlarm]).await;
    deploy_well(&client, &agent, "good.zip").await;
    let id = shop::deploy(&client, "hot.zip").await;
    let running = agent.poll().await.unwrap();
    agent.acknowledge(&running).await;
    fires.lock().unwrap().0 = true;
    // The second request shows that the first response has had its effect.
    eventually("the alarm", async || {
        (fires.lock().unwrap().1 >= 2).then_some(())
    })
    .await;
    agent.succeed(&running).await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Stopped));
    assert_eq!(
        info.error_information().unwrap().code(),
        Some(&ErrorCode::AlarmActive)
    );
    // The alarm is still active: the rollback continues anyway.
    let rollback = rollback_of(&client, &id).await;
    agent.run_to("ValidateService").await;
    let id = rollback.deployment_id().unwrap();
    assert_eq!(
        shop::ended(&client, id).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    // An alarm that is active from the start lets nothing begin.
    let id = shop::deploy(&client, "hot.zip").await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(
        info.error_information().unwrap().code(),
        Some(&ErrorCode::AlarmActive)
    );
    assert_eq!(info.start_time(), None);
    // Nor a rollback: no host has anything to roll back from.
    let rollback = info.rollback_info().unwrap();
    assert_eq!(rollback.rollback_deployment_id(), None);
    assert!(
        rollback
            .rollback_message()
            .unwrap()
            .contains("not begun on any instance"),
        "{rollback:?}"
    );
}

#[tokio::test]
async fn a_webhook_is_told_to_move_traffic_and_asked_again_until_it_is_done() {
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let answer = {
        let calls = Arc::clone(&calls);
        move |body: axum::body::Bytes| {
            let body: Value = serde_json::from_slice(&body).unwrap();
            let call = format!(
                "{} {} {}",
                body["action"], body["loadBalancer"], body["instance"]
            )
            .replace('"', "");
            let mut calls = calls.lock().unwrap();
            let again = !calls.contains(&call);
            calls.push(call);
            async move {
                if again {
                    axum::http::StatusCode::ACCEPTED
                } else {
                    axum::http::StatusCode::NO_CONTENT
                }
            }
        }
    };
    let balancer = serve(Router::new().route("/", post(answer))).await;
    let config = format!(
        "timers: {{poll: 5}}\nload_balancers:\n  lb: {{webhook: {{url: 'http://{balancer}/'}}}}\n"
    );
    let (_controller, client, agent) = shop::one_host(&config).await;
    let update = |name: &str| {
        let group = TargetGroupInfo::builder().name(name).build();
        let style = DeploymentStyle::builder()
            .deployment_type(DeploymentType::InPlace)
            .deployment_option(DeploymentOption::WithTrafficControl);
        client
            .update_deployment_group()
            .application_name("shop")
            .current_deployment_group_name("web")
            .deployment_style(style.build())
            .load_balancer_info(
                LoadBalancerInfo::builder()
                    .target_group_info_list(group)
                    .build(),
            )
            .send()
    };
    update("other").await.unwrap();
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let refused = request
        .revision(shop::revision("app.zip"))
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(
        refused.is_invalid_load_balancer_info_exception(),
        "{refused:?}"
    );
    update("lb").await.unwrap();
    let id = shop::deploy(&client, "app.zip").await;
    let names = agent.run_to("AfterAllowTraffic").await;
    assert_eq!(names.len(), 11, "{names:?}");
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    assert_eq!(
        shop::letters(&shop::target(&client, &id, "box1").await),
        "S".repeat(13)
    );
    let expected = [
        "BlockTraffic lb box1",
        "BlockTraffic lb box1",
        "AllowTraffic lb box1",
        "AllowTraffic lb box1",
    ];
    assert_eq!(*calls.lock().unwrap(), expected);
}

/// Hosts that never give up, and count their responses.
struct Persistent {
    address: Mutex<SocketAddr>,
    answers: Mutex<usize>,
    answered: Notify,
}

impl Persistent {
    async fn call(&self, agent: &Agent, operation: &str, input: Value) -> Value {
        loop {
            let agent = Agent {
                address: *self.address.lock().unwrap(),
                ..agent.clone()
            };
            match agent.attempt(Forgery::none(operation), input.clone()).await {
                Some((200, output)) => {
                    *self.answers.lock().unwrap() += 1;
                    self.answered.notify_waiters();
                    return output;
                }
                Some((status, output)) => assert!(status >= 500, "{operation}: {output}"),
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Runs commands to the end of a deployment; returns their names.
    async fn run(&self, agent: Agent) -> Vec<String> {
        let (mut completed, mut names) = (HashSet::new(), Vec::new());
        while names.last().map(String::as_str) != Some("ValidateService") {
            let poll = json!({"HostIdentifier": agent.identifier});
            let output = self.call(&agent, "PollHostCommand", poll).await;
            let Some(command) = output.get("HostCommand") else {
                continue;
            };
            let id = text(command, "HostCommandIdentifier");
            assert!(
                !completed.contains(&id),
                "a command whose completion was answered came again"
            );
            let held = json!({"HostCommandIdentifier": id});
            let status = self
                .call(&agent, "PutHostCommandAcknowledgement", held)
                .await;
            assert_eq!(status["CommandStatus"], "InProgress");
            let done = json!({"HostCommandIdentifier": id, "CommandStatus": "Succeeded"});
            self.call(&agent, "PutHostCommandComplete", done).await;
            completed.insert(id);
            names.push(text(command, "CommandName"));
        }
        names
    }
}

#[tokio::test]
async fn a_controller_that_is_killed_again_and_again_loses_nothing_it_acknowledged() {
    let mut controller = Controller::start("timers: {poll: 0.2, lease: 0.3}");
    let agents: Vec<_> = (0..4)
        .map(|number| controller.host(&format!("box{number}"), &["env=prod"]))
        .collect();
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let client = controller.client_with(&key);
    shop::open(&client, "CodeDeployDefault.HalfAtATime").await;
    let id = shop::deploy(&client, "app.zip").await;
    let hosts = Arc::new(Persistent {
        address: Mutex::new(controller.address),
        answers: Mutex::new(0),
        answered: Notify::new(),
    });
    let mut runs = tokio::task::JoinSet::new();
    for agent in agents {
        let hosts = Arc::clone(&hosts);
        runs.spawn(async move { hosts.run(agent).await });
    }
    // Four hosts get at least 84 responses.
    for moment in [3, 9, 17, 24, 38, 45, 61] {
        loop {
            let answered = hosts.answered.notified();
            if *hosts.answers.lock().unwrap() >= moment {
                break;
            }
            answered.await;
        }
        controller.crash_and_restart();
        *hosts.address.lock().unwrap() = controller.address;
    }
    while let Some(names) = runs.join_next().await {
        let names = names.unwrap();
        assert_eq!(names.len(), 7, "{names:?}");
    }
    let client = controller.client_with(&key);
    let info = shop::ended(&client, &id).await;
    assert_eq!(
        info.status(),
        Some(&DeploymentStatus::Succeeded),
        "{info:?}"
    );
    for number in 0..4 {
        let target = shop::target(&client, &id, &format!("box{number}")).await;
        assert_eq!(shop::letters(&target), "SSSSSSS");
    }
}
