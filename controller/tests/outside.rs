//! What the controller depends on misbehaves: monitoring and load balancers that are slow, away, or wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/shop.rs"]
mod shop;
mod support;

use std::net::SocketAddr;

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::{
    Alarm, AlarmConfiguration, DeploymentStatus, ErrorCode, TagFilter, TagFilterType,
};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use support::Controller;
use tokio::net::TcpListener;

/// An HTTP server on loopback.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Has an alarm watched over the group.
async fn watch(client: &Client, group: &str, alarm: &str, ignore_failure: bool) {
    client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name(group)
        .alarm_configuration(
            AlarmConfiguration::builder()
                .enabled(true)
                .ignore_poll_alarm_failure(ignore_failure)
                .alarms(Alarm::builder().name(alarm).build())
                .build(),
        )
        .send()
        .await
        .unwrap();
}

/// A group beside `web`, of the hosts with this tag.
async fn open_group(client: &Client, name: &str, env: &str) {
    client
        .create_deployment_group()
        .application_name("shop")
        .deployment_group_name(name)
        .service_role_arn("arn:aws:iam::123456789012:role/cd")
        .deployment_config_name("CodeDeployDefault.AllAtOnce")
        .on_premises_instance_tag_filters(
            TagFilter::builder().key("env").value(env).r#type(TagFilterType::KeyAndValue).build(),
        )
        .send()
        .await
        .unwrap();
}

async fn deploy_to(client: &Client, group: &str) -> String {
    let request = client.create_deployment().application_name("shop").deployment_group_name(group);
    let output = request.revision(shop::revision("app.zip")).send().await.unwrap();
    output.deployment_id().unwrap().to_owned()
}

#[tokio::test]
async fn an_alarm_that_nobody_answers_for_holds_up_no_other_deployment() {
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap();
    let alarm = serve(Router::new().route("/", get(|| async { r#"{"state": "ALARM"}"# }))).await;
    let mut controller = Controller::start(&format!(
        "timers: {{alarms: 0.05}}\nalarms:\n  silent: {{webhook: {{url: 'http://{silent_at}/'}}}}\n  \
         fires: {{webhook: {{url: 'http://{alarm}/'}}}}\n"
    ));
    let client = controller.client("operator");
    controller.host("box1", &["env=prod"]);
    controller.host("box2", &["env=test"]);
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    open_group(&client, "test", "test").await;
    watch(&client, "web", "silent", true).await;
    watch(&client, "test", "fires", true).await;
    let waits = deploy_to(&client, "web").await;
    // The first question is under way.
    let _held = silent.accept().await.unwrap();
    let stopped = deploy_to(&client, "test").await;
    let info = shop::ended(&client, &stopped).await;
    assert_eq!(info.error_information().unwrap().code(), Some(&ErrorCode::AlarmActive));
    assert_eq!(shop::info(&client, &waits).await.status(), Some(&DeploymentStatus::Created));
    let took = tokio::task::spawn_blocking(move || controller.terminate()).await.unwrap();
    assert!(took.as_secs() < 4, "it waited for the answer: {took:?}");
}

#[tokio::test]
async fn what_users_read_of_an_alarm_has_no_secret_of_its_address_or_answer() {
    let refuses =
        serve(Router::new().route("/hidden", get(|| async { (StatusCode::FORBIDDEN, "SECRET") }))).await;
    let (_controller, client, _agent) = shop::one_host(&format!(
        "alarms:\n  refused: {{webhook: {{url: 'http://{refuses}/hidden?token=SECRET'}}}}\n"
    ))
    .await;
    watch(&client, "web", "refused", false).await;
    let id = deploy_to(&client, "web").await;
    let info = shop::ended(&client, &id).await;
    let message = info.error_information().unwrap().message().unwrap();
    assert!(message.contains("refused") && message.contains("403"), "{message}");
    assert!(message.contains(&refuses.to_string()) && !message.contains("hidden"), "{message}");
    assert!(!message.contains("SECRET"), "{message}");
}
