//! The public API as AWS's own client sees it.

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::error::ProvideErrorMetadata as _;
use aws_sdk_codedeploy::primitives::DateTime;
use aws_sdk_codedeploy::types::*;

use crate::support::{Controller, QUICK};

async fn start() -> (Controller, Client) {
    let controller = Controller::start(QUICK);
    let client = controller.client("operator");
    (controller, client)
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

fn github(repository: &str) -> RevisionLocation {
    let location = GitHubLocation::builder()
        .repository(repository)
        .commit_id("0123456789abcdef0123456789abcdef01234567");
    RevisionLocation::builder()
        .revision_type(RevisionLocationType::GitHub)
        .git_hub_location(location.build())
        .build()
}

fn s3(bucket: &str, key: &str) -> RevisionLocation {
    let location = S3Location::builder()
        .bucket(bucket)
        .key(key)
        .bundle_type(BundleType::TarGZip)
        .e_tag("9b1c");
    RevisionLocation::builder()
        .revision_type(RevisionLocationType::S3)
        .s3_location(location.build())
        .build()
}

#[tokio::test]
async fn applications() {
    let (_controller, client) = start().await;
    let created = client
        .create_application()
        .application_name("shop")
        .tags(tag("team", "a"))
        .send()
        .await
        .unwrap();
    let again = client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap_err();
    assert!(
        again
            .into_service_error()
            .is_application_already_exists_exception()
    );
    let bad = client
        .create_application()
        .application_name("bad name")
        .send()
        .await
        .unwrap_err();
    assert!(
        bad.into_service_error()
            .is_invalid_application_name_exception()
    );
    let lambda = client
        .create_application()
        .application_name("l")
        .compute_platform(ComputePlatform::Lambda);
    assert!(
        lambda
            .send()
            .await
            .unwrap_err()
            .into_service_error()
            .is_invalid_compute_platform_exception()
    );
    let found = client
        .get_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let found = found.application().unwrap();
    assert_eq!(found.application_id(), created.application_id());
    assert_eq!(found.compute_platform(), Some(&ComputePlatform::Server));
    assert!(found.create_time().is_some() && !found.linked_to_git_hub());
    let missing = client
        .get_application()
        .application_name("none")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(missing.is_application_does_not_exist_exception());
    assert_eq!(
        missing.message(),
        Some("No application found for name: none")
    );
    let batch = client
        .batch_get_applications()
        .application_names("shop")
        .application_names("none");
    assert!(
        batch
            .send()
            .await
            .unwrap_err()
            .into_service_error()
            .is_application_does_not_exist_exception()
    );
    let rename = |from: &str, to: &str| {
        client
            .update_application()
            .application_name(from)
            .new_application_name(to)
    };
    client
        .create_application()
        .application_name("other")
        .send()
        .await
        .unwrap();
    let taken = rename("shop", "other")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(taken.is_application_already_exists_exception());
    rename("other", "shop2").send().await.unwrap();
    rename("shop2", "shop2").send().await.unwrap();
    client
        .delete_application()
        .application_name("shop2")
        .send()
        .await
        .unwrap();
    client
        .delete_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    client
        .delete_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    assert!(
        client
            .list_applications()
            .send()
            .await
            .unwrap()
            .applications()
            .is_empty()
    );
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let (_controller, client) = start().await;
    for number in 0..101 {
        client
            .create_application()
            .application_name(format!("app-{number:03}"))
            .send()
            .await
            .unwrap();
    }
    let mut pages = client.list_applications().into_paginator().send();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        sizes.push(page.unwrap().applications().len());
    }
    assert_eq!(sizes, [100, 1]);
    let forged = client
        .list_applications()
        .next_token("x")
        .send()
        .await
        .unwrap_err();
    assert!(
        forged
            .into_service_error()
            .is_invalid_next_token_exception()
    );
}

#[tokio::test]
async fn revisions_are_registered_found_and_listed() {
    let (_controller, client) = start().await;
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let register = async |revision: RevisionLocation| {
        client
            .register_application_revision()
            .application_name("shop")
            .revision(revision)
            .description("d")
            .send()
            .await
    };
    for revision in [s3("bkt", "app-1.zip"), s3("bkt", "lib.zip"), github("a/b")] {
        register(revision).await.unwrap();
    }
    assert!(
        register(github("a"))
            .await
            .unwrap_err()
            .into_service_error()
            .is_invalid_revision_exception()
    );
    let get = client.get_application_revision().application_name("shop");
    let found = get
        .clone()
        .revision(s3("bkt", "app-1.zip"))
        .send()
        .await
        .unwrap();
    let info = found.revision_info().unwrap();
    assert!(
        info.description() == Some("d")
            && info.register_time().is_some()
            && info.first_used_time().is_none()
    );
    let missing = get
        .revision(s3("bkt", "other.zip"))
        .send()
        .await
        .unwrap_err();
    assert!(
        missing
            .into_service_error()
            .is_revision_does_not_exist_exception()
    );
    let list = || client.list_application_revisions().application_name("shop");
    assert_eq!(list().send().await.unwrap().revisions().len(), 3);
    let filtered = list()
        .s3_bucket("bkt")
        .s3_key_prefix("app")
        .send()
        .await
        .unwrap();
    assert_eq!(filtered.revisions(), [s3("bkt", "app-1.zip")]);
    let deployed = list()
        .deployed(ListStateFilterAction::Include)
        .send()
        .await
        .unwrap();
    assert!(deployed.revisions().is_empty());
    let refused = list()
        .s3_key_prefix("app")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(refused.is_bucket_name_filter_required_exception());
}

#[tokio::test]
async fn predefined_configurations() {
    let (_controller, client) = start().await;
    let listed = client.list_deployment_configs().send().await.unwrap();
    for (name, value) in [("AllAtOnce", 0), ("HalfAtATime", 50), ("OneAtATime", 1)] {
        let name = format!("CodeDeployDefault.{name}");
        assert!(listed.deployment_configs_list().contains(&name));
        let found = client
            .get_deployment_config()
            .deployment_config_name(&name)
            .send()
            .await
            .unwrap();
        let info = found.deployment_config_info().unwrap();
        assert_eq!(info.minimum_healthy_hosts().unwrap().value(), value);
    }
    let missing = client
        .get_deployment_config()
        .deployment_config_name("none")
        .send()
        .await
        .unwrap_err();
    assert!(
        missing
            .into_service_error()
            .is_deployment_config_does_not_exist_exception()
    );
}

#[tokio::test]
async fn deployments_are_listed_newest_first_and_refused_by_name() {
    let (controller, client) = start().await;
    controller.host("box1", &["env=prod"]);
    let group = async |name: &str| {
        let request = client
            .create_deployment_group()
            .application_name("shop")
            .deployment_group_name(name);
        request
            .service_role_arn("arn:aws:iam::123456789012:role/cd")
            .send()
            .await
            .unwrap();
    };
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    group("one").await;
    group("two").await;
    let create = |group: &str| {
        client
            .create_deployment()
            .application_name("shop")
            .deployment_group_name(group)
    };
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let output = create(name)
            .revision(s3("bkt", "app.zip"))
            .send()
            .await
            .unwrap();
        ids.insert(0, output.deployment_id().unwrap().to_owned());
    }
    let listed = client.list_deployments().send().await.unwrap();
    // Both may have been created within one millisecond.
    let mut names = listed.deployments().to_vec();
    names.sort();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(names, expected);
    let one = client
        .list_deployments()
        .application_name("shop")
        .deployment_group_name("one")
        .send()
        .await
        .unwrap();
    assert_eq!(one.deployments(), [ids[1].clone()]);
    let half = client
        .list_deployments()
        .application_name("shop")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(half.is_deployment_group_name_required_exception());
    let range = TimeRange::builder()
        .start(DateTime::from_secs(2))
        .end(DateTime::from_secs(1))
        .build();
    let range = client
        .list_deployments()
        .create_time_range(range)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(range.is_invalid_time_range_exception());
    let batch = client
        .batch_get_deployments()
        .deployment_ids(&ids[0])
        .deployment_ids("d-ZZZZZZZZZ");
    assert_eq!(batch.send().await.unwrap().deployments_info().len(), 1);
    let get = |id: &str| client.get_deployment().deployment_id(id);
    let error = get("d-ZZZZZZZZZ")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_deployment_does_not_exist_exception());
    let error = get("x").send().await.unwrap_err().into_service_error();
    assert!(error.is_invalid_deployment_id_exception());
    let error = create("one").send().await.unwrap_err().into_service_error();
    assert!(error.is_revision_required_exception());
    let error = create("none")
        .revision(s3("b", "k"))
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_deployment_group_does_not_exist_exception());
    let long = create("one")
        .revision(s3("b", "k"))
        .description("x".repeat(257))
        .send()
        .await
        .unwrap_err();
    assert!(
        long.into_service_error()
            .is_description_too_long_exception()
    );
    let bad = create("one")
        .revision(s3("b", "k"))
        .file_exists_behavior(FileExistsBehavior::from("KEEP"));
    assert!(
        bad.send()
            .await
            .unwrap_err()
            .into_service_error()
            .is_invalid_file_exists_behavior_exception()
    );
}
