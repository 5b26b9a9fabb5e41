//! A CI job without stored keys: the aws CLI and boto3 assume a role with the job's identity token,
//! with nothing but environment variables.

use std::path::Path;
use std::process::Output;

use codedeploy_tests::bucket::python_tool;
use codedeploy_tests::issuer::{Issuer, SUBJECT};
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::service::{SETTINGS, Service};
use serde_json::Value;

const ROLE: &str = "arn:aws:iam::123456789012:role/deploy-shop";

/// Runs a Python program with the environment of a CI job.
async fn run(
    service: &Service,
    folder: &Path,
    token: &Path,
    program: &str,
    arguments: &[&str],
) -> Output {
    Program::at(python_tool(program))
        .command(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("AWS_ENDPOINT_URL", &service.endpoint)
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token)
        .env("AWS_ROLE_ARN", ROLE)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_PAGER", "")
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_job_deploys_with_its_identity_token_alone() {
    let issuer = Issuer::new().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("controller");
    std::fs::create_dir(&data).unwrap();
    let settings = format!("s3: {{}}\n{}", issuer.settings());
    std::fs::write(data.join(SETTINGS), settings).unwrap();
    let service = Service::start(&Programs::built(), &data).await;
    for name in ["shop", "blog"] {
        service.create_group(name, "web", ("env", "test")).await;
    }
    let token = issuer.token(SUBJECT).await;
    let token_file = token.clone();
    let succeed = async |program: &str, arguments: &[&str]| {
        let output = run(&service, folder.path(), &token, program, arguments).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    };

    // The clients assume the role themselves.
    let listed = succeed("aws", &["deploy", "list-applications", "--output", "text"]).await;
    assert_eq!(listed.trim(), "APPLICATIONS\tshop");
    let caller: Value =
        serde_json::from_str(&succeed("aws", &["sts", "get-caller-identity"]).await).unwrap();
    let arn = caller["Arn"].as_str().unwrap();
    assert!(
        arn.starts_with("arn:aws:sts::123456789012:assumed-role/deploy-shop/"),
        "{caller}"
    );
    let bundle = folder.path().join("app.zip");
    std::fs::write(&bundle, "a bundle").unwrap();
    let bundle = bundle.to_str().unwrap();
    let object = "s3://revisions/shop/app.zip";
    succeed("aws", &["s3", "cp", bundle, object]).await;
    let script =
        "import boto3; print(boto3.client('codedeploy').list_applications()['applications'])";
    assert_eq!(succeed("python3", &["-c", script]).await, "['shop']\n");

    // What the role may not do is denied.
    for arguments in [
        &["s3", "cp", bundle, "s3://revisions/blog/app.zip"][..],
        &["deploy", "get-application", "--application-name", "blog"],
    ] {
        let output = run(&service, folder.path(), &token, "aws", arguments).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("AccessDenied"), "{told}");
    }

    // The command of scripts, and of the action for GitHub's workflows.
    let text = std::fs::read_to_string(&token).unwrap();
    let assume = |token: &str| {
        let arguments = [
            "sts",
            "assume-role-with-web-identity",
            "--role-arn",
            ROLE,
            "--role-session-name",
            "GitHubActions",
            "--duration-seconds",
            "900",
            "--web-identity-token",
            token,
        ];
        arguments.map(str::to_owned)
    };
    let arguments = assume(&text);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let assumed: Value = serde_json::from_str(&succeed("aws", &arguments).await).unwrap();
    assert_eq!(assumed["SubjectFromWebIdentityToken"], SUBJECT);
    assert!(
        assumed["Credentials"]["SessionToken"].is_string(),
        "{assumed}"
    );

    // The CLI reads the errors.
    let foreign = issuer.token("repo:acme/other:ref:refs/heads/main").await;
    let foreign = std::fs::read_to_string(foreign).unwrap();
    for (token, code) in [
        (foreign.as_str(), "AccessDenied"),
        ("not.a.token", "InvalidIdentityToken"),
    ] {
        let arguments = assume(token);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(&service, folder.path(), &token_file, "aws", &arguments).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("({code})")), "{told}");
    }
    service.stop().await;
}
