//! Agents that are updated from the controller, with real agents and a command of the operator that
//! restarts them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::wait;

/// What an operator would write: another agent in place of the one that runs.
const SCRIPT: &str = r#"#!/bin/sh
set -e
host="$1" log="$2"
echo "$host begins" >> "$log"
while [ -e "$host/held" ]; do sleep 0.05; done
if [ -e "$host/broken" ]; then echo "no such package"; exit 100; fi
AGENT restart --config-file "$host/codedeployagent.yml"
echo "$host ends" >> "$log"
"#;

async fn operate(fleet: &Fleet, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Programs::built().controller.command(words);
    let data = &fleet.service.data;
    let output = command.arg("--data-dir").arg(data).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

/// Gives every host the script as its update command, and starts its agent again, in the background.
async fn give_update_command(fleet: &mut Fleet) {
    let built = Programs::built();
    let agent = built.agent.command::<&str>([]);
    let program = Path::new(agent.as_std().get_program())
        .display()
        .to_string();
    let (script, log) = (fleet.path("update"), fleet.path("updates"));
    fs::write(&script, SCRIPT.replace("AGENT", &program)).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for mut agent in fleet.agents.drain(..) {
        agent.kill().await;
    }
    for host in &fleet.hosts {
        let [script, folder, log] =
            [&script, &host.folder, &log].map(|path| path.display().to_string());
        host.configure(
            &fleet.bucket,
            &format!("wait_between_runs: 0.1\nupdate_command: {script} {folder} {log}\n"),
        );
        background(host, "start").await;
    }
}

/// Starts or stops the agent of a host as its operator does.
async fn background(host: &codedeploy_tests::host::Host, verb: &str) {
    let configuration = host
        .folder
        .join("codedeployagent.yml")
        .display()
        .to_string();
    let words = [verb, "--config-file", configuration.as_str()];
    let output = Programs::built().agent.output(words).await;
    assert!(output.status.success(), "{verb}: {output:?}");
}

/// The lines of the script, with the hosts' names.
fn lines(fleet: &Fleet) -> Vec<String> {
    let text = fs::read_to_string(fleet.path("updates")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.rsplit('/').next());
    lines.map(str::to_owned).collect()
}

fn pid(fleet: &Fleet, host: usize) -> String {
    let file = fleet.hosts[host].folder.join("run/codedeploy-agent.pid");
    fs::read_to_string(file).unwrap()
}

async fn hosts_can_be_updated(fleet: &Fleet) {
    for host in &fleet.hosts {
        wait::until("the agent has said that it can be updated", async || {
            let (_, text) = operate(fleet, &["hosts", &host.name]).await;
            match text.contains("update-agents can update it") {
                true => Ok(()),
                false => Err(text),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn agents_are_restarted_one_after_the_other_also_when_the_controller_is() {
    let mut fleet = Fleet::start_with(3, "", |_| "timers: {poll: 1}\n".to_owned()).await;
    give_update_command(&mut fleet).await;
    hosts_can_be_updated(&fleet).await;
    let before = pid(&fleet, 0);
    let held = fleet.hosts[0].folder.join("held");
    fs::write(&held, "").unwrap();
    let group = ["--application", "shop", "--group", "web"];
    let (code, text) = operate(&fleet, &[&["update-agents"][..], &group].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("stage 1 of 3, 0 of 3 hosts updated"),
        "{text}"
    );
    wait::until("box1 performs the update", async || {
        let (_, text) = operate(&fleet, &["hosts", "box1"]).await;
        match text.contains("updates its agent, since") && !lines(&fleet).is_empty() {
            true => Ok(()),
            false => Err(text),
        }
    })
    .await;
    let (code, text) = operate(&fleet, &["update-agents", "box3"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is in progress"), "{text}");

    fleet.service = fleet.service.kill_and_restart().await;
    fs::remove_file(held).unwrap();
    let (code, text) = operate(&fleet, &["update-agents", "--wait"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("succeeded: 3 of 3 hosts updated"), "{text}");
    let all = ["box1", "box2", "box3"];
    let expected: Vec<String> = all
        .iter()
        .flat_map(|host| [format!("{host} begins"), format!("{host} ends")])
        .collect();
    assert_eq!(lines(&fleet), expected);
    assert_ne!(pid(&fleet, 0), before);
    let (_, audit) = operate(&fleet, &["audit", "--operation", "UpdateAgents"]).await;
    assert!(audit.contains("UpdateAgents"), "{audit}");

    // A failure leaves the hosts of later stages as they are.
    fs::write(fleet.hosts[1].folder.join("broken"), "").unwrap();
    let untouched = pid(&fleet, 2);
    let (code, text) = operate(&fleet, &["update-agents", "--all", "--wait"]).await;
    assert_eq!(code, Some(3), "{text}");
    for expected in [
        "box2: the update command ended with exit code 100",
        "no such package",
        "left as it is",
    ] {
        assert!(
            text.contains(expected),
            "{expected} is missing from:\n{text}"
        );
    }
    assert_eq!(pid(&fleet, 2), untouched);
    for host in &fleet.hosts {
        background(host, "stop").await;
    }
    fleet.stop().await;
}
