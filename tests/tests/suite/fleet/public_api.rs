//! The public API for its clients: the aws CLI line by line, and boto3 against AWS's own model of
//! the service.
//!
//! The cases are Python in `public_api/`, where the CLI and boto3 live. Both are real and
//! unmodified, and every response that they get is checked against the model too (`world.py`).

use std::path::Path;

use codedeploy_tests::bucket::python_tool;
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::service::{SETTINGS, Service};

/// Runs a script of `public_api/` against a controller of its own, with `settings`.
async fn run(script: &str, arguments: &[&str], settings: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("controller");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join(SETTINGS), settings).unwrap();
    let programs = Programs::built();
    let service = Service::start(&programs, &data).await;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/fleet/public_api");
    let mut command = Program::at(python_tool("python")).command([scripts.join(script)]);
    let output = command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("AWS_ENDPOINT_URL_CODEDEPLOY", &service.endpoint)
        .env("AWS_ACCESS_KEY_ID", &service.operator.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &service.operator.secret_access_key)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_PAGER", "")
        .env(
            "CONTROLLER",
            programs
                .controller
                .command::<&str>([])
                .as_std()
                .get_program(),
        )
        .env("CONTROLLER_DATA", &service.data)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{script} {arguments:?}:\n{}",
        String::from_utf8_lossy(&said)
    );
    service.stop().await;
}

#[tokio::test]
async fn what_operators_declare_with_the_aws_cli() {
    run("declared.py", &[], "").await;
}

#[tokio::test]
async fn deployments_with_the_aws_cli() {
    let cases = [
        "one_host",
        "nobody",
        "two_hosts",
        "rollback",
        "every_form_of_filter",
        "ten_hosts",
    ];
    run("deployed.py", &cases, "").await;
}

#[tokio::test]
async fn a_deployment_to_a_host_without_an_agent() {
    run("deployed.py", &["silence"], "timers: {pick_up: 1}").await;
}

#[tokio::test]
async fn every_operation_is_as_the_model_of_aws_says() {
    run("models.py", &["json"], "").await;
}

#[tokio::test]
async fn every_operation_is_as_the_model_of_aws_says_in_cbor() {
    run("models.py", &["smithy-rpc-v2-cbor"], "").await;
}

#[tokio::test]
async fn clients_are_told_the_same_by_either_protocol() {
    run("protocols.py", &[], "").await;
}
