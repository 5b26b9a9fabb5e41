//! `cargo run --release --bin slots_benchmark`: deployments of one application in place and to two
//! slots, side by side, while visitors come.
//!
//! Each way has the same server, the same scripts and the same program in front; in place the
//! revision lacks its strategy, as AWS's agents see it.

#![allow(clippy::expect_used, reason = "it ends where it cannot measure")]

use std::ffi::OsString;
use std::process::ExitCode;

use codedeploy_tests::balancer::get;
use codedeploy_tests::figures::{self, Aim, Figures};
use codedeploy_tests::shop::{Provider, Shop, Way};
use codedeploy_tests::visitors::{Seen, Visitors};
use codedeploy_tests::{roles, wait};

const ABOUT: &str = "\
Deploys a web server again and again in place and to two slots, behind the same program, while six
visitors send one request after another. Counts failed requests and the time without an answer.";

/// The number of deployments in each way.
const DEPLOYMENTS: usize = 20;

const VISITORS: usize = 6;

/// The ways to compare.
const CASES: [(&str, Provider, Way); 4] = [
    ("in place", Provider::Haproxy, Way::InPlace),
    ("two slots, haproxy", Provider::Haproxy, Way::Slots),
    ("two slots, nginx", Provider::Nginx, Way::Slots),
    ("two slots, command", Provider::Command, Way::Slots),
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    let json = match figures::only_json("slots_benchmark", ABOUT, &arguments) {
        Ok(json) => json,
        Err(code) => return code,
    };
    let mut figures = Figures::new(json);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    for (name, provider, way) in CASES {
        figures.section(&format!("{DEPLOYMENTS} deployments: {name}"));
        let seen = runtime.block_on(measure(provider, way));
        let none = match way {
            Way::Slots => Aim::AtMost(0.0),
            Way::InPlace => Aim::None,
        };
        figures.add("requests", seen.requests() as f64, "", Aim::None);
        figures.add("failed requests", seen.failed as f64, "", none);
        figures.add("of these, resets", seen.resets as f64, "", none);
        figures.add("time without an answer", seen.down.as_secs_f64(), "s", none);
        figures.add(
            "repeated on a new connection",
            seen.repeated as f64,
            "",
            Aim::None,
        );
    }
    figures.finish();
    ExitCode::SUCCESS
}

async fn measure(provider: Provider, way: Way) -> Seen {
    let shop = Shop::open(roles::programs(), provider, way).await;
    deploy(&shop, 0).await;
    wait::until("the shop answers", async || get(shop.address(), "/").await).await;
    let visitors = Visitors::start(shop.address(), VISITORS);
    for number in 1..=DEPLOYMENTS {
        deploy(&shop, number).await;
        visitors.see(&format!("Hello from version {number}")).await;
    }
    visitors.stop().await
}

async fn deploy(shop: &Shop, number: usize) {
    let (succeeded, output) = shop.deploy(&number.to_string(), None).await;
    assert!(succeeded, "{output}");
}
