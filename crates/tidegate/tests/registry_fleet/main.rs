//! A fleet of clients over one registry of limited capacity, on virtual time: how many calls reach it, and how many
//! lookups are in vain; beside it the same fleet with caches that ask at a fixed interval.
//!
//! `TIDEGATE_FLEET=4000` sets the number of clients (default: 12). The figures and the plot of `docs/registry.md` come
//! from `cargo run --release -p tidegate-benches --bin registry-fleet`, which shares these files.

#![cfg(not(any(loom, shuttle)))]

mod clients;
mod fleet;
mod scenarios;

use std::env;

use clients::FixedInterval;
use fleet::SERVICES;
use scenarios::simulate;
use tidegate::registry::Registry;

fn clients() -> usize {
    env::var("TIDEGATE_FLEET").ok().and_then(|clients| clients.parse().ok()).unwrap_or(12)
}

/// Calls in ten minutes by which an outage is judged: one a minute, client and service.
fn bar() -> u64 {
    (clients() * SERVICES) as u64 * 10
}

#[test]
fn an_outage_with_empty_caches_is_asked_after_less_than_once_a_minute_per_client_and_service() {
    let record = simulate(scenarios::outage_with_empty_caches::<Registry>(clients()));
    let (first, peak) = record.phase("first minute");
    // The budget of a process, over all services: 50 calls within 10 s.
    assert!(first.calls <= clients() as u64 * 50 * 7 && peak <= clients() as u64 * 50, "{first:?}, {peak}");
    let (outage, _) = record.phase("outage");
    assert!(outage.calls > 0 && outage.calls <= bar(), "{outage:?}; the bar is {}", bar());
    assert_eq!((outage.answered(), outage.none), (0, 0), "never an empty answer");
    let (after, _) = record.phase("after it");
    assert_eq!((after.in_vain(), after.waited), (0, 0));
    assert!(after.live > 0);
}

#[test]
fn an_outage_with_warm_caches_fails_no_lookup_and_ends_within_the_capacity_of_a_weak_registry() {
    let record = simulate(scenarios::outage_with_warm_caches::<Registry>(clients()));
    let (steady, _) = record.phase("steady");
    assert_eq!((steady.calls, steady.known), (0, 0), "a live watch is validity");
    for phase in ["steady", "first minute", "outage", "recovery", "after it"] {
        let (seen, _) = record.phase(phase);
        assert_eq!((seen.in_vain(), seen.waited), (0, 0), "{phase}: {seen:?}");
    }
    let (outage, _) = record.phase("outage");
    assert!(outage.calls > 0 && outage.calls <= bar(), "{outage:?}; the bar is {}", bar());
    let (after, _) = record.phase("after it");
    assert_eq!((after.known, after.live > 0), (0, true), "all watches live again");
}

#[test]
fn a_mass_expiry_fails_no_lookup_and_costs_no_call_while_the_watches_live() {
    let record = simulate(scenarios::mass_expiry::<Registry>(clients()));
    for phase in ["expired", "after it"] {
        let (seen, _) = record.phase(phase);
        assert_eq!((seen.in_vain(), seen.waited, seen.calls), (0, 0, 0), "{phase}: {seen:?}");
        assert!(seen.live > 0);
    }
}

#[test]
fn a_rolling_deployment_costs_no_call_and_fails_no_lookup() {
    let record = simulate(scenarios::rolling_deployment::<Registry>(clients()));
    let (start, peak) = record.phase("start");
    // A read and a watch for each client and service, over three minutes.
    assert!(start.calls <= (2 * clients() * SERVICES) as u64, "{start:?}");
    assert!(peak <= start.calls / 20 + 4 * SERVICES as u64, "{peak} of {start:?}");
    for phase in ["deployment", "after it"] {
        let (seen, _) = record.phase(phase);
        assert_eq!((seen.in_vain(), seen.waited, seen.calls), (0, 0, 0), "{phase}: {seen:?}");
    }
}

#[test]
fn a_fixed_interval_asks_twenty_times_as_often_in_an_outage_and_loses_every_service_in_a_mass_expiry() {
    let (ours, _) = simulate(scenarios::outage_with_empty_caches::<Registry>(clients())).phase("outage");
    let (fixed, _) =
        simulate(scenarios::outage_with_empty_caches::<FixedInterval>(clients())).phase("outage");
    assert!(fixed.calls > 20 * ours.calls, "{fixed:?} beside {ours:?}");
    let (fixed, _) = simulate(scenarios::mass_expiry::<FixedInterval>(clients())).phase("expired");
    assert!(fixed.in_vain() > 0 && fixed.calls > 0, "{fixed:?}");
}
