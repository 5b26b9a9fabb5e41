//! Random orders in which a service and a network deliver the commands of a deployment: doubled,
//! late, lost, and with kills of the agent. Each command runs once, and the service gets one
//! outcome of it.

use std::fs;

use codedeploy_tests::cases::side_by_side;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::stub::{ACKNOWLEDGE, COMPLETE, Fault, POLL, SPECIFICATION};
use codedeploy_tests::wait;

/// The number of deployments, and the number that one agent performs.
const SEEDS: u64 = 120;
const SEEDS_PER_HOST: u64 = 10;

/// The scripts of a deployment, in order. The scripts of an event never run before those of the
/// previous one.
const EVENTS: [&str; 4] = [
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
];

#[tokio::test]
async fn whatever_is_doubled_late_or_lost_every_command_runs_once_and_has_one_outcome() {
    let hosts = (0..SEEDS / SEEDS_PER_HOST).map(|number| async move {
        let mut host = Lone::start("http_read_timeout: 5\n").await;
        host.stub.refuse_duplicates();
        for seed in number * SEEDS_PER_HOST..(number + 1) * SEEDS_PER_HOST {
            deploy(&mut host, seed).await;
        }
        assert!(host.agent.stop().await.success());
    });
    side_by_side(hosts.collect()).await;
}

/// Runs one deployment. The seed decides about its disturbances.
async fn deploy(host: &mut Lone, seed: u64) {
    let (mut dice, id) = (Dice(seed), format!("d-{seed}"));
    let log = host.path(&format!("runs-{seed}"));
    let mut appspec = String::from("version: 0.0\nos: linux\nhooks:\n");
    for event in EVENTS {
        appspec += &format!("  {event}:\n    - location: hook.sh\n");
    }
    let script = format!("#!/bin/sh\necho $LIFECYCLE_EVENT >> {}\n", log.display());
    host.deployment(
        "web",
        &id,
        &[("appspec.yml", &appspec), ("hook.sh", &script)],
    );
    let mut delivered: Vec<&str> = Vec::new();
    let mut expected = Vec::new();
    for event in ["DownloadBundle"].into_iter().chain(EVENTS) {
        if dice.roll(3) == 0 {
            let fault = [
                Fault::LostAnswer,
                Fault::Reset,
                Fault::Error(500, "ServerException"),
            ];
            let call = [SPECIFICATION, ACKNOWLEDGE, COMPLETE][dice.roll(3)];
            host.stub.fail(call, &fault[dice.roll(3)], 1);
        }
        // Copies of earlier deliveries arrive at any time, and so do copies of this command.
        let mut deliveries: Vec<&str> = (0..dice.roll(3))
            .filter_map(|_| delivered.get(dice.roll(5)).copied())
            .collect();
        deliveries.extend(std::iter::repeat_n(event, 1 + dice.roll(3)));
        dice.shuffle(&mut deliveries);
        let command = format!("{id}/{event}");
        let call = [POLL, SPECIFICATION, ACKNOWLEDGE, COMPLETE][dice.roll(4)];
        let killed_at = (dice.roll(8) == 0).then(|| (call, host.stub.requests(call).len()));
        for name in deliveries {
            host.command(&id, name);
        }
        delivered.push(event);
        if let Some((call, count)) = killed_at {
            wait::until("the moment has come", async || {
                let so_far = host.stub.requests(call).len();
                let over = so_far > count || !host.stub.accepted(&command).is_empty();
                if over { Ok(()) } else { Err(so_far) }
            })
            .await;
            host.kill_and_restart().await;
            // It is unknown whether the agent got the command; a service with at-least-once
            // delivery repeats it.
            host.command(&id, event);
        }
        let outcome = host.stub.taken(&command).await;
        match outcome.error_code {
            0 => {}
            // Killed while the script ran: its progress is unknown.
            7 if event != "DownloadBundle" => {}
            _ => panic!("seed {seed}: {command}: {outcome:?}"),
        }
        expected.push((event, outcome.error_code));
    }
    wait::until("nothing is left to deliver", async || {
        let left = host.stub.deliveries();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    host.stub.recover();
    check(host, seed, &expected).await;
}

/// Checks the scripts that ran and the reports, after everything was delivered.
async fn check(host: &Lone, seed: u64, told: &[(&str, u64)]) {
    // Later than every other command of the group, so none of them is still to come.
    let last = format!("d-{seed}/AfterAllowTraffic");
    host.command(&format!("d-{seed}"), "AfterAllowTraffic");
    host.stub.taken(&last).await;
    let ran = fs::read_to_string(host.path(&format!("runs-{seed}"))).unwrap_or_default();
    let mut ran = ran.lines().peekable();
    for (event, code) in told {
        let outcomes = host.stub.accepted(&format!("d-{seed}/{event}"));
        assert_eq!(
            outcomes.len(),
            1,
            "seed {seed}: outcomes of {event}: {outcomes:?}"
        );
        if *event == "DownloadBundle" {
            continue;
        }
        let did = ran.next_if_eq(event).is_some();
        assert!(
            did || *code == 7,
            "seed {seed}: {event} is told as done, but did not run"
        );
    }
    assert_eq!(
        ran.next(),
        None,
        "seed {seed}: something ran twice, or out of order"
    );
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

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.roll(last + 1));
        }
    }
}
