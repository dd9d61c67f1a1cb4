//! The throttle of a fleet over a ledger in memory, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/wire.rs"]
mod wire;

#[path = "fleet_throttle/away.rs"]
mod away;
#[path = "fleet_throttle/costs.rs"]
mod costs;
#[path = "fleet_throttle/returns.rs"]
mod returns;
#[path = "fleet_throttle/shadow.rs"]
mod shadow;
#[path = "fleet_throttle/waiting.rs"]
mod waiting;

use std::{num::NonZeroU32, pin::pin, time::Duration};

use futures_util::future::join_all;
use tidegate::{
    By, Call, Outcome, Permit as _,
    clock::now,
    fleet::{Adjustment, FleetThrottle, LocalLedger, OnStoreFailure, Rule, enter_all, enter_all_at},
    throttle::{Algorithm, Key, Mode, Quota, Ruling},
};
use tokio::time::sleep;
use tokio_test::{assert_pending, assert_ready, task};
use wire::Wire;

const MS: Duration = Duration::from_millis(1);
const KEY: Key = Key::ALL;

fn call() -> Call {
    Call::at(now())
}

fn windows(rate: &str) -> Rule {
    let quota = Quota::of(rate.parse().expect("a rate")).algorithm(Algorithm::FixedWindow);
    Rule::of(quota.build().expect("a quota")).build().expect("a rule")
}

fn node(wire: &Wire, rule: Rule) -> FleetThrottle {
    FleetThrottle::builder("limit", rule, wire.clone()).build().expect("a runtime")
}

/// A call that must go.
async fn go(throttle: &FleetThrottle) {
    let _ = throttle.enter(&call(), &KEY).await.expect("there is credit");
}

/// A ledger behind a wire, at the beginning of a minute.
async fn wire() -> Wire {
    wire_to(&LocalLedger::new()).await
}

async fn wire_to(ledger: &LocalLedger) -> Wire {
    let into_minute = now().as_nanos() % 60_000_000_000;
    sleep(Duration::from_nanos(60_000_000_000 - into_minute)).await;
    Wire::new(ledger.clone())
}

#[tokio::test(start_paused = true)]
async fn a_fleet_admits_its_limit_and_not_one_more() {
    let wire = wire().await;
    let fleet: Vec<_> = (0..4).map(|_| node(&wire, windows("1000/min"))).collect();
    let mut admitted = 0;
    for turn in 0..3000 {
        // One node is busier than the others.
        let node = if turn % 4 == 0 { turn / 4 % 4 } else { 0 };
        admitted += u32::from(fleet[node].enter(&call(), &KEY).await.is_ok());
        sleep(MS * 5).await;
    }
    assert!((990..=1000).contains(&admitted), "{admitted}");
    let refused = fleet[0].enter(&call(), &KEY).await.unwrap_err();
    assert_eq!(refused.by, By::Quota);
    let retry = refused.retry_after.unwrap();
    assert!(retry <= MS * 60_000 && retry > MS * 30_000, "{retry:?}");
    assert!(fleet.iter().all(|node| node.stats().largest_over == Some(0)));
}

#[tokio::test(start_paused = true)]
async fn far_from_the_limit_calls_are_decided_without_asking() {
    let (wire, calls) = (wire().await, 10_000);
    let throttle = node(&wire, windows("1000000/min"));
    for _ in 0..calls {
        go(&throttle).await;
        sleep(MS).await;
    }
    let stats = throttle.stats();
    assert!(stats.local >= calls * 99 / 100, "{stats:?}");
    assert!(u64::from(wire.asks()) <= calls / 100, "{} questions", wire.asks());
    assert_eq!((stats.local + stats.waited, stats.asked), (calls, u64::from(wire.asks())));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_denies_answers_without_asking() {
    let wire = wire().await;
    let throttle = node(&wire, windows("0/min"));
    assert_eq!(throttle.enter(&call(), &KEY).await.unwrap_err(), tidegate::Refused::new(By::Quota));
    let one = node(&wire, windows("1/h"));
    let key = Key::of(b"another");
    assert!(one.enter(&call(), &key).await.is_ok());
    assert!(one.enter(&call(), &key).await.is_err());
    let asks = wire.asks();
    for _ in 0..100 {
        assert!(one.try_enter(&call(), &key).is_err());
    }
    assert_eq!(wire.asks(), asks);
}

#[tokio::test(start_paused = true)]
async fn a_peek_takes_nothing() {
    let wire = wire().await;
    let throttle = node(&wire, windows("1/min"));
    for _ in 0..3 {
        assert!(throttle.enter(&call().cost(0), &KEY).await.is_ok());
    }
    assert!(throttle.enter(&call(), &KEY).await.is_ok());
    assert!(throttle.enter(&call().cost(0), &KEY).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_throttle_at_rest_falls_silent_once_its_windows_are_over() {
    let wire = wire().await;
    let throttle = node(&wire, windows("100/s"));
    go(&throttle).await;
    sleep(MS * 5000).await;
    let asked = wire.asks();
    sleep(MS * 60_000).await;
    assert_eq!(wire.asks(), asked, "there is nothing left to tell a ledger that is lost");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_without_room_for_new_keys_goes_on_with_those_it_knows() {
    let ledger = LocalLedger::with_room_for(NonZeroU32::MIN);
    let throttle = FleetThrottle::builder("limit", windows("100/h"), ledger).build().unwrap();
    go(&throttle).await;
    let mut refused = 0;
    for key in 0..2000_u32 {
        refused += u32::from(throttle.enter(&call(), &Key::of(&key.to_le_bytes())).await.is_err());
    }
    assert!(refused > 100, "{refused}");
    assert!(throttle.enter(&call().cost(20), &KEY).await.is_ok(), "{:?}", throttle.stats());
}

#[tokio::test(start_paused = true)]
async fn keys_beyond_the_bound_make_room_and_never_admit_too_much() {
    let wire = wire().await;
    let throttle = FleetThrottle::builder("limit", windows("2/min"), wire.clone())
        .max_keys(NonZeroU32::new(50).unwrap())
        .build()
        .unwrap();
    let mut admitted = vec![0; 500];
    for turn in 0..5000 {
        let client = turn * 7919 % 500;
        let key = Key::of(format!("{client}").as_bytes());
        admitted[client] += u32::from(throttle.enter(&call(), &key).await.is_ok());
    }
    assert!(admitted.iter().all(|admitted| *admitted == 2), "{admitted:?}");
    let stats = throttle.stats();
    assert!(stats.keys <= 57 && stats.evicted > 100, "{stats:?}");
}
