//! A program that is killed in the middle of a deployment leaves the old revision or the new one, and nothing between.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

use codedeploy_tests::pair::{Pair, Reference, Revision};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::Strike;
use codedeploy_tests::sweep::{self, Tally, sweep};

/// A host, ready for the new revision.
struct Bed {
    pair: Pair,
    reference: Reference,
    _folder: tempfile::TempDir,
}

async fn bed() -> Bed {
    let folder = sweep::folder();
    let pair = Pair::create(folder.path());
    let reference = pair.prepare().await;
    Bed { pair, reference, _folder: folder }
}

async fn beds() -> Vec<Bed> {
    futures_util::future::join_all((0..sweep::beds()).map(|_| bed())).await
}

#[tokio::test]
async fn a_local_deployment_that_is_killed_at_a_system_call_leaves_the_old_or_the_new_revision() {
    let beds = beds().await;
    let program = Programs::built().local;
    let counted = Strike::COUNT.run(&program, &beds[0].pair.arguments(Revision::New)).await;
    let numbers = sweep::points(&counted, 1..=counted.calls.len(), 60);
    let tally = Tally::new("`codedeploy-local` killed at a system call that changes files");
    sweep(beds, sweep::kills(numbers), async |bed: &Bed, strike| {
        let Bed { pair, reference, .. } = bed;
        pair.reset().await;
        let report = strike.run(&program, &pair.arguments(Revision::New)).await;
        let Some(call) = report.struck else { return tally.missed() };
        tally.dealt(&call.name);
        let point = format!("{strike} {call}");
        let found = pair.recover(reference).await;
        tally.found(&point, &found);
        tally.expect(&point, pair.leaves_nothing_behind());
        // Both ways to go on, in turn.
        let goes_on = if strike.at() % 2 == 0 {
            pair.goes_on(reference, &found).await
        } else {
            pair.cleans_up(reference, &found).await
        };
        tally.expect(&point, goes_on);
    })
    .await;
    tally.conclude();
}
