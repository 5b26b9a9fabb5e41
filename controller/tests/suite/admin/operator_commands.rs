//! The commands of operators: against a running controller, on its own host and from another
//! machine.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{Agent, Controller, QUICK, command, eventually, shop, text};

/// A finished command.
pub(super) struct Done {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Done {
    fn of(output: Output) -> Done {
        Done {
            code: output.status.code().expect("no signal ended it"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The output of a command that succeeded.
    pub(super) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    pub(super) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

/// Runs the program in an environment of its own; agents go on meanwhile.
pub(super) async fn run(args: &[&str], environment: &[(&str, &str)]) -> Done {
    let mut command = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    command.args(args).env_clear();
    command.envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    Done::of(output.await.unwrap())
}

/// Runs a command on the controller's own host.
pub(super) async fn here(controller: &Controller, args: &[&str]) -> Done {
    let data = controller.data();
    let data = [("CODEDEPLOY_CONTROLLER_DATA_DIR", data.to_str().unwrap())];
    run(args, &data).await
}

/// The text without what differs between runs: ids, times and random names.
fn stable(text: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 11
            && word.starts_with("d-")
            && word[2..]
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    };
    let is_time = |word: &str| word.ends_with('Z') && word.contains(':') && !word.contains('/');
    let is_short = |word: &str| {
        word.strip_suffix(['s', 'm', 'h'])
            .is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
    };
    let mut stable = String::new();
    for line in text.lines() {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| {
                let bare = word.trim_end_matches([',', ':']);
                let end = &word[bare.len()..];
                match bare {
                    bare if is_id(bare) => format!("d-ID0000000{end}"),
                    bare if is_time(bare) => format!("00:00:00Z{end}"),
                    bare if is_short(bare) => format!("0s{end}"),
                    _ => word.to_owned(),
                }
            })
            .collect();
        // The width of a column depends on the times in it.
        let indent = line.len() - line.trim_start().len();
        let mut words = words.join(" ").trim_start().to_owned();
        while indent == 0 && words.contains("   ") {
            words = words.replace("   ", "  ");
        }
        stable += &format!("{:indent$}{words}\n", "");
    }
    stable
}

/// Takes commands until one fails with the output of a script.
pub(super) async fn fail_at(agent: &Agent, last: &str) {
    loop {
        let command = agent.poll().await.expect("a command");
        agent.acknowledge(&command).await;
        if command.name != last {
            agent.succeed(&command).await;
            continue;
        }
        let log = "LifecycleEvent - AfterInstall\nScript - scripts/after.sh\n[stderr]no such table \u{1b}[31mitems\n";
        let payload = json!({
            "error_code": 4, "script_name": "scripts/after.sh", "log": log,
            "message": "Script at specified location: scripts/after.sh run as user root failed with exit code 3",
        });
        return agent
            .complete(&command, "Failed", &payload.to_string())
            .await;
    }
}

pub(super) fn revision_folder(controller: &Controller, content: &str) -> PathBuf {
    let folder = controller.folder.path().join("site");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("appspec.yml"), "version: 0.0\nos: linux\n").unwrap();
    std::fs::write(folder.join("index.html"), content).unwrap();
    folder
}

#[tokio::test]
async fn questions_of_an_operator_are_answered_in_one_command_each() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let show = async |args: &[&str]| stable(&here(&controller, args).await.ok());
    insta::assert_snapshot!("status_new", show(&["status"]).await);
    let nothing = here(&controller, &["why"]).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (1, ""));
    assert!(
        nothing.err.contains("no deployment has failed"),
        "{}",
        nothing.err
    );

    let first = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &first).await;
    insta::assert_snapshot!("status_idle", show(&["status"]).await);
    let second = shop::deploy(&client, "2.zip").await;
    let command = agent.poll().await.unwrap();
    agent.acknowledge(&command).await;
    insta::assert_snapshot!("status_running", show(&["status"]).await);
    insta::assert_snapshot!("hosts_running", show(&["hosts"]).await);
    agent.succeed(&command).await;
    fail_at(&agent, "AfterInstall").await;
    shop::ended(&client, &second).await;
    controller.host("box2", &["env=prod"]);

    insta::assert_snapshot!("status_failed", show(&["status"]).await);
    insta::assert_snapshot!("hosts_failed", show(&["hosts"]).await);
    insta::assert_snapshot!("host_page", show(&["hosts", "box2"]).await);
    insta::assert_snapshot!("deployments", show(&["deployments"]).await);
    insta::assert_snapshot!("why", show(&["why"]).await);
    let followed = here(&controller, &["follow", &second]).await;
    assert_eq!(followed.code, 3);
    insta::assert_snapshot!("follow_failed", stable(&followed.out));
    let followed = here(&controller, &["follow", &first]).await;
    insta::assert_snapshot!("follow_succeeded", stable(&followed.ok()));

    // Programs read the documents of the API.
    let json = async |args: &[&str]| {
        here(&controller, &[args, &["--json"]].concat())
            .await
            .json()
    };
    assert_eq!(
        json(&["status"]).await[0]["lastFailure"]["deploymentId"],
        json!(second)
    );
    assert_eq!(
        json(&["hosts", "--silent"]).await[0]["instanceName"],
        json!("box2")
    );
    assert_eq!(
        json(&["hosts", "--behind"]).await.as_array().unwrap().len(),
        2
    );
    assert_eq!(json(&["hosts", "box1"]).await["state"], json!("Polling"));
    let listed = json(&["deployments", "shop", "web", "--status", "Succeeded"]).await;
    assert_eq!(listed[0]["deploymentId"], json!(first));
    assert_eq!(
        json(&["why", &second]).await["failures"][0]["exitCode"],
        json!(3)
    );

    // The keys that the commands made for themselves are gone.
    let keys = controller.admin_json(&["credentials", "list", "--all", "--json"]);
    assert!(!keys.to_string().contains("user/local/"), "{keys}");
}

#[tokio::test]
async fn a_folder_is_deployed_followed_and_taken_back() {
    let config = format!("{QUICK}\ns3: {{buckets: [revisions]}}");
    let (controller, client, agent) = shop::one_host(&config).await;
    let folder = revision_folder(&controller, "one");
    let folder = folder.to_str().unwrap();
    let deploy = ["deploy", "shop", "web", folder, "--wait"];
    let succeed = async || agent.run_to("ValidateService").await;
    let (done, _) = tokio::join!(here(&controller, &deploy), succeed());
    let out = done.ok();
    assert!(
        out.contains("(2 files, ") && out.contains("uploaded: s3://revisions/shop/"),
        "{out}"
    );
    assert!(out.contains("Succeeded: 1 succeeded"), "{out}");

    // The same folder is the same object.
    let (done, _) = tokio::join!(here(&controller, &deploy), succeed());
    assert!(done.ok().contains("is there already"));
    revision_folder(&controller, "two");
    let (done, _) = tokio::join!(here(&controller, &deploy), fail_at(&agent, "AfterInstall"));
    assert_eq!(done.code, 3, "{}{}", done.out, done.err);
    for expected in ["exit code", "no such table", "What to do", "\\u{1b}"] {
        assert!(done.out.contains(expected), "{}", done.out);
    }
    let back = ["rollback", "shop", "web", "--wait", "--json"];
    let (done, _) = tokio::join!(here(&controller, &back), succeed());
    let shown = done.json();
    assert_eq!(text(&shown["deployment"], "status"), "Succeeded");
    assert!(text(&shown["deployment"], "description").starts_with("Rollback of d-"));

    // Without --wait, the command ends at once.
    let created = here(&controller, &["deploy", "shop", "web", folder, "--json"])
        .await
        .json();
    let id = text(&created, "deploymentId");
    assert_eq!(
        text(&created["revision"]["s3Location"], "bundleType"),
        "tgz"
    );
    let late = here(&controller, &["follow", &id, "--timeout", "1s"]).await;
    assert_eq!(late.code, 5, "{}{}", late.out, late.err);
    let busy = here(&controller, &["deploy", "shop", "web", folder]).await;
    assert_eq!(busy.code, 1);
    assert!(
        busy.err
            .contains(&format!("already has an active Deployment '{id}'")),
        "{}",
        busy.err
    );
    let waits = here(&controller, &["continue", &id]).await;
    assert!(
        waits.code == 1 && waits.err.contains("does not wait"),
        "{}",
        waits.err
    );
    let stopped = here(&controller, &["stop", &id, "--no-rollback"])
        .await
        .ok();
    assert!(stopped.starts_with(&format!("{id}: ")), "{stopped}");
    let followed = here(&controller, &["follow", &id]).await;
    assert_eq!(followed.code, 4, "{}{}", followed.out, followed.err);
    let object = format!(
        "s3://revisions/{}",
        text(&created["revision"]["s3Location"], "key")
    );
    let again = ["deploy", "shop", "web", &object, "--wait"];
    let (done, _) = tokio::join!(here(&controller, &again), succeed());
    done.ok();
    let info = shop::info(&client, &id).await;
    assert_eq!(info.status().map(|status| status.as_str()), Some("Stopped"));

    let empty = controller.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let wrong = here(
        &controller,
        &["deploy", "shop", "web", empty.to_str().unwrap()],
    )
    .await;
    assert!(
        wrong.code == 1 && wrong.err.contains("no appspec.yml"),
        "{}",
        wrong.err
    );
}

#[tokio::test]
async fn the_commands_work_from_another_machine_with_keys_of_its_own() {
    let (controller, client, _) = shop::one_host(QUICK).await;
    let endpoint = format!("http://{}", controller.address);
    let home = controller.folder.path().join("home");
    std::fs::create_dir_all(home.join(".aws")).unwrap();
    let home = home.to_str().unwrap();
    let keys = |role: &str| {
        let output = controller.admin(&["credentials", "create", "--role", role]);
        String::from_utf8(output.stdout).unwrap()
    };
    let profiles = format!(
        "[default]\n{}[admin]\n{}",
        keys("read-only"),
        keys("operator")
    );
    std::fs::write(Path::new(home).join(".aws/credentials"), profiles).unwrap();
    let environment = [
        ("HOME", home),
        ("AWS_ENDPOINT_URL_CODEDEPLOY", endpoint.as_str()),
    ];
    let status = run(&["status"], &environment).await.ok();
    assert!(status.contains("never deployed"), "{status}");

    let id = shop::deploy(&client, "1.zip").await;
    let refused = run(&["stop", &id], &environment).await;
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("AccessDeniedException") && refused.err.contains("user/read-only"),
        "{}",
        refused.err
    );
    let as_admin = [&environment[..], &[("AWS_PROFILE", "admin")]].concat();
    run(&["stop", &id], &as_admin).await.ok();
    let explicit = ["status", "--endpoint", &endpoint];
    run(&explicit, &environment[..1]).await.ok();

    // Each missing part is named.
    for (args, environment, code, expected) in [
        (&explicit[..], &[][..], 1, "AWS_ACCESS_KEY_ID"),
        (
            &["status"][..],
            &[("HOME", home), ("CODEDEPLOY_CONTROLLER_DATA_DIR", home)][..],
            1,
            "AWS_ENDPOINT_URL_CODEDEPLOY",
        ),
        (
            &["status", "--endpoint", "deploy.example.com"],
            &environment[..1],
            1,
            "expected http:// or https://",
        ),
        (
            &["status"],
            &[&environment[..], &[("AWS_PROFILE", "gone")]].concat()[..],
            1,
            "no profile \"gone\"",
        ),
        (
            &["status"],
            &[&environment[..], &[("AWS_REGION", "eu-west-1")]].concat()[..],
            1,
            "set the client's region to us-east-1",
        ),
        (&["follow"], &environment, 2, "<ID>"),
    ] {
        let done = run(args, environment).await;
        assert_eq!(done.code, code, "{args:?}: {}", done.err);
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
    }
}

#[tokio::test]
async fn on_the_controllers_host_its_own_certificate_is_trusted() {
    let controller = Controller::start("tls: {self_signed: true}");
    let shown = here(&controller, &["hosts"]).await;
    assert_eq!(
        (shown.code, shown.err.as_str()),
        (
            0,
            "No host is registered yet: codedeploy-controller host add NAME\n"
        )
    );
}

#[tokio::test]
async fn a_restart_of_the_controller_does_not_end_the_wait() {
    let (mut controller, client, agent) = shop::one_host("{}").await;
    let id = shop::deploy(&client, "1.zip").await;
    let command = agent.poll().await.unwrap();
    agent.acknowledge(&command).await;
    let data = controller.data();
    let following = tokio::spawn({
        let id = id.clone();
        async move {
            let data = [("CODEDEPLOY_CONTROLLER_DATA_DIR", data.to_str().unwrap())];
            run(&["follow", &id], &data).await
        }
    });
    // It has made its key.
    eventually("the start of the command", async || {
        let keys = controller.admin_json(&["credentials", "list", "--json"]);
        keys.to_string().contains("user/local/").then_some(())
    })
    .await;
    controller.crash_and_return();
    agent.succeed(&command).await;
    agent.run_to("ValidateService").await;
    let done = following.await.unwrap();
    let out = done.ok();
    assert!(out.contains("Succeeded"), "{out}");
}
