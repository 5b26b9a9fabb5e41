//! An application with a deployment group, as most tests need one.

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::{
    BundleType, DeploymentInfo, InstanceTarget, RevisionLocation, RevisionLocationType, S3Location,
    TagFilter, TagFilterType,
};

use super::{Agent, Controller, eventually};

pub(crate) fn revision(key: &str) -> RevisionLocation {
    let location = S3Location::builder()
        .bucket("bkt")
        .key(key)
        .bundle_type(BundleType::Zip)
        .build();
    RevisionLocation::builder()
        .revision_type(RevisionLocationType::S3)
        .s3_location(location)
        .build()
}

/// The application `shop` with the group `web` of the hosts tagged env=prod.
pub(crate) async fn open(client: &Client, config: &str) {
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    open_group(client, config).await;
}

/// The group `web` of the application `shop`.
pub(crate) async fn open_group(client: &Client, config: &str) {
    client
        .create_deployment_group()
        .application_name("shop")
        .deployment_group_name("web")
        .service_role_arn("arn:aws:iam::123456789012:role/cd")
        .deployment_config_name(config)
        .on_premises_instance_tag_filters(
            TagFilter::builder()
                .key("env")
                .value("prod")
                .r#type(TagFilterType::KeyAndValue)
                .build(),
        )
        .send()
        .await
        .unwrap();
}

pub(crate) async fn deploy(client: &Client, key: &str) -> String {
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let output = request.revision(revision(key)).send().await.unwrap();
    output.deployment_id().unwrap().to_owned()
}

pub(crate) async fn info(client: &Client, id: &str) -> DeploymentInfo {
    let output = client
        .get_deployment()
        .deployment_id(id)
        .send()
        .await
        .unwrap();
    output.deployment_info().unwrap().clone()
}

/// Waits until the deployment has ended.
pub(crate) async fn ended(client: &Client, id: &str) -> DeploymentInfo {
    eventually("the end of the deployment", async || {
        let info = info(client, id).await;
        info.complete_time().is_some().then_some(info)
    })
    .await
}

pub(crate) async fn target(client: &Client, id: &str, name: &str) -> InstanceTarget {
    let output = client
        .get_deployment_target()
        .deployment_id(id)
        .target_id(name)
        .send()
        .await
        .unwrap();
    output
        .deployment_target()
        .unwrap()
        .instance_target()
        .unwrap()
        .clone()
}

/// The statuses of a target's events, in their order, shortened to their first letters.
pub(crate) fn letters(target: &InstanceTarget) -> String {
    let events = target.lifecycle_events();
    events
        .iter()
        .filter_map(|event| event.status()?.as_str().chars().next())
        .collect()
}

/// A controller with one host in the group, and a client and an agent of it.
pub(crate) async fn one_host(config: &str) -> (Controller, Client, Agent) {
    let controller = Controller::start(config);
    let agent = controller.host("box1", &["env=prod"]);
    let client = controller.client("operator");
    open(&client, "CodeDeployDefault.AllAtOnce").await;
    (controller, client, agent)
}
