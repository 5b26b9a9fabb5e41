//! The pipelines in `examples/pipelines`: their steps run as the scripts that they are, in a checkout of their own.

use std::path::{Path, PathBuf};
use std::process::Output;

use codedeploy_tests::bucket::python_tool;
use codedeploy_tests::bundle;
use codedeploy_tests::fleet::Fleet;
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

/// Runs shell lines as a pipeline does: in the checkout, with its variables, until one fails.
async fn run(fleet: &Fleet, folder: &Path, lines: &str) -> Output {
    let aws = python_tool("aws");
    let path = format!("{}:/usr/bin:/bin", aws.parent().unwrap().display());
    let keys = &fleet.service.operator;
    Program::at("/bin/bash")
        .command(["-e", "-c", lines])
        .current_dir(folder)
        .env_clear()
        .env("PATH", path)
        .env("HOME", fleet.path("nobody"))
        .env("AWS_ENDPOINT_URL", &fleet.service.endpoint)
        .env("AWS_ENDPOINT_URL_S3", &fleet.bucket.endpoint)
        .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
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
    let fleet = Fleet::start(1, "").await;
    for (name, commit) in [
        ("github-actions.yml", "1f0c"),
        ("gitlab-ci.yml", "2f0c"),
        ("Jenkinsfile", "3f0c"),
    ] {
        let folder = checkout(&fleet, name, "#!/bin/sh\ntrue\n");
        let output = run(&fleet, &folder, &steps(name).join("\n")).await;
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
    let output = run(&fleet, &folder, &steps("github-actions.yml").join("\n")).await;
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
