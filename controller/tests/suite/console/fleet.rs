//! The first page, and the way back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::{Agent, Controller, Forgery, eventually, shop};

const CONFIG: &str = "{console: {}, timers: {poll: 5, lease: 60, pick_up: 300, run: 4200}}";

pub(super) async fn call(caller: &Agent, operation: &str, input: Value) -> Value {
    let forgery = Forgery {
        service: "codedeploy",
        target: format!("CodeDeploy_20141006.{operation}"),
        ..Forgery::none("")
    };
    let (status, answer) = caller.send(forgery, input).await;
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

async fn group(caller: &Agent, application: &str, group: &str) {
    let input = json!({
        "applicationName": application, "deploymentGroupName": group,
        "serviceRoleArn": "arn:aws:iam::123456789012:role/cd",
        "onPremisesInstanceTagFilters": [{"Key": "env", "Value": "prod", "Type": "KEY_AND_VALUE"}],
    });
    call(caller, "CreateDeploymentGroup", input).await;
}

#[tokio::test]
async fn the_fleet_is_on_one_page() {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/").await;
    assert!(
        page.text.contains("Never deployed") && page.text.contains("No revision yet"),
        "{}",
        page.text
    );
    for key in ["1.zip", "2.zip"] {
        let id = shop::deploy(&client, key).await;
        agent.run_to("ValidateService").await;
        shop::ended(&client, &id).await;
    }
    let page = browser.page("/console/").await;
    for shown in [
        "Up to date",
        "s3://bkt/2.zip",
        "<b>1</b>/1 healthy",
        "Nothing needs attention",
        "Go back…",
    ] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    assert!(
        page.text
            .contains("<pre tabindex=\"0\">codedeploy-controller status</pre>")
    );
    let json = browser.page("/console/?format=json").await.json();
    assert_eq!(json["groups"][0]["hosts"]["healthy"], 1);
    let only = browser.page("/console/?application=shop").await;
    assert!(
        only.text.contains("codedeploy-controller status shop"),
        "{}",
        only.text
    );

    // The way back: a link, a button.
    let path = "/console/groups/shop/web/rollback";
    let confirm = browser.page(path).await;
    assert!(
        confirm.text.contains("s3://bkt/1.zip") && confirm.text.contains("s3://bkt/2.zip"),
        "{}",
        confirm.text
    );
    let done = browser.submit(&confirm, path, &[]).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let page = browser.page("/console/").await;
    assert!(
        page.text.contains("1.zip</a>: 0 of") && page.text.contains("1 deployment is running"),
        "{}",
        page.text
    );
    let twice = browser.submit(&confirm, path, &[]).await;
    assert!(
        twice.status == 400 && twice.text.contains("active Deployment"),
        "{}",
        twice.text
    );
    let audit = controller.admin_json(&["audit", "--json"]);
    let back = audit
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["operation"] == "RollBackDeploymentGroup")
        .unwrap();
    assert_eq!(
        (&back["source"], &back["names"]["deploymentGroup"]),
        (&json!("console"), &json!("web"))
    );
    agent.run_to("ValidateService").await;
    eventually("the end of the rollback", async || {
        let page = browser.page("/console/").await;
        (page.text.contains("Up to date") && page.text.contains("s3://bkt/1.zip")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_sees_no_button_and_can_use_none() {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    for key in ["1.zip", "2.zip"] {
        let id = shop::deploy(&client, key).await;
        agent.run_to("ValidateService").await;
        shop::ended(&client, &id).await;
    }
    let mut reader = Browser::at(&controller, &["--role", "read-only"]).await;
    let page = reader.page("/console/").await;
    assert!(
        !page.text.contains("Go back") && page.text.contains("read-only"),
        "{}",
        page.text
    );
    assert_eq!(page.text.matches("<form").count(), 1, "logging out");
    let path = "/console/groups/shop/web/rollback";
    assert_eq!(reader.get(path).await.status, 403);
    let refused = reader.submit(&page, path, &[]).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
}

#[tokio::test]
async fn a_limited_login_sees_its_part() {
    let controller = Controller::start(CONFIG);
    let admin = controller.operator();
    for application in ["shop", "blog"] {
        call(
            &admin,
            "CreateApplication",
            json!({"applicationName": application}),
        )
        .await;
        group(&admin, application, "web").await;
    }
    let mut browser = Browser::at(&controller, &["--application", "blog"]).await;
    let page = browser.page("/console/").await;
    assert!(
        page.text.contains("blog") && !page.text.contains("shop"),
        "{}",
        page.text
    );
    assert_eq!(browser.get("/console/?application=shop").await.status, 403);
    assert_eq!(
        browser
            .get("/console/groups/shop/web/rollback")
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn hostile_names_are_text() {
    let (controller, client, _agent) = shop::one_host(CONFIG).await;
    let key = "<img src=x onerror=alert(1)>\"'&\u{202e}<script>b</script>\u{1b}[31m\u{2066}.zip";
    shop::deploy(&client, key).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/").await;
    assert!(
        !page.text.contains("<img") && !page.text.contains("<script>b"),
        "{}",
        page.text
    );
    let hostile = ['\u{202e}', '\u{2066}', '\u{1b}'];
    assert!(!page.text.contains(hostile), "{}", page.text);
    assert!(
        page.text.contains(r"\u{202e}&#60;script&#62;b"),
        "{}",
        page.text
    );
    let json = browser.page("/console/?format=json").await;
    let revision = &json.json()["groups"][0]["runningDeployment"]["revision"];
    assert_eq!(revision["s3Location"]["key"], key);
    assert!(!json.text.contains(hostile), "{}", json.text);
}

#[tokio::test]
async fn an_open_page_is_kept_up_to_date() {
    let (controller, client, _agent) = shop::one_host(CONFIG).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/").await;
    let have = page
        .text
        .split("data-live=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        have.starts_with("summary=") && have.contains(",board="),
        "{have}"
    );
    let mut watching = browser.clone();
    let live = tokio::spawn(async move {
        watching
            .events(&format!("/console/?format=live&have={have}"), 2)
            .await
    });
    shop::deploy(&client, "1.zip").await;
    let events = live.await.unwrap();
    // The part that did not change is not sent.
    assert!(
        events.contains("data: board\n") && events.contains("1.zip"),
        "{events}"
    );
    assert!(events.contains("1 deployment is running"), "{events}");
    assert!(events.contains("id: board="), "{events}");
}

#[tokio::test]
async fn an_open_page_ends_with_its_session_and_delays_no_stop() {
    let (mut controller, client, _agent) = shop::one_host(CONFIG).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/").await;
    let mut watching = browser.clone();
    let stream = tokio::spawn(async move { watching.get("/console/?format=live").await });
    browser.submit(&page, "/console/logout", &[]).await;
    shop::deploy(&client, "1.zip").await;
    let shown = tokio::time::timeout(Duration::from_secs(30), stream)
        .await
        .unwrap();
    assert!(!shown.unwrap().text.contains("1.zip"));

    let mut browser = Browser::at(&controller, &[]).await;
    let stream = tokio::spawn(async move { browser.get("/console/?format=live").await });
    let took = controller.terminate();
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(stream);
}
