//! GitHub tokens: who can read them, and who cannot.

use std::path::Path;
use std::process::{Output, Stdio};

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::{
    AutoRollbackConfiguration, AutoRollbackEvent, DeploymentStatus, ErrorCode, GitHubLocation,
    RevisionLocation, RevisionLocationType,
};
use serde_json::{Value, json};

use crate::support::signed::verified;
use crate::support::{Agent, Controller, Held, QUICK, command, shop, text};

const SECRET: &str = "ghp_TheSecretOfOcto0123456789";

/// Runs `github-token` with `input` as its standard input.
fn github_token(data: &Path, args: &[&str], input: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), input).unwrap();
    let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    program
        .arg("github-token")
        .args(args)
        .arg("--data-dir")
        .arg(data);
    program
        .stdin(Stdio::from(file.reopen().unwrap()))
        .output()
        .unwrap()
}

fn done(data: &Path, args: &[&str], input: &str) -> String {
    let output = github_token(data, args, input);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn on_github() -> RevisionLocation {
    let location = GitHubLocation::builder()
        .repository("octo/shop")
        .commit_id("0123456789".repeat(4))
        .build();
    RevisionLocation::builder()
        .revision_type(RevisionLocationType::GitHub)
        .git_hub_location(location)
        .build()
}

async fn deploy(client: &Client) -> String {
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    request
        .revision(on_github())
        .send()
        .await
        .unwrap()
        .deployment_id
        .unwrap()
}

/// The specification that the host reads.
async fn specification(controller: &Controller, agent: &Agent, held: &Held) -> Value {
    let shown = String::from_utf8(controller.admin(&["signer"]).stdout).unwrap();
    let output = agent.specification(held).await;
    verified(
        controller,
        &text(
            &output["DeploymentSpecification"]["GenericEnvelope"],
            "Payload",
        ),
        &shown,
    )
}

async fn link_of(client: &Client) -> (bool, Option<String>) {
    let output = client
        .get_application()
        .application_name("shop")
        .send()
        .await
        .unwrap();
    let application = output.application.unwrap();
    (
        application.linked_to_git_hub,
        application.git_hub_account_name,
    )
}

async fn names(client: &Client) -> Vec<String> {
    let output = client
        .list_git_hub_account_token_names()
        .send()
        .await
        .unwrap();
    output.token_name_list.unwrap()
}

#[tokio::test]
async fn a_host_reads_the_token_of_its_application_while_its_deployment_runs() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let data = controller.data();
    assert_eq!(link_of(&client).await, (false, None));
    let add = [
        "add",
        "deploy",
        "--account",
        "octo",
        "--application",
        "shop",
    ];
    assert_eq!(done(&data, &add, &format!("{SECRET}\n")), "");
    assert_eq!(link_of(&client).await, (true, Some("octo".into())));
    assert_eq!(names(&client).await, ["deploy"]);

    let id = deploy(&client).await;
    let held = agent.poll().await.unwrap();
    let document = specification(&controller, &agent, &held).await;
    assert_eq!(document["GitHubAccessToken"], SECRET);
    assert_eq!(document["Revision"]["GitHubRevision"]["Account"], "octo");
    // Hosts get the replacement from now on.
    done(
        &data,
        &["add", "deploy", "--account", "octo2", "--replace"],
        "ghp_New",
    );
    assert_eq!(
        specification(&controller, &agent, &held).await["GitHubAccessToken"],
        "ghp_New"
    );
    assert_eq!(link_of(&client).await, (true, Some("octo2".into())));
    assert_eq!(agent.acknowledge(&held).await, "InProgress");
    agent.succeed(&held).await;
    agent.run_to("ValidateService").await;
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    assert_eq!(
        specification(&controller, &agent, &held)
            .await
            .get("GitHubAccessToken"),
        None
    );

    // Not for revisions from elsewhere, and absent, never null, without a token.
    shop::deploy(&client, "app.zip").await;
    let held = agent.poll().await.unwrap();
    assert_eq!(
        specification(&controller, &agent, &held)
            .await
            .get("GitHubAccessToken"),
        None
    );
    agent.succeed(&held).await;
    agent.run_to("ValidateService").await;
    done(&data, &["unlink", "shop"], "");
    assert_eq!(link_of(&client).await, (false, None));
    deploy(&client).await;
    let held = agent.poll().await.unwrap();
    assert_eq!(
        specification(&controller, &agent, &held)
            .await
            .get("GitHubAccessToken"),
        None
    );
}

#[tokio::test]
async fn a_token_is_nowhere_in_clear() {
    let (controller, client, _agent) = shop::one_host(QUICK).await;
    let data = controller.data();
    done(
        &data,
        &[
            "add",
            "deploy",
            "--account",
            "octo",
            "--application",
            "shop",
        ],
        SECRET,
    );
    let id = deploy(&client).await;
    let backup = controller.folder.path().join("backup.sqlite3");
    assert!(
        controller
            .admin(&["backup", backup.to_str().unwrap()])
            .status
            .success()
    );
    let listed = [
        done(&data, &["list"], ""),
        done(&data, &["list", "--json"], ""),
    ]
    .concat();
    let told = format!(
        "{:?}{:?}{listed}",
        shop::info(&client, &id).await,
        link_of(&client).await
    );
    assert!(!told.contains(SECRET), "{told}");
    assert!(listed.contains("deploy  octo  shop"), "{listed}");
    let files = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain([backup]);
    for file in files.filter(|path| path.is_file()) {
        let content = std::fs::read(&file).unwrap();
        assert!(
            !content
                .windows(SECRET.len())
                .any(|part| part == SECRET.as_bytes()),
            "{}",
            file.display()
        );
    }
}

#[tokio::test]
async fn clients_list_and_delete_tokens() {
    let (controller, client, _agent) = shop::one_host(QUICK).await;
    let data = controller.data();
    for number in 1..=25 {
        done(
            &data,
            &["add", &format!("t{number:02}"), "--account", "octo"],
            SECRET,
        );
    }
    assert_eq!(names(&client).await.len(), 25);
    done(&data, &["link", "t07", "shop"], "");
    let deleted = client
        .delete_git_hub_account_token()
        .token_name("t07")
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.token_name(), Some("t07"));
    assert_eq!(link_of(&client).await, (false, None));
    let again = client
        .delete_git_hub_account_token()
        .token_name("t07")
        .send()
        .await
        .unwrap_err();
    assert!(
        again
            .into_service_error()
            .is_git_hub_account_token_does_not_exist_exception()
    );
    assert_eq!(names(&client).await.len(), 24);
}

#[tokio::test]
async fn a_rollback_to_a_revision_whose_token_is_gone_says_so() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let data = controller.data();
    done(
        &data,
        &[
            "add",
            "deploy",
            "--account",
            "octo",
            "--application",
            "shop",
        ],
        SECRET,
    );
    let good = deploy(&client).await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &good).await;
    let events = vec![AutoRollbackEvent::DeploymentFailure];
    let rolls_back = AutoRollbackConfiguration::builder()
        .enabled(true)
        .set_events(Some(events))
        .build();
    let group = client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web");
    group
        .auto_rollback_configuration(rolls_back)
        .send()
        .await
        .unwrap();
    done(&data, &["remove", "deploy"], "");

    let bad = shop::deploy(&client, "bad.zip").await;
    agent.fail(&agent.poll().await.unwrap()).await;
    let rollback = shop::ended(&client, &bad)
        .await
        .rollback_info
        .unwrap()
        .rollback_deployment_id
        .unwrap();
    let ended = shop::ended(&client, &rollback).await;
    let error = ended.error_information().unwrap();
    assert_eq!(error.code(), Some(&ErrorCode::MissingGithubToken));
    assert!(
        error
            .message()
            .unwrap()
            .contains("github-token link NAME shop"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_token_that_cannot_be_opened_is_refused_when_a_deployment_is_created() {
    let (mut controller, client, _agent) = shop::one_host(QUICK).await;
    let data = controller.data();
    done(
        &data,
        &[
            "add",
            "deploy",
            "--account",
            "octo",
            "--application",
            "shop",
        ],
        SECRET,
    );
    controller.terminate();
    let mut replace = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    replace
        .args(["replace-key", "master", "--data-dir"])
        .arg(&data);
    assert!(replace.status().unwrap().success());
    controller.start_again();
    drop(client);
    let client = controller.client("operator");
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let refused = request
        .revision(on_github())
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(
        refused.is_invalid_git_hub_account_token_exception(),
        "{refused}"
    );
    assert!(refused.to_string().contains("master.key"), "{refused}");
    done(
        &data,
        &["add", "deploy", "--account", "octo", "--replace"],
        SECRET,
    );
    deploy(&client).await;
}

#[test]
fn mistakes_say_what_to_do_and_change_nothing() {
    let controller = Controller::start(QUICK);
    let data = &controller.data();
    done(data, &["add", "deploy", "--account", "octo"], SECRET);
    let longest = "x".repeat(5000);
    for (args, input, expected) in [
        (
            &["add", "deploy", "--account", "octo"][..],
            SECRET,
            "give --replace",
        ),
        (
            &["add", "other", "--account", "octo"],
            "",
            "standard input is empty",
        ),
        (
            &["add", "other", "--account", "octo"],
            &longest,
            "contains no token",
        ),
        (
            &["add", "other", "--account", "octo"],
            "ghp_TheSecretOf octo",
            "contains no token",
        ),
        (
            &["add", "o/ther", "--account", "octo"],
            SECRET,
            "GitHub account token name",
        ),
        (
            &["add", "other", "--account", "octo cat"],
            SECRET,
            "name of a GitHub account",
        ),
        (
            &["add", "other", "--account", "octo", "--application", "none"],
            SECRET,
            "there is no application",
        ),
        (&["link", "other", "none"], "", "github-token list"),
        (&["link", "deploy", "none"], "", "there is no application"),
        (&["unlink", "none"], "", "there is no application"),
        (&["remove", "other"], "", "there is no GitHub token"),
    ] {
        let output = github_token(data, args, input);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && text.contains(expected),
            "{args:?}: {text}"
        );
        assert!(!text.contains("TheSecret"), "{text}");
    }
    for number in 2..=25 {
        done(
            data,
            &["add", &format!("t{number}"), "--account", "octo"],
            SECRET,
        );
    }
    let output = github_token(data, &["add", "t26", "--account", "octo"], SECRET);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("there are already 25 GitHub tokens")
    );
    let listed: Value = serde_json::from_str(&done(data, &["list", "--json"], "")).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 25);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["applications"]),
        (&json!("deploy"), &json!([]))
    );
}
