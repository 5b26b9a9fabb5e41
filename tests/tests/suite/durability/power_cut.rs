//! A power cut during a deployment leaves the old or the new revision; after a reported success,
//! the new one.

use codedeploy_tests::blockdev::{Disk, Kind, Recording};
use codedeploy_tests::bundle;
use codedeploy_tests::mounts::in_own_mounts;
use codedeploy_tests::pair::{Found, LOCAL_GROUP, Pair, Reference, Revision};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::{Blow, Strike};
use codedeploy_tests::sweep::{self, Tally};

#[test]
#[ignore = "needs root"]
fn ext4_has_the_old_or_the_new_revision_after_a_power_cut() {
    in_own_mounts(|| cut_everywhere(Kind::Ext4));
}

#[test]
#[ignore = "needs root"]
fn xfs_has_the_old_or_the_new_revision_after_a_power_cut_which_takes_minutes() {
    in_own_mounts(|| cut_everywhere(Kind::Xfs));
}

/// The number of disks made from one recording.
#[derive(Clone, Copy)]
struct Cuts {
    /// In the state after one more write.
    after_writes: usize,
    /// With some of the unflushed writes missing.
    reordered: usize,
}

async fn cut_everywhere(kind: Kind) {
    let folder = sweep::folder();
    let pair = Pair::create(folder.path(), LOCAL_GROUP);
    let reference = pair.prepare().await;
    let disk = Disk::create(kind)
        .unwrap_or_else(|error| panic!("the power cut cannot be tried here: {error}"));
    let [few, all, many] =
        [(8, 8), (usize::MAX, 120), (400, 120)].map(|(after_writes, reordered)| Cuts {
            after_writes,
            reordered,
        });
    let (undisturbed, written_back) = if sweep::long() {
        (all, many)
    } else {
        (few, few)
    };
    let mut wrong = Vec::new();
    for (how, before_every_call, cuts) in [
        ("", false, undisturbed),
        (
            " that is written back before every system call",
            true,
            written_back,
        ),
    ] {
        let recorded = record(&disk, &pair, before_every_call).await;
        for (what, cuts) in [
            ("after a write", recorded.prefixes(cuts.after_writes)),
            (
                "with some unflushed writes missing",
                recorded.reordered(cuts.reordered),
            ),
        ] {
            let tally = Tally::new(&format!("Power cut on {}{how}, {what}", kind.name()));
            for cut in cuts {
                tally.dealt("cut");
                disk.load(cut.image);
                let found = found(&disk, &pair, &reference, |left| {
                    tally.expect(&cut.name, left)
                })
                .await;
                tally.found(&cut.name, &found);
                if cut.reported && found == Found::Old {
                    tally.expect(&cut.name, Err("a reported success is lost".into()));
                }
            }
            wrong.extend(tally.count().err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Deploys the new revision over the old one. With `written_back`, the kernel writes everything
/// back before every system call that changes files, as it may.
async fn record(disk: &Disk, pair: &Pair, written_back: bool) -> Recording {
    let mounted = disk.mount(&pair.live()).unwrap();
    pair.reset().await;
    mounted.unmount().unwrap();
    disk.load(disk.image());
    let before = disk.image();
    let mounted = disk.mount(&pair.live()).unwrap();
    if written_back {
        bundle::write(
            &pair.path(""),
            &[(
                "write-back",
                &format!("#!/bin/sh\nsync -f {}\n", pair.live().display()),
            )],
        );
        let strike = Strike(Some((1, Blow::RunFromThenOn(pair.path("write-back")))));
        let report = strike
            .run(&Programs::built().local, &pair.arguments(Revision::New))
            .await;
        assert_eq!(report.exit, Some(0), "{}", report.output);
    } else {
        pair.deployed(Revision::New).await;
    }
    let reported = disk.position();
    mounted.unmount().unwrap();
    Recording {
        before,
        told: disk.told(),
        reported,
    }
}

/// The revision on a disk after the next start; `left` receives other findings.
async fn found(
    disk: &Disk,
    pair: &Pair,
    reference: &Reference,
    left: impl FnOnce(Result<(), String>),
) -> Found {
    let mounted = match disk.mount(&pair.live()) {
        Ok(mounted) => mounted,
        Err(error) => return Found::Mixed(error),
    };
    let found = pair.recover(reference).await;
    left(pair.leaves_nothing_behind());
    mounted.unmount().expect("nobody is there any more");
    found
}
