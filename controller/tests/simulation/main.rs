//! Simulates thousands of small misbehaving fleets with the real decisions, a real database, and a
//! simulated clock.
//!
//! A world depends only on its seed, and plays the same every time: `SIMULATION_SEED=17` replays
//! one and prints its events, `SIMULATION_SECONDS=600` searches for failures for that time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the environment says how long to look"
)]

mod host;
mod ledger;
mod oracle;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codedeploy_controller::store::Store;
use world::World;

const DEFAULT_SECONDS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn fleets_that_misbehave_are_deployed_to_within_the_rules() {
    if let Some(seed) = number("SIMULATION_SEED") {
        let mut world = World::new(Store::in_memory().unwrap(), seed);
        world.tell_all();
        return world.play();
    }
    let seconds = number("SIMULATION_SECONDS").unwrap_or(DEFAULT_SECONDS);
    let end = Instant::now() + Duration::from_secs(seconds);
    let next = Arc::new(AtomicU64::new(number("SIMULATION_FIRST_SEED").unwrap_or(1)));
    let first = next.load(Ordering::Relaxed);
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let next = Arc::clone(&next);
            std::thread::spawn(move || {
                let store = Store::in_memory().unwrap();
                while Instant::now() < end {
                    play(&store, next.fetch_add(1, Ordering::Relaxed));
                }
            })
        })
        .collect();
    for worker in workers {
        if let Err(failure) = worker.join() {
            std::panic::resume_unwind(failure);
        }
    }
    println!("{} fleets", next.load(Ordering::Relaxed) - first);
}

fn play(store: &Store, seed: u64) {
    let mut world = World::new(store.clone(), seed);
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| world.play())) {
        eprintln!(
            "the fleet of seed {seed} failed; replay it with SIMULATION_SEED={seed}. What happened:"
        );
        for line in world.trace() {
            eprintln!("  {line}");
        }
        std::panic::resume_unwind(failure);
    }
}
