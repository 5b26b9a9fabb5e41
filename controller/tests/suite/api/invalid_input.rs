//! Rejected inputs that no AWS library would send: the error names and messages.

use serde_json::{Value, json};

use crate::support::{Agent, Controller, Forgery, QUICK, eventually, text};

const ROLE: &str = "arn:aws:iam::123456789012:role/cd";

/// A controller with the application `shop` and its group `web`, and an operator.
async fn open_shop() -> (Controller, Agent) {
    let controller = Controller::start(QUICK);
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let operator = Agent {
        address: controller.address,
        identifier: text(&key, "arn"),
        access_key_id: text(&key, "access_key_id"),
        secret: text(&key, "secret_access_key"),
    };
    accepted(
        &operator,
        "CreateApplication",
        json!({"applicationName": "shop"}),
    )
    .await;
    accepted(&operator, "CreateDeploymentGroup", group("web", json!({}))).await;
    (controller, operator)
}

async fn call(operator: &Agent, operation: &str, input: Value) -> (u16, Value) {
    let target = format!("CodeDeploy_20141006.{operation}");
    operator
        .send(
            Forgery {
                service: "codedeploy",
                target,
                ..Forgery::none("")
            },
            input,
        )
        .await
}

async fn accepted(operator: &Agent, operation: &str, input: Value) -> Value {
    let (status, output) = call(operator, operation, input.clone()).await;
    assert_eq!(status, 200, "{operation} {input}: {output}");
    output
}

/// Sends an input that is rejected with this name, and with a message that contains these words.
async fn refused(operator: &Agent, name: &str, words: &str, operation: &str, input: Value) {
    let (status, output) = call(operator, operation, input.clone()).await;
    let found = (status, output["__type"].as_str().unwrap_or_default());
    assert_eq!(
        found,
        (400, format!("{name}Exception").as_str()),
        "{operation} {input}: {output}"
    );
    assert!(
        text(&output, "message").contains(words),
        "{operation} {input}: {output}"
    );
}

/// An object with the members of another added.
fn with(mut input: Value, members: Value) -> Value {
    input
        .as_object_mut()
        .unwrap()
        .append(&mut members.as_object().unwrap().clone());
    input
}

fn group(name: &str, members: Value) -> Value {
    let required =
        json!({"applicationName": "shop", "deploymentGroupName": name, "serviceRoleArn": ROLE});
    with(required, members)
}

fn deployment(members: Value) -> Value {
    with(
        json!({"applicationName": "shop", "deploymentGroupName": "web", "revision": revision("app.zip")}),
        members,
    )
}

fn revision(key: &str) -> Value {
    json!({"revisionType": "S3", "s3Location": {"bucket": "b", "key": key, "bundleType": "zip"}})
}

#[tokio::test]
async fn a_list_of_values_is_no_structure_and_the_member_that_is_wrong_is_named() {
    let (_controller, operator) = open_shop().await;
    let app = |members| with(json!({"applicationName": "shop"}), members);
    let config = |members| with(json!({"deploymentConfigName": "c"}), members);
    let update = |members| app(with(json!({"currentDeploymentGroupName": "web"}), members));
    let table = [
        (
            "CreateApplication",
            json!({"applicationName": "a", "tags": [["k", "v"]]}),
            "tags[0]",
        ),
        (
            "RegisterApplicationRevision",
            app(json!({"revision": ["S3", ["b", "k", "zip"]]})),
            "revision",
        ),
        (
            "CreateDeploymentConfig",
            config(json!({"minimumHealthyHosts": ["HOST_COUNT", 1]})),
            "minimumHealthyHosts",
        ),
        (
            "CreateDeploymentConfig",
            config(json!({"minimumHealthyHosts": {"type": "FLEET_PERCENT", "value": "50"}})),
            r#"minimumHealthyHosts.value: invalid type: string "50""#,
        ),
        (
            "UpdateDeploymentGroup",
            update(json!({"alarmConfiguration": [true, false, [["a"]]]})),
            "alarmConfiguration",
        ),
        (
            "CreateDeploymentGroup",
            group("g", json!({"deploymentStyle": ["IN_PLACE"]})),
            "deploymentStyle",
        ),
        (
            "CreateDeploymentGroup",
            group("g", json!({"triggerConfigurations": [{"triggerName": 1}]})),
            "triggerConfigurations[0].triggerName",
        ),
        (
            "ListDeployments",
            json!({"createTimeRange": [1, 2]}),
            "createTimeRange",
        ),
        ("ListApplications", json!([]), "an object"),
    ];
    for (operation, input, words) in table {
        refused(&operator, "Serialization", words, operation, input).await;
    }
}

#[tokio::test]
async fn a_value_of_any_length_is_quoted_in_part_in_the_answer_and_in_the_log() {
    let (controller, operator) = open_shop().await;
    let long = "\u{7}x\"".repeat(30_000);
    let table = [
        ("BatchGetDeployments", json!({"deploymentIds": long})),
        (
            "CreateApplication",
            json!({"applicationName": {long.as_str(): 1}}),
        ),
        (
            "ListDeploymentTargets",
            json!({"deploymentId": "d-1", "targetFilters": {long.as_str(): long}}),
        ),
        ("CreateApplication", json!({"applicationName": long})),
        (
            "TagResource",
            json!({"ResourceArn": long, "Tags": [{"Key": "a", "Value": "b"}]}),
        ),
        (
            "UntagResource",
            json!({"ResourceArn": "arn:aws:codedeploy:us-east-1:123456789012:application:shop", "TagKeys": [long]}),
        ),
        ("StopDeployment", json!({"deploymentId": long})),
        ("ListApplications", json!({"nextToken": long})),
        (&long, json!({})),
    ];
    for (operation, input) in table {
        let target = if operation == long {
            "CodeDeploy_20141006.".to_owned() + &"x".repeat(50_000)
        } else {
            format!("CodeDeploy_20141006.{operation}")
        };
        let sent = operator
            .send(
                Forgery {
                    service: "codedeploy",
                    target,
                    ..Forgery::none("")
                },
                input,
            )
            .await;
        assert!(
            sent.0 == 400 && sent.1.to_string().len() < 4096,
            "{}: {}",
            sent.0,
            sent.1
        );
    }
    for line in controller.logged("request refused") {
        assert!(line.to_string().len() < 8192, "{line}");
    }
}

#[tokio::test]
async fn no_name_is_longer_than_aws_allows() {
    let (_controller, operator) = open_shop().await;
    let long = |length: usize| "x".repeat(length);
    let app = |members| with(json!({"applicationName": "shop"}), members);
    let update = |members| app(with(json!({"currentDeploymentGroupName": "web"}), members));
    let topic = "arn:aws:sns:us-east-1:123456789012:t";
    let trigger = |name: String, arn: String, events: usize| {
        json!({"triggerConfigurations": [{"triggerName": name, "triggerTargetArn": arn,
               "triggerEvents": vec!["DeploymentFailure"; events]}]})
    };
    let s3 = |member: &str, value: String| {
        let location = with(
            json!({"bucket": "b", "key": "k", "bundleType": "zip"}),
            json!({member: value}),
        );
        json!({"revision": {"revisionType": "S3", "s3Location": location}})
    };
    let github = json!({"revision": {"revisionType": "GitHub", "gitHubLocation":
        {"repository": format!("a/{}", long(200)), "commitId": "0".repeat(40)}}});
    let pair = |members| {
        update(
            json!({"loadBalancerInfo": {"targetGroupPairInfoList": [with(json!({"targetGroups": [{"name": "a"}]}), members)]}}),
        )
    };
    let table = [
        (
            "InvalidTriggerConfig",
            "UpdateDeploymentGroup",
            update(trigger(long(257), topic.into(), 1)),
        ),
        (
            "InvalidTriggerConfig",
            "UpdateDeploymentGroup",
            update(trigger("t".into(), format!("{topic}{}", long(1024)), 1)),
        ),
        (
            "InvalidTriggerConfig",
            "UpdateDeploymentGroup",
            update(trigger("t".into(), topic.into(), 11)),
        ),
        (
            "InvalidRevision",
            "CreateDeployment",
            deployment(s3("bucket", long(64))),
        ),
        (
            "InvalidRevision",
            "CreateDeployment",
            deployment(s3("key", long(1025))),
        ),
        (
            "InvalidRevision",
            "RegisterApplicationRevision",
            app(s3("version", long(1025))),
        ),
        (
            "InvalidRevision",
            "RegisterApplicationRevision",
            app(s3("eTag", long(1025))),
        ),
        ("InvalidRevision", "GetApplicationRevision", app(github)),
        (
            "InvalidInput",
            "UpdateDeploymentGroup",
            update(json!({"serviceRoleArn": format!("{ROLE}{}", long(1024))})),
        ),
        (
            "InvalidAlarmConfig",
            "UpdateDeploymentGroup",
            update(json!({"alarmConfiguration": {"alarms": [{"name": long(256)}]}})),
        ),
        (
            "InvalidAutoRollbackConfig",
            "UpdateDeploymentGroup",
            update(
                json!({"autoRollbackConfiguration": {"enabled": true, "events": vec!["DEPLOYMENT_FAILURE"; 4]}}),
            ),
        ),
        (
            "InvalidLoadBalancerInfo",
            "UpdateDeploymentGroup",
            pair(json!({"prodTrafficRoute": {"listenerArns": [long(1025)]}})),
        ),
        (
            "InvalidLoadBalancerInfo",
            "UpdateDeploymentGroup",
            pair(json!({"testTrafficRoute": {"listenerArns": vec!["a"; 11]}})),
        ),
        (
            "InvalidLoadBalancerInfo",
            "UpdateDeploymentGroup",
            pair(json!({"targetGroups": vec![json!({"name": "a"}); 11]})),
        ),
        (
            "InvalidBucketNameFilter",
            "ListApplicationRevisions",
            app(json!({"s3Bucket": long(64)})),
        ),
        (
            "InvalidKeyPrefixFilter",
            "ListApplicationRevisions",
            app(json!({"s3Bucket": "b", "s3KeyPrefix": long(1025)})),
        ),
        (
            "InvalidTagsToAdd",
            "UntagResource",
            json!({"ResourceArn": "arn:aws:codedeploy:us-east-1:123456789012:application:shop", "TagKeys": [long(129)]}),
        ),
        (
            "InvalidExternalId",
            "ListDeployments",
            json!({"externalId": long(257)}),
        ),
    ];
    for (name, operation, input) in table {
        refused(&operator, name, "", operation, input).await;
    }
    let group = accepted(
        &operator,
        "GetDeploymentGroup",
        app(json!({"deploymentGroupName": "web"})),
    )
    .await;
    assert!(
        group.to_string().len() < 2000,
        "nothing of it is stored: {group}"
    );
    accepted(
        &operator,
        "UpdateDeploymentGroup",
        update(trigger(long(256), topic.into(), 1)),
    )
    .await;
    accepted(
        &operator,
        "RegisterApplicationRevision",
        app(s3("key", long(1024))),
    )
    .await;
}

#[tokio::test]
async fn what_does_not_exist_is_told_before_what_contradicts_itself() {
    let (controller, operator) = open_shop().await;
    let none = json!({"applicationName": "none"});
    let both =
        json!({"ec2TagFilters": [{"Key": "a"}], "ec2TagSet": {"ec2TagSetList": [[{"Key": "a"}]]}});
    let restart = json!({"deploymentMode": "RESTART"});
    let targets = json!({"targetInstances": {"tagFilters": [{"Key": "a"}]}});
    let missing = "ApplicationDoesNotExist";
    let create = "CreateDeployment";
    refused(
        &operator,
        missing,
        "none",
        "CreateDeploymentGroup",
        with(group("g", both.clone()), none.clone()),
    )
    .await;
    refused(
        &operator,
        "InvalidEC2TagCombination",
        "not both",
        "CreateDeploymentGroup",
        group("g", both),
    )
    .await;
    refused(
        &operator,
        missing,
        "none",
        create,
        with(deployment(restart.clone()), none),
    )
    .await;
    refused(
        &operator,
        "InvalidInput",
        "RESTART",
        create,
        deployment(restart),
    )
    .await;
    let named = json!({"applicationName": "a b", "deploymentMode": "TWICE"});
    refused(
        &operator,
        "InvalidApplicationName",
        "a b",
        create,
        deployment(named),
    )
    .await;
    let config = with(targets.clone(), json!({"deploymentConfigName": "none"}));
    refused(
        &operator,
        "DeploymentConfigDoesNotExist",
        "none",
        create,
        deployment(config),
    )
    .await;
    let lambda = json!({"deploymentConfigName": "CodeDeployDefault.LambdaAllAtOnce"});
    refused(
        &operator,
        "InvalidInput",
        "Lambda",
        create,
        deployment(lambda),
    )
    .await;
    refused(
        &operator,
        "InvalidTargetInstances",
        "in place",
        create,
        deployment(targets.clone()),
    )
    .await;
    controller.host("box1", &["env=prod"]);
    let filters = json!({"applicationName": "shop", "currentDeploymentGroupName": "web",
                         "onPremisesInstanceTagFilters": [{"Key": "env"}]});
    accepted(&operator, "UpdateDeploymentGroup", filters).await;
    let id = text(
        &accepted(&operator, create, deployment(json!({}))).await,
        "deploymentId",
    );
    // CI plug-ins look for this text.
    refused(
        &operator,
        "DeploymentLimitExceeded",
        &id,
        create,
        deployment(targets),
    )
    .await;

    let register = "RegisterOnPremisesInstance";
    refused(
        &operator,
        "IamArnRequired",
        "ARN",
        register,
        json!({"instanceName": "b b"}),
    )
    .await;
    let ec2 = json!({"instanceName": "i-123", "iamUserArn": "nobody"});
    refused(&operator, "InvalidInstanceName", "i-123", register, ec2).await;
    let lambda = json!({"deploymentConfigName": "c", "computePlatform": "Lambda"});
    refused(
        &operator,
        "InvalidComputePlatform",
        "Server",
        "CreateDeploymentConfig",
        lambda,
    )
    .await;
}

#[tokio::test]
async fn values_have_the_bounds_of_aws() {
    let (_controller, operator) = open_shop().await;
    let config = |minimum: Value, members| {
        with(
            json!({"deploymentConfigName": "c", "minimumHealthyHosts": minimum}),
            members,
        )
    };
    let hosts = |value: i64| json!({"type": "HOST_COUNT", "value": value});
    let zone = |value: i64| {
        config(
            hosts(1),
            json!({"zonalConfig": {"minimumHealthyHostsPerZone": hosts(value)}}),
        )
    };
    let create = "CreateDeploymentConfig";
    for value in [-1, 1 << 31, 1 << 40] {
        let input = config(hosts(value), json!({}));
        refused(
            &operator,
            "InvalidMinimumHealthyHostValue",
            &value.to_string(),
            create,
            input,
        )
        .await;
        refused(
            &operator,
            "InvalidZonalDeploymentConfiguration",
            "PerZone",
            create,
            zone(value),
        )
        .await;
    }
    let percent = config(json!({"type": "FLEET_PERCENT", "value": 100}), json!({}));
    refused(
        &operator,
        "InvalidMinimumHealthyHostValue",
        "0 to 99, not 100",
        create,
        percent,
    )
    .await;
    accepted(&operator, create, zone((1 << 31) - 1)).await;

    let tags: Vec<_> = (0..51)
        .map(|number| json!({"Key": format!("k{number}"), "Value": "v"}))
        .collect();
    let input = json!({"applicationName": "many", "tags": tags});
    refused(
        &operator,
        "InvalidTagsToAdd",
        "at most 50",
        "CreateApplication",
        input,
    )
    .await;
    let input = json!({"applicationName": "small", "tags": [{"key": "k"}]});
    refused(
        &operator,
        "InvalidTagsToAdd",
        r#"{"Key": ..., "Value": ...}"#,
        "CreateApplication",
        input,
    )
    .await;

    let create = "CreateDeploymentGroup";
    for (filter, words) in [
        (json!({"Key": "k".repeat(129)}), "128"),
        (json!({"Key": "team", "Value": "v".repeat(257)}), "\"team\""),
        (
            json!({"Key": "team", "Value": "v", "Type": "KEY_ONLY"}),
            "\"team\"",
        ),
    ] {
        let flat = group("g", json!({"onPremisesInstanceTagFilters": [filter]}));
        refused(&operator, "InvalidTag", words, create, flat).await;
    }
    let set = |list: Value| {
        group(
            "g",
            json!({"onPremisesTagSet": {"onPremisesTagSetList": list}}),
        )
    };
    refused(
        &operator,
        "InvalidTag",
        "empty",
        create,
        set(json!([[{"Key": "a"}], []])),
    )
    .await;
    for (alarms, words) in [
        (json!([null]), "name"),
        (
            json!([{"name": "a"}, {"name": "a"}]),
            "\"a\" is given twice",
        ),
    ] {
        let input = group(
            "g",
            json!({"alarmConfiguration": {"enabled": true, "alarms": alarms}}),
        );
        refused(&operator, "InvalidAlarmConfig", words, create, input).await;
    }
    let role = group("g", json!({"serviceRoleArn": "arn:aws:iam::1:role/cd"}));
    refused(&operator, "InvalidInput", "role", create, role).await;
    let paired = json!({"deploymentStyle": {"deploymentType": "IN_PLACE", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
        "loadBalancerInfo": {"targetGroupPairInfoList": [{"targetGroups": [{"name": "elsewhere"}]}]}});
    accepted(&operator, create, group("paired", paired)).await;
    let input = deployment(json!({"deploymentGroupName": "paired"}));
    refused(
        &operator,
        "InvalidLoadBalancerInfo",
        "elsewhere",
        "CreateDeployment",
        input,
    )
    .await;
}

#[tokio::test]
async fn a_refusal_names_what_to_give() {
    let (controller, operator) = open_shop().await;
    controller.host("box1", &["env=prod"]);
    let ids: Vec<_> = (0..101).map(|_| "d-A1B2C3D4E").collect();
    let full: Vec<_> = (0..10)
        .map(|number| json!({"Key": format!("k{number}"), "Value": "v"}))
        .collect();
    let other = json!({"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "zip"}});
    let table = [
        (
            "ApplicationNameRequired",
            "newApplicationName",
            "UpdateApplication",
            json!({"applicationName": "shop"}),
        ),
        (
            "DeploymentGroupNameRequired",
            "currentDeploymentGroupName",
            "UpdateDeploymentGroup",
            json!({"applicationName": "shop", "deploymentGroupName": "web"}),
        ),
        (
            "DeploymentGroupNameRequired",
            "together",
            "ListDeployments",
            json!({"applicationName": "shop"}),
        ),
        (
            "ApplicationNameRequired",
            "together",
            "ListDeployments",
            json!({"deploymentGroupName": "web"}),
        ),
        (
            "BatchLimitExceeded",
            "101 deployment ids",
            "BatchGetDeployments",
            json!({"deploymentIds": ids}),
        ),
        (
            "TagLimitExceeded",
            "box1",
            "AddTagsToOnPremisesInstances",
            json!({"instanceNames": ["box1"], "tags": full}),
        ),
        (
            "InvalidRevision",
            "revisionType is missing",
            "RegisterApplicationRevision",
            json!({"applicationName": "shop", "revision": {"s3Location": {"bucket": "b"}}}),
        ),
        (
            "RevisionDoesNotExist",
            "list-application-revisions",
            "GetApplicationRevision",
            json!({"applicationName": "shop", "revision": other}),
        ),
    ];
    for (name, words, operation, input) in table {
        refused(&operator, name, words, operation, input).await;
    }
    let arn = |resource: &str| json!({"ResourceArn": format!("arn:aws:codedeploy:us-east-1:123456789012:{resource}")});
    let list = "ListTagsForResource";
    for resource in [
        "application:",
        "deploymentgroup:/web",
        "deploymentgroup:shop/",
    ] {
        refused(&operator, "InvalidArn", "codedeploy", list, arn(resource)).await;
    }
    let tags = json!({"Tags": [{"Key": "a", "Value": "b"}]});
    let group = with(arn("deploymentgroup:none/web"), tags.clone());
    refused(
        &operator,
        "ApplicationDoesNotExist",
        "none",
        "TagResource",
        group,
    )
    .await;
    for foreign in ["eu-west-1:123456789012", "us-east-1:210987654321"] {
        let arn = json!({"ResourceArn": format!("arn:aws:codedeploy:{foreign}:application:shop")});
        refused(
            &operator,
            "ArnNotSupported",
            "us-east-1 of 123456789012",
            "TagResource",
            with(arn, tags.clone()),
        )
        .await;
    }
    let own = json!({"ResourceArn": "arn:aws:codedeploy:::application:shop"});
    accepted(&operator, "TagResource", with(own, tags)).await;
}

#[tokio::test]
async fn a_group_says_what_was_left_out_and_leaves_out_what_is_empty() {
    let (_controller, operator) = open_shop().await;
    let get = json!({"applicationName": "shop", "deploymentGroupName": "web"});
    let update = |members| {
        with(
            json!({"applicationName": "shop", "currentDeploymentGroupName": "web"}),
            members,
        )
    };
    let style = |option| json!({"deploymentType": "IN_PLACE", "deploymentOption": option});
    let balanced = json!({
        "deploymentStyle": style("WITH_TRAFFIC_CONTROL"),
        "loadBalancerInfo": {"elbInfoList": [{"name": "lb"}]},
        "onPremisesInstanceTagFilters": [{"Key": "env", "Value": "prod"}, {"Key": "team"}, {"Value": "v"}],
        "onPremisesTagSet": {"onPremisesTagSetList": []},
    });
    accepted(&operator, "UpdateDeploymentGroup", update(balanced)).await;
    let group =
        accepted(&operator, "GetDeploymentGroup", get.clone()).await["deploymentGroupInfo"].clone();
    assert_eq!(
        group["loadBalancerInfo"],
        json!({"elbInfoList": [{"name": "lb"}]})
    );
    let types: Vec<_> = group["onPremisesInstanceTagFilters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["Type"])
        .collect();
    assert_eq!(types, ["KEY_AND_VALUE", "KEY_ONLY", "VALUE_ONLY"]);
    // Terraform sends this when blocks are removed from its configuration.
    for empty in [
        json!({}),
        json!({"elbInfoList": [], "targetGroupInfoList": [], "targetGroupPairInfoList": []}),
    ] {
        let cleared = json!({
            "deploymentStyle": style("WITHOUT_TRAFFIC_CONTROL"),
            "loadBalancerInfo": empty,
            "alarmConfiguration": {"alarms": []},
            "autoRollbackConfiguration": {"events": []},
        });
        accepted(&operator, "UpdateDeploymentGroup", update(cleared)).await;
        let group =
            accepted(&operator, "GetDeploymentGroup", get.clone()).await["deploymentGroupInfo"]
                .clone();
        assert_eq!(group.get("loadBalancerInfo"), None);
        assert_eq!(
            group["autoRollbackConfiguration"],
            json!({"enabled": false, "events": []})
        );
        let alarms = json!({"enabled": false, "ignorePollAlarmFailure": false, "alarms": []});
        assert_eq!(group["alarmConfiguration"], alarms);
    }
    let overrides = json!({"autoRollbackConfiguration": {"events": []},
        "overrideAlarmConfiguration": {"alarms": [{"name": "a"}]}});
    let id = accepted(&operator, "CreateDeployment", deployment(overrides)).await;
    let found = accepted(&operator, "GetDeployment", id).await["deploymentInfo"].clone();
    assert_eq!(
        found["autoRollbackConfiguration"],
        json!({"enabled": false, "events": []})
    );
    assert_eq!(found["overrideAlarmConfiguration"]["enabled"], false);

    let quoted = json!({"applicationName": "shop", "revision": {"revisionType": "S3", "s3Location":
        {"bucket": "b", "key": "k", "bundleType": "zip", "eTag": "\"9b1c\""}}});
    accepted(&operator, "RegisterApplicationRevision", quoted.clone()).await;
    let found = accepted(&operator, "GetApplicationRevision", quoted).await;
    assert_eq!(found["revision"]["s3Location"]["eTag"], "9b1c");
    let filters =
        json!({"deploymentId": found_id(&operator).await, "targetFilters": {"TargetStatus": null}});
    accepted(&operator, "ListDeploymentTargets", filters).await;
}

/// The deployment that started and ended without a host.
async fn found_id(operator: &Agent) -> String {
    eventually("the end of the deployment", async || {
        let failed = json!({"includeOnlyStatuses": ["Failed"]});
        let list = accepted(operator, "ListDeployments", failed).await;
        list["deployments"][0].as_str().map(str::to_owned)
    })
    .await
}
