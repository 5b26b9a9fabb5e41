//! A program that is killed in the middle of a deployment leaves the old revision or the new one, and nothing between.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

use codedeploy_tests::pair::{Pair, Revision};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::Strike;

#[tokio::test]
async fn probe() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::create(folder.path());
    let t = std::time::Instant::now();
    let reference = pair.prepare().await;
    println!("prepare {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let report = Strike::COUNT.run(&Programs::built().local, &pair.arguments(Revision::New)).await;
    println!("count {:?} {}", t.elapsed(), report.calls.len());
    for call in &report.calls { println!("{call}"); }
    println!("{}", report.output);
    println!("{:?}", pair.found(&reference));
    let t = std::time::Instant::now();
    pair.reset().await;
    println!("reset {:?}", t.elapsed());
    let t = std::time::Instant::now();
    pair.recover(&reference).await;
    println!("recover {:?}", t.elapsed());
}
