//! The commands of operators in their wrong uses: each says what to do, and changes nothing.

use serde_json::json;

use super::operator_commands::{Done, fail_at, here, revision_folder, run};
use crate::support::{Controller, QUICK, eventually, shop, text};

const WITH_S3: &str = "timers: {poll: 5}\ns3: {buckets: [revisions]}";

/// The name of a new access key's profile, in a file of its own.
fn profile(controller: &Controller, create: &[&str]) -> String {
    let output = controller.admin(&[&["credentials", "create"], create].concat());
    let name = format!("{}.keys", create.join(""));
    let file = controller.folder.path().join(name);
    let keys = String::from_utf8(output.stdout).unwrap();
    std::fs::write(&file, format!("[default]\n{keys}")).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Runs a command with the keys of a profile, as from another machine.
async fn there(controller: &Controller, keys: &str, args: &[&str]) -> Done {
    let endpoint = format!("http://{}", controller.address);
    let environment = [
        ("AWS_SHARED_CREDENTIALS_FILE", keys),
        ("AWS_ENDPOINT_URL_CODEDEPLOY", endpoint.as_str()),
    ];
    run(args, &environment).await
}

/// The objects in the controller's bucket.
fn objects(controller: &Controller) -> usize {
    let bucket = controller.data().join("s3/revisions");
    std::fs::read_dir(bucket).unwrap().count()
}

#[tokio::test]
async fn mistakes_are_found_before_a_bundle_is_uploaded() {
    let (controller, client, _agent) = shop::one_host(WITH_S3).await;
    let folder = revision_folder(&controller, "one");
    let folder = folder.to_str().unwrap();
    let empty = objects(&controller);
    for (args, code, expected) in [
        (
            &["deploy", "gone", "web", folder][..],
            1,
            "codedeploy-controller status",
        ),
        (
            &["deploy", "shop", "gone", folder],
            1,
            "codedeploy-controller status",
        ),
        (
            &["deploy", "shop", "web", folder, "--bucket", "gone"],
            1,
            "The bucket \"gone\" does not exist",
        ),
        (
            &[
                "deploy",
                "shop",
                "web",
                folder,
                "--file-exists-behavior",
                "replace",
            ],
            2,
            "possible values: DISALLOW, OVERWRITE, RETAIN",
        ),
        (
            &["deploy", "shop", "web", "s3://revisions/gone.zip"],
            1,
            "s3://revisions/gone.zip does not exist",
        ),
    ] {
        let done = here(&controller, args).await;
        assert_eq!(done.code, code, "{args:?}: {}{}", done.out, done.err);
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
        assert_eq!(done.out, "", "{args:?}");
    }
    assert_eq!(objects(&controller), empty);

    let running = shop::deploy(&client, "1.zip").await;
    for args in [
        &["deploy", "shop", "web", folder][..],
        &["rollback", "shop", "web"],
    ] {
        let done = here(&controller, args).await;
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{args:?}");
        for expected in [
            format!("already has an active Deployment '{running}'"),
            format!("codedeploy-controller follow {running}"),
            format!("codedeploy-controller stop {running}"),
        ] {
            assert!(done.err.contains(&expected), "{args:?}: {}", done.err);
        }
    }
    assert_eq!(objects(&controller), empty);
    // A behavior is understood in lower case, too.
    here(&controller, &["stop", &running]).await.ok();
    let lower = ["--file-exists-behavior", "overwrite"];
    let deploy = [&["deploy", "shop", "web", folder, "--json"][..], &lower].concat();
    let created = here(&controller, &deploy).await.json();
    let info = shop::info(&client, &text(&created, "deploymentId")).await;
    let behavior = info
        .file_exists_behavior()
        .map(|behavior| behavior.as_str());
    assert_eq!(behavior, Some("OVERWRITE"));
}

#[tokio::test]
async fn every_refusal_names_the_next_step() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let id = shop::deploy(&client, "1.zip").await;
    fail_at(&agent, "Install").await;
    shop::ended(&client, &id).await;
    for (args, code, expected) in [
        (&["hosts", "gone"][..], 1, "codedeploy-controller hosts\n"),
        (
            &["why", "d-ABSENT123"],
            1,
            "codedeploy-controller deployments\n",
        ),
        (&["status", "gone"], 1, "codedeploy-controller status\n"),
        (
            &["rollback", "shop", "gone"],
            1,
            "codedeploy-controller status\n",
        ),
        (&["hosts", "box1", "--silent"], 2, "cannot be used with"),
        (&["deployments", "-n", "0"], 2, "0"),
        (
            &["deployments", "--status", "broken"],
            2,
            "possible values: Created",
        ),
    ] {
        let done = here(&controller, args).await;
        assert_eq!(done.code, code, "{args:?}: {}{}", done.out, done.err);
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
    }
    let lower = ["deployments", "--status", "failed", "--json"];
    let listed = here(&controller, &lower).await.json();
    assert_eq!(listed[0]["deploymentId"], json!(id));

    let page = here(&controller, &["hosts", "box1"]).await.ok();
    let why = format!("codedeploy-controller why {id}");
    assert!(page.contains("FAILED") && page.contains(&why), "{page}");
    controller.host("box2", &["env=prod"]);
    let page = here(&controller, &["hosts", "box2"]).await.ok();
    assert!(page.contains("host add"), "{page}");
}

#[tokio::test]
async fn a_key_that_may_not_is_told_so() {
    let (controller, client, _agent) = shop::one_host(WITH_S3).await;
    let folder = revision_folder(&controller, "one");
    let folder = folder.to_str().unwrap();
    let reader = profile(&controller, &["--role", "read-only"]);
    let other = ["--role", "operator", "--application", "blog"];
    let other = profile(&controller, &other);
    let id = shop::deploy(&client, "1.zip").await;
    for (keys, args, expected) in [
        (&reader, &["stop", &id][..], "a key of role operator"),
        (&other, &["audit"], "a key for the whole fleet"),
        (&other, &["deploy", "shop", "web", folder], "AccessDenied"),
        (
            &other,
            &["deploy", "shop", "web", folder, "--bucket", "revisions"],
            "AccessDenied",
        ),
        (&other, &["hosts", "box1"], "AccessDenied"),
    ] {
        let done = there(&controller, keys, args).await;
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{args:?}");
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
        assert!(!done.err.contains("not as a controller"), "{}", done.err);
    }
    for command in ["status", "hosts"] {
        let done = there(&controller, &other, &[command]).await;
        assert!(
            done.code == 0 && done.err.contains("this access key is for"),
            "{}",
            done.err
        );
    }
}

#[tokio::test]
async fn the_advice_about_an_old_failure_does_not_undo_what_came_later() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let first = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &first).await;
    let failed = shop::deploy(&client, "2.zip").await;
    fail_at(&agent, "Install").await;
    shop::ended(&client, &failed).await;
    let why = here(&controller, &["why"]).await.ok();
    assert!(
        why.contains("codedeploy-controller rollback shop web"),
        "{why}"
    );

    let repaired = shop::deploy(&client, "3.zip").await;
    let why = here(&controller, &["why"]).await.ok();
    let follow = format!("codedeploy-controller follow {repaired}");
    assert!(!why.contains("rollback") && why.contains(&follow), "{why}");
    agent.run_to("ValidateService").await;
    shop::ended(&client, &repaired).await;
    let why = here(&controller, &["why"]).await.ok();
    let later = format!("{repaired} succeeded later");
    assert!(!why.contains("rollback") && why.contains(&later), "{why}");

    // A deployment that somebody stopped has one advice.
    let stopped = shop::deploy(&client, "4.zip").await;
    here(&controller, &["stop", &stopped]).await.ok();
    let why = here(&controller, &["why", &stopped]).await.ok();
    assert!(!why.contains("1. Or "), "{why}");
}

#[tokio::test]
async fn a_wait_ends_in_time_although_the_controller_is_away() {
    let (mut controller, client, agent) = shop::one_host(QUICK).await;
    let id = shop::deploy(&client, "1.zip").await;
    agent.poll().await.unwrap();
    let data = controller.data();
    let following = tokio::spawn({
        let id = id.clone();
        async move {
            let data = [("CODEDEPLOY_CONTROLLER_DATA_DIR", data.to_str().unwrap())];
            run(&["follow", &id, "--timeout", "4s"], &data).await
        }
    });
    eventually("the start of the command", async || {
        let keys = controller.admin_json(&["credentials", "list", "--json"]);
        keys.to_string().contains("user/local/").then_some(())
    })
    .await;
    controller.terminate();
    let limit = std::time::Duration::from_secs(60);
    let done = tokio::time::timeout(limit, following).await;
    let done = done.expect("it ends in time").unwrap();
    assert_eq!(done.code, 5, "{}{}", done.out, done.err);
    assert!(done.err.contains(&format!("follow {id}")), "{}", done.err);

    // On its host, the next step is to look at the service.
    let done = here(&controller, &["status"]).await;
    assert!(
        done.code == 1 && done.err.contains("systemctl status codedeploy-controller"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn revisions_are_shown_so_that_they_can_be_deployed_again() {
    let (controller, _, agent) = shop::one_host(WITH_S3).await;
    let site = controller.folder.path().join("site.zip");
    std::fs::write(&site, "x").unwrap();
    let deploy = async |args: &[&str]| {
        let all = [&["deploy", "shop", "web"], args, &["--wait"]].concat();
        let (done, _) = tokio::join!(here(&controller, &all), agent.run_to("ValidateService"));
        done.ok()
    };
    let out = deploy(&[site.to_str().unwrap()]).await;
    let word = |text: &str| {
        let found = text
            .split_whitespace()
            .find(|word| word.contains("?versionId="));
        found
            .unwrap_or_else(|| panic!("no version in {text}"))
            .to_owned()
    };
    let first = word(&out);
    let page = here(&controller, &["hosts", "box1"]).await.ok();
    assert_eq!(word(&page), first);
    // A table has the end of the version, which differs between uploads of the same minute.
    let row = async || {
        let listed = here(&controller, &["deployments", "-n", "1"]).await.ok();
        let found = listed
            .split_whitespace()
            .find(|word| word.contains(".zip#"));
        found
            .unwrap_or_else(|| panic!("no version in {listed}"))
            .to_owned()
    };
    let shown = row().await;
    let (_, end) = shown.split_once('#').unwrap();
    assert!(first.ends_with(end) && end.len() == 8, "{shown} {first}");
    deploy(&[&first]).await;
    assert_eq!(row().await, shown);
}

#[tokio::test]
async fn tables_and_errors_do_not_act_on_terminals() {
    let controller = Controller::start(QUICK);
    controller.host("box1", &["a\u{1b}[31m=b\u{202e}"]);
    let listed = here(&controller, &["host", "list"]).await.ok();
    assert!(listed.contains(r"a\u{1b}[31m=b\u{202e}"), "{listed}");
    let wrong = ["deploy", "shop", "web", "/tmp/\u{1b}[2Jgone"];
    let done = here(&controller, &wrong).await;
    assert!(
        done.err.contains(r"\u{1b}[2Jgone") && !done.err.contains('\u{1b}'),
        "{:?}",
        done.err
    );
}
