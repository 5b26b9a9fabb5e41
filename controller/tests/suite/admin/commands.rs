//! The commands of the data directory's administrator, and the program's start.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::support::{Controller, QUICK, command, eventually};

fn run(args: &[&str]) -> (bool, String, String) {
    let output = command(env!("CARGO_BIN_EXE_codedeploy-controller"))
        .args(args)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn adding_a_host_prints_the_two_files_it_needs() {
    let controller = Controller::start(QUICK);
    let output = controller.admin(&[
        "host", "add", "box1", "--tag", "env=prod", "--tag", "note=a=b",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    let signer = String::from_utf8(controller.admin(&["signer"]).stdout).unwrap();
    let pin = signer
        .lines()
        .last()
        .unwrap()
        .strip_prefix("deployment_signer_pin: ")
        .unwrap();
    for expected in [
        "region: us-east-1\n".to_owned(),
        "iam_user_arn: arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1\n".to_owned(),
        "aws_access_key_id: AKIA".to_owned(),
        "aws_secret_access_key: ".to_owned(),
        format!(
            ":deploy_control_endpoint: \"http://{}\"\n",
            controller.address
        ),
        format!(":deployment_signer_pin: \"{pin}\"\n"),
    ] {
        assert!(
            text.contains(&expected),
            "{expected} is missing from {text}"
        );
    }
    // The running service sees the host at once.
    let client = controller.client("operator");
    let found = client
        .get_on_premises_instance()
        .instance_name("box1")
        .send()
        .await
        .unwrap();
    let tags = found.instance_info().unwrap().tags();
    assert_eq!(
        tags.iter()
            .filter_map(|tag| tag.value())
            .collect::<Vec<_>>(),
        ["prod", "a=b"]
    );
    let again = controller.admin(&["host", "add", "box1"]);
    assert!(!again.status.success());
    assert!(
        String::from_utf8(again.stderr)
            .unwrap()
            .contains("already registered")
    );
    let untagged = controller.admin(&["host", "add", "box2", "--tag", "env"]);
    assert!(
        String::from_utf8(untagged.stderr)
            .unwrap()
            .contains("expected key=value")
    );
}

#[tokio::test]
async fn a_host_that_is_added_again_has_its_new_key_alone() {
    let controller = Controller::start("timers: {poll: 0.05}");
    let before = controller.host("box1", &[]);
    let client = controller.client("operator");
    client
        .deregister_on_premises_instance()
        .instance_name("box1")
        .send()
        .await
        .unwrap();
    let after = controller.host("box1", &[]);
    let input = || json!({"HostIdentifier": before.identifier});
    let (status, answer) = before.call("PollHostCommand", input()).await;
    assert_eq!(
        (status, &answer["__type"]),
        (400, &json!("UnrecognizedClientException"))
    );
    assert_eq!(
        after.call("PollHostCommand", input()).await,
        (200, json!({}))
    );
}

#[test]
fn the_data_directory_is_its_owners_alone_and_says_the_address() {
    let controller = Controller::start(QUICK);
    let data = controller.folder.path().join("data");
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let database = [
        "codedeploy.sqlite3",
        "codedeploy.sqlite3-wal",
        "codedeploy.sqlite3-shm",
    ];
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
    let (ok, _, stderr) = run(&[
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert!(
        !ok && stderr.contains("--insecure-http") && stderr.contains("tls.self_signed"),
        "{stderr}"
    );
    assert!(!data.exists());
}

#[test]
fn mistakes_on_the_command_line_say_what_to_do() {
    let controller = Controller::start(QUICK);
    let data = controller.data();
    std::fs::remove_file(data.join("service.json")).unwrap();
    let data = data.to_str().unwrap();
    for (args, expected) in [
        (
            vec!["host", "add", "box1", "--data-dir", data],
            "give --endpoint",
        ),
        (
            vec![
                "credentials",
                "create",
                "--role",
                "host",
                "--data-dir",
                data,
            ],
            "--user-arn",
        ),
        (
            vec![
                "credentials",
                "create",
                "--role",
                "operator",
                "--user-arn",
                "me",
                "--data-dir",
                data,
            ],
            "not an IAM user ARN",
        ),
        (
            vec![
                "host",
                "add",
                "box1",
                "--endpoint",
                "box:7080",
                "--data-dir",
                data,
            ],
            "not a URL",
        ),
        (
            vec![
                "host",
                "add",
                "i-0123",
                "--endpoint",
                "http://10.0.0.5",
                "--data-dir",
                data,
            ],
            "starts with i-",
        ),
        (
            vec!["serve", "--region", "../x", "--data-dir", data],
            "not a region name",
        ),
        (vec!["launch"], "unrecognized subcommand"),
    ] {
        let (ok, _, stderr) = run(&args);
        assert!(!ok && stderr.contains(expected), "{args:?}: {stderr}");
    }
}

/// Runs the program with its own standard output; returns its exit code and its error output.
fn run_into(out: impl Into<Stdio>, args: &[&str], data: &Path) -> (Option<i32>, String) {
    let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    let output = program
        .args(args)
        .arg("--data-dir")
        .arg(data)
        .stdout(out)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// The write end of a pipe without a reader.
fn nobody_reads() -> io::PipeWriter {
    io::pipe().unwrap().1
}

fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_secret_that_nobody_has_seen_was_not_made() {
    let controller = Controller::start(QUICK);
    let data = &controller.data();
    let create = ["credentials", "create", "--role", "operator"];
    let host = ["host", "add", "box1", "--endpoint", "http://127.0.0.1:1"];
    for args in [
        &create[..],
        &[&create[..], &["--json"]].concat(),
        &host,
        &[&host[..], &["--json"]].concat(),
    ] {
        let refused = |(code, text): (Option<i32>, String), expected: &str| {
            assert_eq!(code, Some(1), "{args:?}: {text}");
            assert!(
                text.contains("nothing was made") && text.contains(expected),
                "{args:?}: {text}"
            );
        };
        refused(run_into(nobody_reads(), args, data), "Broken pipe");
        refused(run_into(full_disk(), args, data), "No space left");
        refused(run_into(Stdio::null(), args, data), "/dev/null");
        // As `>&-` does.
        let mut shell = command("sh");
        shell.args([
            "-c",
            "exec \"$@\" >&-",
            "sh",
            env!("CARGO_BIN_EXE_codedeploy-controller"),
        ]);
        let output = shell
            .args(args)
            .arg("--data-dir")
            .arg(data)
            .output()
            .unwrap();
        refused(
            (
                output.status.code(),
                String::from_utf8(output.stderr).unwrap(),
            ),
            "is closed",
        );
    }
    let list = [
        "credentials",
        "list",
        "--json",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    assert_eq!(run(&list).1, "[]\n");
    let (ok, shown, stderr) = run(&[&host[..], &["--data-dir", data.to_str().unwrap()]].concat());
    assert!(ok && shown.contains("aws_secret_access_key: "), "{stderr}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure_and_a_full_disk_is_one() {
    let controller = Controller::start(QUICK);
    controller.client("operator");
    for args in [
        &["credentials", "list"][..],
        &["credentials", "list", "--json"],
        &["signer"],
    ] {
        let (code, text) = run_into(nobody_reads(), args, &controller.data());
        assert_eq!((code, text.as_str()), (Some(0), ""), "{args:?}");
        let (code, text) = run_into(full_disk(), args, &controller.data());
        assert_eq!(code, Some(1), "{args:?}");
        assert!(
            text.contains("cannot write to the standard output: No space left"),
            "{text}"
        );
    }
    let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    program
        .args(["credentials", "revoke", "AKIANOBODY", "--data-dir"])
        .arg(controller.data());
    assert_eq!(
        program.stderr(nobody_reads()).status().unwrap().code(),
        Some(1)
    );
}

#[tokio::test]
async fn a_service_whose_log_cannot_be_written_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    service
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path());
    let mut service = service.stderr(full_disk()).spawn().unwrap();
    let ready = || {
        std::fs::read_to_string(folder.path().join("address"))
            .is_ok_and(|text| text.ends_with('\n'))
    };
    eventually("the address, or an end", async || {
        (ready() || service.try_wait().unwrap().is_some()).then_some(())
    })
    .await;
    assert!(ready(), "{:?}", service.try_wait());
    assert!(
        command("kill")
            .arg(service.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(service.wait().unwrap().code(), Some(0));
}
