//! The pipelines in `examples/pipelines`: their steps run as the scripts that they are, in a checkout of their own.

use std::path::{Path, PathBuf};
use std::process::Output;

use codedeploy_tests::bucket::python_tool;
use codedeploy_tests::bundle;
use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::issuer::{AUDIENCE, Issuer, SUBJECT};
use codedeploy_tests::programs::Program;
use serde_yaml::Value;

use crate::pages::{read, repository};

const ENDPOINT: &str = "https://deploy.example.com:7080";

/// Collects the texts below the keys `names`, in their order.
fn texts(document: &Value, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(document, false)];
    while let Some((value, wanted)) = open.pop() {
        match value {
            Value::Mapping(entries) => {
                let mut entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| {
                        (value, key.as_str().is_some_and(|key| names.contains(&key)))
                    })
                    .collect();
                entries.reverse();
                open.append(&mut entries);
            }
            Value::Sequence(items) => open.extend(items.iter().rev().map(|item| (item, wanted))),
            Value::String(text) if wanted => found.push(text.clone()),
            _ => {}
        }
    }
    found
}

/// The shell lines of a pipeline.
fn steps(name: &str) -> Vec<String> {
    let text = read(&Path::new("examples/pipelines").join(name));
    assert!(text.contains(ENDPOINT), "{name} names no controller");
    let steps: Vec<String> = if name == "Jenkinsfile" {
        text.split("'''")
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    } else {
        texts(&serde_yaml::from_str(&text).unwrap(), &["run", "script"])
    };
    assert!(steps.len() >= 2, "{name} has these steps: {steps:?}");
    steps
}

/// A repository with an application, and `deploy.sh` as the pipelines expect it.
fn checkout(fleet: &Fleet, name: &str, validate: &str) -> PathBuf {
    let folder = fleet.path(name);
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: {}\nfile_exists_behavior: OVERWRITE\n\
         hooks:\n  ValidateService:\n    - location: scripts/validate.sh\n",
        fleet.path("www").display()
    );
    bundle::write(
        &folder,
        &[
            ("appspec.yml", &appspec),
            ("scripts/validate.sh", validate),
            ("site/index.html", name),
        ],
    );
    std::fs::copy(
        repository().join("examples/pipelines/deploy.sh"),
        folder.join("deploy.sh"),
    )
    .unwrap();
    folder
}

/// The variables with which a pipeline authenticates.
type Access = Vec<(&'static str, String)>;

/// A stored key.
fn stored_key(fleet: &Fleet) -> Access {
    let keys = &fleet.service.operator;
    vec![
        ("AWS_ACCESS_KEY_ID", keys.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.clone()),
    ]
}

/// The key that the step before gets for a job of GitHub: it assumes the role in its settings.
async fn github_key(fleet: &Fleet, issuer: &Issuer, checkout: &Path) -> Access {
    let text = read(Path::new("examples/pipelines/github-actions.yml"));
    let roles = texts(
        &serde_yaml::from_str(&text).unwrap(),
        &["role-to-assume", "audience"],
    );
    let [role, audience] = roles.as_slice() else {
        panic!("the workflow assumes {roles:?}");
    };
    assert_eq!(audience, AUDIENCE);
    let token = std::fs::read_to_string(issuer.token(SUBJECT).await).unwrap();
    let line = format!(
        "aws sts assume-role-with-web-identity --role-arn {role} --role-session-name GitHubActions \
         --web-identity-token {token} --output text --query \
         'Credentials.[AccessKeyId, SecretAccessKey, SessionToken]'"
    );
    let output = run(fleet, checkout, &Vec::new(), &line).await;
    assert!(output.status.success(), "{output:?}");
    let key = String::from_utf8(output.stdout).unwrap();
    let names = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ];
    names
        .into_iter()
        .zip(key.split_whitespace().map(str::to_owned))
        .collect()
}

/// The token of a job of GitLab, and the role in its settings.
async fn gitlab_token(issuer: &Issuer) -> Access {
    let text = read(Path::new("examples/pipelines/gitlab-ci.yml"));
    let settings = texts(
        &serde_yaml::from_str(&text).unwrap(),
        &["aud", "AWS_ROLE_ARN"],
    );
    let [audience, role] = settings.as_slice() else {
        panic!("the pipeline assumes {settings:?}");
    };
    assert_eq!(audience, AUDIENCE);
    let token = std::fs::read_to_string(issuer.token(SUBJECT).await).unwrap();
    vec![("CODEDEPLOY_TOKEN", token), ("AWS_ROLE_ARN", role.clone())]
}

/// Runs shell lines as a pipeline does: in the checkout, with its variables, until one fails.
async fn run(fleet: &Fleet, folder: &Path, access: &Access, lines: &str) -> Output {
    let aws = python_tool("aws");
    let path = format!("{}:/usr/bin:/bin", aws.parent().unwrap().display());
    Program::at("/bin/bash")
        .command(["-e", "-c", lines])
        .current_dir(folder)
        .env_clear()
        .env("PATH", path)
        .env("HOME", fleet.path("nobody"))
        .env("TMPDIR", fleet.path(""))
        .env("AWS_ENDPOINT_URL", &fleet.service.endpoint)
        .env("AWS_ENDPOINT_URL_S3", &fleet.bucket.endpoint)
        .envs(access.iter().map(|(name, value)| (*name, value)))
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_PAGER", "")
        .env("INTERVAL", "0.2")
        .env("GITHUB_SHA", "1f0c")
        .env("CI_COMMIT_SHA", "2f0c")
        .env("GIT_COMMIT", "3f0c")
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn each_pipeline_deploys_a_checkout_and_says_why_a_deployment_fails() {
    let issuer = Issuer::new().await;
    let fleet = Fleet::start_with(1, "", |_| issuer.settings()).await;
    for (name, commit) in [
        ("github-actions.yml", "1f0c"),
        ("gitlab-ci.yml", "2f0c"),
        ("Jenkinsfile", "3f0c"),
    ] {
        let folder = checkout(&fleet, name, "#!/bin/sh\ntrue\n");
        let access = match name {
            "github-actions.yml" => github_key(&fleet, &issuer, &folder).await,
            "gitlab-ci.yml" => gitlab_token(&issuer).await,
            _ => stored_key(&fleet),
        };
        let output = run(&fleet, &folder, &access, &steps(name).join("\n")).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(
            said.contains(&format!("deploys {commit}")) && said.ends_with("is Succeeded\n"),
            "{name}: {said}"
        );
        let page = std::fs::read_to_string(fleet.path("www/index.html")).unwrap();
        assert_eq!(page, name);
    }
    let folder = checkout(&fleet, "broken", "#!/bin/sh\necho no database\nexit 3\n");
    let key = stored_key(&fleet);
    let output = run(
        &fleet,
        &folder,
        &key,
        &steps("github-actions.yml").join("\n"),
    )
    .await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for expected in [
        "--- box1",
        "ValidateService",
        "scripts/validate.sh",
        "no database",
    ] {
        assert!(told.contains(expected), "{expected} is not in {told}");
    }
    fleet.stop().await;
}

#[tokio::test]
async fn the_files_for_terraform_can_be_read() {
    let folder = repository().join("examples/terraform");
    let parse = "import hcl2, sys\nfor name in sys.argv[1:]: hcl2.load(open(name))";
    let files = ["main.tf", "variables.tf", "outputs.tf"].map(|name| folder.join(name));
    let mut command = Program::at(python_tool("python")).command(["-c", parse]);
    let output = command.args(files).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}
