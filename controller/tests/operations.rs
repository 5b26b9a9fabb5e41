//! The public API as AWS's own client sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod support;

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::error::ProvideErrorMetadata as _;
use aws_sdk_codedeploy::primitives::DateTime;
use aws_sdk_codedeploy::types::*;
use support::{Controller, QUICK};

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
    assert!(bad.into_service_error().is_invalid_application_name_exception());
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
    assert_eq!(missing.message(), Some("No application found for name: none"));
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
    assert!(forged.into_service_error().is_invalid_next_token_exception());
}

#[tokio::test]
async fn on_premises_instances_and_their_tags() {
    let (_controller, client) = start().await;
    let arn = "arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1";
    let register = |name: &str| client.register_on_premises_instance().instance_name(name);
    register("box1").iam_user_arn(arn).send().await.unwrap();
    let error = register("box1")
        .iam_user_arn(arn)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_instance_name_already_registered_exception());
    let error = register("box2")
        .iam_user_arn(arn)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_iam_user_arn_already_registered_exception());
    let error = register("box2").send().await.unwrap_err().into_service_error();
    assert!(error.is_iam_arn_required_exception());
    let error = register("i-123")
        .iam_user_arn(arn)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_invalid_instance_name_exception());

    let add = |name: &str| client.add_tags_to_on_premises_instances().instance_names(name);
    add("box1").tags(tag("env", "test")).send().await.unwrap();
    add("box1")
        .tags(tag("env", "prod"))
        .tags(tag("tier", "web"))
        .send()
        .await
        .unwrap();
    let error = add("ghost")
        .tags(tag("a", "b"))
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_instance_not_registered_exception());
    let many = (0..10).map(|n| tag(&format!("k{n}"), "v")).collect();
    let error = add("box1")
        .set_tags(Some(many))
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_tag_limit_exceeded_exception());

    let get = async || {
        client
            .get_on_premises_instance()
            .instance_name("box1")
            .send()
            .await
            .unwrap()
    };
    let info = get().await.instance_info().unwrap().clone();
    assert_eq!(info.tags(), [tag("env", "prod"), tag("tier", "web")]);
    assert!(
        info.instance_arn()
            .unwrap()
            .starts_with("arn:aws:codedeploy:us-east-1:123456789012:instance/box1_")
    );
    let filter = TagFilter::builder()
        .key("env")
        .value("prod")
        .r#type(TagFilterType::KeyAndValue)
        .build();
    let listed = client
        .list_on_premises_instances()
        .tag_filters(filter)
        .send()
        .await
        .unwrap();
    assert_eq!(listed.instance_names(), ["box1"]);

    let remove = client
        .remove_tags_from_on_premises_instances()
        .instance_names("box1")
        .tags(tag("env", "prod"));
    remove.tags(tag("tier", "other")).send().await.unwrap();
    assert_eq!(get().await.instance_info().unwrap().tags(), [tag("tier", "web")]);
    for _ in 0..2 {
        client
            .deregister_on_premises_instance()
            .instance_name("box1")
            .send()
            .await
            .unwrap();
    }
    let gone = get().await.instance_info().unwrap().clone();
    assert!(gone.deregister_time().is_some() && gone.iam_user_arn() == Some(arn) && gone.tags().is_empty());
    register("box1").iam_user_arn(arn).send().await.unwrap();
    assert_ne!(
        get().await.instance_info().unwrap().instance_arn(),
        gone.instance_arn()
    );
}

#[tokio::test]
async fn a_deployment_group_gives_back_what_it_was_given() {
    let (_controller, client) = start().await;
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let create = |name: &str| {
        let request = client
            .create_deployment_group()
            .application_name("shop")
            .deployment_group_name(name);
        request.service_role_arn("arn:aws:iam::123456789012:role/cd")
    };
    let get = async |name: &str| {
        let request = client
            .get_deployment_group()
            .application_name("shop")
            .deployment_group_name(name);
        request
            .send()
            .await
            .unwrap()
            .deployment_group_info()
            .unwrap()
            .clone()
    };
    let id = create("web")
        .send()
        .await
        .unwrap()
        .deployment_group_id()
        .unwrap()
        .to_owned();
    let plain = get("web").await;
    assert_eq!(
        plain.deployment_config_name(),
        Some("CodeDeployDefault.OneAtATime")
    );
    assert!(!plain.auto_rollback_configuration().unwrap().enabled());
    assert_eq!(
        plain.outdated_instances_strategy(),
        Some(&OutdatedInstancesStrategy::Update)
    );
    let style = plain.deployment_style().unwrap();
    assert_eq!(style.deployment_type(), Some(&DeploymentType::InPlace));
    assert_eq!(
        style.deployment_option(),
        Some(&DeploymentOption::WithoutTrafficControl)
    );
    assert!(plain.alarm_configuration().is_none() && plain.target_revision().is_none());

    let key_only = |key: &str| {
        TagFilter::builder()
            .key(key)
            .r#type(TagFilterType::KeyOnly)
            .build()
    };
    let set = OnPremisesTagSet::builder()
        .on_premises_tag_set_list(vec![key_only("env")])
        .on_premises_tag_set_list(vec![key_only("tier")])
        .build();
    let ec2 = Ec2TagFilter::builder()
        .key("a")
        .value("b")
        .r#type(Ec2TagFilterType::KeyAndValue)
        .build();
    let alarms = AlarmConfiguration::builder()
        .enabled(true)
        .alarms(Alarm::builder().name("high").build())
        .build();
    let rollback = AutoRollbackConfiguration::builder()
        .enabled(true)
        .events(AutoRollbackEvent::DeploymentFailure)
        .build();
    let trigger = TriggerConfig::builder()
        .trigger_name("ops")
        .trigger_target_arn("arn:aws:sns:us-east-1:123456789012:ops")
        .trigger_events(TriggerEventType::DeploymentFailure)
        .build();
    let balancer = LoadBalancerInfo::builder()
        .target_group_info_list(TargetGroupInfo::builder().name("tg").build())
        .build();
    create("full")
        .deployment_config_name("CodeDeployDefault.HalfAtATime")
        .on_premises_tag_set(set.clone())
        .ec2_tag_filters(ec2.clone())
        .alarm_configuration(alarms.clone())
        .auto_rollback_configuration(rollback.clone())
        .trigger_configurations(trigger.clone())
        .load_balancer_info(balancer.clone())
        .termination_hook_enabled(true)
        .send()
        .await
        .unwrap();
    let full = get("full").await;
    assert_eq!(full.on_premises_tag_set(), Some(&set));
    assert_eq!(full.ec2_tag_filters(), [ec2]);
    assert_eq!(full.alarm_configuration(), Some(&alarms));
    assert_eq!(full.auto_rollback_configuration(), Some(&rollback));
    assert_eq!(full.trigger_configurations(), [trigger]);
    assert_eq!(full.load_balancer_info(), Some(&balancer));
    assert!(full.termination_hook_enabled());

    let update = client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web");
    update
        .new_deployment_group_name("web2")
        .on_premises_instance_tag_filters(key_only("env"))
        .send()
        .await
        .unwrap();
    let renamed = get("web2").await;
    assert_eq!(renamed.deployment_group_id(), Some(id.as_str()));
    assert_eq!(renamed.on_premises_instance_tag_filters(), [key_only("env")]);
    let taken = client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web2");
    let taken = taken
        .new_deployment_group_name("full")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(taken.is_deployment_group_already_exists_exception());
    let groups = client
        .list_deployment_groups()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    assert_eq!(groups.deployment_groups(), ["full", "web2"]);
    for name in ["full", "nope"] {
        client
            .delete_deployment_group()
            .application_name("shop")
            .deployment_group_name(name)
            .send()
            .await
            .unwrap();
    }
    let gone = client
        .get_deployment_group()
        .application_name("shop")
        .deployment_group_name("full");
    assert!(
        gone.send()
            .await
            .unwrap_err()
            .into_service_error()
            .is_deployment_group_does_not_exist_exception()
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
    let found = get.clone().revision(s3("bkt", "app-1.zip")).send().await.unwrap();
    let info = found.revision_info().unwrap();
    assert!(
        info.description() == Some("d") && info.register_time().is_some() && info.first_used_time().is_none()
    );
    let missing = get.revision(s3("bkt", "other.zip")).send().await.unwrap_err();
    assert!(
        missing
            .into_service_error()
            .is_revision_does_not_exist_exception()
    );
    let list = || client.list_application_revisions().application_name("shop");
    assert_eq!(list().send().await.unwrap().revisions().len(), 3);
    let filtered = list().s3_bucket("bkt").s3_key_prefix("app").send().await.unwrap();
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
        let output = create(name).revision(s3("bkt", "app.zip")).send().await.unwrap();
        ids.insert(0, output.deployment_id().unwrap().to_owned());
    }
    let listed = client.list_deployments().send().await.unwrap();
    // Both may have been made within one millisecond.
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
    let error = get("d-ZZZZZZZZZ").send().await.unwrap_err().into_service_error();
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
    assert!(long.into_service_error().is_description_too_long_exception());
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
