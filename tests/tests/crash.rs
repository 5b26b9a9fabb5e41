//! A program that is killed in the middle of a deployment leaves the old revision or the new one, and nothing between.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

use codedeploy_tests::pair::{Bed, Revision};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::Strike;
use codedeploy_tests::sweep::{self, Tally, sweep};

#[tokio::test]
async fn a_local_deployment_that_is_killed_at_a_system_call_leaves_the_old_or_the_new_revision() {
    let beds = Bed::several(sweep::AT_ONCE).await;
    let program = Programs::built().local;
    let counted = Strike::COUNT.run(&program, &beds[0].pair.arguments(Revision::New)).await;
    let numbers = sweep::points(&counted, 1..=counted.calls.len(), 60);
    let tally = Tally::new("`codedeploy-local` killed at a system call that changes files");
    sweep(beds, sweep::kills(numbers), async |Bed { pair, reference, .. }: &Bed, strike| {
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
