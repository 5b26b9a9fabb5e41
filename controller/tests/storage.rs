//! The data directory over time: schemas of earlier versions, backups, one service at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use aws_sdk_codedeploy::types::DeploymentStatus;
use serde_json::json;
use support::{Controller, QUICK, command, eventually};

/// What every version of the schema left: the same application, deployments, host and operator.
const SCHEMAS: [&str; 1] = [include_str!("schemas/v1.sql")];

/// The key file and the operator's access key of those databases.
const MASTER_KEY: &str = "87a364a650d05c091595e062f65ff1a85e89e313f3aacc37dd9730b6e4bf9faa";
const OPERATOR: (&str, &str) = ("AKIAZF5UU6VLC6V7JRWP", "FZzz9ExzVhY3cSTqGI1JIFm0rRLZccgOf4OgydZV");

#[tokio::test]
async fn databases_of_every_earlier_schema_go_on() {
    for (schema, number) in SCHEMAS.into_iter().zip(1..) {
        assert!(schema.contains(&format!("user_version = {number};")));
        let controller = Controller::start_on("timers: {pick_up: 0.5}", |data| {
            std::fs::write(data.join("master.key"), hex::decode(MASTER_KEY).unwrap()).unwrap();
            let signer =
                rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
            std::fs::write(data.join("signer-key.der"), signer.serialize_der()).unwrap();
            let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
            database.execute_batch(schema).unwrap();
        });
        let (id, secret) = OPERATOR;
        let client = controller.client_with(&json!({"access_key_id": id, "secret_access_key": secret}));
        let found = client.get_application().application_name("shop").send().await.unwrap();
        assert_eq!(found.application().unwrap().application_name(), Some("shop"));
        let host = client.get_on_premises_instance().instance_name("box1").send().await.unwrap();
        assert_eq!(host.instance_info().unwrap().tags()[0].value(), Some("prod"));
        let deployments = client.list_deployments().send().await.unwrap();
        assert_eq!(deployments.deployments(), ["d-S4PPINKI8", "d-TEREFL8Z0"]);
        let ended = client.get_deployment().deployment_id("d-TEREFL8Z0").send().await.unwrap();
        assert_eq!(ended.deployment_info().unwrap().status(), Some(&DeploymentStatus::Failed));
        // The active one goes on: nobody takes its command.
        eventually("the end of the deployment", async || {
            let found = client.get_deployment().deployment_id("d-S4PPINKI8").send().await.unwrap();
            (found.deployment_info()?.status()? == &DeploymentStatus::Failed).then_some(())
        })
        .await;
        client.create_application().application_name("another").send().await.unwrap();
        // What it was is kept, for the version that wrote it.
        let copies = std::fs::read_dir(controller.data()).unwrap().map(|entry| entry.unwrap().path());
        let mut copies = copies.filter(|path| path.to_str().unwrap().contains("codedeploy.before-v"));
        let (copy, None) = (copies.next().expect("a copy"), copies.next()) else { panic!("one copy") };
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
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
    client.create_application().application_name("before").send().await.unwrap();
    let file = controller.folder.path().join("backup.sqlite3");
    let file = file.to_str().unwrap();
    let admin = |controller: &Controller, args: &[&str]| {
        let output = controller.admin(args);
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (ok, text) = admin(&controller, &["backup", file]);
    assert!(ok && text.contains("master.key"), "{text}");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
    let (ok, text) = admin(&controller, &["backup", file]);
    assert!(!ok && text.contains("exists already"), "{text}");
    let (ok, text) = admin(&controller, &["backup", "/nowhere/file"]);
    assert!(!ok && text.contains("cannot write /nowhere/file"), "{text}");
    client.create_application().application_name("after").send().await.unwrap();

    let (ok, text) = admin(&controller, &["restore", file]);
    assert!(!ok && text.contains("stop it first"), "{text}");
    controller.terminate();
    let noise = controller.folder.path().join("noise");
    let noise = noise.to_str().unwrap();
    for (content, expected) in [
        (&b"not a database, whatever its length"[..], "not a database"),
        (b"", "schema version 0"),
        (&std::fs::read(file).unwrap()[..8192], "malformed"),
    ] {
        std::fs::write(noise, content).unwrap();
        let (ok, text) = admin(&controller, &["restore", noise]);
        assert!(!ok && text.contains(noise) && text.contains(expected), "{expected}: {text}");
    }
    let (ok, text) = admin(&controller, &["restore", file]);
    assert!(ok && text.contains("before-restore"), "{text}");
    controller.start_again();
    let names = async |controller: &Controller| {
        let found = controller.client("operator").list_applications().send().await.unwrap();
        found.applications().to_vec()
    };
    assert_eq!(names(&controller).await, ["before"]);

    // What was there before the restore can be put back as well.
    controller.terminate();
    let before = controller.data().join("codedeploy.before-restore");
    assert!(admin(&controller, &["restore", before.to_str().unwrap()]).0);
    controller.start_again();
    assert_eq!(names(&controller).await, ["after", "before"]);
}

fn serve(data: &Path) -> std::process::Command {
    let mut serve = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    serve
}

#[test]
fn a_data_directory_has_one_service_at_a_time() {
    let controller = Controller::start(QUICK);
    let second = serve(&controller.data()).output().unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && text.contains("a service runs on the data directory"), "{text}");
}

#[test]
fn a_damaged_database_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("codedeploy.sqlite3"), vec![0xa5; 10_000_000]).unwrap();
    let output = serve(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("is damaged") && text.contains("restore"), "{text}");
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let data = folder.path().join("data");
    let mut service = serve(&data).env("NOTIFY_SOCKET", folder.path().join("notify")).spawn().unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    assert_eq!(told(), "READY=1");
    assert!(data.join("address").exists());
    assert!(command("kill").arg(service.id().to_string()).status().unwrap().success());
    assert_eq!(told(), "STOPPING=1");
    assert!(service.wait().unwrap().success());
}
