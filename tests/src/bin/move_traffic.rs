//! `move_traffic APPSPEC SLOT`: moves traffic to a slot as an AppSpec's strategy describes it, and
//! waits for the other one. For tests on machines without a deployment.

#![allow(clippy::print_stderr, reason = "an error is told there")]

use std::path::Path;
use std::process::ExitCode;

use codedeploy_agent::slots::traffic::{Call, Change, drained, move_to};
use codedeploy_hooks::appspec;
use codedeploy_hooks::script::Outcome;
use codedeploy_hooks::slots::SlotName;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("move_traffic: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(file), Some(slot)) = (words.next(), words.next()) else {
        return Err("expected the path of an AppSpec file and a slot".into());
    };
    let parsed = appspec::parse(&std::fs::read(file)?)?;
    let strategy = parsed.appspec.strategy.ok_or("the file has no strategy")?;
    let to = SlotName::BOTH.into_iter().find(|name| name.name() == slot);
    let to = to.ok_or("expected the slot blue or green")?;
    let change = Change {
        from: Some(strategy.side(to.other())),
        to: strategy.side(to),
    };
    let no_script = async |call: Call| Outcome::Error {
        message: format!("this program runs no scripts: {call:?}"),
    };
    move_to(&strategy.traffic, &change, Path::new("/"), no_script).await?;
    let old = strategy.side(to.other());
    drained(&strategy.traffic, &old, strategy.drain).await?;
    Ok(())
}
