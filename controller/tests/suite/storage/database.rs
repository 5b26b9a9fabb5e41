//! The data directory over time: earlier schemas, backups, one service at a time.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::error::ProvideErrorMetadata as _;
use aws_sdk_codedeploy::types::{DeploymentStatus, ErrorCode, TagFilter, TagFilterType};
use serde_json::json;

use crate::support::{Agent, Controller, Held, QUICK, command, eventually, shop};

/// Databases of earlier schema versions: the same application, deployments, host and operator.
const SCHEMAS: [(i64, &str); 2] = [
    (1, include_str!("schemas/v1.sql")),
    (12, include_str!("schemas/v12.sql")),
];

/// The key file and the operator's access key for those databases.
const MASTER_KEY: &str = "87a364a650d05c091595e062f65ff1a85e89e313f3aacc37dd9730b6e4bf9faa";
const OPERATOR: (&str, &str) = (
    "AKIAZF5UU6VLC6V7JRWP",
    "FZzz9ExzVhY3cSTqGI1JIFm0rRLZccgOf4OgydZV",
);

#[tokio::test]
async fn databases_of_every_earlier_schema_go_on() {
    for (number, schema) in SCHEMAS {
        assert!(schema.contains(&format!("user_version = {number};")));
        let controller = Controller::start_on("timers: {pick_up: 0.5}", |data| {
            std::fs::write(data.join("master.key"), hex::decode(MASTER_KEY).unwrap()).unwrap();
            let signer =
                rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
                    .unwrap();
            std::fs::write(data.join("signer-key.der"), signer.serialize_der()).unwrap();
            let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
            database.execute_batch(schema).unwrap();
        });
        let (id, secret) = OPERATOR;
        let client =
            controller.client_with(&json!({"access_key_id": id, "secret_access_key": secret}));
        let found = client
            .get_application()
            .application_name("shop")
            .send()
            .await
            .unwrap();
        assert_eq!(
            found.application().unwrap().application_name(),
            Some("shop")
        );
        let host = client
            .get_on_premises_instance()
            .instance_name("box1")
            .send()
            .await
            .unwrap();
        assert_eq!(
            host.instance_info().unwrap().tags()[0].value(),
            Some("prod")
        );
        let deployments = client.list_deployments().send().await.unwrap();
        assert_eq!(deployments.deployments(), ["d-S4PPINKI8", "d-TEREFL8Z0"]);
        let ended = client
            .get_deployment()
            .deployment_id("d-TEREFL8Z0")
            .send()
            .await
            .unwrap();
        assert_eq!(
            ended.deployment_info().unwrap().status(),
            Some(&DeploymentStatus::Failed)
        );
        // The active one continues: nobody takes its command.
        eventually("the end of the deployment", async || {
            let found = client
                .get_deployment()
                .deployment_id("d-S4PPINKI8")
                .send()
                .await
                .unwrap();
            (found.deployment_info()?.status()? == &DeploymentStatus::Failed).then_some(())
        })
        .await;
        client
            .create_application()
            .application_name("another")
            .send()
            .await
            .unwrap();
        // The old database is kept, for the version that wrote it.
        let copies = std::fs::read_dir(controller.data())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut copies =
            copies.filter(|path| path.to_str().unwrap().contains("codedeploy.before-v"));
        let (copy, None) = (copies.next().expect("a copy"), copies.next()) else {
            panic!("one copy")
        };
        assert_eq!(
            std::fs::metadata(&copy).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        let copy = rusqlite::Connection::open(copy).unwrap();
        let found: (i64, i64) = copy
            .query_row(
                "SELECT user_version, (SELECT count(*) FROM applications) FROM pragma_user_version",
                [],
                |row| row.try_into(),
            )
            .unwrap();
        assert_eq!(found, (number, 1));
    }
}

#[tokio::test]
async fn a_backup_is_made_while_the_service_runs_and_put_back_while_it_does_not() {
    let mut controller = Controller::start(QUICK);
    let client = controller.client("operator");
    client
        .create_application()
        .application_name("before")
        .send()
        .await
        .unwrap();
    let file = controller.folder.path().join("backup.sqlite3");
    let file = file.to_str().unwrap();
    let admin = |controller: &Controller, args: &[&str]| {
        let output = controller.admin(args);
        (
            output.status.success(),
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
        )
    };
    let (ok, text) = admin(&controller, &["backup", file]);
    assert!(ok && text.contains("master.key"), "{text}");
    assert_eq!(
        std::fs::metadata(file).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let (ok, text) = admin(&controller, &["backup", file]);
    assert!(!ok && text.contains("exists already"), "{text}");
    let (ok, text) = admin(&controller, &["backup", "/nowhere/file"]);
    assert!(!ok && text.contains("cannot write /nowhere/file"), "{text}");
    client
        .create_application()
        .application_name("after")
        .send()
        .await
        .unwrap();

    let (ok, text) = admin(&controller, &["restore", file]);
    assert!(!ok && text.contains("stop it first"), "{text}");
    controller.terminate();
    let noise = controller.folder.path().join("noise");
    let noise = noise.to_str().unwrap();
    for (content, expected) in [
        (
            &b"not a database, whatever its length"[..],
            "not a database",
        ),
        (b"", "schema version 0"),
        (&std::fs::read(file).unwrap()[..8192], "malformed"),
    ] {
        std::fs::write(noise, content).unwrap();
        let (ok, text) = admin(&controller, &["restore", noise]);
        assert!(
            !ok && text.contains(noise) && text.contains(expected),
            "{expected}: {text}"
        );
    }
    let (ok, text) = admin(&controller, &["restore", file]);
    assert!(ok && text.contains("before-restore"), "{text}");
    controller.start_again();
    let names = async |controller: &Controller| {
        let found = controller
            .client("operator")
            .list_applications()
            .send()
            .await
            .unwrap();
        found.applications().to_vec()
    };
    assert_eq!(names(&controller).await, ["before"]);

    // The database from before the restore can be restored as well.
    controller.terminate();
    let before = controller.data().join("codedeploy.before-restore");
    assert!(admin(&controller, &["restore", before.to_str().unwrap()]).0);
    controller.start_again();
    assert_eq!(names(&controller).await, ["after", "before"]);
}

/// A host in a group of its own, which performs the first event of a deployment.
struct Busy {
    group: String,
    agent: Agent,
    command: Held,
    deployment: String,
}

impl Busy {
    async fn new(controller: &Controller, client: &Client, name: &str) -> Busy {
        let agent = controller.host(name, &[&format!("host={name}")]);
        let filter = TagFilter::builder()
            .key("host")
            .value(name)
            .r#type(TagFilterType::KeyAndValue)
            .build();
        let group = client
            .create_deployment_group()
            .application_name("shop")
            .deployment_group_name(name);
        let group = group.service_role_arn("arn:aws:iam::123456789012:role/cd");
        group
            .on_premises_instance_tag_filters(filter)
            .send()
            .await
            .unwrap();
        let group = name.to_owned();
        let deployment = Self::deploy(client, &group).await;
        let command = agent.poll().await.unwrap();
        agent.acknowledge(&command).await;
        Busy {
            group,
            agent,
            command,
            deployment,
        }
    }

    async fn deploy(client: &Client, group: &str) -> String {
        let request = client
            .create_deployment()
            .application_name("shop")
            .deployment_group_name(group);
        let output = request
            .revision(shop::revision("app.zip"))
            .send()
            .await
            .unwrap();
        output.deployment_id().unwrap().to_owned()
    }

    fn damage(&self, database: &rusqlite::Connection, table: &str, column: &str, value: &str) {
        let id = if table == "deployments" {
            "id"
        } else {
            "deployment_id"
        };
        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {id} = ?2");
        assert!(
            database.execute(&sql, (value, &self.deployment)).unwrap() > 0,
            "{sql}"
        );
    }
}

#[tokio::test]
async fn a_damaged_record_of_a_deployment_is_a_problem_of_that_deployment() {
    let damages = [
        ("deployments", "progress", "{"),
        ("deployments", "progress", "null"),
        ("deployments", "progress", r#"{"status":"Ended"}"#),
        ("deployments", "rules", "[]"),
        ("deployments", "rules", r#"{"minimum_healthy":3}"#),
        ("deployments", "snapshot", ""),
        ("deployments", "snapshot", "[1]"),
        ("deployments", "relations", "\u{1}"),
        ("deployments", "status", "Bogus"),
        ("deployments", "status", "Succeeded"),
        ("targets", "events", "{"),
        ("targets", "events", "[]"),
        ("targets", "class", "odd"),
    ];
    let mut controller = Controller::start("timers: {poll: 1, lease: 60, pick_up: 300}");
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let client = controller.client_with(&key);
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let mut hosts = Vec::new();
    for number in 0..damages.len() {
        hosts.push(Busy::new(&controller, &client, &format!("box{number}")).await);
    }
    let well = Busy::new(&controller, &client, "well").await;
    let alive = Busy::new(&controller, &client, "alive").await;
    controller.crash_while(|data| {
        let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
        for (host, (table, column, value)) in hosts.iter().zip(damages) {
            host.damage(&database, table, column, value);
        }
    });
    let client = controller.client_with(&key);
    for (host, damage) in hosts.iter().zip(damages) {
        let agent = Agent {
            address: controller.address,
            ..host.agent.clone()
        };
        // The outcome is accepted, whatever is known of the deployment.
        agent.succeed(&host.command).await;
        let info = shop::ended(&client, &host.deployment).await;
        assert_eq!(info.status(), Some(&DeploymentStatus::Failed), "{damage:?}");
        let error = info.error_information().unwrap();
        assert_eq!(error.code(), Some(&ErrorCode::InternalError), "{damage:?}");
        assert!(
            error.message().unwrap().contains("is damaged"),
            "{damage:?}: {error:?}"
        );
        let target = shop::target(&client, &host.deployment, &host.group).await;
        assert!(
            target.status().is_some() && !target.lifecycle_events().is_empty(),
            "{damage:?}"
        );
        let stop = client
            .stop_deployment()
            .deployment_id(&host.deployment)
            .send()
            .await;
        let stop = stop.unwrap_err().into_service_error();
        assert!(
            stop.is_deployment_already_completed_exception(),
            "{damage:?}: {:?}",
            stop.message()
        );
        let lines = controller
            .logged("the record of a deployment is damaged: it was set aside, and has failed");
        let lines = lines
            .iter()
            .filter(|line| line["deployment_id"] == host.deployment.as_str());
        assert_eq!(lines.count(), 1, "{damage:?} is told once");
    }
    let failures = controller.logged("a deployment could not be decided about; trying again");
    assert!(failures.is_empty(), "{failures:?}");
    // The group and its host are free for another, and the group can be deleted.
    let again = Agent {
        address: controller.address,
        ..hosts[0].agent.clone()
    };
    let second = Busy::deploy(&client, &hosts[0].group).await;
    again.run_to("ValidateService").await;
    assert_eq!(
        shop::ended(&client, &second).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    for host in &hosts {
        let delete = client.delete_deployment_group().application_name("shop");
        delete
            .deployment_group_name(&host.group)
            .send()
            .await
            .unwrap();
    }
    // Other deployments continue where they were.
    let agent = Agent {
        address: controller.address,
        ..well.agent.clone()
    };
    agent.succeed(&well.command).await;
    agent.run_to("ValidateService").await;
    assert_eq!(
        shop::ended(&client, &well.deployment).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );

    // Damage while the service runs is noticed when the record is read.
    let database =
        rusqlite::Connection::open(controller.data().join("codedeploy.sqlite3")).unwrap();
    alive.damage(&database, "deployments", "snapshot", "{");
    let stopped = client
        .stop_deployment()
        .deployment_id(&alive.deployment)
        .send()
        .await
        .unwrap();
    assert!(
        stopped.status_message().unwrap().contains("damaged"),
        "{stopped:?}"
    );
    assert_eq!(
        shop::info(&client, &alive.deployment).await.status(),
        Some(&DeploymentStatus::Failed)
    );
    // For an ended deployment, the readable part is shown.
    alive.damage(&database, "deployments", "relations", "{");
    second_look(&client, &database, &well).await;
}

async fn second_look(client: &Client, database: &rusqlite::Connection, well: &Busy) {
    well.damage(database, "deployments", "progress", "{");
    let info = shop::info(client, &well.deployment).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Succeeded));
    assert!(info.revision().is_some());
    let group = client
        .get_deployment_group()
        .application_name("shop")
        .deployment_group_name("well");
    assert!(
        group
            .send()
            .await
            .unwrap()
            .deployment_group_info()
            .unwrap()
            .last_successful_deployment()
            .is_some()
    );
}

#[tokio::test]
async fn a_deployment_without_its_group_keeps_nobody_from_anything() {
    let mut controller = Controller::start("timers: {poll: 1}");
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let client = controller.client_with(&key);
    client
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let lost = Busy::new(&controller, &client, "box1").await;
    controller.crash_while(|data| {
        let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
        database.pragma_update(None, "foreign_keys", false).unwrap();
        lost.damage(&database, "deployments", "group_id", "nobody");
    });
    let client = controller.client_with(&key);
    let agent = Agent {
        address: controller.address,
        ..lost.agent.clone()
    };
    agent.succeed(&lost.command).await;
    let second = Busy::deploy(&client, "box1").await;
    agent.run_to("ValidateService").await;
    assert_eq!(
        shop::ended(&client, &second).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    let active = client
        .list_deployments()
        .include_only_statuses(DeploymentStatus::InProgress)
        .send()
        .await
        .unwrap();
    assert!(active.deployments().is_empty(), "{active:?}");
}

#[tokio::test]
async fn deployments_are_listed_by_status_page_after_page_the_newest_first() {
    let mut controller = Controller::start(QUICK);
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let client = controller.client_with(&key);
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    let first = shop::deploy(&client, "app.zip").await;
    shop::ended(&client, &first).await;
    controller.crash_while(|data| {
        let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
        let copy = "INSERT INTO deployments
                        (id, sequence, group_id, created, status, progress, rules, snapshot, revision, relations,
                         retire_at)
                    SELECT ?1, ?2 + 1, group_id, created - ?2 / 3, ?3, progress, rules, snapshot, revision, relations, retire_at
                    FROM deployments WHERE id = ?4";
        for number in 1..350 {
            let status = if number % 2 == 0 { "Succeeded" } else { "Stopped" };
            database.execute(copy, (format!("d-{number:09}"), number, status, &first)).unwrap();
        }
    });
    let client = controller.client_with(&key);
    for group in [None, Some("web")] {
        for (statuses, expected) in [
            (&[][..], 350),
            (&[DeploymentStatus::Succeeded][..], 174),
            (
                &[
                    DeploymentStatus::Succeeded,
                    DeploymentStatus::Stopped,
                    DeploymentStatus::Succeeded,
                ][..],
                349,
            ),
            (&[DeploymentStatus::InProgress][..], 0),
        ] {
            let list = client
                .list_deployments()
                .set_application_name(group.map(|_| "shop".into()));
            let list = list.set_deployment_group_name(group.map(Into::into));
            let list = list.set_include_only_statuses(Some(statuses.to_vec()));
            let ids: Vec<String> = list
                .into_paginator()
                .items()
                .send()
                .collect::<Result<_, _>>()
                .await
                .unwrap();
            assert_eq!(ids.len(), expected, "{group:?} {statuses:?}");
            let numbers = ids.iter().filter_map(|id| id[2..].parse::<u32>().ok());
            // Three were made in the same millisecond; the last of them has the highest number.
            let order = numbers
                .map(|number| (number / 3, u32::MAX - number))
                .collect::<Vec<_>>();
            assert!(order.is_sorted(), "{order:?}");
        }
    }
}

fn serve(data: &Path) -> std::process::Command {
    let mut serve = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data);
    serve
}

#[test]
fn a_data_directory_has_one_service_at_a_time() {
    let controller = Controller::start(QUICK);
    let second = serve(&controller.data()).output().unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(
        !second.status.success() && text.contains("a service runs on the data directory"),
        "{text}"
    );
}

#[test]
fn a_damaged_database_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("codedeploy.sqlite3"),
        vec![0xa5; 10_000_000],
    )
    .unwrap();
    let output = serve(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("is damaged") && text.contains("restore"),
        "{text}"
    );
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let data = folder.path().join("data");
    let mut service = serve(&data)
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .spawn()
        .unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    assert_eq!(told(), "READY=1");
    assert!(data.join("address").exists());
    assert!(
        command("kill")
            .arg(service.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(told(), "STOPPING=1");
    assert!(service.wait().unwrap().success());
}
