//! The controller stops in the middle of a deployment: no host fails because of that, and no script
//! runs twice.

use std::fs;
use std::path::Path;
use std::time::Duration;

use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::wait;

const HOOKS: [&str; 4] = [
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
];

/// A revision whose hooks record their runs in `runs`. It installs nothing, because the hosts of a
/// test share the machine.
fn revision(runs: &Path) -> [(&'static str, String); 2] {
    let hooks = HOOKS
        .map(|hook| format!("  {hook}:\n    - location: hook.sh\n"))
        .concat();
    let script = format!(
        "#!/bin/sh\necho \"$LIFECYCLE_EVENT\" >> {}\n",
        runs.display()
    );
    [
        (
            "appspec.yml",
            format!("version: 0.0\nos: linux\nhooks:\n{hooks}"),
        ),
        ("hook.sh", script),
    ]
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// Deploys to all hosts, and stops the controller for `absence` once `begun` scripts have run.
async fn deploy_without_controller(mut fleet: Fleet, begun: usize, absence: Duration) -> Fleet {
    let hosts = fleet.hosts.len();
    let runs = fleet.path(&format!("runs-{}-{begun}", absence.as_secs()));
    let files = revision(&runs);
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let id = fleet.create(fleet.push(&files).await).await;
    wait::until("scripts run", async || {
        let ran = lines(&runs);
        if ran >= begun { Ok(()) } else { Err(ran) }
    })
    .await;
    let killed = fleet.service.kill().await;
    // The absence itself is the test.
    tokio::time::sleep(absence).await;
    fleet.service = killed.restart().await;
    // Many hosts are slow on a small machine, so the test waits for each quarter of them.
    for quarter in 1..=4 {
        wait::until("hosts end their deployment", async || {
            let overview = fleet
                .service
                .deployment(&id)
                .await
                .deployment_overview
                .unwrap();
            let ended =
                usize::try_from(overview.succeeded + overview.failed + overview.skipped).unwrap();
            if ended >= hosts * quarter / 4 {
                Ok(())
            } else {
                Err(overview)
            }
        })
        .await;
    }
    let info = fleet.service.deployment(&id).await;
    let overview = info.deployment_overview.unwrap();
    let ended = (
        usize::try_from(overview.succeeded).unwrap(),
        overview.failed,
        overview.skipped,
    );
    assert_eq!(
        ended,
        (hosts, 0, 0),
        "away for {absence:?} after {begun} scripts"
    );
    assert_eq!(
        lines(&runs),
        hosts * HOOKS.len(),
        "each script ran once on each host"
    );
    fleet
}

#[tokio::test]
async fn hosts_that_miss_the_controller_for_seconds_succeed_when_it_is_back() {
    let fleet = Fleet::start(6, "").await;
    let fleet = deploy_without_controller(fleet, 3, Duration::from_secs(3)).await;
    fleet.stop().await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn fifty_hosts_miss_the_controller_for_up_to_a_minute_and_none_fails_which_takes_minutes() {
    let mut fleet = Fleet::start(50, "").await;
    for seconds in [3, 8, 60] {
        for begun in [1, 50, 120] {
            fleet = deploy_without_controller(fleet, begun, Duration::from_secs(seconds)).await;
        }
    }
    fleet.stop().await;
}
