//! Deployments from end to end: a real service, real agents, and revisions in a real S3 server.

use std::fs;
use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::LifecycleErrorCode;
use codedeploy_tests::fleet::{Deployed, Fleet};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::wait;

const SEVEN: [&str; 7] = [
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
];

/// An AppSpec that installs `page` below `app` and runs `hook` of the revision at every event that
/// is named.
fn appspec(app: &Path, hooks: &[(&str, &str)]) -> String {
    let mut text = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n",
        app.display()
    );
    for (event, more) in hooks {
        text += &format!("  {event}:\n    - location: hook.sh\n{more}");
    }
    text
}

fn succeeded(deployed: &Deployed) {
    let expected: Vec<String> = SEVEN
        .iter()
        .map(|event| format!("{event} Succeeded"))
        .collect();
    assert_eq!(
        deployed.event_statuses(),
        expected,
        "{:#?}",
        deployed.events
    );
    assert_eq!(deployed.status(), "Succeeded");
}

/// The details of the failed event: code, script, message, log.
fn failure(deployed: &Deployed) -> (LifecycleErrorCode, String, String, String) {
    assert_eq!(deployed.status(), "Failed");
    let diagnostics = deployed
        .failed_event()
        .diagnostics
        .clone()
        .expect("a failure is explained");
    (
        diagnostics.error_code.unwrap(),
        diagnostics.script_name.unwrap_or_default(),
        diagnostics.message.unwrap_or_default(),
        diagnostics.log_tail.unwrap_or_default(),
    )
}

/// A deployment whose BeforeInstall waits for the test.
struct Held {
    id: String,
    started: PathBuf,
}

impl Held {
    async fn begin(fleet: &Fleet) -> Self {
        let started = fleet.path("started");
        let appspec = appspec(&fleet.path("app"), &[("BeforeInstall", "")]);
        let script = format!(
            "#!/bin/sh\necho $$ >> {0}\nwhile [ ! -e {0}.go ]; do sleep 0.05; done\n",
            started.display()
        );
        let revision = fleet
            .push(&[
                ("appspec.yml", &appspec),
                ("hook.sh", &script),
                ("page", "x"),
            ])
            .await;
        let id = fleet.create(revision).await;
        wait::until("the script runs", async || fs::read_to_string(&started)).await;
        Self { id, started }
    }

    fn let_go(&self) {
        fs::write(self.started.with_extension("go"), "").unwrap();
    }

    /// The number of starts of the script.
    fn starts(&self) -> usize {
        fs::read_to_string(&self.started).unwrap().lines().count()
    }
}

#[tokio::test]
async fn a_revision_reaches_the_host_and_the_next_one_replaces_it() {
    let fleet = Fleet::start(1, "").await;
    let app = fleet.path("app");
    let note = format!(
        "#!/bin/sh\nread version < {}\necho \"$version: $LIFECYCLE_EVENT of $APPLICATION_NAME to $DEPLOYMENT_GROUP_NAME from $BUNDLE_BUCKET/$BUNDLE_KEY\" >> {}\n",
        "\"$(dirname \"$0\")/page\"",
        fleet.path("events").display()
    );
    let appspec = appspec(&app, &[("ApplicationStop", ""), ("ApplicationStart", "")]);
    let first = fleet
        .deploy(&[
            ("appspec.yml", &appspec),
            ("hook.sh", &note),
            ("page", "one\n"),
        ])
        .await;
    succeeded(&first);
    assert_eq!(fs::read_to_string(app.join("page")).unwrap(), "one\n");
    let second = fleet
        .deploy(&[
            ("appspec.yml", &appspec),
            ("hook.sh", &note),
            ("page", "two\n"),
        ])
        .await;
    succeeded(&second);
    assert_eq!(fs::read_to_string(app.join("page")).unwrap(), "two\n");

    let events = fs::read_to_string(fleet.path("events")).unwrap();
    let expected = [
        "one: ApplicationStart of shop to web from revisions/app.zip",
        "one: ApplicationStop of shop to web from revisions/app.zip",
        "two: ApplicationStart of shop to web from revisions/app.zip",
    ];
    assert_eq!(
        events.lines().collect::<Vec<_>>(),
        expected,
        "a revision is stopped by its own scripts"
    );
    fleet.stop().await;
}

#[tokio::test]
async fn a_failing_script_is_reported_with_its_name_and_last_lines() {
    let fleet = Fleet::start(1, "").await;
    let appspec = appspec(&fleet.path("app"), &[("AfterInstall", "")]);
    let script = "#!/bin/sh\necho working\nprintf 'caf\\351 \\033[31mred\\033[0m \"quoted\"\\n' >&2\nexit 3\n";
    let deployed = fleet
        .deploy(&[
            ("appspec.yml", &appspec),
            ("hook.sh", script),
            ("page", "x"),
        ])
        .await;
    let (code, name, message, log) = failure(&deployed);
    assert_eq!(code, LifecycleErrorCode::ScriptFailed);
    assert_eq!(name, "hook.sh");
    assert!(message.contains("failed with exit code 3"), "{message}");
    let mut lines: Vec<&str> = log.lines().collect();
    // The order in which the two pipes are read is unspecified.
    lines[2..].sort_unstable();
    let expected = [
        "LifecycleEvent - AfterInstall",
        "Script - hook.sh",
        "[stderr]caf\u{fffd} red \"quoted\"",
        "[stdout]working",
    ];
    assert_eq!(lines, expected);
    let statuses = deployed.event_statuses();
    assert_eq!(
        &statuses[4..],
        [
            "AfterInstall Failed",
            "ApplicationStart Skipped",
            "ValidateService Skipped"
        ]
    );
    fleet.stop().await;
}

#[tokio::test]
async fn an_object_that_was_replaced_since_is_not_deployed() {
    let fleet = Fleet::start(1, "").await;
    let appspec = appspec(&fleet.path("app"), &[]);
    let files = [("appspec.yml", appspec.as_str()), ("page", "one")];
    let mut revision = fleet.push(&files).await;
    let location = revision.s3_location.as_mut().unwrap();
    let etag = location.e_tag.clone().unwrap();
    location.version = None;
    fleet
        .push(&[("appspec.yml", appspec.as_str()), ("page", "two")])
        .await;
    let id = fleet.create(revision.clone()).await;
    let deployed = fleet.outcome(&id).await;
    let (code, _, message, _) = failure(&deployed);
    assert_eq!(deployed.failed_event().name, "DownloadBundle");
    assert_eq!(code, LifecycleErrorCode::UnknownError);
    assert!(
        message.contains(&etag) && message.contains("deploy the revision that is there"),
        "{message}"
    );
    fleet.stop().await;
}

#[tokio::test]
async fn a_command_that_the_agent_lost_is_failed_and_its_script_does_not_run_again() {
    let mut fleet = Fleet::start(1, "").await;
    let held = Held::begin(&fleet).await;
    fleet.agents.remove(0).kill().await;
    fleet.agents.push(fleet.hosts[0].start_agent());
    let deployed = fleet.outcome(&held.id).await;
    held.let_go();
    let (code, _, message, _) = failure(&deployed);
    assert_eq!(deployed.failed_event().name, "BeforeInstall");
    assert_eq!(code, LifecycleErrorCode::UnknownError);
    assert!(
        message.contains("restarted while this lifecycle event was in progress"),
        "{message}"
    );
    assert_eq!(held.starts(), 1);
    fleet.stop().await;
}

#[tokio::test]
async fn a_service_that_was_killed_goes_on_with_the_deployment() {
    let mut fleet = Fleet::start(1, "").await;
    let held = Held::begin(&fleet).await;
    fleet.service = fleet.service.kill_and_restart().await;
    held.let_go();
    succeeded(&fleet.outcome(&held.id).await);
    assert_eq!(held.starts(), 1, "the script ran once");
    fleet.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_finishes_its_script_and_reports_it() {
    let mut fleet = Fleet::start(1, "").await;
    let held = Held::begin(&fleet).await;
    let agent = fleet.agents.remove(0);
    agent.signal("TERM").await;
    wait::until("the agent says that it stops", async || {
        let log = fs::read_to_string(fleet.hosts[0].agent_log()).unwrap();
        if log.contains("stopping: no new commands") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    held.let_go();
    assert!(agent.stop().await.success());
    wait::until("the event is reported", async || {
        let events = fleet.service.events(&held.id, "box1").await;
        let reported = events.iter().find(|event| event.name == "BeforeInstall");
        reported
            .filter(|event| event.status.as_str() == "Succeeded")
            .map(|_| ())
            .ok_or(events.len())
    })
    .await;
    fleet.agents.push(fleet.hosts[0].start_agent());
    succeeded(&fleet.outcome(&held.id).await);
    fleet.stop().await;
}

#[tokio::test]
async fn a_specification_that_somebody_else_signed_is_not_performed() {
    let fleet = Fleet::start(1, "").await;
    let appspec = appspec(&fleet.path("app"), &[]);
    succeeded(
        &fleet
            .deploy(&[("appspec.yml", &appspec), ("page", "x")])
            .await,
    );
    // Another service with the same state would sign with the same key; this one has lost its key.
    let data = fleet.service.data.display().to_string();
    let Fleet {
        service,
        bucket,
        hosts,
        agents,
        ..
    } = fleet;
    let service = service.kill().await;
    let replace = ["replace-key", "signer", "--data-dir", data.as_str()];
    assert!(
        Programs::built()
            .controller
            .output(replace)
            .await
            .status
            .success()
    );
    let service = service.restart().await;
    let put = bucket.object("app.zip").await;
    let location = codedeploy_tests::service::revision(
        &bucket,
        &put,
        aws_sdk_codedeploy::types::BundleType::Zip,
    );
    let id = service.deploy("shop", "web", location).await;
    let mut events = Vec::new();
    let info = service
        .follow(&id, "box1", |event| events.push(event.clone()))
        .await;
    let deployed = Deployed { id, info, events };
    let (code, _, message, _) = failure(&deployed);
    assert_eq!(code, LifecycleErrorCode::UnknownError);
    assert!(message.contains("deployment_signer_pin"), "{message}");
    assert_eq!(deployed.failed_event().name, "ApplicationStop");
    for agent in agents {
        assert!(agent.stop().await.success());
    }
    drop(hosts);
    service.stop().await;
    bucket.stop().await;
}

#[tokio::test]
async fn every_host_of_the_group_gets_the_revision_at_once() {
    let fleet = Fleet::start(3, "").await;
    // All hosts of a test share the machine, so they install nothing: each records its visit.
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ValidateService:\n    - location: hook.sh\n";
    let hosts = fleet.path("hosts");
    let script = format!(
        "#!/bin/sh\ncase $0 in */box*/*) echo \"$0\" | sed 's,.*/\\(box[0-9]\\)/.*,\\1,' >> {} ;; esac\n",
        hosts.display()
    );
    let deployed = fleet
        .deploy(&[("appspec.yml", appspec), ("hook.sh", &script)])
        .await;
    succeeded(&deployed);
    let overview = deployed.info.deployment_overview.unwrap();
    assert_eq!(
        (overview.succeeded, overview.failed, overview.pending),
        (3, 0, 0)
    );
    let text = fs::read_to_string(&hosts).unwrap();
    let mut seen: Vec<&str> = text.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, ["box1", "box2", "box3"]);
    fleet.stop().await;
}

#[tokio::test]
async fn an_agent_that_cannot_start_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs::built();
    let place = folder.path().display().to_string();
    let configuration = folder.path().join("conf.yml");
    let arguments = ["run", "--config-file", configuration.to_str().unwrap()];
    fs::write(folder.path().join("host.yml"), "region: us-east-1\n").unwrap();
    let folders = format!("root_dir: {place}/root\nlog_dir: {place}/log\npid_dir: {place}/run\n");
    let cases = [
        (
            format!("{folders}max_revisions: 0\n"),
            "line 4: max_revisions: found 0",
        ),
        (
            format!("{folders}on_premises_config_file: {place}/host.yml\n"),
            "iam_user_arn: is missing",
        ),
    ];
    let missing = programs.agent.output(arguments).await;
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("cannot read the configuration file"),
        "{missing:?}"
    );
    for (text, expected) in cases {
        fs::write(&configuration, text).unwrap();
        let ran = programs.agent.output(arguments).await;
        assert_eq!(ran.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert!(
        !folder.path().join("root").exists(),
        "nothing is half-configured"
    );
}

#[tokio::test]
async fn the_service_is_told_of_hooks_that_never_run() {
    let fleet = Fleet::start(1, "").await;
    let appspec = appspec(
        &fleet.path("app"),
        &[("applicationStart", ""), ("After Install", "")],
    );
    let script = format!("#!/bin/sh\ntouch {}\n", fleet.path("ran").display());
    let deployed = fleet
        .deploy(&[
            ("appspec.yml", &appspec),
            ("hook.sh", &script),
            ("page", "x"),
        ])
        .await;
    succeeded(&deployed);
    assert!(!fleet.path("ran").exists());
    let install = deployed
        .events
        .iter()
        .find(|event| event.name == "Install")
        .unwrap();
    let message = install
        .diagnostics
        .as_ref()
        .unwrap()
        .message
        .clone()
        .unwrap();
    let expected = "applicationStart (did you mean ApplicationStart?), After Install (did you mean AfterInstall?)";
    assert!(message.contains(expected), "{message}");
    fleet.stop().await;
}
