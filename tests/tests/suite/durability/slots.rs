//! Kills and power cuts while slots are filled and switched leave one slot that serves.

use std::path::Path;

use codedeploy_tests::blockdev::{Cut, Disk, Kind, Recording};
use codedeploy_tests::mounts::in_own_mounts;
use codedeploy_tests::pair::Found;
use codedeploy_tests::strike::{Blow, Call, Report, Strike};
use codedeploy_tests::sweep::{self, Tally};

use crate::local::slots::{Bench, Revision, revision, succeeds};

/// The numbers of the calls from the first one whose path contains `begins` to the end.
fn numbers(counted: &Report, begins: &str) -> Vec<usize> {
    let begin = counted
        .calls
        .iter()
        .position(|call| call.path.contains(begins));
    let begin = begin.unwrap_or_else(|| panic!("no {begins}: {}", counted.output)) + 1;
    sweep::points(counted, begin..=counted.calls.len(), 15)
}

/// Kills the deployment of `revision` after v1 at each point from the call that changes `begins` on.
/// Whatever was reached, one whole revision serves, and the next deployment works.
async fn killed(what: &str, revision: &Revision<'_>, begins: &str) {
    let first = Revision {
        strategy: revision.strategy,
        ..self::revision("v1")
    };
    let next = Revision {
        version: "v3",
        fails: None,
        ..*revision
    };
    let bench = Bench::new();
    succeeds(bench.deploy(&first).await);
    let counted = bench.struck(revision, Strike::COUNT).await;
    let tally = Tally::new(what);
    for number in numbers(&counted, begins) {
        let bench = Bench::new();
        succeeds(bench.deploy(&first).await);
        let strike = Strike(Some((number, Blow::Kill)));
        let report = bench.struck(revision, strike).await;
        let Some(call) = report.struck else {
            tally.missed();
            continue;
        };
        tally.dealt(&call.name);
        let point = format!("{number} {call}");
        let found = found(&bench);
        tally.found(&point, &found);
        let fails = revision.fails.is_some() && found == Found::New;
        let noticed = if fails {
            Err("it serves".into())
        } else {
            Ok(())
        };
        tally.expect(&point, noticed);
        tally.expect(&point, goes_on(&bench, &next).await);
    }
    tally.conclude();
}

/// The revision that the link leads to, before anything is recovered.
fn found(bench: &Bench) -> Found {
    let (served, files) = (bench.serves(), bench.names("app/only"));
    match served.as_str() {
        "v1" if files == ["v1"] => Found::Old,
        "v2" if files == ["v2"] => Found::New,
        _ => Found::Mixed(format!("{served:?} with {files:?}")),
    }
}

/// Whether the next deployment succeeds and leaves nothing of the interrupted one.
async fn goes_on(bench: &Bench, next: &Revision<'_>) -> Result<(), String> {
    let (succeeded, said) = bench.deploy(next).await;
    let serves = bench.serves() == next.version && bench.names("app/only") == [next.version];
    if !(succeeded && serves) {
        return Err(said);
    }
    bench.leaves_nothing_behind()
}

/// A revision with a script that moves traffic.
fn with_traffic(version: &str) -> Revision<'_> {
    Revision {
        strategy: Some("  traffic:\n    command: {location: traffic.sh}\n"),
        ..revision(version)
    }
}

#[tokio::test]
async fn whoever_is_killed_in_a_switch_leaves_one_slot_that_serves() {
    let what = "`codedeploy-local` killed while it switches slots";
    killed(what, &with_traffic("v2"), "-switch.jsonl").await;
}

#[tokio::test]
async fn whoever_is_killed_while_a_failed_deployment_leaves_its_slot_goes_unnoticed() {
    let failing = Revision {
        fails: Some("ValidateService"),
        elsewhere: true,
        ..revision("v2")
    };
    let what = "… while a failed deployment leaves its slot";
    killed(what, &failing, "-rollback.jsonl").await;
}

#[tokio::test]
async fn whoever_is_killed_while_a_slot_is_filled_goes_unnoticed() {
    let what = "… from its Install in a slot to the end";
    killed(what, &revision("v2"), "-journal.json").await;
}

#[tokio::test]
async fn a_switch_that_somebody_took_back_by_hand_is_not_finished() {
    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    let counted = bench.struck(&revision("v2"), Strike::COUNT).await;
    let stopping = |call: &Call| call.path.contains("-switch.jsonl") && call.name == "write";
    // Before the last step comes the one that stops v1.
    let writes: Vec<usize> = (1..=counted.calls.len())
        .filter(|number| stopping(&counted.calls[number - 1]))
        .collect();
    let number = writes[writes.len() - 2];

    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    let killed = Strike(Some((number, Blow::Kill)));
    bench.struck(&revision("v2"), killed).await;
    bench.expect("green", "v2");
    std::fs::remove_file(bench.path("app")).unwrap();
    std::os::unix::fs::symlink(bench.path("app.slots/blue"), bench.path("app")).unwrap();
    bench.notes();
    let failing = Revision {
        fails: Some("BeforeInstall"),
        ..revision("v3")
    };
    let (_, said) = bench.deploy(&failing).await;
    assert!(said.contains("somebody changed the link"), "{said}");
    bench.expect("blue", "v1");
    let notes = bench.notes();
    assert!(!notes.contains("v1 ApplicationStop"), "{notes}");
}

#[test]
#[ignore = "needs root"]
fn after_a_power_cut_in_a_switch_one_slot_serves() {
    in_own_mounts(cut_everywhere);
}

async fn cut_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::create(Kind::Ext4)
        .unwrap_or_else(|error| panic!("the power cut cannot be tried here: {error}"));
    let recorded = record(&disk, folder.path()).await;
    let (after_writes, reordered) = if sweep::long() {
        (usize::MAX, 120)
    } else {
        (6, 6)
    };
    let mut wrong = Vec::new();
    for (what, cuts) in [
        ("after a write", recorded.prefixes(after_writes)),
        (
            "with some unflushed writes missing",
            recorded.reordered(reordered),
        ),
    ] {
        let tally = Tally::new(&format!(
            "Power cut on ext4 while slots are filled and switched, {what}"
        ));
        for cut in cuts {
            tally.dealt("cut");
            after(&disk, folder.path(), cut, &tally).await;
        }
        wrong.extend(tally.count().err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Deploys v2 beside v1.
async fn record(disk: &Disk, folder: &Path) -> Recording {
    let mounted = disk.mount(folder).unwrap();
    succeeds(Bench::at(folder, "").deploy(&with_traffic("v1")).await);
    mounted.unmount().unwrap();
    disk.load(disk.image());
    let before = disk.image();
    let mounted = disk.mount(folder).unwrap();
    succeeds(Bench::at(folder, "").deploy(&with_traffic("v2")).await);
    let reported = disk.position();
    mounted.unmount().unwrap();
    Recording {
        before,
        told: disk.told(),
        reported,
    }
}

/// Starts the disk of a power cut again.
async fn after(disk: &Disk, folder: &Path, cut: Cut, tally: &Tally) {
    disk.load(cut.image);
    let mounted = match disk.mount(folder) {
        Ok(mounted) => mounted,
        Err(error) => return tally.found(&cut.name, &Found::Mixed(error)),
    };
    let bench = Bench::at(folder, "");
    let found = found(&bench);
    tally.found(&cut.name, &found);
    if cut.reported && found == Found::Old {
        tally.expect(&cut.name, Err("a reported success is lost".into()));
    }
    tally.expect(&cut.name, goes_on(&bench, &with_traffic("v3")).await);
    mounted.unmount().expect("nobody is there any more");
}
