//! Hosts, groups, the inbox and the audit.

use serde_json::json;

use super::fleet::call;
use crate::support::browser::{Browser, Shown};
use crate::support::{Agent, Forgery, shop};

const CONFIG: &str = "{console: {}, timers: {poll: 5, lease: 60, pick_up: 300, run: 4200}}";

fn has(page: &Shown, expected: &[&str]) {
    for text in expected {
        assert!(page.text.contains(text), "{text} is missing: {}", page.text);
    }
}

fn lacks(page: &Shown, unexpected: &[&str]) {
    for text in unexpected {
        assert!(!page.text.contains(text), "{text} is there: {}", page.text);
    }
}

/// Runs the commands of a host up to an event, and fails that.
pub(super) async fn fail_at(agent: &Agent, last: &str) {
    loop {
        let command = agent.poll().await.expect("a command");
        agent.acknowledge(&command).await;
        if command.name != last {
            agent.succeed(&command).await;
            continue;
        }
        let payload = json!({"error_code": 4, "script_name": "after.sh", "log": "no", "message": "it failed"});
        return agent
            .complete(&command, "Failed", &payload.to_string())
            .await;
    }
}

#[tokio::test]
async fn silent_hosts_come_first_on_bounded_pages() {
    let (controller, _client, agent) = shop::one_host(CONFIG).await;
    let admin = controller.operator();
    for number in 0..101 {
        let arn = format!("arn:aws:iam::123456789012:user/unborn{number:03}");
        let input = json!({"instanceName": format!("unborn{number:03}"), "iamUserArn": arn});
        call(&admin, "RegisterOnPremisesInstance", input).await;
    }
    assert!(agent.poll().await.is_none());
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/hosts").await;
    has(
        &page,
        &[
            "Never seen",
            "unborn099",
            "More hosts",
            "codedeploy-controller hosts</pre>",
        ],
    );
    // By name, box1 would be the first.
    lacks(&page, &["box1", "unborn100"]);
    let (_, rest) = page.text.split_once("href=\"/console/hosts?next=").unwrap();
    let next = rest.split('"').next().unwrap();
    let page = browser.page(&format!("/console/hosts?next={next}")).await;
    has(&page, &["unborn100", "box1", "Polling", "First hosts"]);
    lacks(&page, &["More hosts"]);
    let of_group = browser
        .page("/console/hosts?application=shop&group=web")
        .await;
    has(&of_group, &["box1", "hosts --application shop --group web"]);
    lacks(&of_group, &["unborn"]);
    let json = browser.page("/console/hosts?format=json").await.json();
    assert_eq!(json["hosts"].as_array().unwrap().len(), 100);
    assert_eq!(json["hosts"][0]["state"], "NeverSeen");
}

#[tokio::test]
async fn hosts_are_found_by_name_tag_and_state_and_pages_keep_the_search() {
    let (controller, _client, agent) = shop::one_host(CONFIG).await;
    let admin = controller.operator();
    for number in 0..102 {
        let name = format!("Unborn{number:03}");
        let arn = format!("arn:aws:iam::123456789012:user/{name}");
        let input = json!({"instanceName": name, "iamUserArn": arn});
        call(&admin, "RegisterOnPremisesInstance", input).await;
    }
    assert!(agent.poll().await.is_none());
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/hosts?name=BORN&tag=&state=").await;
    has(
        &page,
        &["Unborn099", "hosts --contains BORN</pre>", "value=\"BORN\""],
    );
    lacks(&page, &["box1", "Unborn100"]);
    let (_, rest) = page
        .text
        .split_once("href=\"/console/hosts?name=BORN&#38;")
        .unwrap();
    let next = rest.split('"').next().unwrap().replace("&#38;", "&");
    let page = browser
        .page(&format!("/console/hosts?name=BORN&{next}"))
        .await;
    has(
        &page,
        &[
            "Unborn101",
            "href=\"/console/hosts?name=BORN&#38;tag=&#38;state=\">First hosts",
        ],
    );
    lacks(&page, &["box1", "More hosts"]);
    // The place in one list is none in another.
    let other = browser.get(&format!("/console/hosts?name=x&{next}")).await;
    assert_eq!(other.status, 400, "{}", other.text);

    let page = browser.page("/console/hosts?name=uNBORN101").await;
    has(&page, &["Unborn101"]);
    for query in ["tag=env%3Dprod", "tag=env", "name=box1&state=", "name=bOX"] {
        let page = browser.page(&format!("/console/hosts?{query}")).await;
        has(&page, &["box1"]);
        lacks(&page, &["Unborn"]);
    }
    for query in [
        "tag=env%3Dtest",
        "state=drained",
        "name=box1&state=silent",
        "name=%3Cb%3E%22",
    ] {
        let page = browser.page(&format!("/console/hosts?{query}")).await;
        has(&page, &["There is no such host."]);
        lacks(&page, &["<b>\"", "host add NAME"]);
    }
    controller.admin_json(&["drain", "box1", "--json"]);
    let page = browser.page("/console/hosts?state=drained&tag=env").await;
    has(&page, &["box1", "hosts --tag env --drained</pre>"]);
    let json = browser
        .page("/console/hosts?name=box&format=json")
        .await
        .json();
    assert_eq!(json["hosts"].as_array().unwrap().len(), 1);

    // A user of another application finds nothing of it.
    call(
        &admin,
        "CreateApplication",
        json!({"applicationName": "blog"}),
    )
    .await;
    let mut limited = Browser::at(&controller, &["--application", "blog"]).await;
    let page = limited.page("/console/hosts?name=box1").await;
    has(&page, &["There is no such host."]);
}

#[tokio::test]
async fn a_host_and_a_group_have_pages_with_their_history() {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    let good = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &good).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let host = browser.page("/console/hosts/box1").await;
    has(
        &host,
        &[
            "Polling",
            "env=prod",
            "No drift",
            "Current",
            "s3://bkt/1.zip",
            "No command is out",
            &format!("/console/deployments/{good}/hosts/box1"),
            "codedeploy-controller hosts box1",
        ],
    );
    let bad = shop::deploy(&client, "2.zip").await;
    fail_at(&agent, "AfterInstall").await;
    shop::ended(&client, &bad).await;
    let host = browser.page("/console/hosts/box1").await;
    has(
        &host,
        &[
            "Drift: a group has another revision",
            "<span class=\"chip past\">",
        ],
    );
    let json = browser.page("/console/hosts/box1?format=json").await.json();
    assert_eq!(json["deployments"][0]["status"], "Failed");
    assert_eq!(json["deployments"][1]["deployment"]["deploymentId"], *good);
    assert_eq!(browser.get("/console/hosts/box9").await.status, 404);

    let group = browser.page("/console/groups/shop/web").await;
    has(
        &group,
        &[
            "Failed",
            &format!("Why {bad} failed"),
            "env=prod",
            "in place, without traffic control",
            "CodeDeployDefault.AllAtOnce: all hosts at once",
            "The group has no alarm",
            "/console/hosts/box1",
            "codedeploy-controller status shop web",
        ],
    );
    let (_, history) = group.text.split_once("id=\"history\"").unwrap();
    assert!(
        history.contains("chip past") && !history.contains("chip bad"),
        "{history}"
    );
    let json = browser
        .page("/console/groups/shop/web?format=json")
        .await
        .json();
    assert_eq!(json["settings"]["deploymentGroupName"], "web");
    assert_eq!(browser.get("/console/groups/shop/none").await.status, 404);

    let inbox = browser.page("/console/inbox").await;
    has(&inbox, &["Failed since yesterday", &bad, "1 thing needs"]);
    // A success makes it good: history, in grey.
    let again = shop::deploy(&client, "3.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &again).await;
    let inbox = browser.page("/console/inbox").await;
    has(&inbox, &[&bad, "chip past", "nothing needs attention"]);
    lacks(&inbox, &["chip bad"]);
}

#[tokio::test]
async fn alarms_are_shown_as_they_are_now() {
    let config = "{console: {}, alarms: {busy: {webhook: {url: 'http://127.0.0.1:9/'}}}}";
    let (controller, _client, _agent) = shop::one_host(config).await;
    let input = json!({
        "applicationName": "shop", "currentDeploymentGroupName": "web",
        "alarmConfiguration": {"enabled": true, "alarms": [{"name": "busy"}]},
    });
    call(&controller.operator(), "UpdateDeploymentGroup", input).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let group = browser.page("/console/groups/shop/web").await;
    has(
        &group,
        &[
            "busy",
            "Unknown",
            "127.0.0.1:9",
            "an active one stops a deployment",
        ],
    );
}

#[tokio::test]
async fn the_inbox_has_keys_near_their_end() {
    let (controller, _client, _agent) = shop::one_host(CONFIG).await;
    let key = |days: &str| {
        controller.admin_json(&[
            "credentials",
            "create",
            "--role",
            "read-only",
            "--user-arn",
            "arn:aws:iam::123456789012:user/ci",
            "--expires-in",
            days,
            "--json",
        ])
    };
    key("1h");
    let mut browser = Browser::at(&controller, &[]).await;
    let inbox = browser.page("/console/inbox").await;
    // Sessions and keys for an hour are no news.
    lacks(&inbox, &["Keys that expire"]);
    has(&inbox, &["Silent hosts", "box1"]);
}

#[tokio::test]
async fn the_audit_answers_who_what_from_where_and_when() {
    let (controller, client, _agent) = shop::one_host(CONFIG).await;
    let id = shop::deploy(&client, "1.zip").await;
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/audit").await;
    has(
        &page,
        &[
            "CreateDeployment",
            "CreateDeploymentGroup",
            "127.0.0.1",
            &format!("/console/deployments/{id}"),
            "/console/groups/shop/web",
            "codedeploy-controller audit --since 7d</pre>",
        ],
    );
    let page = browser
        .page("/console/audit?since=1h&operation=createdeployment&name=BKT")
        .await;
    has(
        &page,
        &[
            "<b>CreateDeployment</b>",
            "audit --since 1h --operation createdeployment --name BKT",
        ],
    );
    lacks(
        &page,
        &["CreateDeploymentGroup</b>", "CreateApplication</b>"],
    );
    let none = browser.page("/console/audit?who=nobody-at-all").await;
    has(
        &none,
        &["There was no such change", "value=\"nobody-at-all\""],
    );
    let shown = controller.admin_json(&["audit", "--json", "--operation", "DEPLOYMENTGROUP"]);
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
}

#[tokio::test]
async fn a_drained_host_shows_who_drained_it_and_why() {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    let forgery = Forgery {
        service: "codedeploy",
        target: "CodeDeployController_20261201.DrainHost".into(),
        ..Forgery::none("")
    };
    let input = json!({"instanceName": "box1", "reason": "new <memory>"});
    let (status, answer) = controller.operator().send(forgery, input).await;
    assert_eq!(status, 200, "{answer}");
    let mut browser = Browser::at(&controller, &[]).await;
    // The state, not the field of the search.
    let state = "</span> Drained</span>";
    has(&browser.page("/console/hosts").await, &[state]);
    let host = browser.page("/console/hosts/box1").await;
    has(
        &host,
        &[
            "Drained",
            ": new &#60;memory&#62;",
            "codedeploy-controller undrain box1",
        ],
    );
    let (_, drained) = host.text.split_once("<dt>Drained</dt><dd><time ").unwrap();
    let (drained, _) = drained.split_once("</dd>").unwrap();
    assert!(drained.contains("</time> by operator: new"), "{drained}");
    let host = browser.page("/console/hosts/box1?format=json").await.json();
    assert_eq!(host["host"]["drain"]["reason"], "new <memory>");
    controller.admin_json(&["undrain", "box1", "--json"]);
    lacks(&browser.page("/console/hosts/box1").await, &["<dt>Drained"]);
    lacks(&browser.page("/console/hosts").await, &[state]);
}

#[tokio::test]
async fn a_limited_login_sees_its_hosts_and_no_audit() {
    let (controller, _client, _agent) = shop::one_host(CONFIG).await;
    let _other = controller.host("blog1", &["env=blog"]);
    let mut browser = Browser::at(&controller, &["--application", "shop"]).await;
    let hosts = browser.page("/console/hosts").await;
    has(&hosts, &["box1"]);
    lacks(&hosts, &["blog1", "/console/audit"]);
    assert_eq!(browser.get("/console/hosts/blog1").await.status, 403);
    assert_eq!(browser.get("/console/audit").await.status, 403);
    has(
        &browser.page("/console/inbox").await,
        &["Messages, keys and the certificate are shown to users of the whole fleet"],
    );
    let mut other = Browser::at(&controller, &["--application", "blog"]).await;
    assert_eq!(other.get("/console/groups/shop/web").await.status, 403);
    let mut reader = Browser::at(&controller, &["--role", "read-only"]).await;
    for path in ["hosts", "hosts/box1", "groups/shop/web", "inbox", "audit"] {
        let page = reader.page(&format!("/console/{path}")).await;
        assert_eq!(
            page.text.matches("method=\"post\"").count(),
            1,
            "logging out: {path}"
        );
        lacks(&page, &["Deploy…", "Go back…"]);
    }
}
