use std::time::Duration;

use super::*;
use crate::{
    Algorithm, Quota,
    ledger::{Calendar, Opening, Rule},
};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket];

fn rule(rate: &str, algorithm: Algorithm) -> Rule {
    Rule::of(Quota::of(rate.parse().unwrap()).algorithm(algorithm).build().unwrap()).build().unwrap()
}

fn run(scenario: Scenario, load: Load, seconds: u64) -> Report {
    let length = Duration::from_secs(seconds);
    Fleet::new(scenario, load.nodes).run(load.calls(length), length, |_| {})
}

/// Whether `admitted` is at most one in a hundred below `ideal`, and a unit.
fn is_near(admitted: u64, ideal: u64) -> bool {
    is_within(1, admitted, ideal)
}

/// Whether `admitted` is at most `parts` in a hundred below `ideal`, and a unit.
fn is_within(parts: u64, admitted: u64, ideal: u64) -> bool {
    admitted + parts * ideal / 100 + 1 >= ideal
}

#[test]
fn on_the_grid_nothing_is_over_and_next_to_nothing_is_left() {
    for algorithm in ALGORITHMS {
        for limit in [1_u32, 5, 100, 1000] {
            for nodes in [1, 5, 32] {
                for (offered, skew) in [(0.6, 1.0), (1.5, 0.0), (1.5, 1.0), (4.0, 1.0)] {
                    let rule = rule(&format!("{limit}/s"), algorithm);
                    let load =
                        Load { nodes, calls_per_second: f64::from(limit) * offered, skew, ..Load::default() };
                    let report = run(Scenario::new(rule), load, if limit < 50 { 20 } else { 4 });
                    let what =
                        format!("{algorithm:?} {limit}/s, {nodes} nodes, {offered} of it, skew {skew}");
                    assert_eq!(report.over, 0, "{what}");
                    assert_eq!(report.unanswered, 0, "{what}");
                    assert_eq!(report.admitted + report.refused, report.offered, "{what}");
                    if algorithm != Algorithm::TokenBucket {
                        // What is granted late in a slice of a hundred is used in the next.
                        let parts = if algorithm == Algorithm::SlidingWindow { 2 } else { 1 };
                        let near = is_within(parts, report.admitted, report.ideal);
                        assert!(near, "{what}: {} of {}", report.admitted, report.ideal);
                    } else if limit >= 100 && offered > 1.0 {
                        // A part of the burst is kept back, once; of the rate nothing.
                        let late: u64 = report.windows[2..4].iter().map(|window| window.admitted).sum();
                        assert!(is_near(late, 2 * u64::from(limit)), "{what}: {:?}", report.windows);
                    }
                }
            }
        }
    }
}

#[test]
fn a_large_fleet_below_its_limit_decides_locally() {
    // Credit lives for 5 s, or for the window if that is shorter.
    for (rate, life, seconds) in
        [("10000/s", 1, 10), ("10000/10s", 5, 60), ("100000/min", 5, 60), ("6000/min", 15, 600)]
    {
        let quota = Quota::of(rate.parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap();
        let rule = Rule::of(quota).life(Duration::from_secs(life)).build().unwrap();
        let (report, what) = (below_its_limit(rule, 64, seconds), format!("{rate}, {life} s"));
        assert!(report.local_share() >= 0.99, "{what}: {} local", report.local_share());
        assert!(report.asked_per_decision() <= 0.1, "{what}: {} asked", report.asked_per_decision());
    }
}

/// `nodes` that are called unevenly (Zipf), at 0.9 of the limit.
fn below_its_limit(rule: Rule, nodes: usize, seconds: u64) -> Report {
    let limit = f64::from(rule.limit()) * 1e6 / rule.window() as f64;
    let load = Load { nodes, calls_per_second: limit * 0.9, skew: 1.0, ..Load::default() };
    let report = run(Scenario::new(rule), load, seconds);
    assert_eq!(report.over, 0, "{rule:?}");
    assert!(is_near(report.admitted, report.ideal), "{rule:?}: {} of {}", report.admitted, report.ideal);
    report
}

#[test]
fn a_share_of_a_few_calls_is_mostly_decided_locally_too() {
    for (rate, nodes, seconds, local) in [
        ("1000/s", 64, 10, 0.85),
        ("1000/s", 32, 10, 0.95),
        ("1000/s", 4, 10, 0.99),
        ("6000/min", 64, 120, 0.95),
    ] {
        let report = below_its_limit(rule(rate, Algorithm::FixedWindow), nodes, seconds);
        assert!(report.local_share() >= local, "{rate}, {nodes} nodes: {} local", report.local_share());
        assert!(report.asked_per_decision() <= 0.3, "{rate}, {nodes} nodes: {}", report.asked_per_decision());
    }
}

#[test]
fn calls_that_wait_wait_for_three_questions_at_most() {
    for offered in [0.9, 1.5, 4.0] {
        let scenario = Scenario::new(rule("10000/s", Algorithm::FixedWindow));
        let latency = scenario.latency;
        let load = Load { nodes: 64, calls_per_second: 10_000.0 * offered, skew: 1.0, ..Load::default() };
        let report = run(scenario, load, 3);
        assert!(report.wait(0.99) <= 3 * latency, "{offered}: {:?}", report.wait(0.99));
    }
}

#[test]
fn whatever_goes_wrong_nothing_is_over() {
    let windows =
        [rule("1000/10s", Algorithm::FixedWindow), Rule::each(Calendar::Month, 2500).build().unwrap()];
    let first_call =
        Quota::of("1000/10s".parse().unwrap()).algorithm(Algorithm::FixedWindow).build().unwrap();
    let mut rules = windows.to_vec();
    rules
        .push(Rule::of(first_call).opening(Opening::FirstCall).life(Duration::from_secs(1)).build().unwrap());
    rules.push(rule("1000/10s", Algorithm::SlidingWindow));
    rules.push(rule("100/s", Algorithm::TokenBucket));
    for rule in rules {
        let at = Duration::from_millis;
        let faults = vec![
            (at(3500), Fault::Lost),
            (at(12_000), Fault::Away(at(3000))),
            (at(21_000), Fault::Dies(0)),
            (at(23_000), Fault::Dies(1)),
            (at(24_000), Fault::Away(at(100))),
        ];
        let load = Load { nodes: 8, calls_per_second: 200.0, skew: 1.0, ..Load::default() };
        let report = run(Scenario { faults, ..Scenario::new(rule) }, load, 40);
        assert_eq!(report.over, 0, "{rule:?}");
        assert!(
            report.admitted * 10 >= report.ideal * 7,
            "{rule:?}: {} of {}",
            report.admitted,
            report.ideal
        );
    }
}

#[test]
fn a_node_that_dies_strands_no_more_than_its_share() {
    let rule = rule("10000/10s", Algorithm::FixedWindow);
    let faults = vec![(Duration::from_secs(1), Fault::Dies(0))];
    let load = Load { nodes: 4, calls_per_second: 5000.0, ..Load::default() };
    let report = run(Scenario { faults, ..Scenario::new(rule) }, load, 10);
    // 1.2 times the limit by 4 parts of 4 nodes.
    let stranded = 12 * 10_000 / (10 * 16);
    assert_eq!(report.over, 0);
    assert!(report.admitted >= 10_000 - stranded, "{}", report.admitted);
}

#[test]
fn a_ledger_that_is_lost_costs_a_pause_and_then_all_goes_on() {
    let rule = rule("1000/s", Algorithm::FixedWindow);
    let faults = vec![(Duration::from_millis(2300), Fault::Lost)];
    let load = Load { nodes: 4, calls_per_second: 2000.0, ..Load::default() };
    let report = run(Scenario { faults, ..Scenario::new(rule) }, load, 8);
    assert_eq!(report.over, 0);
    assert!(report.windows[5..8].iter().all(|window| window.admitted >= 990), "{:?}", report.windows);
}

#[test]
fn while_the_store_is_away_calls_wait_no_longer_than_they_must() {
    let rule = rule("100000/min", Algorithm::FixedWindow);
    let faults = vec![(Duration::from_secs(5), Fault::Away(Duration::from_secs(10)))];
    let scenario = Scenario { faults, ..Scenario::new(rule) };
    let patience = scenario.patience;
    let report = run(scenario, Load { nodes: 4, calls_per_second: 1000.0, ..Load::default() }, 20);
    assert!(report.unanswered > 0, "credit in hand does not last ten seconds");
    assert!(report.wait(1.0) <= patience);
    assert_eq!(report.over, 0);
}

#[test]
fn keys_do_not_know_of_each_other() {
    let rule = rule("20/s", Algorithm::FixedWindow);
    let load = Load { nodes: 4, calls_per_second: 4000.0, keys: 100, ..Load::default() };
    let report = run(Scenario::new(rule), load, 3);
    assert_eq!(report.over, 0);
    assert!(is_near(report.admitted, report.ideal), "{} of {}", report.admitted, report.ideal);
}

#[test]
fn the_same_seed_gives_the_same_run_and_progress_is_told() {
    let scenario = || Scenario::new(rule("100/s", Algorithm::FixedWindow));
    let load = Load { nodes: 3, calls_per_second: 300.0, skew: 1.0, ..Load::default() };
    let length = Duration::from_secs(3);
    let mut told = Vec::new();
    let report = Fleet::new(scenario(), 3)
        .run(load.calls(length), length, |progress| told.push(progress.passed.as_secs()));
    assert_eq!(told, [1, 2]);
    assert_eq!(report, run(scenario(), load, 3));
    assert_ne!(report, run(Scenario { seed: 2, ..scenario() }, load, 3));
}
