//! A rollback that is killed at a system call is finished after the next start: the host has the
//! revision of before, whose scripts are not run again where they ran to their end.

use std::fs;

use codedeploy_tests::pair::Found;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::{Report, Strike};
use codedeploy_tests::stub::Completion;
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
    /// Hosts with `more` lines in their configurations.
    async fn several(more: &str) -> Vec<Self> {
        let host = async || Self {
            lone: Lone::start(more).await,
            deployments: 0,
        };
        futures_util::future::join_all((0..sweep::AT_ONCE).map(|_| host())).await
    }

    /// Deploys version 1, and then version 2 as far as these events; its ValidateService is
    /// `validate`.
    async fn deploy(&mut self, validate: &str, events: &[&str]) -> Deployments {
        // A poll that is held open for an agent that has ended would take the first command.
        let polls = self.polls();
        wait::until("the agent polls", async || {
            if self.polls() >= polls + 2 {
                Ok(())
            } else {
                Err(self.lone.log())
            }
        })
        .await;
        let mut ids = Vec::new();
        for (version, validate, events) in [("v1", "true", &ALL[..]), ("v2", validate, events)] {
            self.deployments += 1;
            ids.push(format!("d-{}", self.deployments));
            let files = revision(&self.lone, version, "true", validate);
            deployed(&self.lone, &ids[ids.len() - 1], &files, events).await;
        }
        let _ = fs::remove_file(self.lone.path("notes"));
        let [before, last] = ids.try_into().unwrap();
        Deployments { before, last }
    }

    /// Performs a ValidateService that fails, with an agent under a strike and, when that one has
    /// ended, with another.
    async fn validate_under(&mut self, strike: &Strike, deployments: &Deployments) -> Validated {
        self.end().await;
        let report = self.lone.path("report");
        let _ = fs::remove_file(&report);
        let mut polls = self.polls();
        self.lone.start_under(strike, &report);
        let command = format!("{}/ValidateService", deployments.last);
        let mut interrupted = Vec::new();
        let mut is_delivered = false;
        let outcomes = wait::until(&format!("an outcome of {command}"), async || {
            if self.lone.agent.ended().is_some() {
                interrupted = self.interrupted();
                polls = self.polls();
                self.lone.restart();
                // A service delivers again what nobody has answered.
                is_delivered = false;
            }
            // The first poll may be held open for an agent that has ended; it gets no command.
            if !is_delivered && self.polls() >= polls + 2 {
                self.lone.command(&deployments.last, "ValidateService");
                is_delivered = true;
            }
            let outcomes = self.lone.stub.completions(&command);
            if outcomes.is_empty() {
                Err((self.lone.agent.output(), self.lone.log()))
            } else {
                Ok(outcomes)
            }
        })
        .await;
        self.end().await;
        self.lone.restart();
        let report = wait::until("the calls are counted", async || {
            Report::read(&report).ok_or(())
        })
        .await;
        Validated {
            report,
            outcomes,
            interrupted,
        }
    }

    async fn end(&mut self) {
        self.lone.agent.signal("TERM").await;
        wait::until("the agent ends", async || self.lone.agent.ended().ok_or(())).await;
    }

    fn polls(&self) -> usize {
        self.lone.stub.requests("PollHostCommand").len()
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

/// A ValidateService whose agent was killed.
struct Validated {
    report: Report,
    /// The outcomes that the service received.
    outcomes: Vec<Completion>,
    interrupted: Vec<String>,
}

impl Validated {
    /// Returns the mistake in what the service received.
    fn outcome(&self, before: &str) -> Result<(), String> {
        let back = format!("this host was rolled back: the files of {before} are installed again");
        for outcome in &self.outcomes {
            let failed = outcome.error_code == 4 && outcome.message.contains("exit code 3");
            let last = outcome.log.lines().last().unwrap_or_default();
            if !(failed || outcome.error_code == 7) || !last.starts_with(&back) {
                return Err(format!("{outcome:?}"));
            }
        }
        let code = self.outcomes[0].error_code;
        if self
            .outcomes
            .iter()
            .all(|outcome| outcome.error_code == code)
        {
            Ok(())
        } else {
            Err(format!("several outcomes: {:?}", self.outcomes))
        }
    }
}

#[tokio::test]
async fn a_rollback_on_failure_that_is_killed_is_finished_and_reported() {
    let mut hosts = Host::several("rollback_on_failure: true\n").await;
    let first = &mut hosts[0];
    let deployments = first.deploy("exit 3", &ALL[..3]).await;
    let counted = first.validate_under(&Strike::COUNT, &deployments).await;
    counted.outcome(&deployments.before).unwrap();
    let numbers = sweep::points(&counted.report, 1..=counted.report.calls.len(), 24);
    let tally = Tally::new("`codedeploy-agent` killed at a system call while it rolls back");
    sweep(
        hosts,
        sweep::kills(numbers),
        async |host: &mut Host, strike| {
            let deployments = host.deploy("exit 3", &ALL[..3]).await;
            let validated = host.validate_under(&strike, &deployments).await;
            let Some(call) = &validated.report.struck else {
                return tally.missed();
            };
            tally.dealt(&call.name);
            let point = format!("{strike} {call}");
            let found = host.found();
            tally.found(&point, &found);
            let is_back = if found == Found::Old {
                Ok(())
            } else {
                Err("it is not rolled back".into())
            };
            tally.expect(&point, is_back);
            tally.expect(&point, validated.outcome(&deployments.before));
            tally.expect(&point, host.scripts(&validated.interrupted));
            let left = host.journals();
            let is_over = if left.is_empty() {
                Ok(())
            } else {
                Err(format!("left behind: {left:?}"))
            };
            tally.expect(&point, is_over);
        },
    )
    .await;
    tally.conclude();
}

#[tokio::test]
async fn a_rollback_by_hand_that_is_killed_is_finished_by_the_agent() {
    let mut hosts = Host::several("").await;
    let agent = &Programs::built().agent;
    let arguments = |host: &Host| {
        let configuration = host.lone.path("agent.yml").into_os_string();
        ["rollback", "--deployment-group", GROUP, "--config-file"]
            .map(Into::into)
            .into_iter()
            .chain([configuration])
    };
    let first = &mut hosts[0];
    first.deploy("true", &ALL).await;
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
            let deployments = host.deploy("true", &ALL).await;
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
