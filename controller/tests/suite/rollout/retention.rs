//! Old deployments are deleted if the settings ask for it, and nothing that is still needed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::DeploymentStatus;
use serde_json::{Value, json};

use crate::support::{Agent, Controller, Forgery, eventually, shop, text};

const DAY: i64 = 86_400_000;

/// The history of a group for the database: `?N` deployments like `?ID`, one each minute, the last
/// of them `?DAYS` days ago.
const HISTORY: &str = "
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?N)
    INSERT INTO deployments (id, sequence, group_id, created, status, progress, rules, snapshot, revision, relations)
        SELECT printf('d-?NAME%05d', n), (SELECT max(sequence) FROM deployments) + n,
            (SELECT id FROM deployment_groups WHERE name = '?GROUP'), created - ?DAYS * 86400000 - (?N - n) * 60000,
            '?STATUS', json_set(progress, '$.completed', created / 1000 - ?DAYS * 86400 - (?N - n) * 60),
            rules, snapshot, revision, relations
        FROM deployments, n WHERE id = '?ID';
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?N)
    INSERT INTO targets (deployment_id, position, target_id, arn, host, status, updated, events, class, attempted)
        SELECT printf('d-?NAME%05d', n), position, target_id, arn, host, status, updated, events, class, attempted
        FROM targets, n WHERE deployment_id = '?ID';
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?N)
    INSERT INTO commands (id, deployment_id, target, event, host, offered, noop)
        SELECT printf('d-?NAME%05d', n) || id, printf('d-?NAME%05d', n), target, event, host, 0, noop
        FROM commands, n WHERE deployment_id = '?ID';
";

/// Deployments like a real one, with ids that are shorter than any real one, which may begin with the same letter.
struct History<'a> {
    group: &'a str,
    name: &'a str,
    like: &'a str,
    number: usize,
    days: i64,
}

impl History<'_> {
    fn write(&self, database: &rusqlite::Connection) {
        let script = HISTORY
            .replace("?NAME", self.name)
            .replace("?N", &self.number.to_string())
            .replace("?ID", self.like)
            .replace("?GROUP", self.group)
            .replace("?STATUS", "Succeeded")
            .replace("?DAYS", &self.days.to_string());
        database.execute_batch(&script).unwrap();
    }

    fn id(&self, number: usize) -> String {
        format!("d-{}{number:05}", self.name)
    }
}

fn open(data: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap()
}

/// All deployments of a group.
async fn listed(client: &Client, group: &str) -> BTreeSet<String> {
    let mut pages = client
        .list_deployments()
        .application_name("shop")
        .deployment_group_name(group)
        .into_paginator()
        .items()
        .send();
    let mut ids = BTreeSet::new();
    while let Some(id) = pages.next().await {
        ids.insert(id.unwrap());
    }
    ids
}

async fn group(client: &Client, name: &str) {
    let group = client
        .create_deployment_group()
        .application_name("shop")
        .deployment_group_name(name);
    let role = "arn:aws:iam::123456789012:role/cd";
    group.service_role_arn(role).send().await.unwrap();
}

fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.into_iter().map(str::to_owned).collect()
}

/// Calls an operation of the controller's own API.
async fn own(caller: &Agent, operation: &str, input: Value) -> Value {
    let forgery = Forgery {
        service: "codedeploy",
        target: format!("CodeDeployController_20261201.{operation}"),
        ..Forgery::none("")
    };
    let (status, answer) = caller.send(forgery, input).await;
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

#[tokio::test]
async fn old_deployments_are_deleted_but_none_that_is_needed() {
    let settings = "timers: {poll: 5}\nmetrics: {listen: '127.0.0.1:0'}\n";
    let (mut controller, client, agent) = shop::one_host(settings).await;
    let mut done = Vec::new();
    for key in ["1.zip", "2.zip"] {
        let id = shop::deploy(&client, key).await;
        agent.run_to("ValidateService").await;
        shop::ended(&client, &id).await;
        done.push(id);
    }
    for name in ["quiet", "busy"] {
        group(&client, name).await;
    }
    let unfinished = shop::deploy(&client, "3.zip").await;
    let history = |group, name, like: usize, number, days| History {
        group,
        name,
        like: &done[like],
        number,
        days,
    };
    // Revision 1 and then 2 in a group that nobody has deployed to since.
    let (first, second) = (
        history("quiet", "A", 0, 30, 100),
        history("quiet", "B", 1, 40, 90),
    );
    let (old, recent) = (
        history("web", "C", 0, 3000, 31),
        history("web", "D", 0, 20, 29),
    );
    let on_a_host = history("busy", "E", 0, 10, 400);
    controller.crash_while(|data| {
        let database = open(data);
        for history in [&first, &second, &old, &recent, &on_a_host] {
            history.write(&database);
        }
        let last = "UPDATE deployment_groups SET last_attempted = ?1, last_successful = ?1, target_revision =
            (SELECT revision FROM deployments WHERE id = ?1) WHERE name = ?2";
        database.execute(last, [&second.id(40), "quiet"]).unwrap();
        database
            .execute(last, [&on_a_host.id(10), "busy"])
            .unwrap();
        let health = "INSERT INTO health (group_id, target_id, healthy, deployment_id)
            SELECT id, 'box9', 1, ?1 FROM deployment_groups WHERE name = 'busy'";
        database.execute(health, [on_a_host.id(3)]).unwrap();
        // It ended a moment ago, although it began long before.
        let slow = "UPDATE deployments SET progress = json_set(progress, '$.completed', unixepoch()) WHERE id = ?1";
        database.execute(slow, [old.id(7)]).unwrap();
    });
    // Without settings, everything stays.
    assert_eq!(listed(&client_of(&controller), "web").await.len(), 3023);

    let config = format!("{settings}deployments: {{keep_days: 30}}\n");
    let rewrite = |controller: &mut Controller, config: &str| {
        std::fs::write(controller.folder.path().join("controller.yml"), config).unwrap();
        controller.crash_and_restart();
    };
    rewrite(&mut controller, &config);
    let client = client_of(&controller);
    // Others are served meanwhile.
    let mut slowest = Duration::ZERO;
    let mut number = 0;
    eventually("the deletion", async || {
        let began = Instant::now();
        let name = format!("application{number}");
        number += 1;
        let created = client.create_application().application_name(name);
        created.send().await.unwrap();
        slowest = slowest.max(began.elapsed());
        (listed(&client, "web").await.len() <= 24).then_some(())
    })
    .await;
    println!("the slowest change took {slowest:?}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    let mut left = ids([&unfinished, &done[0], &done[1], &old.id(7)]);
    left.extend((1..=20).map(|number| recent.id(number)));
    assert_eq!(listed(&client, "web").await, left);
    eventually("the deletion in the other groups", async || {
        // The last deployment, and the one to which a rollback returns.
        (listed(&client, "busy").await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(
        listed(&client, "busy").await,
        ids([&on_a_host.id(3), &on_a_host.id(10)])
    );
    eventually("the report", async || {
        let lines = controller.logged("old deployments were deleted");
        let sum: u64 = lines
            .iter()
            .map(|line| line["deployments"].as_u64().unwrap())
            .sum();
        (sum == 2999 + 8 + 68).then_some(())
    })
    .await;
    let quiet = listed(&client, "quiet").await;
    assert_eq!(quiet, ids([&first.id(30), &second.id(40)]));

    // Everything of a deployment is gone, and it is unknown as in AWS.
    let gone = client.get_deployment().deployment_id(old.id(1)).send();
    let gone = gone.await.unwrap_err().into_service_error();
    assert!(gone.is_deployment_does_not_exist_exception(), "{gone:?}");
    let batch = client
        .batch_get_deployments()
        .deployment_ids(old.id(1))
        .deployment_ids(recent.id(1));
    let batch = batch.send().await.unwrap();
    assert_eq!(batch.deployments_info().len(), 1);
    let database = open(&controller.data());
    for table in ["targets", "commands"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE deployment_id LIKE 'd-C_____'");
        let left: usize = database.query_row(&sql, [], |row| row.get(0)).unwrap();
        let of_one: usize = database
            .query_row(&sql.replace("d-C_____", &old.id(7)), [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, of_one, "{table}");
    }
    let announced = std::fs::read_to_string(controller.data().join("service.json")).unwrap();
    let announced: Value = serde_json::from_str(&announced).unwrap();
    let metrics = format!("http://{}/metrics", text(&announced, "metrics"));
    let output = crate::support::command("curl")
        .args(["-s", &metrics])
        .output()
        .unwrap();
    let metrics = String::from_utf8(output.stdout).unwrap();
    let sample = "codedeploy_controller_deleted_records_total{kind=\"deployment\"} 3075";
    assert!(metrics.contains(sample), "{metrics}");

    // A rollback still finds the revision before, and the deployment in progress goes on.
    let input = json!({"applicationName": "shop", "deploymentGroupName": "quiet"});
    let operator = controller.operator();
    let rolled_back = own(&operator, "RollBackDeploymentGroup", input).await;
    assert_eq!(rolled_back["revision"]["s3Location"]["key"], "1.zip");
    let agent = Agent {
        address: controller.address,
        ..agent
    };
    agent.run_to("ValidateService").await;
    let ended = shop::ended(&client, &unfinished).await;
    assert_eq!(ended.status(), Some(&DeploymentStatus::Succeeded));
}

fn client_of(controller: &Controller) -> Client {
    controller.client("operator")
}

#[tokio::test]
async fn a_number_of_the_newest_deployments_of_each_group_is_kept() {
    let (mut controller, client, agent) = shop::one_host("timers: {poll: 5}").await;
    let id = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;
    let history = History {
        group: "web",
        name: "A",
        like: &id,
        number: 90,
        days: 0,
    };
    for (config, oldest) in [
        // A deployment stays if any rule keeps it.
        ("deployments: {keep_per_group: 10, keep_days: 30}", 1),
        ("deployments: {keep_per_group: 10}", 82),
    ] {
        controller.crash_while(|data| {
            let database = open(data);
            database
                .execute("DELETE FROM deployments WHERE id LIKE 'd-A_____'", [])
                .unwrap();
            history.write(&database);
            // Those of the same minute as the real one come before it.
            let before = "UPDATE deployments SET created = created - ?1 WHERE id LIKE 'd-A_____'";
            database.execute(before, [DAY]).unwrap();
            let config = format!("timers: {{poll: 5}}\n{config}\n");
            let file = data.parent().unwrap().join("controller.yml");
            std::fs::write(file, config).unwrap();
        });
        let client = client_of(&controller);
        // The one on the host is the newest.
        let mut expected: BTreeSet<String> =
            (oldest..=90).map(|number| history.id(number)).collect();
        expected.insert(id.clone());
        eventually("the deletion", async || {
            (listed(&client, "web").await == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn old_script_output_is_deleted_and_its_deployment_stays() {
    let (mut controller, client, agent) = shop::one_host("timers: {poll: 5}").await;
    let id = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;
    let of = |name, number, days| History {
        group: "web",
        name,
        like: &id,
        number,
        days,
    };
    let (old, recent) = (of("A", 130, 8), of("B", 10, 6));
    controller.crash_while(|data| {
        let database = open(data);
        old.write(&database);
        recent.write(&database);
        let logs = "
            WITH RECURSIVE e (event) AS (SELECT 0 UNION ALL SELECT event + 1 FROM e WHERE event < 5)
            INSERT INTO script_logs (deployment_id, target, event, bytes, missing)
                SELECT id, 0, event, 5, 0 FROM deployments, e WHERE id LIKE 'd-A_____' OR id LIKE 'd-B_____';
            INSERT INTO script_log_parts (deployment_id, target, event, part, text)
                SELECT deployment_id, target, event, 0, x'00' FROM script_logs;";
        database.execute_batch(logs).unwrap();
        let config = "timers: {poll: 5}\nscript_logs: {keep_days: 7}\n";
        let file = data.parent().unwrap().join("controller.yml");
        std::fs::write(file, config).unwrap();
    });
    eventually("the deletion", async || {
        let lines = controller.logged("old script output was deleted");
        lines.first().map(|line| assert_eq!(line["logs"], 130 * 6))
    })
    .await;
    let database = open(&controller.data());
    for table in ["script_logs", "script_log_parts"] {
        let sql = format!("SELECT deployment_id LIKE 'd-B_____', count(*) FROM {table} GROUP BY 1");
        let left = database.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(left.unwrap(), (true, 60), "{table}");
    }
    assert_eq!(listed(&client_of(&controller), "web").await.len(), 141);
}
