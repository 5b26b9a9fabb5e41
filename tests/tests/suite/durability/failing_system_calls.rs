//! A deployment that meets an error of the host ends, reports it, leaves the old or the new
//! revision, and can be repeated.

use codedeploy_tests::pair::{Bed, Found, Revision};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::{Blow, Report, Strike};
use codedeploy_tests::sweep::{self, Tally, sweep};
use nix::errno::Errno;

/// Checks that the end of a disturbed deployment is useful to an operator.
fn ended_well(report: &Report, found: &Found) -> Result<(), String> {
    if report.output.contains("panicked") {
        return Err(format!("a panic:\n{}", report.output));
    }
    match report.exit {
        Some(0) if *found == Found::Old => {
            Err(format!("a success that is none:\n{}", report.output))
        }
        Some(0 | 1) => Ok(()),
        other => Err(format!("it ended with {other:?}:\n{}", report.output)),
    }
}

/// Beds, and about `most` calls of a deployment for each error that they can return.
async fn points(
    errnos: &[Errno],
    most: usize,
    blow: fn(Errno) -> Blow,
) -> (Vec<Bed>, Vec<(Errno, Strike)>) {
    let beds = Bed::several(sweep::AT_ONCE).await;
    let counted = Strike::COUNT
        .run(
            &Programs::built().local,
            &beds[0].pair.arguments(Revision::New),
        )
        .await;
    let strikes = |errno: &Errno| {
        let errno = *errno;
        let numbers = sweep::points(&counted, counted.that_can_fail_with(errno), most);
        numbers
            .into_iter()
            .map(move |number| (errno, Strike(Some((number, blow(errno))))))
    };
    let points = errnos.iter().flat_map(strikes).collect();
    (beds, points)
}

#[tokio::test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "needs x86-64")]
async fn an_error_at_one_system_call_leaves_the_old_or_the_new_revision_at_once() {
    let errnos = [
        Errno::ENOSPC,
        Errno::EDQUOT,
        Errno::EIO,
        Errno::EROFS,
        Errno::EACCES,
        Errno::EMFILE,
    ];
    let (beds, points) = points(&errnos, 12, Blow::Fail).await;
    let program = Programs::built().local;
    let tally = Tally::new("ENOSPC, EDQUOT, EIO, EROFS, EACCES or EMFILE at one system call");
    sweep(
        beds,
        points,
        async |Bed {
                   pair, reference, ..
               }: &mut Bed,
               (errno, strike)| {
            pair.reset().await;
            let report = strike.run(&program, &pair.arguments(Revision::New)).await;
            let Some(call) = &report.struck else {
                return tally.missed();
            };
            tally.dealt(&format!("{errno:?}"));
            let point = format!("{errno:?} at {} {call}", strike.at());
            let found = pair.found(reference);
            tally.found(&point, &found);
            tally.expect(&point, ended_well(&report, &found));
            tally.expect(&point, pair.goes_on(reference, &found).await);
        },
    )
    .await;
    tally.conclude();
}

#[tokio::test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "needs x86-64")]
async fn a_host_that_stays_broken_leaves_the_old_or_the_new_revision_to_the_next_start() {
    let (beds, points) = points(
        &[Errno::ENOSPC, Errno::EIO, Errno::EROFS],
        14,
        Blow::FailFromThenOn,
    )
    .await;
    let program = Programs::built().local;
    let tally = Tally::new("ENOSPC, EIO or EROFS at a system call and all later ones");
    sweep(
        beds,
        points,
        async |Bed {
                   pair, reference, ..
               }: &mut Bed,
               (errno, strike)| {
            pair.reset().await;
            let report = strike.run(&program, &pair.arguments(Revision::New)).await;
            let Some(call) = &report.struck else {
                return tally.missed();
            };
            tally.dealt(&format!("{errno:?}"));
            let point = format!("{errno:?} from {} {call} on", strike.at());
            let found = pair.recover(reference).await;
            tally.found(&point, &found);
            tally.expect(&point, ended_well(&report, &found));
            tally.expect(&point, pair.leaves_nothing_behind());
            tally.expect(&point, pair.goes_on(reference, &found).await);
        },
    )
    .await;
    tally.conclude();
}
