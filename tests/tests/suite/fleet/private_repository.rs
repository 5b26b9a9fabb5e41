//! A revision in a private repository on GitHub: the controller keeps the token, and the host
//! fetches with it.

use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::{GitHubLocation, RevisionLocation, RevisionLocationType};
use codedeploy_tests::bundle;
use codedeploy_tests::fleet::{APPLICATION, Fleet};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::s3_stub::{Reply, S3Stub};

const SECRET: &str = "ghp_TheSecretOfOcto0123456789";

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files
}

/// Runs `codedeploy-controller github-token` on the fleet's service.
async fn github_token(fleet: &Fleet, arguments: &[&str], input: &str) {
    let file = fleet.path("input");
    std::fs::write(&file, input).unwrap();
    let mut command = Programs::built().controller.command(["github-token"]);
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(&fleet.service.data);
    let output = command
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .await
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn it_is_deployed_where_the_application_is_linked_to_a_token_and_the_token_is_left_nowhere() {
    let source = tempfile::tempdir().unwrap();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: env.sh\n";
    bundle::write(
        source.path(),
        &[("appspec.yml", appspec), ("env.sh", "#!/bin/sh\nenv\n")],
    );
    let archive = bundle::tgz(source.path());
    // GitHub reports a private repository as missing to callers without access.
    let github = S3Stub::serve(move |_, request| match request.header("authorization") {
        Some(word) if word == format!("token {SECRET}") => Reply::new(200, archive.clone()),
        _ => Reply::error(404, "NotFound"),
    })
    .await;
    let lines = format!(
        "verbose: true\nlog_aws_wire: true\ngithub_endpoint: {}\n",
        github.endpoint
    );
    let fleet = Fleet::start(1, &lines).await;
    let location = GitHubLocation::builder()
        .repository("octo/shop")
        .commit_id("0123456789".repeat(4))
        .build();
    let revision = RevisionLocation::builder()
        .revision_type(RevisionLocationType::GitHub)
        .git_hub_location(location)
        .build();

    let anonymous = fleet.outcome(&fleet.create(revision.clone()).await).await;
    assert_eq!(anonymous.status(), "Failed");
    let diagnostics = anonymous.failed_event().diagnostics.clone().unwrap();
    let told = diagnostics.message.unwrap();
    assert!(
        told.contains("a private repository needs a token, and there was none"),
        "{told}"
    );

    github_token(
        &fleet,
        &[
            "add",
            "deploy",
            "--account",
            "octo",
            "--application",
            APPLICATION,
        ],
        SECRET,
    )
    .await;
    let deployed = fleet.outcome(&fleet.create(revision).await).await;
    assert_eq!(
        deployed.status(),
        "Succeeded",
        "{:#?}",
        deployed.event_statuses()
    );
    let path = format!("/repos/octo/shop/tarball/{}", "0123456789".repeat(4));
    assert_eq!(github.requests().last().unwrap().path, path);
    assert!(!format!("{deployed:?}").contains(SECRET));

    let folder = fleet.path("");
    let files = files_below(&folder);
    let log = fleet.service.log().to_owned();
    assert!(files.contains(&log) && files.contains(&fleet.hosts[0].agent_log()));
    for file in files {
        let content = std::fs::read(&file).unwrap();
        let found = content
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes());
        assert!(!found, "the token is in {}", file.display());
    }
    fleet.stop().await;
}
