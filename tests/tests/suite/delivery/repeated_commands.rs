//! Commands that arrive twice, late, all at once or while the agent stops: each runs at most once,
//! and its outcome is reported.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use codedeploy_tests::cases::side_by_side;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::stub::{ACKNOWLEDGE, COMPLETE, Completion, Fault, POLL, SPECIFICATION};
use codedeploy_tests::wait;

/// A revision that runs `script` at every event named.
fn deployment(host: &Lone, group: &str, id: &str, events: &[&str], script: &str) {
    let mut appspec = String::from("version: 0.0\nos: linux\nhooks:\n");
    for event in events {
        appspec += &format!("  {event}:\n    - location: hook.sh\n");
    }
    host.deployment(
        group,
        id,
        &[
            ("appspec.yml", &appspec),
            ("hook.sh", &format!("#!/bin/sh\n{script}")),
        ],
    );
}

/// A script that records its beginning and its end in `log`, and ends when `go` exists.
fn waiting(log: &Path, go: &Path) -> String {
    format!(
        "echo begin >> {log}\nwhile [ ! -e {go} ]; do sleep 0.05; done\necho end >> {log}\n",
        log = log.display(),
        go = go.display()
    )
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

async fn until_lines(path: &Path, count: usize) {
    let what = format!("{} lines in {}", count, path.display());
    wait::until(&what, async || {
        let lines = lines(path);
        if lines.len() >= count {
            Ok(())
        } else {
            Err(lines)
        }
    })
    .await;
}

fn succeeded(completion: &Completion) {
    assert_eq!(
        (completion.status.as_str(), completion.error_code),
        ("Succeeded", 0),
        "{completion:?}"
    );
}

#[tokio::test]
async fn a_command_that_comes_again_while_it_runs_is_ignored_and_afterwards_answered_from_memory() {
    let host = Lone::start("").await;
    let (log, go) = (host.path("log-of-runs"), host.path("go"));
    deployment(&host, "web", "d-1", &["BeforeInstall"], &waiting(&log, &go));
    host.perform("d-1", "DownloadBundle").await;
    let id = host.command("d-1", "BeforeInstall");
    until_lines(&log, 1).await;
    let asked = host.stub.requests(SPECIFICATION).len();
    for _ in 0..5 {
        host.command("d-1", "BeforeInstall");
    }
    let polls = host.stub.requests(POLL).len();
    host.stub.requested(POLL, polls + 6).await;
    assert_eq!(
        host.stub.requests(SPECIFICATION).len(),
        asked,
        "nobody asks what it knows"
    );
    fs::write(&go, "").unwrap();
    let first = host.stub.completed(&id, 1).await;
    succeeded(&first);

    host.command("d-1", "BeforeInstall");
    let again = host.stub.completed(&id, 2).await;
    assert_eq!(
        (&again.status, &again.message),
        (&first.status, &first.message)
    );
    assert_eq!(lines(&log), ["begin", "end"], "it ran once");
    assert_eq!(host.stub.requests(SPECIFICATION).len(), asked);
}

#[tokio::test]
async fn a_service_that_repeats_itself_is_not_asked_without_a_pause() {
    let host = Lone::prepared(
        "wait_between_runs: 3600\n",
        Duration::from_secs(2),
        |_, _| {},
    )
    .await;
    let (log, go) = (host.path("log-of-runs"), host.path("go"));
    deployment(&host, "web", "d-1", &["BeforeInstall"], &waiting(&log, &go));
    // The first poll is held until these are delivered; consecutive commands need no pause.
    host.perform("d-1", "DownloadBundle").await;
    host.command("d-1", "BeforeInstall");
    until_lines(&log, 1).await;
    host.command("d-1", "BeforeInstall");
    host.stub.requested(POLL, 3).await;
    let before = host.stub.requests(POLL).len();
    // The agent would now wait for an hour, but the end of the command starts the poll at once.
    let began = Instant::now();
    fs::write(&go, "").unwrap();
    let completed = host.stub.completed("d-1/BeforeInstall", 1).await;
    let woken = host.stub.requested(POLL, before + 1).await;
    assert!(woken.at >= completed.at && began.elapsed() < Duration::from_secs(30));
    assert!(
        woken.at - completed.at < Duration::from_secs(1),
        "the poll follows at once"
    );
}

#[tokio::test]
async fn commands_lost_by_a_restart_stay_known() {
    let mut host = Lone::start("").await;
    let (log, go) = (host.path("log-of-runs"), host.path("go"));
    deployment(&host, "web", "d-1", &["BeforeInstall"], &waiting(&log, &go));
    host.perform("d-1", "DownloadBundle").await;
    let id = host.command("d-1", "BeforeInstall");
    until_lines(&log, 1).await;
    host.kill_and_restart().await;
    host.command("d-1", "BeforeInstall");
    let lost = host.stub.completed(&id, 1).await;
    assert_eq!((lost.status.as_str(), lost.error_code), ("Failed", 7));
    host.command("d-1", "BeforeInstall");
    let again = host.stub.completed(&id, 2).await;
    assert_eq!(again.error_code, 7);
    fs::write(&go, "").unwrap();
    assert_eq!(
        lines(&log).iter().filter(|line| *line == "begin").count(),
        1,
        "it ran once"
    );
}

#[tokio::test]
async fn an_outcome_that_was_not_taken_before_a_kill_is_not_forgotten() {
    let mut host = Lone::start("").await;
    deployment(&host, "web", "d-1", &[], "");
    host.stub
        .fail(COMPLETE, &Fault::Error(500, "ServerException"), 1000);
    let id = host.command("d-1", "DownloadBundle");
    host.stub.completed(&id, 1).await;
    host.kill_and_restart().await;
    host.stub.recover();
    succeeded(&host.stub.taken(&id).await);
}

#[tokio::test]
async fn sixteen_commands_run_at_once_and_one_of_a_deployment_group() {
    let host = Lone::start("").await;
    let (log, go) = (host.path("log-of-runs"), host.path("go"));
    let script = waiting(&log, &go);
    for number in 0..18 {
        let id = format!("d-{number}");
        deployment(
            &host,
            &format!("group{number}"),
            &id,
            &["BeforeInstall"],
            &script,
        );
        host.perform(&id, "DownloadBundle").await;
    }
    for number in 0..18 {
        host.command(&format!("d-{number}"), "BeforeInstall");
    }
    until_lines(&log, 16).await;
    let polls = host.stub.requests(POLL).len();
    assert_eq!(lines(&log).len(), 16);
    fs::write(&go, "").unwrap();
    for number in 0..18 {
        succeeded(
            &host
                .stub
                .completed(&format!("d-{number}/BeforeInstall"), 1)
                .await,
        );
    }
    assert!(host.stub.requests(POLL).len() > polls, "polling went on");
    let lines = lines(&log);
    let mut running = 0_usize;
    for line in &lines {
        running = if line == "begin" {
            running + 1
        } else {
            running - 1
        };
        assert!(running <= 16, "{lines:?}");
    }
    assert_eq!(lines.len(), 36);

    let (log, go) = (host.path("log-of-group"), host.path("go-group"));
    for id in ["d-a", "d-b"] {
        deployment(&host, "group", id, &["BeforeInstall"], &waiting(&log, &go));
        host.perform(id, "DownloadBundle").await;
    }
    let acknowledged = host.stub.requests(ACKNOWLEDGE).len();
    let asked = host.stub.requests(SPECIFICATION).len();
    host.command("d-a", "BeforeInstall");
    until_lines(&log, 1).await;
    host.command("d-b", "BeforeInstall");
    host.stub.requested(SPECIFICATION, asked + 2).await;
    deployment(&host, "another group", "d-c", &[], "");
    succeeded(&host.perform("d-c", "DownloadBundle").await);
    assert_eq!(
        host.stub.requests(ACKNOWLEDGE).len(),
        acknowledged + 2,
        "a command that waits is not begun"
    );
    fs::write(&go, "").unwrap();
    succeeded(&host.stub.completed("d-b/BeforeInstall", 1).await);
    assert_eq!(self::lines(&log), ["begin", "end", "begin", "end"]);
}

#[tokio::test]
async fn deployments_to_one_destination_do_not_mix() {
    let host = Lone::start("").await;
    let target = host.path("target");
    let names: Vec<String> = (0..300).map(|number| format!("files/{number}")).collect();
    for id in ["d-a", "d-b", "d-c"] {
        let appspec = format!(
            "version: 0.0\nos: linux\nfile_exists_behavior: OVERWRITE\nfiles:\n  - source: files\n    destination: {}\n",
            target.display()
        );
        let mut files = vec![("appspec.yml", appspec.as_str())];
        files.extend(names.iter().map(|name| (name.as_str(), id)));
        host.deployment(id, id, &files);
        host.perform(id, "DownloadBundle").await;
    }
    for id in ["d-a", "d-b", "d-c"] {
        host.command(id, "Install");
    }
    for id in ["d-a", "d-b", "d-c"] {
        succeeded(&host.stub.completed(&format!("{id}/Install"), 1).await);
    }
    let mut found: Vec<String> = fs::read_dir(&target)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(found.len(), 300);
    found.dedup();
    assert_eq!(
        found.len(),
        1,
        "one of them came last, with all its files: {found:?}"
    );
}

#[tokio::test]
async fn an_idle_agent_ends_at_once_even_while_the_service_holds_its_poll() {
    for signal in ["TERM", "INT", "QUIT"] {
        let mut host = Lone::prepared("", Duration::from_secs(70), |_, _| {}).await;
        host.stub.requested(POLL, 1).await;
        let began = Instant::now();
        host.agent.signal(signal).await;
        let status = wait::until("the agent ends", async || host.agent.ended().ok_or(())).await;
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{signal}: {:?}",
            began.elapsed()
        );
        assert!(status.success(), "{signal}: {status}");
    }
}

#[tokio::test]
async fn an_agent_that_backs_off_or_pauses_ends_at_once() {
    let paused = Lone::prepared("wait_between_runs: 3600\n", Duration::ZERO, |_, _| {}).await;
    paused.stub.requested(POLL, 1).await;
    let backs_off = Lone::start("wait_after_error: 3600\n").await;
    backs_off
        .stub
        .fail(POLL, &Fault::Error(400, "AccessDeniedException"), 1);
    wait::until("it backs off", async || {
        backs_off
            .log()
            .contains("cannot poll")
            .then_some(())
            .ok_or(())
    })
    .await;
    for host in [paused, backs_off] {
        let began = Instant::now();
        assert!(host.agent.stop().await.success());
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn a_signal_lets_the_command_in_progress_finish_and_takes_no_other() {
    for signal in ["TERM", "INT", "QUIT"] {
        let mut host = Lone::start("").await;
        let (log, go) = (host.path("log-of-runs"), host.path("go"));
        deployment(&host, "web", "d-1", &["BeforeInstall"], &waiting(&log, &go));
        host.perform("d-1", "DownloadBundle").await;
        let id = host.command("d-1", "BeforeInstall");
        until_lines(&log, 1).await;
        host.agent.signal(signal).await;
        wait::until("it stops", async || {
            host.log().contains("stopping").then_some(()).ok_or(())
        })
        .await;
        if signal == "TERM" {
            host.agent.signal(signal).await;
        }
        let polls = host.stub.requests(POLL).len();
        let later = host.command("d-1", "AfterInstall");
        fs::write(&go, "").unwrap();
        let status = wait::until("the agent ends", async || host.agent.ended().ok_or(())).await;
        assert!(status.success(), "{signal}: {status}");
        succeeded(&host.stub.completed(&id, 1).await);
        assert_eq!(lines(&log), ["begin", "end"]);
        assert_eq!(host.stub.requests(POLL).len(), polls);
        assert!(host.stub.completions(&later).is_empty());
    }
}

#[tokio::test]
async fn patience_ends_with_a_second_signal_from_a_keyboard_or_with_time() {
    for (signals, more) in [
        (&["TERM", "INT"][..], ""),
        (&["QUIT", "QUIT"], ""),
        (&["TERM"], "kill_agent_max_wait_time_seconds: 1\n"),
    ] {
        let mut host = Lone::start(more).await;
        let (log, go) = (host.path("log-of-runs"), host.path("never"));
        for id in ["d-1", "d-2"] {
            deployment(&host, "web", id, &["BeforeInstall"], &waiting(&log, &go));
            host.perform(id, "DownloadBundle").await;
        }
        let id = host.command("d-1", "BeforeInstall");
        until_lines(&log, 1).await;
        let asked = host.stub.requests(SPECIFICATION).len();
        let behind = host.command("d-2", "BeforeInstall");
        host.stub.requested(SPECIFICATION, asked + 1).await;
        // The service is unreachable, too: the agent retries once, and exits.
        host.stub
            .fail(COMPLETE, &Fault::Error(500, "ServerException"), 1000);
        for signal in signals {
            host.agent.signal(signal).await;
            wait::until("it stops", async || {
                host.log().contains("stopping").then_some(()).ok_or(())
            })
            .await;
        }
        let status = wait::until("the agent ends", async || {
            host.agent.ended().ok_or(host.log())
        })
        .await;
        assert!(status.success(), "{signals:?}: {status}");
        let told = host.stub.completions(&id);
        assert!(
            told.iter()
                .all(|told| told.error_code == 7 && told.message.contains("the agent was stopped"))
        );
        let told = host.stub.completions(&behind);
        assert!(told.iter().all(|told| told.error_code == 7), "{told:?}");
        assert_eq!(
            lines(&log),
            ["begin"],
            "the command that waited did not begin"
        );
    }
}

/// Random disturbances of one deployment by a network and a service.
#[tokio::test]
async fn whatever_is_lost_late_or_doubled_every_command_runs_once_and_is_answered() {
    let ten = |tens: u64| async move {
        let host = Lone::start("http_read_timeout: 5\n").await;
        for seed in tens * 10..(tens + 1) * 10 {
            lost_late_or_doubled(&host, seed).await;
        }
        assert!(host.agent.stop().await.success());
    };
    side_by_side((0..5).map(ten).collect()).await;
}

async fn lost_late_or_doubled(host: &Lone, seed: u64) {
    const EVENTS: [&str; 3] = ["BeforeInstall", "AfterInstall", "ApplicationStart"];
    let mut dice = Dice(seed);
    let id = format!("d-{seed}");
    let log = host.path(&format!("runs-{seed}"));
    deployment(
        host,
        "web",
        &id,
        &EVENTS,
        &format!("echo $LIFECYCLE_EVENT >> {}\n", log.display()),
    );
    for call in [SPECIFICATION, ACKNOWLEDGE, COMPLETE] {
        let fault = match dice.roll(6) {
            0 => Fault::Reset,
            1 => Fault::Error(500, "ServerException"),
            2 => Fault::CutBody,
            3 => Fault::LostAnswer,
            _ => continue,
        };
        host.stub.fail(call, &fault, 1);
    }
    let mut delivered: Vec<&str> = Vec::new();
    for event in ["DownloadBundle"].iter().chain(&EVENTS) {
        let again = dice.roll(3);
        // A late copy of an earlier delivery, in front of the new one.
        if let Some(late) = delivered.get(dice.roll(4)) {
            host.command(&id, late);
        }
        let name = host.command(&id, event);
        for _ in 0..again {
            host.command(&id, event);
        }
        delivered.push(event);
        let last = host.stub.completed(&name, 1).await;
        assert_eq!(last.error_code, 0, "seed {seed}: {last:?}");
    }
    // Every copy was delivered.
    wait::until("nothing is left to deliver", async || {
        let left = host.stub.deliveries();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(lines(&log), EVENTS, "seed {seed}: each ran once, in order");
    host.stub.recover();
}

/// Pseudo-random numbers: a failing seed fails again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}
