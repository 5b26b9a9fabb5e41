//! A program that is killed during a deployment leaves the old or the new revision, and nothing in
//! between.

use std::fs;
use std::path::Path;

use codedeploy_tests::bundle;
use codedeploy_tests::pair::{Bed, Revision};
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::strike::{Blow, Strike};
use codedeploy_tests::sweep::{self, Tally, sweep};

#[tokio::test]
async fn a_local_deployment_that_is_killed_at_a_system_call_leaves_the_old_or_the_new_revision() {
    let beds = Bed::several(sweep::AT_ONCE).await;
    let program = Programs::built().local;
    let counted = Strike::COUNT
        .run(&program, &beds[0].pair.arguments(Revision::New))
        .await;
    let numbers = sweep::points(&counted, 1..=counted.calls.len(), 60);
    let tally = Tally::new("`codedeploy-local` killed at a system call that changes files");
    sweep(
        beds,
        sweep::kills(numbers),
        async |Bed {
                   pair, reference, ..
               }: &mut Bed,
               strike| {
            pair.reset().await;
            let report = strike.run(&program, &pair.arguments(Revision::New)).await;
            let Some(call) = report.struck else {
                return tally.missed();
            };
            tally.dealt(&call.name);
            let point = format!("{strike} {call}");
            let found = pair.recover(reference).await;
            tally.found(&point, &found);
            tally.expect(&point, pair.leaves_nothing_behind());
            // Both continuations, alternately.
            let goes_on = if strike.at().is_multiple_of(2) {
                pair.goes_on(reference, &found).await
            } else {
                pair.cleans_up(reference, &found).await
            };
            tally.expect(&point, goes_on);
        },
    )
    .await;
    tally.conclude();
}

#[tokio::test]
async fn a_recovery_that_is_killed_at_a_system_call_leaves_the_old_or_the_new_revision_to_the_next_one()
 {
    let beds = Bed::several(sweep::AT_ONCE).await;
    let program = Programs::built().local;
    let counted = Strike::COUNT
        .run(&program, &beds[0].pair.arguments(Revision::New))
        .await;
    let (firsts, step) = if sweep::long() { (12, 1) } else { (8, 12) };
    // Before the first name changes there is little to recover.
    let renames = counted
        .calls
        .iter()
        .position(|call| call.name == "renameat2" && call.path.contains("/srv/"));
    let begin = renames.expect("an Install changes names");
    let firsts: Vec<usize> = (0..firsts)
        .map(|index| begin + index * (counted.calls.len() - begin) / firsts)
        .collect();
    let tally = Tally::new("`codedeploy-local` killed, and its recovery killed at a system call");
    sweep(
        beds,
        firsts,
        async |Bed {
                   pair, reference, ..
               }: &mut Bed,
               first| {
            let install = Strike(Some((first, Blow::Kill)));
            for second in (1..).step_by(step) {
                pair.reset().await;
                let killed = install.run(&program, &pair.arguments(Revision::New)).await;
                let recovery = Strike(Some((second, Blow::Kill)));
                let report = recovery
                    .run(&program, &pair.arguments(Revision::Failing))
                    .await;
                let Some(call) = report.struck else { break };
                tally.dealt(&call.name);
                let point = format!("{install} {:?}, {recovery} {call}", killed.struck);
                let found = pair.recover(reference).await;
                tally.found(&point, &found);
                tally.expect(&point, pair.leaves_nothing_behind());
                tally.expect(&point, pair.goes_on(reference, &found).await);
            }
        },
    )
    .await;
    tally.conclude();
}

/// A check of the test itself: it detects a program that copies in place.
#[tokio::test]
async fn a_copy_in_place_that_is_killed_is_found_to_be_mixed() {
    let folder = sweep::folder();
    let [old, new, live] = ["old", "new", "live"].map(|name| folder.path().join(name));
    let files = |text| ["a", "b", "in/c", "in/d"].map(|name| (name, text));
    bundle::write(&old, &files("old"));
    bundle::write(&new, &files("new"));
    let copy = Program::at("cp");
    let arguments = |from: &Path| ["-r".into(), "-T".into(), from.into(), live.clone().into()];
    let texts =
        || ["a", "b", "in/c", "in/d"].map(|name| fs::read_to_string(live.join(name)).unwrap());
    let mut mixed = 0;
    for number in 1.. {
        Strike::COUNT.run(&copy, &arguments(&old)).await;
        assert_eq!(texts(), ["old"; 4]);
        if Strike(Some((number, Blow::Kill)))
            .run(&copy, &arguments(&new))
            .await
            .struck
            .is_none()
        {
            break;
        }
        mixed += usize::from(
            ![["old"; 4], ["new"; 4]].contains(&texts().each_ref().map(String::as_str)),
        );
    }
    assert_eq!(texts(), ["new"; 4], "the sweep went on to the end");
    assert!(mixed > 4, "{mixed}");
}
