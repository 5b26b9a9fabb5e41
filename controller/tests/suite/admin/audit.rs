//! Who changed what: the record of every change, and its retention.

use serde_json::{Value, json};

use crate::support::{Controller, Forgery, eventually, shop, text};

async fn entries(controller: &Controller) -> Vec<Value> {
    let keys = controller.admin_json(&["credentials", "list", "--json"]);
    assert!(keys.is_array());
    let forgery = Forgery {
        service: "codedeploy",
        target: "CodeDeployController_20261201.ListAuditEntries".into(),
        ..Forgery::none("")
    };
    let (status, answer) = controller.operator().send(forgery, json!({})).await;
    assert_eq!(status, 200, "{answer}");
    answer["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_change_is_recorded_with_who_what_and_from_where() {
    let controller = Controller::start("{}");
    let alice = "arn:aws:iam::123456789012:user/alice";
    let create = [
        "credentials",
        "create",
        "--role",
        "operator",
        "--user-arn",
        alice,
        "--json",
    ];
    let client = controller.client_with(&controller.admin_json(&create));
    let agent = controller.host("box1", &["env=prod"]);
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    let id = shop::deploy(&client, "1.zip").await;
    // A refused change, and a question, leave nothing.
    let again = client.create_application().application_name("shop").send();
    assert!(again.await.is_err());
    client.list_applications().send().await.unwrap();
    agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;
    let taken_back = json!({
        "HostIdentifier": agent.identifier, "DeploymentId": id, "Message": "taken back by hand",
        "RolledBackAt": 1,
    });
    let (status, answer) = agent.call("PostHostRollback", taken_back).await;
    assert_eq!(status, 200, "{answer}");

    let found = entries(&controller).await;
    let by =
        |who: &str| -> Vec<&Value> { found.iter().filter(|entry| entry["who"] == who).collect() };
    let operations: Vec<_> = by(alice)
        .iter()
        .map(|entry| text(entry, "operation"))
        .collect();
    assert_eq!(
        operations,
        [
            "CreateDeployment",
            "CreateDeploymentGroup",
            "CreateApplication"
        ]
    );
    let deployment = by(alice)[0];
    assert_eq!(
        deployment["names"],
        json!({"application": "shop", "deploymentGroup": "web", "deploymentId": id,
               "revision": deployment["names"]["revision"]})
    );
    assert!(text(&deployment["names"], "revision").contains("1.zip"));
    assert_eq!(text(deployment, "address"), "127.0.0.1");
    assert!(text(deployment, "accessKeyId").starts_with("AKIA"));
    assert_eq!(text(deployment, "requestId").len(), 36);
    assert!(deployment["time"].is_number());
    let host = by(&agent.identifier);
    assert_eq!(text(host[0], "operation"), "PostHostRollback");
    assert_eq!(text(&host[0]["names"], "instances"), "box1");
    let commands: Vec<_> = found
        .iter()
        .filter(|entry| text(entry, "who").starts_with("command line"))
        .map(|entry| text(entry, "operation"))
        .collect();
    assert!(commands.contains(&"host add".to_owned()), "{commands:?}");

    // The creator of a deployment stays AWS's; the person is beside it.
    let info = shop::info(&client, &id).await;
    assert_eq!(info.creator().map(|creator| creator.as_str()), Some("user"));
    let shown = controller.admin(&["deployments"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("BY") && shown.contains("alice"), "{shown}");
    let shown = controller.admin(&["audit", "--since", "1h"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let line = shown
        .lines()
        .find(|line| line.contains("CreateDeployment "))
        .unwrap();
    for expected in ["alice", "127.0.0.1", "application=shop", &id] {
        assert!(line.contains(expected), "{shown}");
    }
    let listed = controller.admin_json(&["audit", "--json"]);
    assert_eq!(
        listed.as_array().unwrap().last().unwrap()["operation"],
        json!("credentials create")
    );
}

#[tokio::test]
async fn old_entries_are_deleted_if_the_settings_ask_for_it() {
    let mut controller = Controller::start("audit: {keep_days: 30}");
    controller.host("box1", &[]);
    let all = entries(&controller).await.len();
    controller.crash_while(|data| {
        let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
        let age = "UPDATE audit SET time = time - 31 * 86400000 WHERE operation = 'host add'";
        assert_eq!(database.execute(age, []).unwrap(), 1);
    });
    eventually("the deletion", async || {
        let left = entries(&controller).await;
        let gone = left.iter().all(|entry| entry["operation"] != "host add");
        (gone && left.len() >= all - 1).then_some(())
    })
    .await;
}
