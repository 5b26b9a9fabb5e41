//! Access keys that are limited to applications or deployment groups.

use serde_json::{Value, json};

use crate::support::{Agent, Controller, Forgery, QUICK, eventually, text};

async fn call(caller: &Agent, target: &str, input: Value) -> (u16, Value) {
    let prefix = match target {
        "GetFleetStatus"
        | "ListHosts"
        | "GetHostStatus"
        | "ListDeploymentStatuses"
        | "GetDeploymentStatus"
        | "RollBackDeploymentGroup"
        | "ListAuditEntries" => "CodeDeployController_20261201",
        _ => "CodeDeploy_20141006",
    };
    let forgery = Forgery {
        service: "codedeploy",
        target: format!("{prefix}.{target}"),
        ..Forgery::none("")
    };
    caller.send(forgery, input).await
}

async fn ok(caller: &Agent, target: &str, input: Value) -> Value {
    let (status, answer) = call(caller, target, input).await;
    assert_eq!(status, 200, "{target}: {answer}");
    answer
}

fn revision() -> Value {
    json!({"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k.zip", "bundleType": "zip"}})
}

/// The applications shop (groups web and api) and blog (group web), each group with a host of its
/// own.
async fn fleet(controller: &Controller) -> Agent {
    let admin = controller.operator();
    for (application, groups) in [("shop", &["web", "api"][..]), ("blog", &["web"])] {
        ok(
            &admin,
            "CreateApplication",
            json!({"applicationName": application}),
        )
        .await;
        for group in groups {
            let tag = format!("{application}-{group}");
            controller.host(&tag, &[&format!("group={tag}")]);
            let filter = json!([{"Key": "group", "Value": tag, "Type": "KEY_AND_VALUE"}]);
            let input = json!({
                "applicationName": application, "deploymentGroupName": group,
                "serviceRoleArn": "arn:aws:iam::123456789012:role/cd",
                "onPremisesInstanceTagFilters": filter,
            });
            ok(&admin, "CreateDeploymentGroup", input).await;
        }
    }
    admin
}

fn key(controller: &Controller, more: &[&str]) -> Agent {
    let create = ["credentials", "create", "--role", "operator", "--json"];
    controller.caller(&controller.admin_json(&[&create[..], more].concat()))
}

#[tokio::test]
async fn a_limited_key_acts_in_its_scope_and_sees_nothing_else() {
    let controller = Controller::start(QUICK);
    let admin = fleet(&controller).await;
    let scoped = key(&controller, &["--application", "shop", "--group", "web"]);
    let of = |application: &str, group: &str| json!({"applicationName": application, "deploymentGroupName": group, "revision": revision()});
    let foreign = text(
        &ok(&admin, "CreateDeployment", of("blog", "web")).await,
        "deploymentId",
    );
    let sibling = text(
        &ok(&admin, "CreateDeployment", of("shop", "api")).await,
        "deploymentId",
    );
    let own = text(
        &ok(&scoped, "CreateDeployment", of("shop", "web")).await,
        "deploymentId",
    );

    // Lists are filtered.
    let listed = ok(&scoped, "ListApplications", json!({})).await;
    assert_eq!(listed["applications"], json!(["shop"]));
    let listed = ok(
        &scoped,
        "ListDeploymentGroups",
        json!({"applicationName": "shop"}),
    )
    .await;
    assert_eq!(listed["deploymentGroups"], json!(["web"]));
    let listed = ok(&scoped, "ListDeployments", json!({})).await;
    assert_eq!(listed["deployments"], json!([own]));
    let listed = ok(&scoped, "ListDeploymentStatuses", json!({})).await;
    assert_eq!(listed["deployments"].as_array().unwrap().len(), 1);
    let listed = ok(&scoped, "GetFleetStatus", json!({})).await;
    assert_eq!(listed["groups"].as_array().unwrap().len(), 1);
    let listed = ok(&scoped, "ListHosts", json!({})).await;
    assert_eq!(listed["hosts"].as_array().unwrap().len(), 1);
    assert_eq!(listed["hosts"][0]["instanceName"], json!("shop-web"));
    for (target, input) in [
        ("GetApplication", json!({"applicationName": "shop"})),
        ("GetDeploymentGroup", of("shop", "web")),
        ("GetDeployment", json!({"deploymentId": own})),
        ("GetDeploymentStatus", json!({"deploymentId": own})),
        ("GetHostStatus", json!({"instanceName": "shop-web"})),
        ("StopDeployment", json!({"deploymentId": own})),
        (
            "RegisterApplicationRevision",
            json!({"applicationName": "shop", "revision": revision()}),
        ),
    ] {
        ok(&scoped, target, input).await;
    }

    // Everything else is denied, whether or not it exists.
    let blog = json!({"applicationName": "blog"});
    for (target, input) in [
        ("GetApplication", blog.clone()),
        ("GetApplication", json!({"applicationName": "gone"})),
        (
            "BatchGetApplications",
            json!({"applicationNames": ["shop", "blog"]}),
        ),
        ("ListDeploymentGroups", blog.clone()),
        ("GetDeploymentGroup", of("shop", "api")),
        ("GetDeploymentGroup", of("shop", "gone")),
        (
            "BatchGetDeploymentGroups",
            json!({"applicationName": "shop", "deploymentGroupNames": ["web", "api"]}),
        ),
        ("ListApplicationRevisions", blog.clone()),
        ("CreateDeployment", of("shop", "api")),
        ("CreateDeployment", of("blog", "web")),
        ("GetDeployment", json!({"deploymentId": foreign})),
        ("GetDeployment", json!({"deploymentId": sibling})),
        (
            "BatchGetDeployments",
            json!({"deploymentIds": [own, foreign]}),
        ),
        ("ListDeployments", of("blog", "web")),
        ("ListDeploymentTargets", json!({"deploymentId": foreign})),
        (
            "GetDeploymentTarget",
            json!({"deploymentId": foreign, "targetId": "blog-web"}),
        ),
        (
            "BatchGetDeploymentTargets",
            json!({"deploymentId": foreign, "targetIds": ["blog-web"]}),
        ),
        ("ListDeploymentInstances", json!({"deploymentId": foreign})),
        (
            "GetDeploymentInstance",
            json!({"deploymentId": foreign, "instanceId": "blog-web"}),
        ),
        (
            "BatchGetDeploymentInstances",
            json!({"deploymentId": foreign, "instanceIds": ["blog-web"]}),
        ),
        ("StopDeployment", json!({"deploymentId": foreign})),
        ("ContinueDeployment", json!({"deploymentId": foreign})),
        ("GetDeploymentStatus", json!({"deploymentId": sibling})),
        ("RollBackDeploymentGroup", of("blog", "web")),
        ("GetFleetStatus", blog.clone()),
        ("GetHostStatus", json!({"instanceName": "blog-web"})),
        ("ListHosts", of("blog", "web")),
        // These reach beyond a group.
        ("CreateApplication", json!({"applicationName": "shop2"})),
        ("DeleteApplication", json!({"applicationName": "shop"})),
        (
            "UpdateDeploymentGroup",
            json!({"applicationName": "shop", "currentDeploymentGroupName": "web"}),
        ),
        (
            "DeregisterOnPremisesInstance",
            json!({"instanceName": "shop-web"}),
        ),
        ("ListOnPremisesInstances", json!({})),
        ("ListAuditEntries", json!({})),
        (
            "TagResource",
            json!({"ResourceArn": "arn:aws:codedeploy:us-east-1:123456789012:application:shop",
                   "Tags": [{"Key": "a", "Value": "b"}]}),
        ),
    ] {
        let (status, refused) = call(&scoped, target, input.clone()).await;
        assert_eq!(
            (status, text(&refused, "__type")),
            (400, "AccessDeniedException".into()),
            "{target} {input}: {refused}"
        );
    }
    let listed = controller.admin(&["credentials", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("SCOPE") && listed.contains("shop/web"),
        "{listed}"
    );
}

#[tokio::test]
async fn a_limited_key_has_the_objects_of_its_applications() {
    let controller = Controller::start("s3: {buckets: [revisions]}");
    fleet(&controller).await;
    let scoped = key(&controller, &["--application", "shop"]);
    let s3 = async |request: &str, body: &[u8]| {
        let forgery = Forgery {
            service: "s3",
            ..Forgery::none("")
        };
        let length = [("content-length", body.len().to_string())];
        scoped
            .raw(forgery, request, &length, body.to_vec())
            .await
            .unwrap()
            .0
    };
    assert_eq!(s3("PUT /revisions/shop/1.tgz", b"x").await, 200);
    assert_eq!(s3("GET /revisions/shop/1.tgz", b"").await, 200);
    for request in [
        "PUT /revisions/blog/1.tgz",
        "PUT /revisions/1.tgz",
        "GET /revisions/blog/1.tgz",
        "DELETE /revisions/shop/1.tgz",
        "GET /revisions",
        "GET /",
    ] {
        assert_eq!(s3(request, b"").await, 403, "{request}");
    }
}

/// A request of a limited key, in which `@` stands for the name of an object outside of its scope.
const OUTSIDE: [(&str, &str); 8] = [
    ("GetHostStatus", r#"{"instanceName": "@"}"#),
    ("GetDeployment", r#"{"deploymentId": "@"}"#),
    ("BatchGetDeployments", r#"{"deploymentIds": ["@"]}"#),
    ("GetDeploymentStatus", r#"{"deploymentId": "@"}"#),
    ("ListDeploymentTargets", r#"{"deploymentId": "@"}"#),
    (
        "GetDeploymentInstance",
        r#"{"deploymentId": "@", "instanceId": "blog-web"}"#,
    ),
    ("StopDeployment", r#"{"deploymentId": "@"}"#),
    ("ContinueDeployment", r#"{"deploymentId": "@"}"#),
];

#[tokio::test]
async fn refusals_do_not_tell_a_limited_key_what_exists() {
    let controller = Controller::start(QUICK);
    let admin = fleet(&controller).await;
    let scoped = key(&controller, &["--application", "shop", "--group", "web"]);
    let input =
        json!({"applicationName": "blog", "deploymentGroupName": "web", "revision": revision()});
    let foreign = text(&ok(&admin, "CreateDeployment", input).await, "deploymentId");
    for (target, input) in OUTSIDE {
        let (present, absent) = match target {
            "GetHostStatus" => ("blog-web", "blog-xyz"),
            _ => (foreign.as_str(), "d-ABSENT123"),
        };
        let ask = async |name: &str| {
            let input = serde_json::from_str(&input.replace('@', name)).unwrap();
            let (status, refusal) = call(&scoped, target, input).await;
            (status, refusal.to_string().replace(name, "@"))
        };
        let (present, absent) = (ask(present).await, ask(absent).await);
        assert_eq!(present, absent, "{target}");
        assert!(present.1.contains("AccessDenied"), "{present:?}");
        for secret in ["blog", "of web", "group web"] {
            assert!(!present.1.contains(secret), "{target}: {present:?}");
        }
    }
    // Others are told that it does not exist.
    let (_, refusal) = call(&admin, "GetHostStatus", json!({"instanceName": "gone"})).await;
    assert_eq!(text(&refusal, "__type"), "InstanceNotRegisteredException");
}

/// The readable parts of a token.
fn readable(token: &str) -> String {
    use base64::Engine as _;
    let parts = token.split('.').filter_map(|part| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(part)
            .ok()
    });
    parts
        .map(|part| String::from_utf8_lossy(&part).into_owned())
        .collect()
}

#[tokio::test]
async fn lists_and_their_tokens_tell_a_limited_key_nothing_about_others() {
    let controller = Controller::start(QUICK);
    let admin = fleet(&controller).await;
    let scoped = key(&controller, &["--application", "shop", "--group", "web"]);
    let deploy = |application: &str, group: &str| json!({"applicationName": application, "deploymentGroupName": group, "revision": revision()});
    let own = ok(&scoped, "CreateDeployment", deploy("shop", "web")).await;
    // Deployments to a group without hosts end at once.
    let group = json!({
        "applicationName": "blog", "deploymentGroupName": "none",
        "serviceRoleArn": "arn:aws:iam::123456789012:role/cd",
        "onPremisesInstanceTagFilters": [{"Key": "group", "Value": "none", "Type": "KEY_AND_VALUE"}],
    });
    ok(&admin, "CreateDeploymentGroup", group).await;
    for _ in 0..101 {
        eventually("the end of the deployment before", async || {
            let (status, _) = call(&admin, "CreateDeployment", deploy("blog", "none")).await;
            (status == 200).then_some(())
        })
        .await;
    }
    for (target, member) in [
        ("ListDeployments", "deployments"),
        ("ListDeploymentStatuses", "deployments"),
    ] {
        let page = ok(&scoped, target, json!({})).await;
        assert_eq!(
            page[member].as_array().unwrap().len(),
            1,
            "{target}: {page}"
        );
        assert!(page.get("nextToken").is_none(), "{target}: {page}");
        let page = ok(&scoped, target, json!({"includeOnlyStatuses": ["Failed"]})).await;
        assert_eq!(page, json!({member: []}), "{target}");
        // The others see all of them, on more than one page.
        let first = ok(&admin, target, json!({})).await;
        let token = text(&first, "nextToken");
        let next = ok(&admin, target, json!({"nextToken": token})).await;
        assert_eq!(next[member].as_array().unwrap().len(), 2, "{target}");
        assert_eq!(
            next[member]
                .to_string()
                .matches(&text(&own, "deploymentId"))
                .count(),
            1
        );
    }
    for number in 0..100 {
        let input = json!({"applicationName": format!("hidden-{number:03}")});
        ok(&admin, "CreateApplication", input).await;
    }
    let page = ok(&admin, "ListApplications", json!({})).await;
    let token = text(&page, "nextToken");
    assert!(
        !readable(&token).contains("hidden-"),
        "{}",
        readable(&token)
    );
    let next = ok(&admin, "ListApplications", json!({"nextToken": token})).await;
    assert_eq!(next["applications"], json!(["hidden-099", "shop"]));
}

#[tokio::test]
async fn a_revision_that_only_a_hidden_group_has_does_not_count_as_deployed() {
    let controller = Controller::start(QUICK);
    let admin = fleet(&controller).await;
    let scoped = key(&controller, &["--application", "shop", "--group", "web"]);
    let deploy = |group: &str, name: &str| {
        json!({"applicationName": "shop", "deploymentGroupName": group, "revision":
        {"revisionType": "S3", "s3Location": {"bucket": "b", "key": name, "bundleType": "zip"}}})
    };
    ok(&admin, "CreateDeployment", deploy("api", "api.zip")).await;
    ok(&admin, "CreateDeployment", deploy("web", "web.zip")).await;
    let deployed = async |caller: &Agent, deployed: &str| {
        let input = json!({"applicationName": "shop", "deployed": deployed});
        let listed = ok(caller, "ListApplicationRevisions", input).await;
        let revisions = listed["revisions"].as_array().unwrap();
        let mut keys: Vec<String> = revisions
            .iter()
            .map(|revision| text(&revision["s3Location"], "key"))
            .collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(deployed(&admin, "include").await, "api.zip web.zip");
    assert_eq!(deployed(&scoped, "include").await, "web.zip");
    assert_eq!(deployed(&scoped, "exclude").await, "api.zip");
}

#[tokio::test]
async fn an_upload_by_a_limited_key_starts_deployments_in_its_scope_only() {
    let watch = |group: &str| {
        format!(
            "{{bucket: revisions, key_prefix: shop/, application: shop, deployment_group: {group}}}"
        )
    };
    let controller = Controller::start(&format!(
        "{QUICK}\ns3: {{buckets: [revisions]}}\nevents: {{watches: [{}, {}]}}",
        watch("api"),
        watch("web")
    ));
    let admin = fleet(&controller).await;
    let scoped = key(&controller, &["--application", "shop", "--group", "web"]);
    let upload = async |caller: &Agent, request: &str| {
        let forgery = Forgery {
            service: "s3",
            ..Forgery::none("")
        };
        let length = [("content-length", "1".to_owned())];
        let uploaded = caller.raw(forgery, request, &length, b"x".to_vec()).await;
        assert_eq!(uploaded.unwrap().0, 200);
    };
    let deployed = async |group: &str| {
        eventually("the deployment", async || {
            let input = json!({"applicationName": "shop", "deploymentGroupName": group});
            let listed = ok(&admin, "ListDeployments", input).await;
            listed["deployments"].get(0).cloned()
        })
        .await
    };
    upload(&scoped, "PUT /revisions/shop/1.zip").await;
    deployed("web").await;
    let all = ok(&admin, "ListDeployments", json!({})).await;
    assert_eq!(all["deployments"].as_array().unwrap().len(), 1, "{all}");
    let said = controller.logged(
        "a new object is not deployed: the access key that uploaded it is not for the deployment group",
    );
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0]["deployment_group"], json!("api"));
    upload(&admin, "PUT /revisions/shop/2.zip").await;
    deployed("api").await;
}

#[test]
fn scopes_that_mean_nothing_are_refused() {
    let controller = Controller::start(QUICK);
    let create = |more: &[&str]| {
        let output = controller.admin(&[&["credentials", "create"], more].concat());
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for (args, expected) in [
        (
            &[
                "--role",
                "operator",
                "--application",
                "a",
                "--application",
                "b",
                "--group",
                "g",
            ][..],
            "one --application",
        ),
        (&["--role", "operator", "--group", "g"], "--application"),
        (
            &["--role", "operator", "--application", "a/b"],
            "application name",
        ),
        (
            &[
                "--role",
                "host",
                "--user-arn",
                "arn:aws:iam::123456789012:user/h",
                "--application",
                "a",
            ],
            "no scope",
        ),
    ] {
        let (succeeded, said) = create(args);
        assert!(!succeeded && said.contains(expected), "{args:?}: {said}");
    }
    // A name may be of an application to come, or a mistake.
    let (succeeded, said) = create(&["--role", "read-only", "--application", "shop"]);
    assert!(
        succeeded && said.contains("there is no application shop yet"),
        "{said}"
    );
}
