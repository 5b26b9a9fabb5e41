//! The commands of the data directory's administrator, and how the program starts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use support::{Controller, QUICK, command};

fn run(args: &[&str]) -> (bool, String, String) {
    let output = command(env!("CARGO_BIN_EXE_codedeploy-controller")).args(args).output().unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn adding_a_host_prints_the_two_files_it_needs() {
    let controller = Controller::start(QUICK);
    let output = controller.admin(&["host", "add", "box1", "--tag", "env=prod", "--tag", "note=a=b"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let signer = String::from_utf8(controller.admin(&["signer"]).stdout).unwrap();
    let pin = signer.lines().last().unwrap().strip_prefix("deployment_signer_pin: ").unwrap();
    for expected in [
        "region: us-east-1\n".to_owned(),
        "iam_user_arn: arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1\n".to_owned(),
        "aws_access_key_id: AKIA".to_owned(),
        "aws_secret_access_key: ".to_owned(),
        format!(":deploy_control_endpoint: \"http://{}\"\n", controller.address),
        format!(":deployment_signer_pin: \"{pin}\"\n"),
    ] {
        assert!(text.contains(&expected), "{expected} is missing from {text}");
    }
    // The running service knows the host at once.
    let client = controller.client("operator");
    let found = client.get_on_premises_instance().instance_name("box1").send().await.unwrap();
    let tags = found.instance_info().unwrap().tags();
    assert_eq!(tags.iter().filter_map(|tag| tag.value()).collect::<Vec<_>>(), ["prod", "a=b"]);
    let again = controller.admin(&["host", "add", "box1"]);
    assert!(!again.status.success());
    assert!(String::from_utf8(again.stderr).unwrap().contains("already registered"));
    let untagged = controller.admin(&["host", "add", "box2", "--tag", "env"]);
    assert!(String::from_utf8(untagged.stderr).unwrap().contains("expected key=value"));
}

#[tokio::test]
async fn a_host_that_is_added_again_has_its_new_key_alone() {
    let controller = Controller::start("timers: {poll: 0.05}");
    let before = controller.host("box1", &[]);
    let client = controller.client("operator");
    client.deregister_on_premises_instance().instance_name("box1").send().await.unwrap();
    let after = controller.host("box1", &[]);
    let input = || json!({"HostIdentifier": before.identifier});
    let (status, answer) = before.call("PollHostCommand", input()).await;
    assert_eq!((status, &answer["__type"]), (400, &json!("UnrecognizedClientException")));
    assert_eq!(after.call("PollHostCommand", input()).await, (200, json!({})));
}

#[test]
fn the_data_directory_is_its_owners_alone_and_says_the_address() {
    let controller = Controller::start(QUICK);
    let data = controller.folder.path().join("data");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let database = ["codedeploy.sqlite3", "codedeploy.sqlite3-wal", "codedeploy.sqlite3-shm"];
    for file in ["master.key", "signer-key.der"].into_iter().chain(database) {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    let address = std::fs::read_to_string(data.join("address")).unwrap();
    assert_eq!(address.trim(), controller.address.to_string());
}

#[test]
fn plain_http_to_other_hosts_is_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (ok, _, stderr) = run(&["serve", "--listen", "0.0.0.0:0", "--data-dir", data.to_str().unwrap()]);
    assert!(!ok && stderr.contains("--insecure-http") && stderr.contains("tls.self_signed"), "{stderr}");
    assert!(!data.exists());
}

#[test]
fn mistakes_on_the_command_line_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    for (args, expected) in [
        (vec!["host", "add", "box1", "--data-dir", data], "give --endpoint"),
        (vec!["credentials", "create", "--role", "host", "--data-dir", data], "--user-arn"),
        (
            vec!["credentials", "create", "--role", "operator", "--user-arn", "me", "--data-dir", data],
            "not an IAM user ARN",
        ),
        (vec!["host", "add", "box1", "--endpoint", "box:7080", "--data-dir", data], "not a URL"),
        (
            vec!["host", "add", "i-0123", "--endpoint", "http://10.0.0.5", "--data-dir", data],
            "must not start with i-",
        ),
        (vec!["serve", "--region", "../x", "--data-dir", data], "not a region name"),
        (vec!["deploy"], "unrecognized subcommand"),
    ] {
        let (ok, _, stderr) = run(&args);
        assert!(!ok && stderr.contains(expected), "{args:?}: {stderr}");
    }
}
