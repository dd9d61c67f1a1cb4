//! Real drivers of a fleet and a store on a simulated network, whole histories from a seed: never one call more than the
//! limit, whatever is lost, late, repeated, cut off or dead.
//!
//! A thousand histories by default; `TIDEGATE_FLEET_SEEDS=100000` runs more, `TIDEGATE_FLEET_SEED=7` that one alone.
#![cfg(not(any(loom, shuttle)))]

#[path = "fleet_simulation/wire.rs"]
mod wire;
#[path = "fleet_simulation/world.rs"]
mod world;

use std::{env, time::Duration};

use tidegate::{
    fleet::Rule,
    throttle::{Algorithm, Quota},
};
use world::Faults;

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn rule(seed: u64) -> Rule {
    let rate = ["1/500ms", "3/500ms", "20/500ms", "100/s", "7/s"][seed as usize % 5];
    let algorithm =
        [Algorithm::FixedWindow, Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket]
            [seed as usize / 5 % 4];
    let quota = Quota::of(rate.parse().expect("a rate")).algorithm(algorithm).build().expect("a quota");
    Rule::of(quota).build().expect("a rule")
}

/// Runs the histories of one kind of fault; what they admit together.
fn histories(faults: Faults) -> u64 {
    let seeds = match setting("TIDEGATE_FLEET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("TIDEGATE_FLEET_SEEDS").unwrap_or(1000) / 4,
    };
    let mut admitted = 0;
    for seed in seeds {
        let rule = rule(seed);
        let outcome = world::run(seed, rule, faults, Duration::from_secs(4));
        assert_eq!(outcome.over(), 0, "seed {seed}, {faults:?}: more than {rule:?} admits");
        assert!(outcome.admitted() > 0, "seed {seed}, {faults:?}: nothing was admitted by {rule:?}");
        admitted += outcome.admitted();
    }
    admitted
}

#[test]
fn a_fleet_at_peace_is_exact() {
    histories(Faults::None);
}

#[test]
fn messages_that_are_lost_late_or_repeated_admit_nothing_more() {
    histories(Faults::Network);
}

#[test]
fn nodes_that_die_admit_nothing_more() {
    histories(Faults::Nodes);
}

#[test]
fn a_store_that_comes_back_empty_is_told_what_was_granted() {
    histories(Faults::Store);
}
