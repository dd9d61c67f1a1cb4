//! The laws of adaptive limits against one overloaded upstream, from a seed: how much is served in time.

#[path = "support/simulation.rs"]
mod simulation;

use std::{ops::RangeInclusive, time::Duration};

use simulation::{Policy, Run, Scenario};
use tidegate_core::limit::{Adaptive, Bounds, Gradient, Vegas};

const CLIENTS: [usize; 3] = [1, 8, 64];
fn run(scenario: Scenario, clients: usize, load: f64) -> Run {
    Run { scenario, clients, load, length: Duration::from_secs(30), seed: 7 }
}

/// One run may be lucky or not: what a law reaches is its mean over seeds. Of the first nine the last is the least lucky;
/// with `TIDEGATE_SEEDS` set, so many from 1.
fn seeds() -> RangeInclusive<u64> {
    let many = std::env::var("TIDEGATE_SEEDS").ok().and_then(|many| many.parse().ok());
    many.map_or(7..=9, |many| 1..=many)
}

fn gradient() -> Policy {
    Policy::Adaptive(Box::new(|| Adaptive::new(Gradient::new(bounds()))))
}

fn vegas() -> Policy {
    Policy::Adaptive(Box::new(|| Adaptive::new(Vegas::new(bounds()))))
}

fn bounds() -> Bounds {
    Bounds::new(1, 1000).expect("1 is below 1000")
}

/// Calls served in time at the best of the fixed limits, of which some serve nearly nothing.
fn best_fixed(run: &Run) -> u64 {
    let limits = [20, 32, 64, 100];
    limits.map(|limit| run.go(&Policy::Fixed(limit)).good).into_iter().max().expect("there are some")
}

/// What the laws reach, against the best fixed limit of the same seed; and what is left of it at five times the load.
fn adapts(scenario: Scenario) {
    for clients in CLIENTS {
        let (mut reached, mut left, mut runs) = ([0.0; 2], [0.0; 2], 0.0);
        for seed in seeds() {
            let twice = Run { seed, ..run(scenario, clients, 2.0) };
            let five = Run { load: 5.0, ..twice };
            let best = best_fixed(&twice) as f64;
            for (at, law) in [gradient(), vegas()].iter().enumerate() {
                let good = twice.go(law).good as f64;
                reached[at] += good / best;
                left[at] += five.go(law).good as f64 / good;
            }
            runs += 1.0;
        }
        for (at, name) in ["gradient", "vegas"].into_iter().enumerate() {
            let (reached, left) = (reached[at] / runs, left[at] / runs);
            assert!(reached >= 0.9, "{name}, {clients} clients: {reached:.3} of the best fixed limit");
            assert!(left >= 0.8, "{name}, {clients} clients: {left:.3} of that at five times the load");
        }
    }
}

#[test]
fn a_steady_upstream_is_used_up_and_not_overloaded() {
    adapts(Scenario::Steady);
}

#[test]
fn an_upstream_that_becomes_slower_by_itself_is_not_taken_for_overloaded() {
    adapts(Scenario::Slow);
}

#[test]
fn an_upstream_that_hung_is_found_again() {
    adapts(Scenario::Hung);
}

#[test]
fn a_flapping_upstream_is_followed() {
    adapts(Scenario::Flapping);
}

#[test]
fn a_recovering_upstream_is_followed() {
    adapts(Scenario::Recovering);
}

#[test]
fn without_a_limit_the_same_load_makes_it_collapse() {
    let twice = run(Scenario::Steady, 8, 2.0);
    let (unlimited, limited) = (twice.go(&Policy::None).good, twice.go(&gradient()).good);
    assert!(unlimited * 5 < limited, "{unlimited} without a limit, {limited} with one");
}

#[test]
fn a_run_is_the_same_for_the_same_seed() {
    let run = run(Scenario::Flapping, 8, 2.0);
    assert_eq!(run.go(&gradient()).trace, run.go(&gradient()).trace);
}

#[test]
fn a_law_stays_within_its_bounds() {
    let bounds = Bounds::new(3, 6).expect("3 is below 6");
    for make in [|bounds| Adaptive::new(Gradient::new(bounds)), |bounds| Adaptive::new(Vegas::new(bounds))] {
        let law = Policy::Adaptive(Box::new(move || make(bounds)));
        let trace = run(Scenario::Hung, 1, 2.0).go(&law).trace;
        assert!(trace.iter().all(|(limit, _)| (3..=6).contains(limit)));
        assert!(trace.iter().any(|(limit, _)| *limit == 6) && trace.iter().any(|(limit, _)| *limit == 3));
    }
}
