//! Clients that are slow, or disconnect.

use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::{DeploymentInfo, DeploymentStatus, Nothing};
use codedeploy_controller::config::{Arguments, Settings};
use codedeploy_controller::deployment::{create, queries};
use codedeploy_controller::error::ApiError;
use codedeploy_controller::reconcile;
use codedeploy_controller::registry::{applications, groups};
use codedeploy_controller::request::Request;
use codedeploy_controller::service::Service;
use codedeploy_controller::transaction::Context;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Controller, eventually};

/// The response to the beginning of a request, until the service closes the connection.
async fn answer_to(controller: &Controller, sent: &str) -> String {
    let mut stream = TcpStream::connect(controller.address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let closed =
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    closed.expect("the connection stays open").unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_that_does_not_arrive_is_given_up() {
    let controller = Controller::start("timers: {request: 0.3}");
    let target = "CodeDeployCommandService_v20141006.PollHostCommand";
    let call = controller
        .host("box1", &[])
        .head("codedeploy-commands", "POST /", target);
    let call = call + "content-length: 100\r\n\r\n{";
    let (head, body, silence) = tokio::join!(
        answer_to(&controller, "POST / HTTP/1.1\r\nhost: x\r\nx-amz"),
        answer_to(&controller, &call),
        answer_to(&controller, ""),
    );
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408"),
        "{head}"
    );
    assert!(
        body.starts_with("HTTP/1.1 408") && body.contains("RequestTimeoutException"),
        "{body}"
    );
    assert!(
        silence.is_empty() || silence.starts_with("HTTP/1.1 408"),
        "{silence}"
    );
    assert!(
        controller
            .client("operator")
            .list_applications()
            .send()
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let controller = Controller::start("timers: {request: 20}");
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nx-long: {}",
        "x".repeat(70_000)
    );
    let answer = answer_to(&controller, &head).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

fn checked<R: Request>(value: Value) -> R {
    R::check(serde_json::from_value(value).unwrap()).unwrap()
}

fn open_shop(_: &Service, context: &Context<'_>) -> Result<Nothing, ApiError> {
    applications::create(context, checked(json!({"applicationName": "shop"})))?;
    let group = json!({
        "applicationName": "shop",
        "deploymentGroupName": "web",
        "serviceRoleArn": "arn:aws:iam::123456789012:role/cd",
    });
    groups::create(context, checked(group))?;
    Ok(Nothing {})
}

fn deploy() -> Value {
    let location = json!({"bucket": "bkt", "key": "app.zip", "bundleType": "zip"});
    json!({
        "applicationName": "shop",
        "deploymentGroupName": "web",
        "revision": {"revisionType": "S3", "s3Location": location},
    })
}

#[tokio::test]
async fn a_deployment_goes_on_though_the_client_left_before_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::load(Arguments {
        data_dir: folder.path().to_owned(),
        listen: None,
        region: None,
        account_id: None,
        insecure_http: false,
        config_file: None,
    });
    let service = Service::open(settings.unwrap()).unwrap();
    let reconciler = tokio::spawn(reconcile::run(Arc::clone(&service)));
    service.transact(open_shop).await.unwrap();
    let mut request = Box::pin(service.change(|_, context| {
        let (output, outcome) = create::create(context, checked(deploy()))?;
        Ok((output, Some(outcome)))
    }));
    tokio::select! {
        biased;
        _ = &mut request => panic!("the request was answered before its client could leave"),
        () = std::future::ready(()) => {}
    }
    drop(request);
    let ended = eventually("the end of the deployment", async || {
        let found = service.transact(|_, context| {
            let ids = queries::list(context, checked(json!({})))?
                .deployments
                .unwrap_or_default();
            let infos = ids
                .into_iter()
                .map(|id| queries::get(context, checked(json!({"deploymentId": id}))));
            Ok(infos
                .collect::<Result<Vec<_>, _>>()?
                .pop()
                .and_then(|output| output.deployment_info))
        });
        let info: DeploymentInfo = found.await.unwrap()?;
        info.complete_time.is_some().then_some(info)
    });
    // A group without hosts.
    assert_eq!(ended.await.status, Some(DeploymentStatus::Failed));
    service.stop();
    reconciler.await.unwrap().unwrap();
}
