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

fn rule(seed: u64, faults: Faults) -> Rule {
    let algorithms =
        [Algorithm::FixedWindow, Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket];
    let algorithm = algorithms[seed as usize / 5 % 4];
    let rates = match algorithm {
        Algorithm::FixedWindow | Algorithm::SlidingWindow => {
            ["1/500ms", "3/500ms", "20/500ms", "100/s", "7/s"]
        }
        // Of smaller ones credit lives no longer than messages take.
        Algorithm::TokenBucket => ["12/500ms", "20/500ms", "30/500ms", "60/s", "100/s"],
    };
    // A short window is over before a new ledger grants anything.
    let long = faults == Faults::Store && algorithm == Algorithm::FixedWindow;
    let rates = if long { ["40/min", "150/min", "400/min", "7/min", "100/s"] } else { rates };
    let rate = rates[seed as usize % 5].parse().expect("a rate");
    let quota = Quota::of(rate).algorithm(algorithm).build().expect("a quota");
    // Longer than messages take: credit that is over on arrival admits nothing.
    Rule::of(quota).life(Duration::from_millis(150)).build().expect("a rule")
}

/// Runs the histories of one kind of fault.
fn histories(faults: Faults) {
    let seeds = match setting("TIDEGATE_FLEET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("TIDEGATE_FLEET_SEEDS").unwrap_or(1000) / 4,
    };
    let (mut admitted, count) = (0, seeds.end - seeds.start);
    for seed in seeds {
        let rule = rule(seed, faults);
        let outcome = world::run(seed, rule, faults, Duration::from_secs(3));
        assert_eq!(outcome.over(), 0, "seed {seed}, {faults:?}: more than {rule:?} admits");
        if faults != Faults::Store {
            assert!(outcome.admitted() > 0, "seed {seed}, {faults:?}: nothing was admitted by {rule:?}");
        }
        admitted += outcome.admitted();
    }
    assert!(admitted >= 20 * count, "{faults:?}: {admitted} calls in {count} histories");
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
