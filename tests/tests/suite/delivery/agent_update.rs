//! The host command `UpdateDeploymentAgent`: an operator's command updates the agent, which may be
//! restarted meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use codedeploy_tests::machine::Machine;
use codedeploy_tests::programs::Program;
use codedeploy_tests::stub::lone::{IDENTIFIER, Lone, command};
use codedeploy_tests::stub::{ACKNOWLEDGE, Completion, POLL, SPECIFICATION, Stub};
use codedeploy_tests::wait;

const UPDATE: &str = "UpdateDeploymentAgent";

/// Makes a script in a folder of its own, and the setting that names it.
fn script(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("update");
    let text = text.replace("HERE", folder.path().to_str().unwrap());
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let setting = format!("update_command: {} --now\n", path.display());
    (folder, setting)
}

fn deliver(host: &Lone, id: &str) {
    host.stub.deliver(command(id, "d-none", UPDATE));
}

async fn update(host: &Lone, id: &str) -> Completion {
    deliver(host, id);
    host.stub.completed(id, 1).await
}

/// A new agent, after the end of the last one.
async fn next_agent(host: &mut Lone) {
    wait::until("the agent ends", async || host.agent.ended().ok_or(())).await;
    host.restart();
}

fn exists(path: &Path) -> Result<(), ()> {
    path.exists().then_some(()).ok_or(())
}

#[tokio::test]
async fn without_a_command_of_the_operator_nothing_is_done() {
    let host = Lone::start("").await;
    let ended = update(&host, "u-1").await;
    assert_eq!(ended.status, "Failed");
    assert!(
        ended.message.contains("update_command"),
        "{}",
        ended.message
    );
    assert!(host.stub.requests(ACKNOWLEDGE).is_empty());
}

#[tokio::test]
async fn the_command_runs_once_and_its_end_is_reported_with_its_output() {
    let (folder, setting) =
        script("echo \"$1 in $PWD\"; echo trouble >&2; echo ran >> HERE/ran; env > HERE/env");
    let host = Lone::start(&setting).await;
    let ended = update(&host, "u-1").await;
    assert_eq!((ended.status.as_str(), ended.error_code), ("Succeeded", 0));
    assert!(
        ended.message.contains("the update command succeeded"),
        "{}",
        ended.message
    );
    assert_eq!(ended.log, "--now in /\ntrouble\n");
    // It sees nothing of the agent.
    let environment = fs::read_to_string(folder.path().join("env")).unwrap();
    let names: Vec<&str> = environment
        .lines()
        .filter_map(|line| line.split('=').next())
        .filter(|name| !["_", "PWD", "SHLVL", "OLDPWD"].contains(name))
        .collect();
    assert_eq!(names.len(), 2, "{environment}");
    assert!(
        environment.contains("PATH=/usr/local/sbin:"),
        "{environment}"
    );
    // Nothing is fetched from the service.
    assert!(host.stub.requests(SPECIFICATION).is_empty());
    assert_eq!(host.stub.requests(ACKNOWLEDGE).len(), 1);
    // Delivered again, it is reported again and does not run again.
    deliver(&host, "u-1");
    assert_eq!(host.stub.completed("u-1", 2).await.status, "Succeeded");
    assert_eq!(
        fs::read_to_string(folder.path().join("ran")).unwrap(),
        "ran\n"
    );
    assert!(host.agent.stop().await.success());
}

#[tokio::test]
async fn a_command_that_fails_is_reported_with_its_exit_code() {
    let (_folder, setting) = script("echo no such package; exit 100");
    let host = Lone::start(&setting).await;
    let ended = update(&host, "u-1").await;
    assert_eq!((ended.status.as_str(), ended.error_code), ("Failed", 5));
    assert!(ended.message.contains("exit code 100"), "{}", ended.message);
    assert_eq!(ended.log, "no such package\n");
    // The next one can run.
    assert_eq!(update(&host, "u-2").await.status, "Failed");
}

/// The operator's command stops the agent, or kills it, and goes on until it is released.
async fn restarts_in_the_middle(signal: &str) {
    let text = format!(
        "pid=$(cat HERE/pid); kill -s {signal} $pid; touch HERE/signalled\n\
         while [ ! -e HERE/go ]; do sleep 0.05; done\necho finished"
    );
    let (folder, setting) = script(&text);
    let mut host = Lone::start(&setting).await;
    fs::write(
        folder.path().join("pid"),
        host.agent.pid().unwrap().to_string(),
    )
    .unwrap();
    deliver(&host, "u-1");
    next_agent(&mut host).await;
    // The new agent polls while the command runs, and does not report it yet.
    assert!(host.stub.accepted("u-1").is_empty());
    fs::write(folder.path().join("go"), "").unwrap();
    let ended = host.stub.completed("u-1", 1).await;
    assert_eq!(ended.status, "Succeeded", "{signal}: {}", ended.message);
    assert_eq!(ended.log, "finished\n");
    host.agent.signal("TERM").await;
    wait::until("the agent ends", async || host.agent.ended().ok_or(())).await;
    // Another restart reports nothing.
    host.restart();
    host.stub
        .requested(POLL, host.stub.requests(POLL).len() + 1)
        .await;
    assert_eq!(host.stub.completions("u-1").len(), 1, "{signal}");
}

#[tokio::test]
async fn an_agent_that_its_command_stops_or_kills_is_followed_by_one_that_reports_the_end() {
    for signal in ["TERM", "KILL"] {
        restarts_in_the_middle(signal).await;
    }
}

#[tokio::test]
async fn a_command_that_ended_while_no_agent_ran_is_reported_by_the_next_one() {
    let (folder, setting) = script("kill -9 $(cat HERE/pid); exit 3");
    let mut host = Lone::start(&setting).await;
    let pid = host.agent.pid().unwrap().to_string();
    fs::write(folder.path().join("pid"), pid).unwrap();
    deliver(&host, "u-1");
    wait::until("the agent ends", async || host.agent.ended().ok_or(())).await;
    let result = host.path("root/deployment-commands/update/result.json");
    wait::until("the command has ended", async || exists(&result)).await;
    host.restart();
    let ended = host.stub.completed("u-1", 1).await;
    assert!(ended.message.contains("exit code 3"), "{}", ended.message);
    wait::until("nothing is left", async || {
        if host
            .path("root/deployment-commands/update/order.json")
            .exists()
        {
            Err(())
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn an_update_whose_process_is_gone_has_an_unknown_outcome() {
    let order = r#"{"version": 1, "host_command_identifier": "u-1", "command_line": "true", "agent_version": "0"}"#;
    let host = Lone::prepared("", Duration::from_millis(200), |root, _| {
        let folder = root.join("deployment-commands/update");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("order.json"), order).unwrap();
    })
    .await;
    let ended = host.stub.completed("u-1", 1).await;
    assert_eq!((ended.status.as_str(), ended.error_code), ("Failed", 7));
    assert!(ended.message.contains("unknown"), "{}", ended.message);
}

#[tokio::test]
async fn records_that_no_agent_wrote_keep_no_agent_from_its_work() {
    for damaged in ["", "{", "[]", r#"{"version": 9}"#] {
        let (_folder, setting) = script("true");
        let host = Lone::prepared(&setting, Duration::from_millis(200), |root, _| {
            let folder = root.join("deployment-commands/update");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("order.json"), damaged).unwrap();
            fs::write(folder.join("result.json"), damaged).unwrap();
        })
        .await;
        assert_eq!(update(&host, "u-1").await.status, "Succeeded", "{damaged}");
    }
}

#[tokio::test]
async fn an_update_waits_for_the_lifecycle_event_in_progress() {
    let (folder, setting) = script("test -e HERE/ended");
    let host = Lone::start(&setting).await;
    let appspec = "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n    - location: hook.sh\n";
    let here = folder.path().display();
    let hook = format!(
        "#!/bin/sh\ntouch {here}/begun\nwhile [ ! -e {here}/go ]; do sleep 0.05; done\ntouch {here}/ended\n"
    );
    host.deployment("g1", "d-1", &[("appspec.yml", appspec), ("hook.sh", &hook)]);
    assert_eq!(
        host.perform("d-1", "DownloadBundle").await.status,
        "Succeeded"
    );
    let event = host.command("d-1", "BeforeInstall");
    wait::until("the script runs", async || {
        exists(&folder.path().join("begun"))
    })
    .await;
    deliver(&host, "u-1");
    wait::until("the update is delivered", async || {
        if host.stub.deliveries() == 0 {
            Ok(())
        } else {
            Err(())
        }
    })
    .await;
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(host.stub.completed(&event, 1).await.status, "Succeeded");
    assert_eq!(host.stub.completed("u-1", 1).await.status, "Succeeded");
}

#[tokio::test]
#[ignore = "needs root"]
async fn under_systemd_the_command_survives_the_restart_of_the_unit_which_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let stub = Stub::start(folder.path(), Duration::from_millis(200)).await;
    let machine = Machine::boot(folder.path()).await;
    let agent = Program::built("codedeploy-agent");
    let program = agent.command::<&str>([]);
    let binary = Path::new(program.as_std().get_program());
    fs::create_dir_all(machine.path("/opt/agent")).unwrap();
    fs::copy(binary, machine.path("/opt/agent/codedeploy-agent")).unwrap();
    machine.write(
        "/opt/agent/onpremises.yml",
        &format!(
            "region: us-east-1\niam_user_arn: {IDENTIFIER}\naws_access_key_id: AKID\naws_secret_access_key: secret\n"
        ),
    );
    machine.write(
        "/opt/agent/agent.yml",
        &format!(
            "deploy_control_endpoint: {}\non_premises_config_file: /opt/agent/onpremises.yml\nroot_dir: /opt/agent/root\n\
             log_dir: /opt/agent/log\npid_dir: /opt/agent/run\nwait_between_runs: 0\n\
             update_command: systemctl restart agent && cat /proc/self/cgroup\n",
            stub.endpoint
        ),
    );
    machine.write(
        "/etc/systemd/system/agent.service",
        "[Service]\nExecStart=/opt/agent/codedeploy-agent run --config-file /opt/agent/agent.yml\n",
    );
    machine.succeed("systemctl start agent").await;
    let before = machine.property("agent", "MainPID").await;
    stub.deliver(command("u-1", "d-none", UPDATE));
    let ended = stub.completed("u-1", 1).await;
    assert_eq!(
        ended.status, "Succeeded",
        "{}: {}",
        ended.message, ended.log
    );
    assert!(
        ended.log.contains("/codedeploy-agent-update-"),
        "{}",
        ended.log
    );
    assert_ne!(machine.property("agent", "MainPID").await, before);
    assert_eq!(stub.completions("u-1").len(), 1);
    machine.stop().await;
}
