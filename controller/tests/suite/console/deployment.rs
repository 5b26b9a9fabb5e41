//! A deployment, live: why it waits, what failed, and the buttons.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::browser::{Browser, Shown};
use crate::support::{Agent, Controller, eventually, shop};

const CONFIG: &str = "{console: {}, timers: {poll: 5, lease: 60, pick_up: 300, run: 4200}}";

/// Runs the commands of a host up to an event, and fails that.
async fn fail_at(agent: &Agent, last: &str, log: &str) {
    loop {
        let command = agent.poll().await.expect("a command");
        agent.acknowledge(&command).await;
        if command.name != last {
            agent.succeed(&command).await;
            continue;
        }
        let payload = json!({
            "error_code": 4, "script_name": "scripts/after.sh", "log": log,
            "message": "Script at specified location: scripts/after.sh run as user root failed with exit code 3",
        });
        return agent
            .complete(&command, "Failed", &payload.to_string())
            .await;
    }
}

fn has(page: &Shown, expected: &[&str]) {
    for text in expected {
        assert!(page.text.contains(text), "{text} is missing: {}", page.text);
    }
}

/// The first address on a page whose link has these words.
fn link(page: &Shown, words: &str) -> String {
    let links = page.text.split("<a ").skip(1);
    let link = links
        .filter_map(|link| link.split_once("</a>"))
        .find(|(link, _)| link.contains(words));
    let (link, _) = link.unwrap_or_else(|| panic!("no link {words}: {}", page.text));
    let (_, rest) = link.split_once("href=\"").unwrap();
    rest.split('"').next().unwrap().replace("&#38;", "&")
}

#[tokio::test]
async fn a_deployment_that_waits_tells_why_and_can_be_stopped() {
    let controller = Controller::start(CONFIG);
    let agents: Vec<Agent> = (1..=4)
        .map(|number| controller.host(&format!("box{number}"), &["env=prod"]))
        .collect();
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.OneAtATime").await;
    let id = shop::deploy(&client, "1.zip").await;
    let path = format!("/console/deployments/{id}");
    let mut browser = Browser::at(&controller, &[]).await;
    let mut held = None;
    for agent in &agents {
        held = agent.poll().await;
        if let Some(command) = &held {
            agent.acknowledge(command).await;
            break;
        }
    }
    assert!(held.is_some());
    let page = browser.page(&path).await;
    has(
        &page,
        &[
            "Deploying",
            "3 hosts wait: at least 3 of 4 must stay healthy, so 1 host at a time may change, and 1 is in progress.",
            "has been at ApplicationStop for",
            "Hosts, 1 host at a time",
            "box1: in progress",
            "box2: waits",
            "It ends by itself <time",
            "codedeploy-controller follow d-",
            "aws deploy get-deployment --deployment-id d-",
        ],
    );
    let json = browser.page(&format!("{path}?format=json")).await.json();
    assert_eq!(json["deployment"]["deploymentOverview"]["Pending"], 3);
    let busy = browser.page(&link(&page, ">In progress")).await;
    assert!(
        busy.text
            .contains("<th scope=\"row\"><a href=\"/console/deployments/"),
        "{}",
        busy.text
    );

    let mut reader = Browser::at(&controller, &["--role", "read-only"]).await;
    let seen = reader.page(&path).await;
    assert_eq!(seen.text.matches("<form").count(), 1, "{}", seen.text);
    for action in ["stop", "continue"] {
        let refused = reader.submit(&seen, &format!("{path}/{action}"), &[]).await;
        assert_eq!(refused.status, 403, "{action}");
    }
    let forged = browser
        .post(&format!("{path}/stop"), &[("csrf", &seen.csrf())])
        .await;
    assert_eq!(forged.status, 403);
    let refused = browser
        .submit(&page, &format!("{path}/continue"), &[])
        .await;
    assert!(
        refused.status == 400 && refused.text.contains("only blue/green deployments wait"),
        "{}",
        refused.text
    );

    let stopped = browser
        .submit(&page, &format!("{path}/stop"), &[("rollback", "no")])
        .await;
    assert_eq!((stopped.status, stopped.location()), (303, path.as_str()));
    let page = browser.page(&path).await;
    has(
        &page,
        &["It waits for the end of the running commands; then it stops."],
    );
    agents[0].succeed(&held.unwrap()).await;
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status().unwrap().as_str(), "Stopped");
    let page = browser.page(&path).await;
    has(&page, &["Stopped", "MANUAL_STOP", "skipped"]);
    assert!(!page.text.contains(">Stop<"), "{}", page.text);
    let audit = controller.admin_json(&["audit", "--json"]);
    let stop = audit
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["operation"] == "StopDeployment")
        .unwrap();
    assert_eq!(
        (&stop["source"], &stop["names"]["deploymentId"]),
        (&json!("console"), &json!(id))
    );
}

#[tokio::test]
async fn a_failing_script_is_two_links_from_the_first_page() {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    let good = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &good).await;
    let bad = shop::deploy(&client, "2.zip").await;
    let log = "LifecycleEvent - AfterInstall\nScript - scripts/after.sh\n[stderr]no such table \u{1b}[31m<b>items</b>\u{202e}\n";
    fail_at(&agent, "AfterInstall", log).await;
    shop::ended(&client, &bad).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let front = browser.page("/console/").await;
    has(&front, &["1 group needs", "tile bad"]);
    let page = browser.page(&link(&front, "Why d-")).await;
    has(
        &page,
        &[
            "<a href=\"/console/deployments/",
            "failed at AfterInstall",
            "<code>scripts/after.sh</code>, exit code <b>3</b>",
            "[stderr]no such table \\u{1b}[31m&#60;b&#62;items&#60;/b&#62;\\u{202e}",
            "Correct scripts/after.sh in the revision, and deploy again.",
            "HEALTH_CONSTRAINTS",
            "Go back…",
        ],
    );
    assert!(!page.text.contains("<b>items") && !page.text.contains(['\u{1b}', '\u{202e}']));
    let host = browser.page(&link(&page, ">box1")).await;
    has(
        &host,
        &[
            "Output of AfterInstall",
            "no such table",
            "Succeeded",
            "Skipped",
            "why d-",
        ],
    );
    let event = browser
        .page(&link(&host, ">Install").replace("#output", ""))
        .await;
    has(
        &event,
        &["Output of Install", "The host reported no output."],
    );
    let none = browser
        .get(&format!("/console/deployments/{bad}/hosts/box9"))
        .await;
    assert_eq!(none.status, 404);
    assert_eq!(
        browser.get("/console/deployments/d-NONE12345").await.status,
        404
    );

    // Made good by a later deployment, it is history, and is not drawn in the colours of the present.
    let back = browser.page(&link(&page, "Go back")).await;
    let done = browser
        .submit(
            &back,
            "/console/groups/shop/web/rollback",
            &[("description", "2 is broken")],
        )
        .await;
    let running = browser.page(done.location()).await;
    has(&running, &["chip busy", "2 is broken"]);
    agent.run_to("ValidateService").await;
    eventually("the end of the rollback", async || {
        let page = browser.page("/console/").await;
        page.text.contains("tile good").then_some(())
    })
    .await;
    let front = browser.page("/console/").await;
    has(&front, &["chip past", "tile good"]);
    let page = browser.page(&format!("/console/deployments/{bad}")).await;
    has(
        &page,
        &["This is history", "chip past", "class=\"history\""],
    );
    let host = browser
        .page(&format!("/console/deployments/{bad}/hosts/box1"))
        .await;
    has(&host, &["This is history", "class=\"history\""]);
    let list = browser.page("/console/deployments").await;
    assert_eq!(
        list.text.matches("<th scope=\"row\">").count(),
        3,
        "{}",
        list.text
    );
    assert!(!list.text.contains("chip bad"));
    let failed = browser.page(&link(&list, ">Failed")).await;
    assert_eq!(
        failed.text.matches("<th scope=\"row\">").count(),
        1,
        "{}",
        failed.text
    );
    has(
        &failed,
        &["codedeploy-controller deployments --status Failed"],
    );
}

#[tokio::test]
async fn a_limited_login_sees_its_deployments() {
    let (controller, client, _agent) = shop::one_host(CONFIG).await;
    let id = shop::deploy(&client, "1.zip").await;
    let mut other = Browser::at(&controller, &["--application", "blog"]).await;
    assert_eq!(
        other
            .get(&format!("/console/deployments/{id}"))
            .await
            .status,
        403
    );
    let list = other.page("/console/deployments").await;
    assert!(!list.text.contains(&id), "{}", list.text);
    let mut own = Browser::at(&controller, &["--application", "shop", "--group", "web"]).await;
    let page = own.page(&format!("/console/deployments/{id}")).await;
    has(&page, &["Stop and roll back"]);
}

/// 10,000 targets of a running deployment, copied from one that has ended.
const LARGE: &str = "
    CREATE TEMP TABLE numbers AS
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 9999) SELECT n FROM n;
    INSERT INTO targets (deployment_id, position, target_id, arn, host, status, updated, events, class, stage, attempted)
        SELECT ?2, n, printf('host%05d', n), arn || n, host || n,
            CASE WHEN n < 9000 THEN status WHEN n % 9 = 0 THEN 'Failed' ELSE 'Skipped' END, updated,
            CASE WHEN n % 9 = 0 THEN replace(events, 'Succeeded', 'Failed') ELSE events END,
            CASE WHEN n < 9000 THEN class WHEN n % 9 = 0 THEN 'failed' ELSE 'skipped' END, stage, 1
        FROM targets, numbers WHERE deployment_id = ?1;
    INSERT INTO commands (id, deployment_id, target, event, host, offered)
        SELECT printf('%s-%d-%d', ?2, n, e.event), ?2, n, e.event, host || n, 0
        FROM numbers, commands e WHERE e.deployment_id = ?1;
";

#[tokio::test]
async fn ten_thousand_hosts_fit_on_a_page() {
    let (mut controller, client, agent) = shop::one_host(CONFIG).await;
    let first = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &first).await;
    let id = shop::deploy(&client, "2.zip").await;
    let held = agent.poll().await.unwrap();
    agent.acknowledge(&held).await;
    let sql = LARGE
        .replace("?1", &format!("'{first}'"))
        .replace("?2", &format!("'{id}'"));
    controller.crash_while(|data| {
        let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
        database.execute_batch(&sql).unwrap();
    });
    let path = format!("/console/deployments/{id}");
    let mut browser = Browser::at(&controller, &[]).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let page = browser.page(&path).await;
        took.push(began.elapsed());
        has(
            &page,
            &[
                "8999 succeeded",
                "112 failed",
                "<svg class=\"drawing\"",
                "And 107 more",
                "Install</span> <span class=\"quiet\">9999",
            ],
        );
        assert!(page.text.len() < 300_000, "{}", page.text.len());
    }
    took.sort();
    println!(
        "{} bytes, {:?}, at best {:?}",
        browser.page(&path).await.text.len(),
        took[2],
        took[0]
    );
    // Without optimisation, and on a machine that may have much else to do.
    assert!(took[0] < Duration::from_secs(3), "{took:?}");
    let failed = browser.page(&format!("{path}?state=failed")).await;
    let more = browser
        .page(&link(&failed, "More hosts").replace("#hosts", ""))
        .await;
    assert_eq!(more.text.matches("chip bad").count(), 50, "{}", more.text);
}
