//! Deployment groups and on-premises instances as AWS's own client sees them.

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::*;
use serde_json::json;

use crate::support::{Controller, QUICK, command, eventually, shop};

async fn start() -> (Controller, Client) {
    let controller = Controller::start(QUICK);
    let client = controller.client("operator");
    (controller, client)
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
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
    let error = register("box2")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_iam_arn_required_exception());
    let error = register("i-123")
        .iam_user_arn(arn)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_invalid_instance_name_exception());

    let add = |name: &str| {
        client
            .add_tags_to_on_premises_instances()
            .instance_names(name)
    };
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
    assert_eq!(
        get().await.instance_info().unwrap().tags(),
        [tag("tier", "web")]
    );
    for _ in 0..2 {
        client
            .deregister_on_premises_instance()
            .instance_name("box1")
            .send()
            .await
            .unwrap();
    }
    let gone = get().await.instance_info().unwrap().clone();
    assert!(
        gone.deregister_time().is_some()
            && gone.iam_user_arn() == Some(arn)
            && gone.tags().is_empty()
    );
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
    assert_eq!(
        renamed.on_premises_instance_tag_filters(),
        [key_only("env")]
    );
    let batch = client
        .batch_get_deployment_groups()
        .application_name("shop");
    let batch = batch
        .deployment_group_names("web2")
        .deployment_group_names("nope")
        .send()
        .await
        .unwrap();
    assert_eq!(batch.deployment_groups_info().len(), 1);
    assert!(batch.error_message().unwrap().contains("nope"));
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

/// A group with a misspelt alarm name and a misspelt topic name, besides a known alarm.
async fn misspelt(client: &Client) -> Result<(), aws_sdk_codedeploy::Error> {
    let alarms = ["shop-errors", "shop-erors"].map(|name| Alarm::builder().name(name).build());
    let trigger = TriggerConfig::builder()
        .trigger_name("ops")
        .trigger_target_arn(MISSPELT_TOPIC);
    client
        .create_deployment_group()
        .application_name("shop")
        .deployment_group_name("web")
        .service_role_arn("arn:aws:iam::123456789012:role/cd")
        .alarm_configuration(
            AlarmConfiguration::builder()
                .enabled(true)
                .set_alarms(Some(alarms.to_vec()))
                .build(),
        )
        .trigger_configurations(
            trigger
                .trigger_events(TriggerEventType::DeploymentFailure)
                .build(),
        )
        .send()
        .await?;
    Ok(())
}

const MISSPELT_TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:opps";

const KNOWN_NAMES: &str = "alarms: {shop-errors: {prometheus: {url: 'http://127.0.0.1:1'}}}\n\
    events: {topics: {'arn:aws:sns:us-east-1:123456789012:ops': {url: 'http://127.0.0.1:1'}}}\n";

/// The log lines with this message, once there are this many.
async fn told(controller: &Controller, message: &str, number: usize) -> Vec<serde_json::Value> {
    eventually(message, async || {
        Some(controller.logged(message)).filter(|told| told.len() == number)
    })
    .await
}

#[tokio::test]
async fn a_misspelt_alarm_or_topic_is_told_when_it_is_named() {
    let controller = Controller::start(KNOWN_NAMES);
    let client = controller.client("operator");
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    misspelt(&client).await.unwrap();
    let alarm = "an alarm that alarms does not name in the configuration is never active";
    let topic = "nobody is told what a trigger asks for: events.topics does not name its topic in the configuration";
    let told = told(&controller, alarm, 1).await;
    assert_eq!(
        (&told[0]["level"], &told[0]["alarm"]),
        (&json!("WARN"), &json!("shop-erors"))
    );
    assert_eq!(
        (&told[0]["did_you_mean"], &told[0]["deployment_group"]),
        (&json!("shop-errors"), &json!("web"))
    );
    let of_topic = self::told(&controller, topic, 1).await;
    assert_eq!(of_topic[0]["topic"], MISSPELT_TOPIC);
    assert_eq!(
        of_topic[0]["did_you_mean"],
        "arn:aws:sns:us-east-1:123456789012:ops"
    );

    // An update does not repeat warnings about unchanged settings.
    let update = || {
        client
            .update_deployment_group()
            .application_name("shop")
            .current_deployment_group_name("web")
    };
    update()
        .deployment_config_name("CodeDeployDefault.AllAtOnce")
        .send()
        .await
        .unwrap();
    let others = AlarmConfiguration::builder()
        .enabled(true)
        .alarms(Alarm::builder().name("other").build());
    update()
        .alarm_configuration(others.build())
        .send()
        .await
        .unwrap();
    assert_eq!(self::told(&controller, alarm, 2).await[1]["alarm"], "other");

    let id = shop::deploy(&client, "app.zip").await;
    let info = shop::info(&client, &id).await;
    let [said] = info.deployment_status_messages() else {
        panic!("{info:?}")
    };
    assert!(
        said.starts_with("The alarm \"other\" is not one that alarms"),
        "{said}"
    );
    // A disabled alarm is not looked up.
    let off = AlarmConfiguration::builder()
        .enabled(false)
        .alarms(Alarm::builder().name("third").build());
    update()
        .alarm_configuration(off.build())
        .send()
        .await
        .unwrap();
    assert!(
        controller
            .logged(alarm)
            .iter()
            .all(|line| line["alarm"] != "third")
    );
}

#[tokio::test]
async fn where_names_are_strict_unknown_alarms_and_topics_are_refused() {
    let controller = Controller::start(&format!("{KNOWN_NAMES}strict_names: true\n"));
    let client = controller.client("operator");
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let refused = misspelt(&client).await.unwrap_err();
    let said = refused.to_string();
    assert!(
        matches!(
            refused,
            aws_sdk_codedeploy::Error::InvalidAlarmConfigException(_)
        ),
        "{refused:?}"
    );
    assert!(
        said.contains("\"shop-erors\"") && said.contains("did you mean shop-errors?"),
        "{said}"
    );
    shop::open_group(&client, "CodeDeployDefault.AllAtOnce").await;
    let trigger = TriggerConfig::builder()
        .trigger_name("ops")
        .trigger_target_arn(MISSPELT_TOPIC);
    let update = client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web");
    let update = update.trigger_configurations(
        trigger
            .trigger_events(TriggerEventType::DeploymentStop)
            .build(),
    );
    let refused = update.send().await.unwrap_err().into_service_error();
    assert!(refused.is_invalid_trigger_config_exception(), "{refused:?}");
    let create = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let alarms = AlarmConfiguration::builder()
        .enabled(true)
        .alarms(Alarm::builder().name("other").build());
    let create = create
        .revision(shop::revision("app.zip"))
        .override_alarm_configuration(alarms.build());
    let refused = create.send().await.unwrap_err().into_service_error();
    assert!(refused.is_invalid_alarm_config_exception(), "{refused:?}");
}

#[tokio::test]
async fn alarms_and_topics_that_are_not_set_up_are_warned_of_at_the_start() {
    let mut controller = Controller::start(KNOWN_NAMES);
    let client = controller.client("operator");
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    misspelt(&client).await.unwrap();
    controller.terminate();
    let log = controller.folder.path().join("log");
    let mut service = command(env!("CARGO_BIN_EXE_codedeploy-controller"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(controller.data())
        .arg("--config-file")
        .arg(controller.folder.path().join("controller.yml"))
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&log).unwrap();
    eventually("the start", async || {
        read().contains("\"ready\"").then_some(())
    })
    .await;
    service.kill().unwrap();
    service.wait().unwrap();
    let warnings: Vec<String> = read()
        .lines()
        .filter(|line| line.contains("WARN"))
        .map(str::to_owned)
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("\"shop-erors\"") && warnings[0].contains("never active"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains(MISSPELT_TOPIC), "{warnings:?}");
}
