//! A rollback by hand that is killed at a system call is finished after the next start: the host has the revision of before,
//! whose scripts are not run again where they ran to their end.

use std::fs;

use codedeploy_tests::pair::Found;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::Strike;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::sweep::{self, Tally, sweep};
use codedeploy_tests::wait;
use serde_json::Value;

use crate::noted::{ALL, deployed, revision, text};

const GROUP: &str = "web";

/// A host with one deployment after the other.
struct Host {
    lone: Lone,
    deployments: usize,
}

/// Two deployments; the second is rolled back.
struct Deployments {
    before: String,
    last: String,
}

impl Host {
    async fn several() -> Vec<Self> {
        let host = async || Self {
            lone: Lone::start("").await,
            deployments: 0,
        };
        futures_util::future::join_all((0..sweep::AT_ONCE).map(|_| host())).await
    }

    /// Deploys version 1, and then version 2.
    async fn deploy(&mut self) -> Deployments {
        let mut ids = Vec::new();
        for version in ["v1", "v2"] {
            self.deployments += 1;
            ids.push(format!("d-{}", self.deployments));
            let files = revision(&self.lone, version, "true", "true");
            deployed(&self.lone, &ids[ids.len() - 1], &files, &ALL).await;
        }
        let _ = fs::remove_file(self.lone.path("notes"));
        let [before, last] = ids.try_into().unwrap();
        Deployments { before, last }
    }

    /// The events whose scripts were begun by a rollback, and did not end as far as anybody knows.
    fn interrupted(&self) -> Vec<String> {
        let mut begun = Vec::new();
        for line in self.journals().iter().flat_map(|text| text.lines()) {
            let step: Value = serde_json::from_str(line).unwrap_or_default();
            let event = step["event"].as_str().unwrap_or_default().to_owned();
            match step["step"].as_str() {
                Some("begun") => begun.push(event),
                Some("ended") => begun.retain(|begun| *begun != event),
                _ => {}
            }
        }
        begun
    }

    /// The journals of rollbacks that are not over.
    fn journals(&self) -> Vec<String> {
        let entries = fs::read_dir(self.lone.path("root/deployment-instructions"))
            .into_iter()
            .flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        let journals = paths.filter(|path| path.to_string_lossy().contains("rollback"));
        journals
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .collect()
    }

    fn found(&self) -> Found {
        match text(&self.lone, "srv/VERSION").as_str() {
            "v1" => Found::Old,
            "v2" => Found::New,
            other => Found::Mixed(format!("srv/VERSION is {other:?}")),
        }
    }

    /// Returns the mistakes in the list of scripts that ran.
    fn scripts(&self, interrupted: &[String]) -> Result<(), String> {
        let notes = text(&self.lone, "notes");
        for script in [
            "v1 ApplicationStart",
            "v1 ValidateService",
            "v2 ApplicationStart",
            "v2 ValidateService",
        ] {
            let times = notes.lines().filter(|line| *line == script).count();
            // One that was cut off is begun once more.
            let again = interrupted
                .iter()
                .any(|event| script == format!("v1 {event}"));
            if times > 1 + usize::from(again) {
                return Err(format!("{script} ran {times} times: {notes:?}"));
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_rollback_by_hand_that_is_killed_is_finished_by_the_agent() {
    let mut hosts = Host::several().await;
    let agent = &Programs::built().agent;
    let arguments = |host: &Host| {
        let configuration = host.lone.path("agent.yml").into_os_string();
        ["rollback", "--deployment-group", GROUP, "--config-file"]
            .map(Into::into)
            .into_iter()
            .chain([configuration])
    };
    let first = &mut hosts[0];
    first.deploy().await;
    let counted = Strike::COUNT
        .run(agent, &arguments(first).collect::<Vec<_>>())
        .await;
    assert_eq!(counted.exit, Some(0), "{}", counted.output);
    let numbers = sweep::points(&counted, 1..=counted.calls.len(), 24);
    let tally = Tally::new("`codedeploy-agent rollback` killed at a system call");
    sweep(
        hosts,
        sweep::kills(numbers),
        async |host: &mut Host, strike| {
            let deployments = host.deploy().await;
            let report = strike
                .run(agent, &arguments(host).collect::<Vec<_>>())
                .await;
            let Some(call) = report.struck else {
                return tally.missed();
            };
            tally.dealt(&call.name);
            let point = format!("{strike} {call}");
            let (interrupted, began) = (
                host.interrupted(),
                host.journals().iter().any(|text| text.contains('\n')),
            );
            host.lone.kill_and_restart().await;
            wait::until("the rollback is over", async || {
                let left = host.journals();
                if left.is_empty() {
                    Ok(())
                } else {
                    Err((left, host.lone.log()))
                }
            })
            .await;
            let found = host.found();
            tally.found(&point, &found);
            let finished = if began && found != Found::Old {
                Err("it was begun, and is not finished".into())
            } else {
                Ok(())
            };
            tally.expect(&point, finished);
            tally.expect(&point, host.scripts(&interrupted));
            if found == Found::New {
                let untouched = text(&host.lone, "notes").is_empty();
                tally.expect(
                    &point,
                    if untouched {
                        Ok(())
                    } else {
                        Err("scripts ran for nothing".into())
                    },
                );
                let again = agent.output(arguments(host)).await;
                let said = String::from_utf8_lossy(&again.stderr).into_owned();
                tally.expect(
                    &point,
                    if again.status.success() {
                        Ok(())
                    } else {
                        Err(said)
                    },
                );
            }
            let status: Value =
                serde_json::from_slice(&host.lone.ask(&["status", "--json"]).await.stdout).unwrap();
            let newest = &status["agent"]["deployments"][0];
            let known = newest["deployment_id"] == *deployments.last
                && newest["rolled_back"]
                    .as_str()
                    .is_some_and(|words| words.contains(&deployments.before));
            tally.expect(
                &point,
                if known {
                    Ok(())
                } else {
                    Err(format!("the status does not tell: {newest}"))
                },
            );
        },
    )
    .await;
    tally.conclude();
}
