//! A host that changes during a deployment: a file system that fills up or becomes read-only, and
//! somebody else who works in the same folders.

use std::fs;
use std::path::{Path, PathBuf};

use codedeploy_tests::bundle;
use codedeploy_tests::mounts::{Mounted, in_own_mounts};
use codedeploy_tests::pair::{Bed, Found, Revision};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::{Blow, Strike};
use codedeploy_tests::sweep::{self, Tally, sweep};
use codedeploy_tests::tree::Snapshot;

/// A page, the unit in which a file system in memory grows.
const PAGE: u64 = 4096;

#[test]
#[ignore = "needs root"]
fn a_file_system_without_space_or_inodes_keeps_the_old_revision_until_there_is_enough() {
    in_own_mounts(async || {
        fills_up("A full file system, bytes", |used, more| {
            format!("size={}", used.blocks * PAGE + more * PAGE)
        })
        .await;
        fills_up("A full file system, inodes", |used, more| {
            format!("nr_inodes={}", used.inodes + more)
        })
        .await;
    });
}

struct Used {
    blocks: u64,
    inodes: u64,
}

/// Deploys with more and more space, until it suffices.
async fn fills_up(what: &str, limit: impl Fn(&Used, u64) -> String) {
    let Bed {
        pair,
        reference,
        folder: _folder,
    } = one_bed().await;
    let mounted = Mounted::in_memory(&pair.live()).unwrap();
    let tally = Tally::new(what);
    let step = if sweep::long() { 1 } else { 9 };
    for room in (0..).step_by(step) {
        mounted.change("size=64m,nr_inodes=100000").unwrap();
        pair.reset().await;
        let stat = nix::sys::statvfs::statvfs(&pair.live()).unwrap();
        let used = Used {
            blocks: stat.blocks() - stat.blocks_free(),
            inodes: stat.files() - stat.files_free(),
        };
        mounted.change(&limit(&used, room)).unwrap();
        tally.dealt("deployment");
        let (succeeded, output) = pair.deploy(Revision::New).await;
        let point = format!("room for {room}");
        let found = pair.found(&reference);
        tally.found(&point, &found);
        if succeeded {
            tally.expect(
                &point,
                if found == Found::New {
                    Ok(())
                } else {
                    Err("a success that is none".into())
                },
            );
            break;
        }
        // Before the first change, or by the system in the middle of one.
        let said = ["room for", "space", "inodes"]
            .iter()
            .any(|words| output.contains(words));
        tally.expect(
            &point,
            if said {
                Ok(())
            } else {
                Err(format!("it does not say what is missing:\n{output}"))
            },
        );
        mounted.change("size=64m,nr_inodes=100000").unwrap();
        tally.expect(&point, pair.goes_on(&reference, &found).await);
    }
    mounted.unmount().unwrap();
    tally.conclude();
}

#[test]
#[ignore = "needs root"]
fn a_file_system_that_becomes_read_only_has_the_old_or_the_new_revision_at_the_next_start() {
    in_own_mounts(async || {
        let Bed {
            pair,
            reference,
            folder: _folder,
        } = one_bed().await;
        let mounted = Mounted::in_memory(&pair.live()).unwrap();
        pair.reset().await;
        let program = Programs::built().local;
        let counted = Strike::COUNT
            .run(&program, &pair.arguments(Revision::New))
            .await;
        // This fails while a file is open for writing; the attempt has no effect then.
        let script = format!(
            "mount -o remount,ro {live} 2>/dev/null || true",
            live = pair.live().display()
        );
        let script = executable(&pair.path("read-only"), &script);
        let tally = Tally::new("A file system that becomes read-only");
        for number in sweep::points(&counted, 1..=counted.calls.len(), 30) {
            pair.reset().await;
            let strike = Strike(Some((number, Blow::Run(script.clone()))));
            let report = strike.run(&program, &pair.arguments(Revision::New)).await;
            let read_only = nix::sys::statvfs::statvfs(&pair.live()).unwrap().flags();
            if !read_only.contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
                tally.missed();
                continue;
            }
            mounted.change("rw").unwrap();
            let point = format!("read-only from {number} {:?} on", report.struck);
            tally.dealt(&report.struck.map_or_else(String::new, |call| call.name));
            let found = pair.recover(&reference).await;
            tally.found(&point, &found);
            let false_success = report.exit == Some(0) && found == Found::Old;
            tally.expect(
                &point,
                if false_success {
                    Err("a success that is none".into())
                } else {
                    Ok(())
                },
            );
            tally.expect(&point, pair.leaves_nothing_behind());
            tally.expect(&point, pair.goes_on(&reference, &found).await);
        }
        mounted.unmount().unwrap();
        tally.conclude();
    });
}

/// An action of somebody else in the middle of a deployment.
struct Intrusion {
    name: &'static str,
    /// Runs in the folder `srv`, and may fail when there is nothing left to do.
    script: &'static str,
    /// Paths that are not checked afterwards.
    paths: &'static [&'static str],
    /// A file that must exist with the text `theirs` in any case.
    stays: Option<&'static str>,
}

const INTRUSIONS: [Intrusion; 5] = [
    Intrusion {
        name: "a file of somebody else where a new one is to come",
        script: "set -C; printf theirs > app/added.txt",
        paths: &["srv/app/added.txt"],
        stays: None,
    },
    Intrusion {
        name: "a file of somebody else in a folder that is to go",
        script: "printf theirs > app/emptied/theirs",
        paths: &["srv/app/emptied"],
        stays: Some("srv/app/emptied/theirs"),
    },
    Intrusion {
        name: "a folder that becomes a link to another place",
        script: "mv app/bin keep/their-bin && ln -s ../../../outside app/bin",
        paths: &["srv/app/bin", "srv/keep"],
        stays: None,
    },
    Intrusion {
        name: "a folder that gets another name",
        script: "mv shared their-shared",
        paths: &["srv/shared", "srv/their-shared"],
        stays: None,
    },
    Intrusion {
        name: "a file that becomes a folder",
        script: "rm app/changed.txt && mkdir app/changed.txt && printf theirs > app/changed.txt/theirs",
        paths: &["srv/app/changed.txt", "srv/keep"],
        stays: Some("srv/app/changed.txt/theirs"),
    },
];

#[tokio::test]
async fn what_somebody_else_does_meanwhile_is_not_undone_and_the_rest_is_the_old_or_the_new_revision()
 {
    let beds = Bed::several(sweep::AT_ONCE).await;
    let program = Programs::built().local;
    let counted = Strike::COUNT
        .run(&program, &beds[0].pair.arguments(Revision::New))
        .await;
    let mut points = Vec::new();
    for intrusion in &INTRUSIONS {
        let numbers = sweep::points(&counted, 1..=counted.calls.len(), 20);
        points.extend(numbers.into_iter().map(|number| (intrusion, number)));
    }
    let tally = Tally::new("Somebody else changes a folder at a system call");
    sweep(
        beds,
        points,
        async |Bed {
                   pair, reference, ..
               }: &mut Bed,
               (intrusion, number)| {
            pair.reset().await;
            let outside = pair.path("outside");
            bundle::write(&outside, &[("run.sh", "outside")]);
            let before = Snapshot::of(std::slice::from_ref(&outside));
            let mark = pair.path("intruded");
            let _ = fs::remove_file(&mark);
            let script = format!(
                "cd {}/srv && {{ {}; }} 2>/dev/null && touch {} || true",
                pair.live().display(),
                intrusion.script,
                mark.display()
            );
            let script = executable(&pair.path("intrude"), &script);
            let strike = Strike(Some((number, Blow::Run(script))));
            let report = strike.run(&program, &pair.arguments(Revision::New)).await;
            if !mark.exists() {
                return tally.missed();
            }
            tally.dealt(intrusion.name);
            let point = format!("{} at {number} {:?}", intrusion.name, report.struck);
            let expect = |right: bool, what: &str| {
                tally.expect(
                    &point,
                    if right {
                        Ok(())
                    } else {
                        Err(format!("{what}:\n{}", report.output))
                    },
                );
            };
            expect(
                !report.output.contains("panicked") && matches!(report.exit, Some(0 | 1)),
                "an end that is none",
            );
            expect(
                before == Snapshot::of(&[outside]),
                "something outside was touched",
            );
            let live = pair.live();
            if let Some(stays) = intrusion.stays {
                let text = fs::read_to_string(live.join(stays)).unwrap_or_default();
                expect(text == "theirs", "what somebody else wrote is gone");
            }
            let paths: Vec<PathBuf> = intrusion.paths.iter().map(|path| live.join(path)).collect();
            let found = reference
                .clone()
                .without(&paths)
                .which(&pair.state().without(&paths));
            tally.found(&point, &found);
            expect(
                report.exit != Some(0) || found == Found::New,
                "a success that is none",
            );
        },
    )
    .await;
    tally.conclude();
}

async fn one_bed() -> Bed {
    Bed::several(1).await.remove(0)
}

fn executable(path: &Path, script: &str) -> PathBuf {
    let folder = path.parent().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    bundle::write(folder, &[(name, &format!("#!/bin/sh\n{script}\n"))]);
    path.to_owned()
}
