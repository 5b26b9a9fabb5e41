//! The log entries of a deployment, from end to end: a story for a person, fields for a program, no
//! secrets.

use std::fs;
use std::os::unix::fs::MetadataExt;

use codedeploy_tests::bundle;
use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::s3_stub::{Reply, S3Stub};
use codedeploy_tests::stub::{self, lone::Lone};
use codedeploy_tests::wait;
use serde_json::{Value, json};

const APPSPEC: &str = "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: APP\nhooks:\n  \
    ApplicationStart:\n    - location: start.sh\n      timeout: 2\n";

fn revision(fleet: &Fleet, script: &str) -> [(&'static str, String); 3] {
    let appspec = APPSPEC.replace("APP", &fleet.path("app").display().to_string());
    [
        ("appspec.yml", appspec),
        ("start.sh", script.to_owned()),
        ("page", "page\n".to_owned()),
    ]
}

async fn deploy(fleet: &Fleet, script: &str) -> codedeploy_tests::fleet::Deployed {
    let files = revision(fleet, script);
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    fleet.deploy(&files).await
}

/// The lines of the agent's log that belong to a deployment.
fn lines(fleet: &Fleet, deployment: &str) -> Vec<Value> {
    let log = fs::read_to_string(fleet.hosts[0].agent_log()).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a JSON object a line"));
    lines
        .filter(|line| line["deployment_id"] == deployment)
        .collect()
}

#[tokio::test]
async fn a_deployment_reads_like_a_story_and_every_line_says_where_it_belongs() {
    let fleet = Fleet::start(1, "").await;
    let deployed = deploy(&fleet, "#!/bin/sh\necho up\n").await;
    assert_eq!(deployed.status(), "Succeeded");
    let lines = lines(&fleet, &deployed.id);
    let story: Vec<&str> = lines
        .iter()
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    let lines_of_events = [
        "ApplicationStop begins",
        "ApplicationStop succeeded",
        "DownloadBundle begins",
        "bundle downloaded",
        "bundle unpacked",
        "DownloadBundle succeeded",
        "BeforeInstall begins",
        "BeforeInstall succeeded",
        "Install begins",
        "files installed",
        "Install succeeded",
        "AfterInstall begins",
        "AfterInstall succeeded",
        "ApplicationStart begins",
        "script succeeded",
        "ApplicationStart succeeded",
        "ValidateService begins",
        "ValidateService succeeded",
    ];
    // Each command has a specification of its own.
    let expected: Vec<&str> = lines_of_events
        .into_iter()
        .flat_map(|line| {
            line.ends_with(" begins")
                .then_some("deployment specification verified")
                .into_iter()
                .chain([line])
        })
        .collect();
    assert_eq!(story, expected);
    for line in &lines {
        for name in [
            "time",
            "level",
            "target",
            "deployment_group",
            "application",
            "lifecycle_event",
            "command",
        ] {
            assert!(
                line[name].as_str().is_some_and(|value| !value.is_empty()),
                "no {name} in {line}"
            );
        }
        let message = line["message"].as_str().unwrap();
        let ended = ["succeeded", "installed", "downloaded", "unpacked"]
            .iter()
            .any(|end| message.ends_with(end));
        assert!(line["duration_ms"].is_u64() || !ended, "{line}");
    }
    let line = |message: &str| {
        lines
            .iter()
            .find(|line| line["message"] == message)
            .unwrap()
    };
    assert_eq!(line("script succeeded")["script"], "start.sh");
    assert_eq!(line("files installed")["created"], 2);
    let log = fs::read_to_string(fleet.hosts[0].agent_log()).unwrap();
    let signed = log
        .lines()
        .find(|line| line.contains("deployment specification verified"))
        .unwrap();
    let signed: Value = serde_json::from_str(signed).unwrap();
    assert!(
        !signed["signer"].as_str().unwrap().is_empty() && !signed["command"].is_null(),
        "{signed}"
    );
    assert_eq!(signed["key_sha256"].as_str().unwrap().len(), 64);
    assert!(line("bundle downloaded")["bytes"].as_u64().unwrap() > 0);
    fleet.stop().await;
}

#[tokio::test]
async fn script_output_is_complete_when_a_script_fails_and_when_it_is_timed_out() {
    let fleet = Fleet::start(1, "").await;
    let endings = [
        ("exit 3", "failed with exit code 3"),
        ("sleep 1000", "failed to complete in 2 seconds"),
    ];
    for (ending, told) in endings {
        let script = format!("#!/bin/sh\necho one\necho two >&2\nprintf three\n{ending}\n");
        let deployed = deploy(&fleet, &script).await;
        assert_eq!(deployed.status(), "Failed");
        let root = fleet.hosts[0].folder.join("deployment-root");
        let all = root.join("deployment-logs/codedeploy-agent-deployments.log");
        let text = fs::read_to_string(&all).unwrap();
        let prefix = format!("[{}]", deployed.id);
        let entries = text
            .lines()
            .filter_map(|line| line.split_once("] ")?.1.strip_prefix(&prefix));
        let mut entries: Vec<&str> = entries.collect();
        assert_eq!(
            entries[..2],
            ["LifecycleEvent - ApplicationStart", "Script - start.sh"]
        );
        entries[2..].sort_unstable();
        assert_eq!(
            entries[2..],
            ["[stderr]two", "[stdout]one", "[stdout]three"]
        );
        assert_eq!(all.metadata().unwrap().mode() & 0o777, 0o640);

        let lines = lines(&fleet, &deployed.id);
        let error = lines
            .iter()
            .find(|line| line["level"] == "ERROR" && line["script"] == "start.sh")
            .unwrap();
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");

        let configuration = fleet.hosts[0].folder.join("codedeployagent.yml");
        let arguments = [
            "logs",
            "--deployment",
            &deployed.id,
            "--config-file",
            configuration.to_str().unwrap(),
        ];
        let shown = Programs::built().agent.output(arguments).await;
        let shown = String::from_utf8(shown.stdout).unwrap();
        let header = format!("── {} of shop to web\n", deployed.id);
        assert!(shown.starts_with(&header), "{shown}");
        let at = |text: &str| {
            shown
                .find(text)
                .unwrap_or_else(|| panic!("no {text} in {shown}"))
        };
        assert!(at("ApplicationStart begins") < at("start.sh | one"));
        assert!(at("start.sh ! two") < at("ApplicationStart failed: Script at specified location"));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn script_output_is_logged_while_the_script_runs() {
    let fleet = Fleet::start(1, "").await;
    let gate = fleet.path("gate");
    let script = format!(
        "#!/bin/sh\necho waiting\nwhile [ ! -e {} ]; do sleep 0.05; done\n",
        gate.display()
    );
    let files = revision(&fleet, &script);
    let files: Vec<(&str, String)> = files
        .into_iter()
        .map(|(name, text)| (name, text.replace("timeout: 2", "timeout: 60")))
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let id = fleet.create(fleet.push(&files).await).await;
    let all = fleet.hosts[0]
        .folder
        .join("deployment-root/deployment-logs/codedeploy-agent-deployments.log");
    wait::until("the line is there before the script ends", async || {
        let text = fs::read_to_string(&all).unwrap_or_default();
        if text.contains("[stdout]waiting\n") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    fs::write(&gate, "").unwrap();
    assert_eq!(fleet.outcome(&id).await.status(), "Succeeded");
    fleet.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while_joins_no_two_lines_of_output() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let revision = folder.path().join("revision");
    // Fills the agent's files up to its limit, then removes the limit. The script's parent is its
    // keeper, whose parent is the agent.
    let script = format!(
        "#!/bin/sh\nagent=$(ps -o ppid= \"$PPID\")\nyes 0123456789 | head -n 9000\n\
         until [ \"$(cat {root}/*/d-*/logs/scripts.log | wc -c)\" -ge 65536 ]; do sleep 0.05; done\n\
         prlimit --fsize=unlimited --pid $agent\necho after\n",
        root = root.display()
    );
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: fill.sh\n";
    bundle::write(&revision, &[("appspec.yml", appspec), ("fill.sh", &script)]);
    fs::write(
        folder.path().join("conf.yml"),
        format!("root_dir: {}\n", root.display()),
    )
    .unwrap();
    let local = Programs::built().local.command(["-c"]);
    let program = local.as_std().get_program().to_owned();
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args([
            "-c",
            "trap '' XFSZ; ulimit -S -f 128; exec \"$0\" -c \"$1\" -l \"$2\"",
        ])
        .arg(program);
    let output = shell
        .arg(folder.path().join("conf.yml"))
        .arg(&revision)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let all =
        fs::read_to_string(root.join("deployment-logs/codedeploy-agent-deployments.log")).unwrap();
    assert!(
        all.ends_with("[stdout]after\n"),
        "{}",
        &all[all.len() - 200..]
    );
    assert!(
        all.matches("[stdout]0123456789\n").count() < 9000,
        "the limit was met"
    );
    for line in all.lines() {
        // Every line begins with its time.
        assert!(
            line.rfind("[20").is_none_or(|start| start == 0),
            "two lines in one: {line}"
        );
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_any_level() {
    let fleet = Fleet::start(1, "verbose: true\n").await;
    let deployed = deploy(&fleet, "#!/bin/sh\nenv\n").await;
    assert_eq!(deployed.status(), "Succeeded");
    let host = &fleet.hosts[0];
    let all = host
        .folder
        .join("deployment-root/deployment-logs/codedeploy-agent-deployments.log");
    for path in [host.agent_log(), host.folder.join("agent.out"), all] {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains(&host.keys.secret_access_key),
            "the secret key is in {}",
            path.display()
        );
    }
    assert!(
        fs::read_to_string(host.agent_log())
            .unwrap()
            .contains(r#""level":"DEBUG""#)
    );
    fleet.stop().await;
}

#[tokio::test]
async fn the_token_of_github_is_neither_logged_nor_kept() {
    let source = tempfile::tempdir().unwrap();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: env.sh\n";
    bundle::write(
        source.path(),
        &[("appspec.yml", appspec), ("env.sh", "#!/bin/sh\nenv\n")],
    );
    let archive = bundle::tgz(source.path());
    let github = S3Stub::serve(move |_, _| Reply::new(200, archive.clone())).await;
    let more = format!(
        "verbose: true\nlog_aws_wire: true\ngithub_endpoint: {}\n",
        github.endpoint
    );
    let host = Lone::start(&more).await;
    let mut specification = stub::lone::specification("g1", "d-1", source.path());
    specification["Revision"] = json!({"RevisionType": "GitHub",
        "GitHubRevision": {"Account": "octo", "Repository": "shop", "CommitId": "1a2b3c4"}});
    specification["GitHubAccessToken"] = "ghp_topsecret".into();
    host.stub.specify("d-1", &specification);
    for event in ["DownloadBundle", "Install", "ApplicationStart"] {
        let ended = host.perform("d-1", event).await;
        assert_eq!(ended.status, "Succeeded", "{event}: {}", ended.message);
    }
    assert_eq!(
        github.requests()[0].header("authorization"),
        Some("token ghp_topsecret")
    );
    let (mut folders, mut logged) = (
        vec![host.path("log"), host.path("root"), host.path("run")],
        false,
    );
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
                assert!(
                    !text.contains("ghp_topsecret"),
                    "the token is in {}",
                    entry.path().display()
                );
                logged |= text.contains("LIFECYCLE_EVENT=ApplicationStart");
            }
        }
    }
    assert!(logged && !host.agent.output().contains("ghp_topsecret"));
    assert!(host.agent.stop().await.success());
}

#[tokio::test]
async fn the_password_of_a_proxy_is_never_logged() {
    let fleet = Fleet::start(0, "").await;
    let (keys, folder) = (&fleet.service.operator, fleet.path("behind"));
    fs::create_dir(&folder).unwrap();
    let place = folder.display();
    let identity = format!(
        "region: us-east-1\niam_user_arn: arn:aws:iam::123456789012:user/x\naws_access_key_id: {}\naws_secret_access_key: {}\n",
        keys.access_key_id, keys.secret_access_key
    );
    fs::write(folder.join("identity.yml"), identity).unwrap();
    let configure = |proxy: &str| {
        let text = format!(
            "verbose: true\nlog_dir: {place}/log\nroot_dir: {place}/root\npid_dir: {place}/run\n\
             on_premises_config_file: {place}/identity.yml\ndeploy_control_endpoint: https://codedeploy.example\n\
             proxy_uri: {proxy}\n"
        );
        fs::write(folder.join("conf.yml"), text).unwrap();
    };
    let start = || {
        let arguments = |command: &mut tokio::process::Command| {
            command
                .args(["run", "--config-file"])
                .arg(folder.join("conf.yml"));
        };
        Programs::built()
            .agent
            .start(arguments, &folder.join("out"))
    };
    let log = || {
        let log = fs::read_to_string(folder.join("log/codedeploy-agent.log")).unwrap_or_default();
        log + &fs::read_to_string(folder.join("out")).unwrap_or_default()
    };

    configure("http://operator:hunter2@127.0.0.1:1");
    let agent = start();
    wait::until("the proxy cannot be reached", async || {
        if log().contains("cannot poll for commands") {
            Ok(())
        } else {
            Err(log())
        }
    })
    .await;
    agent.stop().await;
    assert!(!log().contains("hunter2"), "{}", log());

    // Nor is it shown if the value is not a URL.
    configure("htp://operator:hunter2@127.0.0.1:1");
    let mut agent = start();
    wait::until("the agent gives up", async || {
        agent.ended().ok_or("it runs")
    })
    .await;
    assert!(log().contains("proxy_uri"), "{}", log());
    assert!(!log().contains("hunter2"), "{}", log());
    fleet.stop().await;
}
