//! A limit shared by a fleet, on a paused clock.
#![cfg(not(any(loom, shuttle)))]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tidegate::{
    By, Call,
    clock::now,
    limiter::{Demand, FleetError, FleetLimiter, FleetStore, Limiter, LocalFleet, Node},
};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);
const LIFE: Duration = Duration::from_secs(3);

fn call() -> Call {
    Call::at(now())
}

fn join(store: impl FleetStore, node: u64) -> FleetLimiter {
    let settings = Limiter::builder().queue(10_000).max_wait(MS * 10_000);
    FleetLimiter::join(store, Node(node), LIFE, settings).expect("valid settings")
}

/// Calls of all instances at the dependency.
#[derive(Default)]
struct Dependency {
    live: AtomicU32,
    peak: AtomicU32,
    served: AtomicU32,
}

struct Live(Arc<Dependency>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(dependency: Arc<Dependency>, takes: Duration) {
    let live = dependency.live.fetch_add(1, Ordering::SeqCst) + 1;
    dependency.peak.fetch_max(live, Ordering::SeqCst);
    let _live = Live(dependency.clone());
    sleep(takes).await;
    dependency.served.fetch_add(1, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_shares_its_permits_by_demand_and_never_exceeds_them() {
    let (store, dependency) = (LocalFleet::new(250), Arc::new(Dependency::default()));
    let fleet: Vec<_> = (0..5).map(|node| join(store.clone(), node)).collect();
    // One instance is far busier than the others.
    let mut calls = Vec::new();
    for (node, count) in [2000, 10, 10, 10, 0].into_iter().enumerate() {
        for _ in 0..count {
            let (limiter, dependency) = (fleet[node].clone(), dependency.clone());
            calls.push(tokio::spawn(async move { limiter.run(&call(), serve(dependency, MS * 200)).await }));
        }
    }
    sleep(MS * 700).await;
    let busy = fleet[0].limiter().in_flight();
    assert!(busy > 200, "the busy one has {busy}");
    assert!(join_all(calls).await.into_iter().all(|call| call.unwrap() == Ok(())));
    assert_eq!(dependency.served.load(Ordering::SeqCst), 2030);
    let peak = dependency.peak.load(Ordering::SeqCst);
    assert!((230..=250).contains(&peak), "{peak}");
}

#[tokio::test(start_paused = true)]
async fn the_permits_of_a_dead_instance_return_after_its_lease() {
    let store = LocalFleet::new(10);
    let dead = join(store.clone(), 1);
    for _ in 0..10 {
        // Held, and never given back to the store: the process is gone.
        std::mem::forget(dead.acquire(&call()).await.unwrap());
    }
    drop(dead);
    let began = now();
    let alive = join(store.clone(), 2);
    let _permit = alive.acquire(&call()).await.unwrap();
    let waited = now().since(began);
    assert!(waited > LIFE / 2 && waited <= LIFE * 3 / 2, "{waited:?}");
}

/// A store that can be cut off.
#[derive(Clone)]
struct CutOff(LocalFleet, Arc<AtomicBool>);

impl FleetStore for CutOff {
    type Error = Infallible;

    async fn lease(&self, node: Node, demand: Demand, life: Duration) -> Result<u32, Infallible> {
        if self.1.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.lease(node, demand, life).await
    }

    async fn give_back(&self, node: Node) -> Result<(), Infallible> {
        self.0.give_back(node).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_renew_stops_before_others_get_its_permits() {
    let (store, is_cut) = (LocalFleet::new(8), Arc::new(AtomicBool::new(false)));
    let dependency = Arc::new(Dependency::default());
    let cut = join(CutOff(store.clone(), is_cut.clone()), 1);
    let endless: Vec<_> = (0..8)
        .map(|_| {
            let (limiter, dependency) = (cut.clone(), dependency.clone());
            tokio::spawn(async move { limiter.run(&call(), serve(dependency, MS * 999_999)).await })
        })
        .collect();
    sleep(MS * 500).await;
    assert_eq!(dependency.live.load(Ordering::SeqCst), 8);
    is_cut.store(true, Ordering::SeqCst);
    sleep(MS * 500).await;
    assert_eq!(dependency.live.load(Ordering::SeqCst), 8, "it goes on while its lease lasts");
    let other = join(store.clone(), 2);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (limiter, dependency) = (other.clone(), dependency.clone());
            tokio::spawn(async move { limiter.run(&call(), serve(dependency, MS * 100)).await })
        })
        .collect();
    for call in endless {
        assert_eq!(call.await.unwrap(), Err(FleetError::LeaseLost));
    }
    let late = cut.limiter().try_acquire(&call()).unwrap_err();
    assert_eq!(late.by, By::InFlight, "without a lease nobody is admitted");
    assert!(join_all(calls).await.into_iter().all(|call| call.unwrap() == Ok(())));
    assert_eq!(dependency.peak.load(Ordering::SeqCst), 8);
    is_cut.store(false, Ordering::SeqCst);
    assert!(cut.run(&call(), async {}).await.is_ok(), "it comes back with the store");
}
