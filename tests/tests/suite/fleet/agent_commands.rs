//! The agent's own commands beside real deployments: the command in progress, the history, and a
//! stop in the middle.

use std::path::PathBuf;
use std::process::Output;

use codedeploy_agent::pidfile::{self, Holder};
use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::wait;
use serde_json::Value;

async fn agent(fleet: &Fleet, words: &[&str]) -> Output {
    let configuration = fleet.hosts[0].folder.join("codedeployagent.yml");
    let words = words.iter().map(|word| (*word).to_owned());
    let all = words.chain([
        "--config-file".to_owned(),
        configuration.display().to_string(),
    ]);
    Programs::built().agent.output(all).await
}

async fn status(fleet: &Fleet) -> Value {
    let output = agent(fleet, &["status", "--json"]).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Ends a background agent with its test in any case.
struct EndsWithTest(PathBuf);

impl Drop for EndsWithTest {
    fn drop(&mut self) {
        if let Ok(Holder::Agent(Some(pid))) = pidfile::holder(&self.0)
            && let Ok(Some(agent)) = pidfile::Agent::find(&self.0, pid)
        {
            let _ = agent.terminate();
        }
    }
}

/// A revision whose ApplicationStart lasts until `gate` exists.
fn held_by(gate: &std::path::Path) -> [(&'static str, String); 2] {
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: hook.sh\n";
    let script = format!(
        "#!/bin/sh\nwhile ! [ -e {} ]; do sleep 0.05; done\n",
        gate.display()
    );
    [("appspec.yml", appspec.to_owned()), ("hook.sh", script)]
}

#[tokio::test]
async fn a_stop_is_refused_during_a_deployment_and_forced_waits_for_the_lifecycle_event() {
    let fleet = Fleet::start(1, "").await;
    let gate = fleet.path("gate");
    let files = held_by(&gate);
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let id = fleet.create(fleet.push(&files).await).await;
    let during = wait::until("ApplicationStart runs", async || {
        let told = status(&fleet).await;
        if told["agent"]["commands"][0]["lifecycle_event"] == "ApplicationStart" {
            Ok(told)
        } else {
            Err(told)
        }
    })
    .await;
    assert_eq!(during["agent"]["activity"], "deploying");
    let latest = &during["agent"]["deployments"][0];
    assert_eq!(
        (&latest["deployment_id"], &latest["outcome"]),
        (&Value::from(id.as_str()), &"in_progress".into())
    );

    let refused = agent(&fleet, &["stop"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let words = String::from_utf8(refused.stderr).unwrap();
    let expected = format!("A deployment is already in Progress: ApplicationStart of {id} (shop)");
    assert!(words.contains(&expected), "{words}");
    assert_eq!(agent(&fleet, &["restart"]).await.status.code(), Some(1));
    assert_eq!(status(&fleet).await["state"], "running");

    let forced = tokio::spawn({
        let configuration = fleet.hosts[0]
            .folder
            .join("codedeployagent.yml")
            .display()
            .to_string();
        async move {
            Programs::built()
                .agent
                .output(["stop", "--force", "--config-file", configuration.as_str()])
                .await
        }
    });
    wait::until("the agent is stopping", async || {
        let told = status(&fleet).await;
        if told["agent"]["activity"] == "stopping" {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    std::fs::write(&gate, "").unwrap();
    let forced = forced.await.unwrap();
    assert!(forced.status.success(), "{forced:?}");

    // The history is available without the agent, and with the next one.
    let after = status(&fleet).await;
    assert_eq!(after["state"], "stopped");
    let kept = &after["deployments"][0];
    assert_eq!(
        (&kept["outcome"], &kept["last_lifecycle_event"]),
        (&"succeeded".into(), &"ApplicationStart".into())
    );
    assert!(kept["seconds"].as_f64().unwrap() > 0.0);
    let _daemon = EndsWithTest(fleet.hosts[0].folder.join("run/codedeploy-agent.pid"));
    assert!(agent(&fleet, &["start"]).await.status.success());
    let deployed = fleet.outcome(&id).await;
    assert_eq!(deployed.status(), "Succeeded");
    let again = status(&fleet).await;
    assert_eq!(
        again["agent"]["deployments"][0]["deployment_id"],
        id.as_str()
    );
    assert_eq!(
        again["agent"]["deployments"].as_array().unwrap().len(),
        1,
        "{again:#}"
    );

    // A restart that could not start a new agent does not stop the present one.
    let identity = fleet.hosts[0].folder.join("codedeploy.onpremises.yml");
    std::fs::write(&identity, "region: us-east-1\n").unwrap();
    let pid = &status(&fleet).await["pid"];
    let refused = agent(&fleet, &["restart"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains(&identity.display().to_string())
    );
    assert_eq!(status(&fleet).await["pid"], *pid);
    assert!(agent(&fleet, &["stop"]).await.status.success());
}

#[tokio::test]
async fn the_controller_accepts_what_doctor_asks_and_names_a_wrong_secret() {
    let fleet = Fleet::start(1, "").await;
    let service = async || {
        let output = agent(&fleet, &["doctor", "--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        checks
            .into_iter()
            .find(|check| check["name"] == "service")
            .unwrap()
    };
    let accepted = service().await;
    assert_eq!(accepted["verdict"], "ok", "{accepted}");
    let identity = fleet.hosts[0].folder.join("codedeploy.onpremises.yml");
    let text = std::fs::read_to_string(&identity).unwrap();
    let wrong: Vec<String> = text
        .lines()
        .map(|line| match line.split_once("aws_secret_access_key:") {
            Some((before, _)) => format!("{before}aws_secret_access_key: wrong"),
            None => line.to_owned(),
        })
        .collect();
    std::fs::write(&identity, wrong.join("\n")).unwrap();
    let refused = service().await;
    assert_eq!(refused["verdict"], "problem", "{refused}");
    assert!(
        refused["advice"]
            .as_str()
            .unwrap()
            .contains("secret access key is wrong"),
        "{refused}"
    );
    fleet.stop().await;
}
